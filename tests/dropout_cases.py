"""Cases of `tests/kernel_cases.py` with dropout. Most are other modules' cases with draws in the place of none."""

import itertools
from collections.abc import Iterable
from dataclasses import replace

import ml_dtypes
import numpy as np

from lattice.kernels.activations import ACTIVATIONS, GELU_SLOPE
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.hidden import compute_hidden
from lattice.kernels.hidden_transpose import hidden_transpose
from tests.dropout_oracle import draws
from tests.factor_cases import THROUGHOUT, listed
from tests.kernel_compare import Case

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
BF = np.dtype(ml_dtypes.bfloat16)
SEED = 2**63 + 5 * 2**32 + 77
EXACT = 0.5
"""A rate that multiplies by 2, so that sums come out the same in any order."""
EVERY = {
    **dict.fromkeys(("bound-rows-relu-37-bias9", "bound-of-factors-37"), (F4,)),
    **dict.fromkeys(("bound-rows-relu-120-bias9", "bound-rows-tanh-120-bias0"), (F4, BF)),
    **dict.fromkeys(("bound-hat-relu-37-8-bias9", "bound-hat-tanh-37-8-bias0"), (F4, BF)),
    "bound-steps-tdt-tanh-37-bias-all": (F4, BF),
    "bound-steps-multiblank-odd-relu-37-bias-all": (BF,),
    "bound-steps-tdt-odd-relu-37-bias-all": (F4,),
    "reach-hat-relu": (F4, BF),
    "reach-hat-tanh": (BF,),
    **dict.fromkeys(("transpose-relu-37-holesTrue", "transpose-tanh-37-holesFalse"), (F4, BF)),
    "transpose-gelu-37-holesFalse": (F4,),
}
"""Names of cases, and the dtypes in which each is tried with dropout, too."""
WIDE = {
    **dict.fromkeys(("bound-equal-bits-relu-513", "bound-equal-bits-tanh-400"), (F4, BF)),
}
WIDTH = 506
"""A whole round, a half one, and behind it up to four entries of a lane."""


def every_case(known: Iterable[Case]) -> list[Case]:
    return [*_hidden(), *_dropped(known, EVERY)]


def wide_cases(known: Iterable[Case]) -> list[Case]:
    return _dropped(known, WIDE)


def _dropped(known, wanted):
    """The cases that are wanted, of those that are known, with dropout."""
    found = [_with_dropout(case) for case in known if case.dtype in wanted.get(case.name, ())]
    assert len(found) == sum(map(len, wanted.values())), "a case has another name"
    return found


def _with_dropout(case):
    arguments = list(case.arguments)
    (k,) = (k for k, value in enumerate(arguments) if value is NO_DROPOUT)
    arguments[k] = _draws(EXACT, len(arguments[k + 1]), len(arguments[k + 2]))
    if case.function is hidden_transpose:
        # Kept zeros beside dropped ones, and neighbours of both.
        given, chosen = arguments[1].copy(), np.random.default_rng(70).integers(0, 4, arguments[1].shape)
        given[chosen == 0], given[chosen == 1] = -0.0, 0.0
        arguments[1] = given
    return replace(case, name=f"{case.name}-dropout", arguments=tuple(arguments))


def _draws(rate, frames, slots):
    """Of frames of several examples; no number of one is that of another."""
    t = np.arange(frames)
    return draws((rate, SEED), t % 3 + 2**20, 7 * t + 2**30, 5 * np.arange(slots) + 1)


def _hidden():
    """In every branch of the loop over a row, on so few cells that the simulator takes them, too."""
    rng = np.random.default_rng(71)
    frame, slot = np.array([0, 1, 3, 4, 3]), np.array([1, 0, 2, 3, 2])
    for stored, (name, entry) in itertools.product((F4, BF), (ACTIVATIONS | {"gelu_slope": GELU_SLOPE}).items()):
        if name not in ("relu", "tanh") and (name, stored) != ("gelu_slope", F4):
            continue
        for factors in (False, True)[: 1 + (entry.rate is not None)]:
            encoder, predictor = (rng.standard_normal((rows, WIDTH)).astype(stored) for rows in (6, 5))
            made = np.exp(2 * rng.standard_normal((11, WIDTH))).astype(F4)
            made = listed(made, THROUGHOUT) if factors else np.zeros((0, WIDTH), F4)
            rows = encoder, predictor, made, _draws(0.3, 6, 5), rng.permutation(6), rng.permutation(5)
            arguments = (entry, *rows, frame, slot, np.zeros((5, WIDTH), stored))
            case = f"hidden{'-of-factors' * factors}-{name}-{WIDTH}-dropout"
            yield Case(case, stored, _marked, arguments, {}, exact=name == "relu")


def _marked(*arguments):
    """Hidden vectors, and where they have the mark of what is dropped."""
    compute_hidden(*arguments)
    hidden = arguments[-1] if isinstance(arguments[-1], np.ndarray) else arguments[-1].get()
    hidden = hidden.astype(F8)
    return ((np.signbit(hidden) & (hidden == 0)).astype(np.int64),)
