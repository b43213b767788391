"""What a launch passes: the types that a kernel is compiled for, and the parameters of numba's calling convention.

An array is passed as two null pointers, its size, its item size, its address, its shape and its strides. A number is
passed as it is. `tests/ptx` holds what is passed here against the parameters of the compiled kernels.
"""

import re

import numpy as np

NUMBERS = (int, float, np.generic)


def kind_of(argument):
    """What decides which specialisation an argument needs. It is cheaper to make and to hash than numba's types."""
    return type(argument) if isinstance(argument, NUMBERS) else (argument.dtype.char, argument.ndim)


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


def flattened(arguments: tuple) -> list:
    """What numba's calling convention wants for arguments that are C-contiguous arrays or numbers."""
    flat = []
    for argument in arguments:
        if isinstance(argument, NUMBERS):
            flat.append(argument)
        elif argument.flags.c_contiguous:
            # The null pointers stand for numba's owner of the memory and for a Python object.
            flat += (0, 0, argument.size, argument.itemsize, argument.data.ptr, *argument.shape, *argument.strides)
        else:
            raise ValueError(
                f"a kernel takes C-contiguous arrays, not strides {argument.strides} of shape {argument.shape}"
            )
    return flat


def slot_code(value) -> str:
    """Code of the `struct` module for one parameter in its slot of 8 bytes."""
    # f4x: four bytes, and four of padding.
    return "q" if isinstance(value, (int, np.integer)) else "f4x" if isinstance(value, np.float32) else "d"


def parameters(text: str) -> list[int]:
    """Bytes of each parameter of the kernel in a PTX text."""
    listed = re.search(r"\.entry\s+\w+\s*\((.*?)\)", text, re.DOTALL)
    return [int(bits) // 8 for bits in re.findall(r"\.param \.[a-z](\d+)", listed[1])] if listed else []
