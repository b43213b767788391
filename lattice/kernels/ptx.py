"""CUDA kernels from Python to the device: numba compiles them to PTX, CuPy loads and launches it.

Numba's own launch looks at each array through the CUDA array interface, which waits for the stream once for each argument and
costs about 90 us a launch. CuPy's costs a few, runs on the caller's current stream and never waits. The two meet in numba's
calling convention: an array is two null pointers, its size, its item size, its address, its shape and its strides; numbers are
passed as they are. `tests/ptx` holds what is passed here against the parameters of the compiled kernels.
"""

import re

import numpy as np

from .. import arrays

_functions: dict[tuple, object] = {}


def run(kernel, blocks: tuple[int, ...], threads: int, arguments: tuple) -> None:
    """Launch a kernel on CuPy's current stream, compiled for the types of its arguments when it first meets them."""
    device = arrays.cupy().cuda.Device()
    key = (kernel, device.id, *map(_kind, arguments))
    function = _functions.get(key)
    if function is None:
        text = compile_kernel(kernel, arguments, capability(device))
        function = _functions[key] = load(text)
    flat = []
    for argument in arguments:
        flatten(argument, flat)
    function(blocks, (threads,), tuple(flat))


def _kind(argument):
    """What decides about the specialisation an argument needs; cheaper to make and to hash than numba's types."""
    return (argument.dtype.char, argument.ndim) if hasattr(argument, "strides") and argument.ndim else type(argument)


def signature(arguments: tuple) -> tuple:
    """The numba types of a launch. bfloat16 goes through its bits, and every array is C-contiguous."""
    from numba import types
    from numba.np.numpy_support import as_dtype, from_dtype  # noqa: F401

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
    """Append what numba's calling convention wants for one argument."""
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
        module.load(text.encode() + b"\0")
    except Exception as error:
        version = re.search(r"\.version ([\d.]+)", text)[1]
        raise RuntimeError(
            f"the driver refuses PTX of version {version} ({error}): install the CUDA toolkit of the driver's own release, "
            "for a driver of CUDA 13.0 pip install 'cuda-toolkit==13.0.*'"
        ) from error
    return module.get_function(re.search(r"\.entry\s+(\w+)", text)[1])
