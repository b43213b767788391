"""The device of this tier: CuPy's stand-in for memory, compiled PTX for the kernels."""

import importlib.util

import pytest
from numba import config

from tests.few_threads import take_few

HERE = not config.ENABLE_CUDASIM and importlib.util.find_spec("numba_cuda") is not None
if HERE:
    from tests.ptxrun import driver, machine


def pytest_ignore_collect(collection_path):
    """Nothing here is collected without numba-cuda's compiler, whose place the simulator takes."""
    return True if collection_path.name.startswith("test_") and not HERE else None


def pytest_pycollect_makemodule(module_path):
    """A file that is named in the command is collected whatever is ignored: it says what it needs."""
    if module_path.name.startswith("test_") and not HERE:
        pytest.skip("needs numba-cuda, and no simulator")


@pytest.fixture
def device(monkeypatch):
    """The stand-in for CuPy, with kernels that run as compiled, in blocks of few threads, the last thread first."""
    take_few(monkeypatch)
    monkeypatch.setattr(machine, "settings", machine.Settings(order="reverse"))
    with driver.device() as cupy:
        yield cupy
