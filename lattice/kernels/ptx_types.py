"""What a launch passes: the types that a kernel is compiled for, and the parameters of numba's calling convention.

An array is passed as two null pointers, its size, its item size, its address, its shape and its strides. A number is
passed as it is. `tests/ptx` holds what is passed here against the parameters of the compiled kernels.
"""

import functools
import math
import re
import struct

import numpy as np

NUMBERS = (int, float, np.generic)


@functools.cache
def kind_name(char: str, axes: int) -> str:
    """What decides which specialisation an array needs. It is cheaper to make and to hash than numba's types."""
    # One object for each, so that it is compared by identity, and hashed once.
    return f"{char}{axes}"


def kind_of(argument):
    """What decides which specialisation an argument needs: `kind_name` of an array, the type of a number."""
    return type(argument) if isinstance(argument, NUMBERS) else kind_name(argument.dtype.char, argument.ndim)


def stored_type(argument) -> tuple[np.dtype, int | None]:
    """Dtype and axes of an argument as a kernel sees it, no axes for a number. bfloat16 goes through its bits."""
    if isinstance(argument, np.generic):
        return argument.dtype, None
    if isinstance(argument, NUMBERS):
        # A bool is an int, and is passed as one.
        return np.dtype(np.int64 if isinstance(argument, int) else np.float64), None
    return np.dtype(np.uint16) if argument.dtype.name == "bfloat16" else argument.dtype, argument.ndim


def type_names(arguments: tuple) -> tuple[str, ...]:
    """The types of a launch in words that no release of numba changes: `float32[2]` is an array, `int64` a number."""
    stored = map(stored_type, arguments)
    return tuple(dtype.name if axes is None else f"{dtype.name}[{axes}]" for dtype, axes in stored)


def signature(arguments: tuple) -> tuple:
    """The numba types of a launch. Every array is C-contiguous."""
    # Here, because a launch of a kernel that was compiled before needs no types.
    from numba import types
    from numba.np.numpy_support import from_dtype

    stored = map(stored_type, arguments)
    return tuple(
        from_dtype(dtype) if axes is None else types.Array(from_dtype(dtype), axes, "C") for dtype, axes in stored
    )


def array_slots(address: int, shape: tuple[int, ...], itemsize: int) -> list[int]:
    """What numba's calling convention wants of a C-contiguous array."""
    strides, stride = [], itemsize
    for size in reversed(shape):
        strides.insert(0, stride)
        stride *= size
    # The null pointers stand for numba's owner of the memory and for a Python object.
    return [0, 0, math.prod(shape), itemsize, address, *shape, *strides]


_packs = [struct.Struct(f"<{5 + 2 * axes}q").pack for axes in range(8)]
"""By the number of axes."""


def pack_array(address: int, shape: tuple[int, ...], itemsize: int) -> bytes:
    """`array_slots` in slots of 8 bytes."""
    # Written out for the arrays of a tile: this is called for each of them.
    if len(shape) == 1:
        (size,) = shape
        return _packs[1](0, 0, size, itemsize, address, size, itemsize)
    if len(shape) == 2:
        rows, width = shape
        return _packs[2](0, 0, rows * width, itemsize, address, rows, width, width * itemsize, itemsize)
    return _packs[len(shape)](*array_slots(address, shape, itemsize))


def flattened(arguments: tuple) -> list:
    """What numba's calling convention wants for arguments that are C-contiguous arrays or numbers."""
    flat = []
    for argument in arguments:
        if isinstance(argument, NUMBERS):
            flat.append(argument)
        else:
            flat += array_slots(address_of(argument), argument.shape, argument.itemsize)
    return flat


def address_of(array) -> int:
    """Of the first byte of a C-contiguous array on a GPU."""
    if getattr(array, "turned", False):
        raise ValueError(f"a kernel takes C-contiguous arrays, not {array!r}")
    if not (hasattr(array, "turned") or array.flags.c_contiguous):
        raise ValueError(f"a kernel takes C-contiguous arrays, not strides {array.strides} of shape {array.shape}")
    return array.data.ptr


def packed(argument) -> bytes:
    """`flattened` of one argument, in slots of 8 bytes."""
    if isinstance(argument, NUMBERS):
        return _pack_number(type(argument))(argument)
    return pack_array(address_of(argument), argument.shape, argument.itemsize)


@functools.cache
def _pack_number(kind: type):
    """What packs a number of a type into a slot."""
    # f4x: four bytes, and four of padding.
    code = "q" if issubclass(kind, (int, np.integer)) else "f4x" if issubclass(kind, np.float32) else "d"
    return struct.Struct(f"<{code}").pack


def parameters(text: str) -> list[int]:
    """Bytes of each parameter of the kernel in a PTX text."""
    listed = re.search(r"\.entry\s+\w+\s*\((.*?)\)", text, re.DOTALL)
    return [int(bits) // 8 for bits in re.findall(r"\.param \.[a-z](\d+)", listed[1])] if listed else []
