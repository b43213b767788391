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
import importlib.metadata
import os
import re
import shutil
import struct
import threading
import uuid
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from .. import arrays

NUMBERS = (int, float, np.generic)
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
_compiling = threading.RLock()
"""Held while a kernel is compiled, because that changes what the whole process sees: an environment variable, a name of NumPy."""


class _Function(NamedTuple):
    """A kernel on a device, and how its parameters are packed; `loaded` keeps its module."""

    loaded: object
    layout: struct.Struct


def run(kernel, blocks: tuple[int, ...], threads: int, arguments: tuple) -> None:
    """Launch a kernel on CuPy's current stream, compiled for the types of its arguments when it first meets them."""
    device = arrays.cupy().cuda.Device()
    key = (kernel, device.id, *map(_kind, arguments))
    function = _functions.get(key)
    flat = flattened(arguments)
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
    return "q" if isinstance(value, (int, np.integer)) else "f4x" if isinstance(value, np.float32) else "d"


def _make(kernel, arguments: tuple, cc: tuple[int, int]):
    """The kernel, compiled or from the disk, on the device."""
    path = _kept(kernel, signature(arguments), cc)
    with contextlib.suppress(OSError, RuntimeError):
        return load(path.read_text())
    text = compile_kernel(kernel, arguments, cc)
    wanted, passed = len(parameters(text)), len(flattened(arguments))
    if wanted != passed:
        raise RuntimeError(f"this numba-cuda passes {wanted} parameters to {kernel.py_func.__name__}, "
                           f"expected {passed}: another release, 0.30 for one, is needed")  # fmt: skip
    function = load(text)
    # Without a place to write to, as in an installation that is read-only, each process compiles for itself.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{uuid.uuid4().hex}")
        unfinished.write_text(text)
        unfinished.replace(path)
    return function


def _kept(kernel, types: tuple, cc: tuple[int, int]) -> Path:
    """Where the PTX of a kernel is kept; any change of the kernels or of the compiler leads to another file."""
    wanted = hashlib.sha256(repr((types, cc, _compiler(), _sources(kernel))).encode())
    folder = Path(numba.config.CACHE_DIR) if numba.config.CACHE_DIR else Path(__file__).parent / "__pycache__"
    return folder / f"{kernel.py_func.__name__}-{wanted.hexdigest()[:24]}.ptx"


@functools.cache
def _compiler() -> tuple[str, str]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return numba.__version__, importlib.metadata.version("numba-cuda")
    return numba.__version__, ""


def _sources(kernel) -> str:
    """The modules a kernel may be made of: those here, and those beside its own."""
    return "".join(map(_read_folder, sorted({Path(__file__).parent, Path(kernel.py_func.__code__.co_filename).parent})))


@functools.cache
def _read_folder(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("*.py")))


def _kind(argument):
    """What decides about the specialisation an argument needs; cheaper to make and to hash than numba's types."""
    return type(argument) if isinstance(argument, NUMBERS) else (argument.dtype.char, argument.ndim)


def signature(arguments: tuple) -> tuple:
    """The numba types of a launch. bfloat16 goes through its bits, and every array is C-contiguous."""
    from numba import types
    from numba.np.numpy_support import from_dtype

    found = []
    for argument in arguments:
        if isinstance(argument, np.generic):
            found.append(from_dtype(argument.dtype))
        elif isinstance(argument, NUMBERS):
            found.append(types.int64 if isinstance(argument, int) else types.float64)
        else:
            dtype = np.dtype(np.uint16) if argument.dtype.name == "bfloat16" else argument.dtype
            found.append(types.Array(from_dtype(dtype), argument.ndim, "C"))
    return tuple(found)


def flattened(arguments: tuple) -> list:
    """What numba's calling convention wants for arguments that are C-contiguous arrays or numbers."""
    flat = []
    for argument in arguments:
        if isinstance(argument, NUMBERS):
            flat.append(argument)
        elif argument.flags.c_contiguous:
            flat += (0, 0, argument.size, argument.itemsize, argument.data.ptr, *argument.shape, *argument.strides)
        else:
            raise ValueError(f"a kernel takes C-contiguous arrays, not strides {argument.strides} of shape {argument.shape}")
    return flat


def capability(device) -> tuple[int, int]:
    """Compute capability of a CuPy device."""
    digits = device.compute_capability
    return int(digits[:-1]), int(digits[-1])


def compile_kernel(kernel, arguments: tuple, cc: tuple[int, int]) -> str:
    """PTX of a kernel for the types of these arguments.

    Raises
    ------
    RuntimeError
        A part of the CUDA toolkit is not found.
    """
    from numba import cuda

    with _compiling, _row_stack(), _toolkit():
        try:
            return cuda.compile_ptx(kernel.py_func, signature(arguments), cc=cc)[0]
        except RuntimeError as error:
            raise RuntimeError(
                f"numba-cuda cannot compile {kernel.py_func.__name__} ({error}): set CUDA_HOME to the CUDA toolkit, or "
                "pip install 'cuda-toolkit[nvrtc,nvvm]==13.0.*'"
            ) from error


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


def parameters(text: str) -> list[int]:
    """Bytes of each parameter of the kernel in a PTX text."""
    listed = re.search(r"\.entry\s+\w+\s*\((.*?)\)", text, re.DOTALL)
    return [int(bits) // 8 for bits in re.findall(r"\.param \.[a-z](\d+)", listed[1])] if listed else []


def load(text: str):
    """Hand PTX to the driver; the function launches it.

    Raises
    ------
    RuntimeError
        The driver is older than the compiler that wrote the PTX.
    """
    version, entry = re.search(r"\.version ([\d.]+)", text), re.search(r"\.entry\s+(\w+)", text)
    if not (version and entry):
        raise RuntimeError("no PTX: the text has no version or no kernel")
    module = arrays.cupy().cuda.Module()
    try:
        module.load(text.encode())
    except Exception as error:
        raise RuntimeError(
            f"the driver refuses PTX of version {version[1]} ({error}): install the CUDA toolkit of the driver's own release, "
            "for a driver of CUDA 13.0 pip install 'cuda-toolkit==13.0.*'"
        ) from error
    return module.get_function(entry[1])
