"""From a kernel to its PTX by numba-cuda, without a GPU or a driver, and whatever the machine's toolkit and NumPy are."""

import contextlib
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from .ptx_types import signature

_compiling = threading.RLock()
"""Held while a kernel is compiled, because that changes what the whole process sees: an environment variable, a name of NumPy."""


def compile_kernel(kernel, arguments: tuple, cc: tuple[int, int]) -> str:
    """PTX of a kernel for the types of these arguments.

    Raises
    ------
    RuntimeError
        A part of the CUDA toolkit is not found.
    """
    from numba import cuda

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
    """Answer for the driver, which numba asks for the capability of the current device wherever a device function is compiled.

    Numba would bring up a driver binding of its own for that, in a process whose driver is CuPy's. The answer is the same: a
    kernel is compiled for the device it runs on. Nor does a device function that was compiled for another capability hurt: what
    is kept of it is LLVM's code, which becomes PTX anew with each kernel that calls it.
    """
    from numba.cuda import dispatcher

    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


@contextlib.contextmanager
def _row_stack():
    """NumPy 2.5 has no `row_stack` any more, and numba-cuda up to 0.30 asks for it where it fills its registries."""
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
    known = {"CUDA_HOME", "CUDA_PATH"} & os.environ.keys()
    nvcc = shutil.which("nvcc")
    roots = [Path(nvcc).resolve().parents[1]] if nvcc else []
    found = [root for root in (*roots, Path("/usr/local/cuda")) if (root / "nvvm" / "libdevice" / "libdevice.10.bc").exists()]
    if not known and found:
        os.environ["CUDA_HOME"] = str(found[0])
    try:
        yield
    finally:
        if not known and found:
            del os.environ["CUDA_HOME"]
