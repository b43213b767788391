"""Compiled kernels on disk: numba's cache beside the sources, and a folder that was written beforehand.

A folder has a subfolder for each architecture (`sm_90`), with a manifest and one file for each kernel and the types of
its arguments. No name in it holds the version of a compiler, because a folder is for machines whose compiler does not
work, and PTX is PTX. What a kernel is made of does count. The manifest holds a digest of its sources. The first line of
a file says which kernel it is, for what, and of what sources. A folder of other kernels, or a file that was moved, is
refused and never launched.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import uuid
from collections.abc import Iterable
from pathlib import Path

import numba

FOLDER, ONLY = "LATTICE_PTX", "LATTICE_PTX_ONLY"
"""Environment variables: a folder of compiled kernels, and 1 where only its kernels may run."""
MANIFEST = "manifest.json"
FORM = {"architecture": str, "sources": dict, "versions": dict, "kernels": dict, "contents": dict}
"""What a manifest holds: the packages that the kernels are made of with their digests, what wrote them, and for each
file the kernel and a digest of its text."""
NO_SOURCES = "no sources"
"""In the place of a digest, in an installation of compiled modules only. No folder can be told to be made of these."""


def rewrite(folder: Path) -> str:
    """How the folder of an architecture is written anew."""
    # sm_90 -> 9.0, sm_120 -> 12.0
    top, capability = shlex.quote(str(folder.parent.resolve())), f"{folder.name[3:-1]}.{folder.name[-1]}"
    return f"write it anew with python -m benchmarks.gpu.prebuild {top} --capability {capability}"


def architecture(cc: tuple[int, int]) -> str:
    """What PTX calls a compute capability."""
    return f"sm_{cc[0]}{cc[1]}"


def target_of(text: str) -> str:
    """The architecture that PTX was compiled for, or "" where a text is none."""
    found = re.search(r"^\.target\s+(\w+)", text, re.MULTILINE)
    return found[1] if found else ""


def sources(kernel) -> dict[str, str]:
    """The packages that a kernel may be made of, this one and its own, with a digest of the text of their modules."""
    # A kernel of samplers is made of modules of both.
    own = kernel.py_func.__module__.rpartition(".")[0]
    folders = {__package__: Path(__file__).parent, own: Path(kernel.py_func.__code__.co_filename).parent}
    return {package: digest(folders[package]) for package in sorted(folders)}


@functools.cache
def digest(folder: Path) -> str:
    """What names the sources of a folder. It is asked for as they are imported, so it names no later ones."""
    # A later edit of the files changes nothing: the first answer is kept.
    text = "".join(f"{path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else NO_SOURCES


def described(kernel, types: tuple[str, ...], cc: tuple[int, int]) -> str:
    """All that PTX depends on but the compiler, in one line: the kernel, its types, the device, the sources."""
    name = f"{kernel.py_func.__module__}.{kernel.py_func.__name__}({', '.join(types)})"
    made_of = " ".join(f"{package}={digest}" for package, digest in sources(kernel).items())
    return f"{name} for {architecture(cc)} of {made_of}"


def _file_name(kernel, *key: str) -> str:
    return f"{kernel.py_func.__name__}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.ptx"


def cached(kernel, types: tuple[str, ...], cc: tuple[int, int]) -> Path:
    """Where numba's cache keeps a kernel. Any change of the sources or of the compiler leads to another file."""
    folder = Path(numba.config.CACHE_DIR) if numba.config.CACHE_DIR else Path(__file__).parent / "__pycache__"
    return folder / _file_name(kernel, described(kernel, types, cc), *compiler())


@functools.cache
def compiler() -> tuple[str, str]:
    """Versions of numba and of numba-cuda."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return numba.__version__, importlib.metadata.version("numba-cuda")
    return numba.__version__, ""


def keep(path: Path, text: str) -> None:
    """Write a file of the cache in one step, for processes that read it meanwhile.

    Without a place to write to, as in an installation that is read-only, each process compiles for itself.
    """
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, because other processes may write the same kernel.
        unfinished = path.with_suffix(f".{uuid.uuid4().hex}")
        unfinished.write_text(text)
        unfinished.replace(path)


def prepared(kernel, types: tuple[str, ...], cc: tuple[int, int]) -> tuple[Path, str] | None:
    """The file and the PTX of a kernel in the folder that `LATTICE_PTX` names, None without a folder or the kernel.

    Raises
    ------
    RuntimeError
        The folder is for another architecture, made of other sources, or damaged. Or `LATTICE_PTX_ONLY=1`, and there is
        no folder, or it lacks the kernel.
    """
    named, only = os.environ.get(FOLDER, ""), os.environ.get(ONLY, "")
    if only not in ("", "0", "1"):
        raise RuntimeError(f"{ONLY} is {only!r}, expected 0 or 1")
    if not named:
        if only == "1":
            raise RuntimeError(f"{ONLY}=1, but {FOLDER} names no folder")
        return None
    wanted, folder = described(kernel, types, cc), _subfolder(Path(named), architecture(cc))
    name = _file_name(kernel, wanted)
    manifest = _manifest(folder, sources(kernel))
    if name not in manifest["kernels"]:
        if only == "1":
            raise RuntimeError(f"{ONLY}=1, but {folder} lacks {wanted}")
        return None
    return folder / name, _read(folder / name, wanted, folder.name, manifest["contents"].get(name))


def _subfolder(top: Path, target: str) -> Path:
    """The folder of an architecture, which must be there."""
    folder = top / target
    # Any of these looks may fail, for want of permission or on a broken mount.
    try:
        if not top.is_dir():
            raise RuntimeError(f"{FOLDER} is {top}, which is no folder, seen from {Path.cwd()}")
        found = folder.is_dir()
        held = ", ".join(sorted(path.name for path in top.glob("sm_*"))) or "no compiled kernels"
        inside = (top / MANIFEST).is_file()
    except OSError as error:
        raise RuntimeError(
            f"{FOLDER} is {top}, which cannot be looked into ({error.strerror}), expected a folder"
        ) from error
    if not found and inside:
        raise RuntimeError(
            f"{FOLDER} is {top}, the folder of one architecture, expected the one that it lies in, "
            f"{top.resolve().parent}"
        )
    if not found:
        raise RuntimeError(
            f"{FOLDER} is {top}, which holds {held}, expected {target}, what the device is: {rewrite(folder)}"
        )
    return folder


def _manifest(folder: Path, current: dict[str, str]) -> dict:
    """The manifest of an architecture's folder, held against its name and against the sources of a kernel."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text())
        damaged = [key for key, kind in FORM.items() if not isinstance(found[key], kind)]
        if damaged:
            raise ValueError(f"{', '.join(damaged)} of another type")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RuntimeError(f"{path} is no manifest ({type(error).__name__}: {error}): {rewrite(folder)}") from error
    if found["architecture"] != folder.name:
        raise RuntimeError(f"{folder} was made for {found['architecture']}, expected {folder.name}, what the device is")
    for package, wanted in current.items():
        made_of = found["sources"].get(package)
        # Equal to NO_SOURCES says nothing: neither side knows what it is made of.
        if made_of != wanted or wanted == NO_SOURCES:
            raise RuntimeError(
                f"{folder} was made of {package} {made_of}, expected {wanted}: the kernels have changed, "
                f"{rewrite(folder)}"
            )
    return found


def _read(path: Path, wanted: str, target: str, content: str | None) -> str:
    """The text of a file. Its first line must say that it is what is wanted, its digest that it is what was written."""
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"{path}, which {MANIFEST} lists, cannot be read ({error}): {rewrite(path.parent)}"
        ) from error
    first = text.partition("\n")[0].removeprefix("// ")
    if first != wanted:
        raise RuntimeError(f"{path} holds {first or 'nothing'}, expected {wanted}")
    found = target_of(text)
    if found != target:
        raise RuntimeError(f"{path} holds {'PTX for ' + found if found else 'no PTX'}, expected PTX for {target}")
    if _content(text) != content:
        raise RuntimeError(
            f"{path} holds a text of digest {_content(text)}, expected {content} as {MANIFEST} says: "
            f"{rewrite(path.parent)}"
        )
    return text


def _content(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(top: Path, cc: tuple[int, int], kernels: Iterable[tuple], versions: dict[str, str]) -> Path:
    """Write the folder of an architecture anew: `kernels` are (kernel, type names, PTX)."""
    folder = top / architecture(cc)
    folder.mkdir(parents=True, exist_ok=True)
    # The manifest goes first and comes last, so a folder that was only begun is refused.
    (folder / MANIFEST).unlink(missing_ok=True)
    for old in folder.glob("*.ptx"):
        old.unlink()
    made_of, listed, contents = {}, {}, {}
    for kernel, types, text in kernels:
        line = described(kernel, types, cc)
        name = _file_name(kernel, line)
        whole = f"// {line}\n{text}"
        (folder / name).write_text(whole)
        made_of |= sources(kernel)
        listed[name], contents[name] = line.partition(" for ")[0], _content(whole)
    manifest = {
        "architecture": folder.name,
        "sources": made_of,
        "versions": versions,
        "kernels": listed,
        "contents": contents,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return folder
