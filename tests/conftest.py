"""Settings of hypothesis, and a word about the tiers of tests that a run leaves out.

Hypothesis is reproducible, and without a deadline, because the first call of a compiled function compiles it.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings
from numba import config

settings.register_profile(
    "transducer-lattice",
    deadline=None,
    derandomize=True,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", parent=settings.get_profile("transducer-lattice"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "transducer-lattice"))


def why_no_gpu() -> str | None:
    """Why the tests of a GPU cannot run here, or None where they can."""
    from lattice.device import arrays

    try:
        arrays.cupy()
    except RuntimeError as error:
        return str(error)
    return "the simulator takes its place in this process" if config.ENABLE_CUDASIM else None


def mpirun() -> str | None:
    """The launcher beside this interpreter, where packages put it, or the machine's."""
    return shutil.which("mpirun", path=Path(sys.executable).parent) or shutil.which("mpirun")


def why_no_mpi() -> str | None:
    """Why the tests over several processes cannot run here, or None where they can."""
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py not installed"
    return None if mpirun() else "there is no mpirun"


def pytest_collection_modifyitems(items):
    """Long tests come first, so that no worker is at one while the others have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_terminal_summary(terminalreporter):
    """One line for each tier that this run left out, and why; `TIERS` names the tiers that run elsewhere."""
    elsewhere = os.environ.get("TIERS", "").split()
    for tier, reason in skipped_tiers():
        if tier not in elsewhere:
            terminalreporter.write_line(f"tier {tier}: not run, {reason}")


def skipped_tiers():
    def lacking(*libraries):
        return " and ".join(library for library in libraries if importlib.util.find_spec(library) is None)

    if lacking("torch", "jax"):
        yield "dlpack", f"{lacking('torch', 'jax')} not installed"
    if not config.ENABLE_CUDASIM:
        yield "cudasim", "NUMBA_ENABLE_CUDASIM is not set" if not lacking("greenlet") else "greenlet not installed"
    if config.ENABLE_CUDASIM or lacking("numba_cuda"):
        for tier in ("ptx", "ptxrun"):
            yield (
                tier,
                "numba-cuda not installed"
                if lacking("numba_cuda")
                else "the simulator takes its place in this process",
            )
    if why_no_mpi():
        yield "mpi", why_no_mpi()
    if why_no_gpu():
        yield "cuda", why_no_gpu()
