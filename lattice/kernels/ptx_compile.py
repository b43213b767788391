"""From a kernel to its PTX by numba-cuda: without a GPU or a driver, and with whatever toolkit and NumPy there are."""

import contextlib
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from .ptx_types import signature

_compiling = threading.RLock()
"""Held while a kernel is compiled, which changes what the whole process sees: its environment, a name of NumPy."""


def compile_kernel(kernel, arguments: tuple, cc: tuple[int, int]) -> str:
    """PTX of a kernel for the types of these arguments.

    Raises
    ------
    RuntimeError
        A part of the CUDA toolkit is not found.
    """
    # Here, because a process without a GPU never needs it.
    from numba import cuda

    # The lock first: what follows is undone before the next thread begins.
    with _compiling, _row_stack(), _toolkit(), _without_driver(cc):
        try:
            return cuda.compile_ptx(kernel.py_func, signature(arguments), cc=cc)[0]
        except RuntimeError as error:
            raise RuntimeError(
                f"numba-cuda cannot compile {kernel.py_func.__name__} ({error}): set CUDA_HOME to the CUDA toolkit, "
                "pip install 'cuda-toolkit[nvrtc,nvvm]==13.0.*', or let LATTICE_PTX name a folder of compiled kernels"
            ) from error


@contextlib.contextmanager
def _without_driver(cc: tuple[int, int]):
    """Answer for the driver, which numba asks for the current device's capability when it compiles a device function.

    Numba would bring up a driver binding of its own to ask, in a process whose driver is CuPy's. The answer is the
    same, because a kernel is compiled for the device that it runs on. A device function that was compiled for another
    capability does no harm. Only LLVM's code is kept of it, which becomes PTX anew with each kernel that calls it.
    """
    from numba.cuda import dispatcher

    asked = dispatcher.get_current_device
    # The one attribute of a device that numba reads here.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


@contextlib.contextmanager
def _row_stack():
    """Lend NumPy 2.5 the `row_stack` that it has no more. numba-cuda up to 0.30 asks for it to fill its registries."""
    missing = not hasattr(np, "row_stack")
    if missing:
        np.row_stack = lambda rows, **options: np.vstack(rows, **options)  # noqa: NPY201
    try:
        yield
    finally:
        if missing:
            del np.row_stack  # noqa: NPY201


@contextlib.contextmanager
def _toolkit():
    """Show numba-cuda the system's toolkit, which it does not look for where a part of one came with pip."""
    # What the user has set stays.
    known = {"CUDA_HOME", "CUDA_PATH"} & os.environ.keys()
    nvcc = shutil.which("nvcc")
    roots = [Path(nvcc).resolve().parents[1]] if nvcc else []  # ROOT/bin/nvcc
    # The GPU's mathematical functions: a toolkit without them is of no use.
    found = [
        root for root in (*roots, Path("/usr/local/cuda")) if (root / "nvvm" / "libdevice" / "libdevice.10.bc").exists()
    ]
    if not known and found:
        os.environ["CUDA_HOME"] = str(found[0])
    try:
        yield
    finally:
        if not known and found:
            del os.environ["CUDA_HOME"]
