"""Corpora that come as Debian packages: fetched by apt-get, unpacked by the standard library, never installed."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"!<arch>\n"
HEADER_BYTES = 60

# Of Debian 12. A file of another version has another name, and passes unchecked: its corpus may differ.
SHA256 = {
    "festvox-ru_0.5+dfsg-6_all.deb": "21ef3f0f2978ecf2e2eddb367cb0ff4a72572196d28dc69feb84f4177af5e6c4",
    "anarchism_15.3-3_all.deb": "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
    "debian-handbook_11.20220922_all.deb": "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
    "fortunes_1%3a1.99.1-7.3_all.deb": "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5",
}


def package_file(package: str, cache: Path, *, data: Path | None = None) -> Path:
    """The .deb file of a package, downloaded unless it is there.

    Parameters
    ----------
    package : str
    cache : Path
        Folder of earlier downloads; made if it does not exist.
    data : Path, optional
        A folder to take the file from instead; nothing is downloaded then.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        If `data` holds no file of this package.
    RuntimeError
        If apt-get is missing or fails.
    ValueError
        If the file is not the one whose SHA-256 is on record under its name.
    """
    folder = cache if data is None else data
    # Versions sort well enough as text: more than one is the exception.
    found = sorted(folder.glob(f"{package}_*.deb"))
    if data is not None and not found:
        raise FileNotFoundError(f"{data} holds no {package}_*.deb; `apt-get download {package}` fetches it")
    path = found[-1] if found else download(package, cache)
    check_sha256(path)
    return path


def download(package: str, cache: Path) -> Path:
    """Fetch a package into `cache` by apt-get, without root and without installing it."""
    advice = f"fetch the Debian package {package} elsewhere and name its folder by --data PATH"
    if shutil.which("apt-get") is None:
        raise RuntimeError(f"apt-get is not installed here: {advice}")
    cache.mkdir(parents=True, exist_ok=True)
    # Under its final name a file is whole: an interrupted download stays in the temporary folder.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = ["apt-get", "download", package]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        files = list(Path(folder).glob("*.deb"))
        if done.returncode != 0 or len(files) != 1:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(
                f"`{' '.join(command)}` failed ({last}). Package lists may be missing (`apt-get update`), or the "
                f"network. Without them, {advice}"
            )
        return files[0].rename(cache / files[0].name)


def check_sha256(path: Path) -> None:
    """Compare a file with the digest on record under its name, if there is one."""
    wanted = SHA256.get(path.name)
    if wanted is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise ValueError(f"{path} has SHA-256 {found}, not {wanted}: delete it, or fetch it again")


def archive_members(file: io.BufferedIOBase) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the members of a Unix `ar` archive, the outer shell of a .deb."""
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError(
            f"{getattr(file, 'name', 'the file')} is not a Debian package: it does not begin with {MAGIC!r}"
        )
    while len(header := file.read(HEADER_BYTES)) == HEADER_BYTES:
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        content = file.read(size)
        if len(content) < size:
            raise ValueError(f"{getattr(file, 'name', 'the file')} ends inside its member {name}")
        yield name, content
        file.read(size % 2)  # members begin at even offsets


def package_members(path: Path, *, suffix: str = "") -> Iterator[tuple[str, bytes]]:
    """The files that a Debian package would install.

    Parameters
    ----------
    path : Path
        A .deb file.
    suffix : str
        Only names that end in it.

    Yields
    ------
    name : str
        From the root, such as "./usr/share/doc/x".
    content : bytes
        One file at a time; the packed package is in memory meanwhile.
    """
    with path.open("rb") as file:
        for member, content in archive_members(file):
            if not member.startswith("data.tar"):
                continue
            if member.endswith(".zst"):
                raise ValueError(
                    f"{path} is packed by zstd, which this reader does not know: take the package of Debian 12"
                )
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for entry in tar:
                    if entry.isfile() and entry.name.endswith(suffix):
                        yield entry.name, tar.extractfile(entry).read()
