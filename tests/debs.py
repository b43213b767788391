"""Debian packages made in a test: an `ar` archive around a packed tar, as dpkg-deb writes it."""

import io
import tarfile
from pathlib import Path


def ar_member(name: str, content: bytes) -> bytes:
    """One member of an `ar` archive with its header, padded to an even size."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)


def write_deb(path: Path, files: dict[str, bytes], *, packing: str = "xz") -> Path:
    """Write a package that would install `files`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{packing}") as tar:
        folder = tarfile.TarInfo("./usr")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    # The odd size of the middle member puts a byte of padding before the one that counts.
    members = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (f"data.tar.{packing}", packed.getvalue())]
    path.write_bytes(b"!<arch>\n" + b"".join(ar_member(*member) for member in members))
    return path
