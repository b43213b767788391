"""One argument changed.

The change is of its layout, dtype, shape or values, of what it is, of whose memory it shares, or of who else writes to
it.
"""

import tempfile
import threading
import warnings
from typing import NamedTuple

import ml_dtypes
import numpy as np

from .fuzz_hostile import Predict, Wrapped, hostile

MOST_BEAM = 20
SAME, SCALAR, VALUES = 0, 1, 2
"""The values are as before; an option changed; anything may come of it."""
LONG = (0, 1, -1, 2, 5, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63), -(2**31))
NUMBERS = (0, 1, -1, 2, 100, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, True, False, np.True_,
           0.5, 1.0, -0.5, 1e-320, 1e38, 3.4e38, 1e39, 1e300, 1e308, float("nan"), float("inf"), -float("inf"),
           np.int8(1), np.float16(0.5), np.longdouble("1e4000"), None, "1", "rnnt", b"tanh", 1j, [1], (), {},
           np.array(1), np.array([1]), object(), int, np.float32(0.25), np.uint64(2**63))  # fmt: skip
REALS = (np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-45, 1e-310, 0.0, -0.0, 6e4, 1e300, -1e300)
DTYPES = (bool, np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint32, np.uint64, np.float16, np.float32,
          np.float64, np.longdouble, np.complex64, object, "U3", "S3", ">f4", ">f8", ">i4", ">i8", "M8[s]", "m8[ns]",
          "V3", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, [("a", "f4"), ("b", "i8")])  # fmt: skip
OTHERS = (
    None,
    "text",
    3,
    2.5,
    float("nan"),
    b"",
    object(),
    {},
    (),
    [],
    [[1, 2]],
    set(),
    range(3),
    np.float32(1),
    len,
    True,
)


class Changed(NamedTuple):
    """A new value for an argument, how far it is from the old one, and a function that runs beside the call."""

    value: object
    what: str
    kind: int
    beside: object = None


class Subclass(np.ndarray):
    """An ndarray by another name."""


def unaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)[1:]
    view = memory.view(x.dtype).reshape(x.shape) if x.size else x.copy()
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def mapped(x):
    with tempfile.TemporaryFile() as file:
        view = np.memmap(file, x.dtype, "w+", shape=x.shape) if x.size else x.view(np.memmap)
        view[...] = x
        return view


def as_matrix(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(x) if x.ndim == 2 else x


LAYOUTS = {
    "fortran": lambda x: np.asfortranarray(x),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "all reversed": lambda x: np.flip(np.flip(x).copy()),
    "read-only": read_only,
    "unaligned": unaligned,
    "memmap": mapped,
    "masked": lambda x: np.ma.array(x, mask=False),
    "matrix": as_matrix,
    "subclass": lambda x: x.view(Subclass),
    "wrapped": Wrapped,
    "read-only strided": lambda x: read_only(np.repeat(x, 2, axis=0))[::2],
}


def layout(rng, x) -> Changed:
    name = list(LAYOUTS)[rng.integers(len(LAYOUTS))]
    return Changed(LAYOUTS[name](x) if x.ndim else x, name, SAME)


def dtype(rng, x) -> Changed:
    kind = DTYPES[rng.integers(len(DTYPES))]
    try:
        with np.errstate(all="ignore"):
            value = x.astype(kind)
    except (TypeError, ValueError):
        value = np.zeros(x.shape, kind)
    return Changed(value, f"dtype {kind}", VALUES)


def shape(rng, x) -> Changed:
    choice, axis = int(rng.integers(8)), int(rng.integers(max(1, x.ndim)))
    if x.ndim == 0 or choice == 0:
        return Changed(x.reshape(-1)[:1].reshape(()) if x.size else np.zeros((), x.dtype), "0-d", VALUES)
    if choice < 3:
        return Changed(
            np.take(x, range((choice - 1) * min(1, x.shape[axis])), axis), f"axis {axis} of {choice - 1}", VALUES
        )
    if choice == 3:
        return Changed(np.concatenate([x, x], axis), f"axis {axis} doubled", VALUES)
    if choice == 4:
        return Changed(np.expand_dims(x, axis), "one axis more", VALUES)
    if choice == 5:
        return Changed(x.reshape(-1) if x.ndim > 1 else x.reshape(-1, 1), "flat", VALUES)
    if choice == 6:
        return Changed(x.T, "transposed", VALUES)
    return Changed(np.take(x, range(max(0, x.shape[axis] - 1)), axis), f"axis {axis} less one", VALUES)


def values(rng, x) -> Changed:
    x = x.copy()
    count = int(rng.integers(1, 4)) if rng.random() < 0.7 else max(1, x.size)
    places = rng.integers(0, max(1, x.size), count)
    table = LONG if x.dtype.kind in "iu" else REALS
    value = table[rng.integers(len(table))]
    if x.dtype.kind in "iu":
        value = max(np.iinfo(x.dtype).min, min(np.iinfo(x.dtype).max, value))
    with np.errstate(all="ignore"):
        x.reshape(-1)[places[: x.size]] = np.float64(value).astype(x.dtype) if x.dtype.kind not in "iu" else value
    return Changed(x, f"{count} of {value}", VALUES)


def repeated(rng, x) -> Changed:
    """All entries are one, in memory of one entry."""
    first = x.reshape(-1)[:1] if x.size else np.zeros(1, x.dtype)
    strided = np.lib.stride_tricks.as_strided(first, x.shape, (0,) * x.ndim)
    return Changed(
        strided if rng.random() < 0.5 else np.broadcast_to(first.reshape(()), x.shape), "zero strides", VALUES
    )


def raced(rng, x) -> Changed:
    """Another thread writes to it during the call."""
    x, stop = x.copy(), threading.Event()
    others = [values(rng, x).value for _ in range(3)] + [x.copy()]

    def write():
        while not stop.is_set():
            for other in others:
                x[...] = other

    return Changed(x, "raced", VALUES, (write, stop))


def array(rng, x) -> Changed:
    """A change of an array argument."""
    choice = rng.random()
    if choice < 0.08:
        what, value = hostile(rng, x if x.dtype.kind in "iuf" else x.astype(np.float32))
        return Changed(value, what, VALUES)
    if choice < 0.18:
        return Changed(x.tolist() if rng.random() < 0.2 else OTHERS[rng.integers(len(OTHERS))], "no array", VALUES)
    makers = (layout, layout, dtype, shape, shape, values, values, repeated) + (raced,) * (choice > 0.9)
    return makers[rng.integers(len(makers))](rng, x)


def shared(rng, x, given: dict) -> Changed:
    """In the memory of another argument, whose values are lost."""
    others = [
        other
        for other in given.values()
        if type(other) is np.ndarray
        and other.flags.c_contiguous
        and other.flags.writeable
        and other.nbytes >= x.nbytes
        and not other.dtype.hasobject
    ]
    if not others or x.dtype.hasobject:
        return Changed(x, "nothing", VALUES)
    memory = others[rng.integers(len(others))].reshape(-1).view(np.uint8)
    view = memory[: x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x.copy()
    return Changed(view, "memory of another argument", VALUES)


def scalar(rng, name: str) -> Changed:
    """A change of an option. A beam as large as it may be is a search through everything, which ends, but not today."""
    found = NUMBERS[rng.integers(len(NUMBERS))]
    if name == "beam" and isinstance(found, (int, np.integer)) and found > MOST_BEAM:
        found = MOST_BEAM
    if name == "predict" and callable(found):
        found = None
    return Changed(found, f"{found!r:.40}", SCALAR)


def change(rng, name: str, given: dict) -> Changed:
    """A change of one argument; of a pair or list of arrays, of one of them."""
    value = given[name]
    if rng.random() < 0.04:
        other = given[list(given)[rng.integers(len(given))]]
        return Changed(other, "another argument", VALUES)
    if name == "predict" and rng.random() < 0.7:
        return Changed(Predict(value, int(rng.integers(40)), int(rng.integers(1, 4))), "predict", VALUES)
    if isinstance(value, np.ndarray) and rng.random() < 0.04:
        return shared(rng, value, given)
    if isinstance(value, np.ndarray):
        return array(rng, value)
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], np.ndarray) and rng.random() < 0.8:
        at, parts = int(rng.integers(len(value))), list(value)
        found = array(rng, value[at])
        parts[at] = found.value
        return found._replace(value=type(value)(parts), what=f"[{at}] {found.what}")
    return scalar(rng, name)
