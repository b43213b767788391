"""CUDA kernels from Python to the device: numba compiles them to PTX, CuPy loads and launches it.

Numba's own launch looks at each array through the CUDA array interface, which waits for the stream once for each argument and
costs about 90 us a launch. Here nothing waits, and the work goes to the caller's current stream. The two meet in numba's calling
convention: an array is two null pointers, its size, its item size, its address, its shape and its strides; numbers are passed as
they are. That makes over a hundred parameters for some kernels: they are packed at once, into slots whose addresses never change.
`tests/ptx` holds what is passed here against the parameters of the compiled kernels.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import struct
import threading
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from .. import arrays

MOST_PARAMETERS = 512
SLOT = 8
"""Bytes of a packed parameter; a float32 fills half of one."""

_functions: dict[tuple, "_Function"] = {}


class _Slots(threading.local):
    """Where a thread packs the parameters of its launches; `ready` are the devices whose context the thread has met."""

    def __init__(self):
        self.memory = (ctypes.c_byte * (MOST_PARAMETERS * SLOT))()
        base = ctypes.addressof(self.memory)
        self.addresses = (ctypes.c_void_p * MOST_PARAMETERS)(*range(base, base + MOST_PARAMETERS * SLOT, SLOT))
        self.ready = set()


_slots = _Slots()


class _Function(NamedTuple):
    """A kernel on a device, and how its parameters are packed; `loaded` keeps its module."""

    loaded: object
    layout: struct.Struct


def run(kernel, blocks: tuple[int, ...], threads: int, arguments: tuple) -> None:
    """Launch a kernel on CuPy's current stream, compiled for the types of its arguments when it first meets them."""
    device = arrays.cupy().cuda.Device()
    key = (kernel, device.id, *map(_kind, arguments))
    function = _functions.get(key)
    flat = []
    for argument in arguments:
        flatten(argument, flat)
    if function is None:
        loaded = _make(kernel, arguments, capability(device))
        function = _functions[key] = _Function(loaded, struct.Struct("<" + "".join(map(_slot, flat))))
    cuda = arrays.cupy().cuda
    if device.id not in _slots.ready:
        # A thread that has done nothing on the device yet has no context, and a launch does not make one.
        cuda.runtime.memGetInfo()
        _slots.ready.add(device.id)
    function.layout.pack_into(_slots.memory, 0, *flat)
    grid, stream = (*blocks, 1)[:2], cuda.get_current_stream().ptr
    cuda.driver.launchKernel(function.loaded.ptr, *grid, 1, threads, 1, 1, 0, stream, ctypes.addressof(_slots.addresses), 0)


def _slot(value) -> str:
    """Code of the `struct` module for one parameter in its slot."""
    return "q" if isinstance(value, int) else "f4x" if isinstance(value, np.float32) else "d"


def _make(kernel, arguments: tuple, cc: tuple[int, int]):
    """The kernel, compiled or from the disk, on the device."""
    path = _kept(kernel, signature(arguments), cc)
    with contextlib.suppress(OSError, RuntimeError):
        return load(path.read_text())
    text = compile_kernel(kernel, arguments, cc)
    function = load(text)
    # Without a place to write to, as in an installation that is read-only, each process compiles for itself.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text)
        unfinished.replace(path)
    return function


def _kept(kernel, types: tuple, cc: tuple[int, int]) -> Path:
    """Where the PTX of a kernel is kept; any change of the kernels or of the compiler leads to another file."""
    from numba import config, cuda

    wanted = hashlib.sha256(repr((types, cc, numba.__version__, getattr(cuda, "__version__", ""), _sources())).encode())
    folder = Path(config.CACHE_DIR) if config.CACHE_DIR else Path(__file__).parent / "__pycache__"
    return folder / f"{kernel.py_func.__name__}-{wanted.hexdigest()[:24]}.ptx"


@functools.cache
def _sources() -> str:
    return "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))


def _kind(argument):
    """What decides about the specialisation an argument needs; cheaper to make and to hash than numba's types."""
    return (argument.dtype.char, argument.ndim) if hasattr(argument, "strides") and argument.ndim else type(argument)


def signature(arguments: tuple) -> tuple:
    """The numba types of a launch. bfloat16 goes through its bits, and every array is C-contiguous."""
    from numba import types
    from numba.np.numpy_support import from_dtype

    found = []
    for argument in arguments:
        if hasattr(argument, "strides") and argument.ndim:
            dtype = np.dtype(np.uint16) if argument.dtype.name == "bfloat16" else argument.dtype
            found.append(types.Array(from_dtype(dtype), argument.ndim, "C"))
        elif isinstance(argument, np.generic):
            found.append(from_dtype(argument.dtype))
        else:
            found.append(types.int64 if isinstance(argument, int) else types.float64)
    return tuple(found)


def flatten(argument, flat: list) -> None:
    """Append what numba's calling convention wants for one argument: a C-contiguous array or a number."""
    if not (hasattr(argument, "strides") and argument.ndim):
        flat.append(int(argument) if isinstance(argument, int) else argument)
        return
    if not argument.flags.c_contiguous:
        raise ValueError(f"a kernel takes C-contiguous arrays, not strides {argument.strides} of shape {argument.shape}")
    flat += (0, 0, argument.size, argument.itemsize, argument.data.ptr, *argument.shape, *argument.strides)


def capability(device) -> tuple[int, int]:
    """Compute capability of a CuPy device."""
    digits = device.compute_capability
    return int(digits[:-1]), int(digits[-1])


def compile_kernel(kernel, arguments: tuple, cc: tuple[int, int]) -> str:
    """PTX of a kernel for the types of these arguments."""
    from numba import cuda

    return cuda.compile_ptx(kernel.py_func, signature(arguments), cc=cc)[0]


def load(text: str):
    """Hand PTX to the driver; the function launches it.

    Raises
    ------
    RuntimeError
        The driver is older than the compiler that wrote the PTX.
    """
    module = arrays.cupy().cuda.Module()
    try:
        module.load(text.encode())
    except Exception as error:
        version = re.search(r"\.version ([\d.]+)", text)[1]
        raise RuntimeError(
            f"the driver refuses PTX of version {version} ({error}): install the CUDA toolkit of the driver's own release, "
            "for a driver of CUDA 13.0 pip install 'cuda-toolkit==13.0.*'"
        ) from error
    return module.get_function(re.search(r"\.entry\s+(\w+)", text)[1])
