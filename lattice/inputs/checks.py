"""Checks of single arguments: type, dtype, shape, range.

Every error text names the argument, the index, the value and the bound.
"""

import math
from collections.abc import Callable

import numpy as np

from ..device import arrays
from ..device.memory import device_of

MOST_FACTOR = 1e30
"""Factors up to here leave room for products and sums in float32."""
MOST_SEED = 2**64 - 1
"""Seeds of `samplers` and of dropout: a key of two words."""
NO_NUMBERS = bool, np.bool_, np.timedelta64
"""Not taken for numbers. bool is a subclass of int, and NumPy's durations are of np.integer."""


def refuse(mask, text: Callable[[tuple[int, ...]], str]) -> None:
    """Raise a ValueError for the first True of a mask; `text` makes its text from the index."""
    if mask.any():
        at = tuple(int(i) for i in np.argwhere(mask)[0])  # the first in C order: lowest example, then lowest position
        raise ValueError(text(at))


def index(at) -> str:
    """An index as an error text shows it: `[1, 2]`."""
    return "[" + ", ".join(map(str, at)) + "]"


def read_real(x, name: str, ndims: tuple[int, ...]):
    """A C-contiguous array of a real dtype, NumPy's or CuPy's; other layouts are copied."""
    array = arrays.read(x, name)
    # Both byte orders bear one name.
    if array.dtype.name not in arrays.REAL_NAMES or not array.dtype.isnative:
        raise TypeError(f"{name} has dtype {array.dtype}, expected one of {', '.join(arrays.REAL_NAMES)}")
    if array.ndim not in ndims:
        raise ValueError(
            f"{name} has {array.ndim} dimensions (shape {array.shape}), expected {' or '.join(map(str, ndims))}"
        )
    # Without a copy where the layout allows it. No kernel writes to an argument, unless a door was asked to.
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


def read_choice(value, name: str, choices, others: str = ""):
    """One of the strings in `choices`; `others` is what an error text expects besides."""
    # An array would be compared with each choice entry by entry.
    if not isinstance(value, str) or value not in choices:
        expected = f"{', '.join(map(repr, choices))} {others}".rstrip()
        raise ValueError(f"{name} is {value!r}, expected one of {expected}")
    return value


def read_number(value, name: str, low: float, *, bound: str, high: float = math.inf) -> float:
    """A finite real number from `low` to `high`; `bound` is how an error text calls this range."""
    if isinstance(value, NO_NUMBERS) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected a number")
    try:
        number = float(value)
    except OverflowError:  # an int above 1.8e308
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{name} is {number}, expected {bound}")
    return number


def read_factor(value, name: str) -> float:
    """A number, at least 0, that gradients or losses are multiplied by."""
    return read_number(value, name, 0.0, high=MOST_FACTOR, bound=f"at least 0 and at most {MOST_FACTOR:.0e}")


def read_share(value, name: str, *, bound: str) -> float:
    """A number from 0 to below 1; `bound` is how an error text calls this range."""
    return read_number(value, name, 0.0, high=math.nextafter(1.0, 0.0), bound=bound)


def read_flag(value, name: str) -> bool:
    """True or False; no other value is taken for its truth."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected True or False")
    return bool(value)


def read_integer(value, name: str) -> int:
    """An integer of any size; what it may be at most is for the caller to say."""
    if isinstance(value, NO_NUMBERS) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected an integer")
    return int(value)


def read_natural(value, name: str, high: int) -> int:
    """An integer from 0 to `high`."""
    value = read_integer(value, name)
    if not 0 <= value <= high:
        raise ValueError(f"{name} is {value}, expected 0 to {high}")
    return value


def read_blank(blank, size: int) -> int:
    """The blank's id, 0 to `size` - 1; negative ones count from the end."""
    blank = read_integer(blank, "blank")
    if size < 1:
        raise ValueError("the vocabulary is empty, expected at least the blank")
    if not -size <= blank < size:
        raise ValueError(f"blank is {blank}, expected -{size} <= blank < {size}, the size of the vocabulary")
    return blank % size


def read_lengths(x, name: str, count: int, *, low: int, high: int, source: str, owner: str) -> np.ndarray:
    """Lengths (count,) int64 from `low` to `high`.

    Parameters
    ----------
    x : array
        int32 or int64, on the host.
    name : str
        The argument's.
    count, low, high : int
    source, owner : str
        Where the bound `high` comes from, and where `count` does, for the error texts.
    """
    # (count,) int64, since sums and products of lengths may pass 2**31.
    lengths = read_integers(x, name, (count,), f"one for each example of {owner}").astype(np.int64)
    outside = (lengths < low) | (lengths > high)
    refuse(outside, lambda at: f"{name}{index(at)} is {lengths[at]}, expected {low} to {high}, {source}")
    return lengths


def read_grad_loss(grad_loss, count: int, dtype, device):
    """Upstream gradients (count,) of any sign in the dtype that is computed in; ones by default."""
    if grad_loss is None:
        with device.active():
            # None in place of a workspace: into memory of their own.
            return device.upload(None, np.ones(count, dtype))[0]
    array = read_real(grad_loss, "grad_loss", (1,))
    if array.shape != (count,):
        raise ValueError(f"grad_loss has shape {array.shape}, expected ({count},), one for each example")
    one_device(device, grad_loss=array)
    with device.active():
        # `convert` hands on an array of the right dtype as it is, and the caller may write to that meanwhile.
        return array.copy() if array.dtype == dtype else device.convert(array, dtype)


def one_device(device, **real_arrays) -> None:
    """Refuse real arrays that lie elsewhere than the first argument; None stands for an argument that is not given."""
    for name, array in real_arrays.items():
        if array is not None and device_of(array) != device:
            raise ValueError(f"{name} is on {device_of(array).name}, expected {device.name} as the first argument")


def read_writable(x, name: str):
    """An array that may be written to where it lies."""
    array = arrays.read(x, name)
    if arrays.is_read_only(x, array):
        raise ValueError(f"{name} is read-only and cannot be overwritten")
    # Any other layout would be copied for the kernels, and the copy written to. CuPy keeps no flag of alignment.
    if not array.flags.c_contiguous or (isinstance(array, np.ndarray) and not array.flags.aligned):
        raise ValueError(
            f"{name} with strides {array.strides} is not C-contiguous and aligned, and cannot be overwritten"
        )
    return array
