"""How a case of `tests/kernel_cases.py` is run on two targets and compared.

A case runs twice, on NumPy arrays and on device arrays. Every array that it takes or gives must come out equal.
"""

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from lattice import Topology, layout
from lattice.kernels.activations import ACTIVATIONS

MOVES = {name: Topology(name).moves for name in ("rnnt", "monotonic", "constrained")}
RNNT = MOVES["rnnt"]
LENGTHS = (np.array([4, 1, 6, 3]), np.array([2, 0, 5, 3]))
UNROLLED = 97
"""Entries of a row from which on some lane of a warp has four."""
BROAD = {name: ACTIVATIONS[name] for name in ("tanh", "relu")}
"""Activations whose kernels are tried in every dtype, width and branch, and with seeded faults. One is made of factors,
one is not."""
NARROW = {name: entry for name, entry in ACTIVATIONS.items() if name not in BROAD}
"""The others. Their kernels come from the same factories and differ by what they call for a value and its slope, which
a few cases in float32 tell."""
SLOPED = {entry.slope.name: entry.slope for entry in NARROW.values() if entry.slope is not None}
"""What hidden vectors are multiplied by in the backward pass. Its kernels come from the same factory."""
HALF = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


@dataclass(frozen=True)
class Case:
    """A call `function(*arguments, **options)`.

    `dtype` is the dtype that it stores. Where argument `judge` is not finite afterwards, the values in the arguments
    `lax` are left open. `exact` asks for the very same numbers, rounded to what is stored. `stored` says that the CPU
    takes half precision too. `unrolled` says that rows are so long that compiled code takes four entries a round where
    the source takes one; the simulator has only the source.
    """

    name: str
    dtype: np.dtype
    function: Callable
    arguments: tuple
    options: dict
    judge: int = 0
    lax: tuple = ()
    exact: bool = False
    stored: bool = False
    unrolled: bool = False

    @property
    def id(self):
        return f"{self.name}-{self.dtype.name}"

    @property
    def shares_its_body(self):
        """Is the kernel a variant, of HAT, pairs or an activation, with the body of one that has cases of its own?"""
        return "-hat-" in self.name or "constrained" in self.name or self.of_narrow

    @property
    def of_narrow(self):
        """Is it a kernel of an activation of `NARROW`, or of a slope?"""
        return any(f"-{name}-" in f"{self.name}-" for name in NARROW)


def on_cpu(case: Case):
    """The case with the CPU target: (arguments after the call, result).

    Half precision is widened where it has no CPU sweep.
    """
    arguments = [_copy(value, case.dtype in HALF and not case.stored) for value in case.arguments]
    with np.errstate(all="ignore"):
        result = case.function(*arguments, **case.options)
    return arguments, result


def _copy(value, widen):
    if not isinstance(value, np.ndarray):
        return value
    return value.astype(np.float32) if widen and value.dtype in HALF else value.copy()


def assert_equal(name, ours, truth):
    """Equal to rounding: float32 or float64 is computed with, and what is stored in half precision is the nearest."""
    if isinstance(truth, tuple):
        for part, other in zip(ours, truth, strict=True):
            assert_equal(name, part, other)
        return
    if not isinstance(truth, np.ndarray):
        return
    if truth.dtype.kind in "iu":
        assert np.array_equal(ours, truth), name
        return
    info = ml_dtypes.finfo(ours.dtype)
    # Half precision that was rounded on both sides may be rounded to either side.
    half, twice = info.bits == 16, truth.dtype in HALF
    ours, truth = ours.astype(np.float64), truth.astype(np.float64)
    same = (ours == truth) | (np.isnan(ours) & np.isnan(truth))
    with np.errstate(invalid="ignore"):
        worst = np.abs(np.where(same, 0, ours - truth))
    bound = 8 * float(np.finfo(np.float32).eps if half else info.eps) * np.maximum(1, np.abs(truth))
    if half:
        bound += (1 if twice else 0.5) * float(info.eps) * np.abs(truth)
    bound = np.where(np.isfinite(truth), bound, 0)
    if not (worst <= bound).all():
        at = tuple(np.argwhere(~(worst <= bound))[0].tolist())
        raise AssertionError(f"{name}{list(at)} is {ours[at]}, expected {truth[at]}, off by {worst[at]:.2e}")


def check(case: Case, put: Callable, fetch: Callable, known: tuple | None = None) -> None:
    """Run a case on device arrays made by `put` and fetched by `fetch`, and compare with the CPU target.

    What that gives is computed, unless it is `known` from `on_cpu`.
    """
    expected, expected_result = known or on_cpu(case)
    arguments = [place(value, put) for value in case.arguments]
    result = case.function(*arguments, **case.options)
    for number, (value, truth) in enumerate(zip(arguments, expected, strict=True)):
        if isinstance(truth, np.ndarray):
            certain = np.isfinite(expected[case.judge]) if number in case.lax else ...
            if case.exact:
                found = fetch(value)
                nearest = truth.astype(found.dtype)
                np.testing.assert_array_equal(found.astype(np.float64), nearest.astype(np.float64))
            assert_equal(f"{case.id}, argument {number}", fetch(value)[certain], truth[certain])
    if expected_result is not None:
        given = tuple(part if isinstance(part, np.ndarray) else fetch(part) for part in result)
        assert_equal(f"{case.id}, result", given, expected_result)


def place(value, put):
    """One argument of a case on the device, by `put` for each array."""
    if isinstance(value, layout.Frames):
        return layout.Frames(*(put(part) for part in value[:-1]), value.widest)
    return put(value) if isinstance(value, np.ndarray) else value


def frames_for(moves, bounded, lengths=LENGTHS):
    T, U = lengths
    bounds = None
    if bounded:
        first = np.maximum(0, np.arange(T.max())[None] - 2).repeat(len(T), axis=0)
        bounds = first, first + 2
        bounds[0][-1, 1], bounds[1][-1, 1] = 5, 2  # a frame without cells: no alignment
    return layout.frames_of(np.arange(len(T)), T, U, moves, bounds)


def like(array, count, dtype):
    """A fresh array where another one lies."""
    if isinstance(array, np.ndarray):
        return np.empty(count, dtype)
    from lattice.device import arrays

    return arrays.cupy().empty(count, dtype)


def in_float32(*arrays):
    """Fresh copies in float32: over many frames two targets part by more than some roundings of float64."""
    found = []
    for array in arrays:
        found.append(like(array, len(array), np.float32))
        found[-1][:] = array
    return tuple(found)
