"""The simulated device: CuPy's stand-in for memory, numba's simulator on greenlets for the kernels."""

from types import SimpleNamespace

import numpy as np
import pytest
from numba import config

from tests.few_threads import take_few

if config.ENABLE_CUDASIM:
    from lattice.device import arrays
    from lattice.kernels import ptx
    from lattice.kernels.device_view import DeviceView
    from tests.cudasim import fake_cublas, fake_cupy, scheduler


def pytest_ignore_collect(collection_path):
    """Nothing here is collected without the simulator.

    `tests/ptxrun` takes the tests of the doors from these modules.
    """
    return True if collection_path.name.startswith("test_") and not config.ENABLE_CUDASIM else None


def pytest_pycollect_makemodule(module_path):
    """A file that is named in the command is collected whatever is ignored: it says what it needs."""
    if module_path.name.startswith("test_") and not config.ENABLE_CUDASIM:
        pytest.skip("needs NUMBA_ENABLE_CUDASIM=1")


def run(kernel, blocks, threads, arguments):
    """`ptx.run` in the simulator: the kernel as a Python function over the memory of the stand-ins."""
    with np.errstate(all="ignore"):
        kernel[blocks, threads](*map(unwrap, arguments))


def unwrap(argument):
    if isinstance(argument, DeviceView):
        # It must lie within the memory of its owner. As NumPy's view of that it has its own ends.
        argument = argument.array()
    if not isinstance(argument, fake_cupy.ndarray):
        return argument
    if not argument.flags.c_contiguous:
        raise ValueError("a kernel takes C-contiguous arrays")
    array = argument._array
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


@pytest.fixture
def device(monkeypatch):
    """The stand-in for CuPy, with kernels that run in the simulator."""
    arrays.cupy.cache_clear()
    cupy = fake_cupy.install()
    monkeypatch.setattr(cupy.cuda, "cublas", fake_cublas, raising=False)
    monkeypatch.setattr(cupy.cuda, "device", SimpleNamespace(get_cublas_handle=lambda: 0), raising=False)
    monkeypatch.setattr(ptx, "run", run)
    take_few(monkeypatch)
    yield cupy
    fake_cupy.uninstall()
    arrays.cupy.cache_clear()


@pytest.fixture(params=["forward", "reverse"])
def order(request, monkeypatch):
    """The order in which the threads of a block run. Of two threads either one comes first in one of them."""
    monkeypatch.setattr(scheduler, "ORDER", request.param)
