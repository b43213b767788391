"""Write every kernel as PTX, for a machine whose compiler may not work: `python -m benchmarks.gpu.prebuild FOLDER`.

No GPU is needed. FOLDER gets a subfolder for each architecture; `LATTICE_PTX=FOLDER` makes the library take them. The
command writes the kernels that the cases of `tests/kernel_cases.py` launch, and the kernels that the doors launch on
small problems, which run here as compiled. The machine of `tests/ptxrun` reads and translates each file again. It knows
every instruction or says so.
"""

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numba
from numba import cuda

from lattice.kernels import ptx_store
from lattice.kernels.ptx_compile import compile_kernel

from ..record import ROOT

FOLDER = ROOT / ".ptx"
CAPABILITIES = ((8, 0), (9, 0))
"""Compute capabilities of an A100 and of an H100."""


def launches() -> tuple[dict, int]:
    """Every launch there is, {(kernel, type names): arguments}, and how many of them only the doors make."""
    from tests import launches as recorder
    from tests.ptxrun import driver

    # A folder that is named already is not what is to be written.
    for name in (ptx_store.FOLDER, ptx_store.ONLY):
        os.environ.pop(name, None)
    found = {key: arguments for key, (arguments, _) in recorder.of_cases().items()}
    with driver.device() as cupy:
        of_doors = recorder.of_doors(cupy)
    return {**of_doors, **found}, len(of_doors.keys() - found.keys())


def write(top: Path, cc: tuple[int, int], wanted: dict) -> list[Path]:
    """Compile for one architecture; the files."""
    found = {}
    for (kernel, types), arguments in wanted.items():
        found[kernel, types] = compile_kernel(kernel, arguments, cc)
    kernels = ((kernel, types, text) for (kernel, types), text in found.items())
    return sorted(ptx_store.write(top, cc, kernels, versions(found.values())).glob("*.ptx"))


def versions(texts: Iterable[str]) -> dict[str, str]:
    """What wrote the PTX."""
    said = {name: set() for name in ("release", "version")}
    for text in texts:
        for name in said:
            said[name] |= set(re.findall(rf"\b{name} ([\d.]+\d)", text))
    cuda, newest = (", ".join(sorted(said[name])) for name in ("release", "version"))
    return {"numba": numba.__version__, "numba-cuda": ptx_store.compiler()[1], "cuda": cuda, "ptx": newest}


def check(paths: Iterable[Path]) -> list[str]:
    """What cannot be translated, and why."""
    from tests.ptxrun import machine

    wrong = []
    for path in paths:
        try:
            machine.Function(path.read_text(), False)
        except Exception as error:
            wrong.append(f"{path.parent.name}/{path.name}: {type(error).__name__}: {error}")
    return wrong


def capability(text: str) -> tuple[int, int]:
    """X.Y in two numbers."""
    if not re.fullmatch(r"[1-9][0-9]*\.[0-9]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no compute capability, expected as in 9.0")
    major, minor = text.split(".")
    return int(major), int(minor)


def offered(cc: tuple[int, int]) -> bool:
    """Whether the compiler has an architecture. Of one that it does not have it may write an older one, or nothing."""

    def nothing():
        pass

    try:
        text, _ = cuda.compile_ptx(nothing, (), cc=cc)
    except Exception:
        return False
    return ptx_store.target_of(text) == ptx_store.architecture(cc)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.prebuild", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=FOLDER, help="where to write, .ptx beside the sources by default"
    )
    parser.add_argument(
        "--capability",
        action="append",
        type=capability,
        metavar="X.Y",
        help="of a device, may be repeated; 8.0 and 9.0 by default",
    )
    options, begin = parser.parse_args(arguments), time.monotonic()
    top, capabilities = options.folder, dict.fromkeys(options.capability or CAPABILITIES)
    for cc in capabilities:
        if not offered(cc):
            parser.error(
                f"--capability is {cc[0]}.{cc[1]}, for which the compiler does not write {ptx_store.architecture(cc)}"
            )
    top.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        wanted, apart = launches()
    print(f"{len(wanted)} kernels and types; {len(wanted) - apart} have a case in tests/kernel_cases.py")
    wrong = []
    for cc in capabilities:
        paths = write(top, cc, wanted)
        faults = check(paths)
        wrong += faults
        print(
            f"{top / ptx_store.architecture(cc)}: {len(paths)} files, "
            f"{sum(path.stat().st_size for path in paths):,} bytes, {len(faults)} not translated"
        )
    print("\n".join([*wrong, f"{time.monotonic() - begin:.0f} s"]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
