"""The doors of the library on device arrays, called with NumPy arrays.

A test of the host is so a test of a device too.
"""

import functools
from types import SimpleNamespace

import numpy as np

import lattice

REAL_ARGUMENTS = {
    "transducer": ("logits",),
    "ctc": ("logits",),
    "joint": ("encoder", "predictor", "weight", "bias"),
    "alignment": ("frames",),
    "ids": ("ids",),
    "internal": ("predictor", "weight", "bias"),
    "frames": ("frames",),
    "shift": ("frames",),
    "minimum": ("scores", "risks"),
    "scores": ("blank_scores", "label_scores"),
}
"""What is put on the device whatever `integers` says: real arrays, and the first argument where there are none."""
RECORDS = ("JointGradients", "LatticeReport", "Posteriors")
"""Types of results, which tests ask `lattice` for."""


class OnDevice:
    """`lattice` with its doors on a device.

    Parameters
    ----------
    put, fetch : callable
        NumPy array to device array, and back.
    integers : bool
        Whether ids and lengths are put on the device as well.
    """

    def __init__(self, put, fetch, *, integers: bool = False):
        self.put, self.fetch, self.integers = put, fetch, integers

    def doors(self) -> dict:
        """Name and replacement of each door."""
        names = [name for name in lattice.__all__ if name.partition("_")[0] in REAL_ARGUMENTS]
        return {name: self._wrap(getattr(lattice, name)) for name in names}

    def module(self) -> SimpleNamespace:
        """What tests use of `lattice`, on the device."""
        return SimpleNamespace(**{name: getattr(lattice, name) for name in RECORDS}, **self.doors())

    def _wrap(self, door):
        real = REAL_ARGUMENTS[door.__name__.partition("_")[0]]

        @functools.wraps(door)
        def call(*args, **options):
            placed = {}
            args = [self._place(x, placed, position < len(real)) for position, x in enumerate(args)]
            options = {name: self._place(x, placed, name in (*real, "out", "grad_loss")) for name, x in options.items()}
            return self._back(door(*args, **options), placed)

        return call

    def _place(self, x, placed, real):
        if isinstance(x, (tuple, list)):
            return type(x)(self._place(part, placed, real) for part in x)
        if not isinstance(x, np.ndarray) or not (real or self.integers):
            return x
        if id(x) not in placed:
            placed[id(x)] = x, self.put(x)
        return placed[id(x)][1]

    def _back(self, result, placed):
        """Results as NumPy; one that is an argument's array comes back in the argument's memory."""
        if isinstance(result, lattice.JointGradients | lattice.Posteriors):
            return type(result)(*(self._back(part, placed) for part in result))
        if isinstance(result, lattice.LatticeReport):
            return result
        if isinstance(result, tuple):
            return tuple(self._back(part, placed) for part in result)
        if callable(result):
            return lambda *args: self._back(result(*(self._place(x, {}, True) for x in args)), placed)
        for original, array in placed.values():
            if array is result:
                np.copyto(original, self.fetch(result))
                return original
        return None if result is None else self.fetch(result)
