"""Checks of single arguments: type, dtype, shape, range. Every text names the argument, the index, the value and the bound."""

import math
from collections.abc import Callable

import numpy as np

from ..device import arrays
from ..device.memory import device_of

MOST_FACTOR = 1e30
"""Factors up to here leave room for products and sums in float32."""


def refuse(mask, text: Callable[[tuple[int, ...]], str]) -> None:
    """Raise a ValueError for the first True of a mask; `text` makes its text from the index."""
    if mask.any():
        at = tuple(int(i) for i in np.argwhere(mask)[0])
        raise ValueError(text(at))


def index(at) -> str:
    return "[" + ", ".join(map(str, at)) + "]"


def read_real(x, name: str, ndims: tuple[int, ...]):
    """A C-contiguous array of a real dtype; other layouts are copied."""
    array = arrays.read(x, name)
    if array.dtype.name not in arrays.REAL_NAMES or not array.dtype.isnative:
        raise TypeError(f"{name} has dtype {array.dtype}, expected one of {', '.join(arrays.REAL_NAMES)}")
    if array.ndim not in ndims:
        raise ValueError(f"{name} has {array.ndim} dimensions (shape {array.shape}), expected {' or '.join(map(str, ndims))}")
    return arrays.for_kernels(array)


def read_integers(x, name: str, shape: tuple[int | None, ...], names: str) -> np.ndarray:
    """A copy on the host of an int32 or int64 array whose axes have the sizes in `shape`; None stands for any size.

    What was checked is what is worked with: another thread may write to the argument meanwhile.
    """
    array = arrays.read(x, name)
    if array.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        raise TypeError(f"{name} has dtype {array.dtype}, expected int32 or int64")
    if array.ndim != len(shape) or any(want is not None and have != want for have, want in zip(array.shape, shape)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {array.shape}, expected ({expected}), that is {names}")
    return array.copy()


def read_choice(value, name: str, choices):
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}")
    return value


def read_number(value, name: str, low: float, *, bound: str, high: float = math.inf) -> float:
    """A finite real number from `low` to `high`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{name} is {number}, expected {bound}")
    return number


def read_factor(value, name: str) -> float:
    """A number that gradients or losses are multiplied by."""
    return read_number(value, name, 0.0, high=MOST_FACTOR, bound=f"at least 0 and at most {MOST_FACTOR:.0e}")


def read_flag(value, name: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected True or False")
    return bool(value)


def read_integer(value, name: str) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected an integer")
    return int(value)


def read_blank(blank, size: int) -> int:
    """The blank's id; negative ones count from the end."""
    blank = read_integer(blank, "blank")
    if size < 1:
        raise ValueError("the vocabulary is empty, expected at least the blank")
    if not -size <= blank < size:
        raise ValueError(f"blank is {blank}, expected -{size} <= blank < {size}, the size of the vocabulary")
    return blank % size


def read_lengths(x, name: str, count: int, low: int, high: int, source: str, owner: str) -> np.ndarray:
    """int64 lengths from `low` to `high`; `source` says where the bound comes from, `owner` where the count does."""
    lengths = read_integers(x, name, (count,), f"one for each example of {owner}").astype(np.int64)
    refuse((lengths < low) | (lengths > high),
           lambda at: f"{name}{index(at)} is {lengths[at]}, expected {low} to {high}, {source}")  # fmt: skip
    return lengths


def read_grad_loss(grad_loss, count: int, dtype, device):
    """Upstream gradients in the dtype that is computed in; ones by default."""
    if grad_loss is None:
        with device.active():
            return device.upload(None, np.ones(count, dtype))[0]
    array = read_real(grad_loss, "grad_loss", (1,))
    if array.shape != (count,):
        raise ValueError(f"grad_loss has shape {array.shape}, expected ({count},), one for each example")
    one_device(device, grad_loss=array)
    with device.active():
        return array.copy() if array.dtype == dtype else device.convert(array, dtype)


def one_device(device, **real_arrays) -> None:
    """Refuse real arrays that lie elsewhere than the first argument."""
    for name, array in real_arrays.items():
        if array is not None and device_of(array) != device:
            raise ValueError(f"{name} is on {device_of(array).name}, expected {device.name} as the first argument")


def read_writable(x, name: str):
    """An array that may be written to where it lies."""
    array = arrays.read(x, name)
    if arrays.is_read_only(x, array):
        raise ValueError(f"{name} is read-only and cannot be overwritten")
    if not array.flags.c_contiguous or (isinstance(array, np.ndarray) and not array.flags.aligned):
        raise ValueError(f"{name} with strides {array.strides} is not C-contiguous and aligned, and cannot be overwritten")
    return array
