"""Cases of `tests/kernel_cases.py` for factors, and for the hidden vectors and upper bounds that are made of them.

Some entries are far, and some rows have more of them than they list. The factors of a row have nothing to do with its
inputs here, so that it shows which of the two an entry was made of.
"""

import itertools
import math

import ml_dtypes
import numpy as np

from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.factors import LISTED, TAIL, make_factors, reach_of
from lattice.kernels.hidden import compute_hidden
from lattice.kernels.upper_bounds import bound
from tests.kernel_compare import BROAD, UNROLLED, Case, like

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
STORED = (F4, F4), (F8, F8), (F4, F2), (F4, BF)
"""What is computed in, and what is stored."""


def every_case() -> list[Case]:
    # A loop over a row may be unrolled: of 96 entries a whole warp is left over, which other widths do not leave.
    left_over = [case for dtype, stored in STORED for case in _factors(dtype, stored, 96)]
    return _of((37, 120)) + left_over


def wide_cases() -> list[Case]:
    """Rows as in `kernel_cases.wide_cases`, and of one or two rounds of eight entries a lane, with some left over."""
    return _of((128, 129, 250, 400, 513))


def _of(widths) -> list[Case]:
    return [
        case
        for (dtype, stored), width in itertools.product(STORED, widths)
        for cases in (_factors, _hidden, _few_are_far, _bounds, _same_bits)
        for case in cases(dtype, stored, width)
    ]


def _factors(dtype, stored, width):
    """Rows on both sides of the reach: each has one entry that the last lane or the first looks at, or many."""
    rng = np.random.default_rng(30)
    rate = 2.0
    encoder, predictor = (rng.standard_normal((rows, width)).astype(stored) for rows in (9, 5))
    # The largest entry of its dtype that has a factor.
    last = stored.type(reach_of(dtype) / rate)
    last = last if rate * float(last) <= reach_of(dtype) else np.nextafter(last, stored.type(0))
    for row, (column, x) in enumerate(
        ((0, last), (-1, -last), (-1, 1.01 * float(last)), (31, -1.01 * float(last)), (-1, math.nan), (0, math.inf))
    ):
        encoder[row, column] = x
    encoder[6, 0], predictor[1, 2] = -0.0, -math.inf
    # As many as are listed, one more, and all.
    encoder[7, 30 : 30 + LISTED], encoder[8, 28 : 29 + LISTED], predictor[3] = 300, -300, math.nan
    arguments = rate, encoder, predictor, rng.permutation(9), rng.permutation(5)
    yield Case(
        f"factors-lists-{width}",
        stored,
        factors_without_places,
        (*arguments, np.zeros((14, width + TAIL), dtype)),
        {},
        unrolled=width >= UNROLLED,
    )


def listed(factors, far):
    """Factors of 6 frames and 5 label positions -> the same with far entries, from their places {row: columns}."""
    count, width = factors.shape
    filled = np.zeros((count, width + TAIL), factors.dtype)
    filled[:, :width] = factors
    for row, columns in far.items():
        places = np.arange(width)[columns]
        filled[row, places] = math.nan
        filled[row, width], filled[row, width + 1 :][: len(places)] = len(places), places[:LISTED]
    return filled


THROUGHOUT = {2: slice(None), 6 + 3: slice(None)}
"""Far entries of rows that are made of the inputs."""
FEW = {1: [0, 31, 5, -1], 4: [2, 3, 4, 5, 32], 6: [30, 31, 33], 6 + 2: [-1]}
"""Far entries that a CPU makes by themselves. With the first label position one frame has 7, another 8."""


def _hidden(dtype, stored, width):
    rng = np.random.default_rng(31)
    frame, slot = (array.ravel() for array in np.indices((6, 5)))
    encoder, predictor = (rng.standard_normal((rows, width)).astype(stored) for rows in (6, 5))
    factors = listed(np.exp(2 * rng.standard_normal((11, width))).astype(dtype), THROUGHOUT)
    rows = encoder, predictor, factors, NO_DROPOUT, rng.permutation(6), rng.permutation(5)
    for name, entry in _tried(stored, width).items():
        if entry.rate is None:
            continue
        hidden = np.zeros((30, width), stored if stored == BF else dtype)
        arguments = (entry, *rows, frame, slot, hidden)
        case = f"hidden-of-factors-{name}-{width}"
        yield Case(case, stored, compute_hidden, arguments, {}, unrolled=width >= UNROLLED)


def _tried(stored, width):
    return ACTIVATIONS if (stored, width) == (F4, 37) else BROAD


def _few_are_far(dtype, stored, width):
    """Factors of the rows themselves, a few of which are far: the lists are the business of one device."""
    rng = np.random.default_rng(34)
    frame, slot = (array.ravel() for array in np.indices((6, 5)))
    encoder, predictor = (rng.standard_normal((rows, width)).astype(stored) for rows in (6, 5))
    encoder[3, [0, 5, -1]], encoder[1, 33], predictor[0, 31], predictor[2] = 1000, -1000, -1000, math.inf
    rows = encoder, predictor, rng.permutation(6), rng.permutation(5)
    hidden = np.zeros((30, width), stored if stored == BF else dtype)
    arguments = (*rows, frame, slot, hidden)
    yield Case(f"hidden-few-far-{width}", stored, hidden_of, arguments, {}, unrolled=width >= UNROLLED)


def hidden_of(encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    """tanh of cells of which the factors are made, too."""
    tanh, real = ACTIVATIONS["tanh"], np.float64 if hidden.dtype == np.float64 else np.float32
    factors = like(hidden, (len(encoder_row) + len(predictor_row), hidden.shape[1] + TAIL), real)
    make_factors(tanh.rate, encoder, predictor, encoder_row, predictor_row, factors)
    dropout = like(hidden, 0, np.int64)
    compute_hidden(tanh, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden)


def factors_without_places(*arguments):
    """`make_factors`, and 0 in the place of what only a CPU fills in."""
    make_factors(*arguments)
    arguments[-1][:, -LISTED:] = 0


def _bounds(dtype, stored, width):
    """tanh of the factors is -1, 0, 1/2 or 1, of the inputs -1, 0 or 1: sums come out the same in any order."""
    rng = np.random.default_rng(32)
    frame, slot = (array.ravel()[:29] for array in np.indices((6, 5)))
    label = rng.integers(-1, 9, 29).astype(np.int32)
    encoder, predictor = ((80.0 * rng.integers(-4, 5, (rows, width))).astype(stored) for rows in (6, 5))
    factors = np.concatenate(
        [rng.choice([1, 3, 2.0**60, 2.0**-60], (6, width)), rng.choice([1, 1, 2.0**60, 2.0**-60], (5, width))]
    )
    factors = listed(factors.astype(dtype), THROUGHOUT)
    rows = encoder, predictor, factors, NO_DROPOUT, rng.permutation(6), rng.permutation(5)
    weight = (rng.integers(-4, 5, (9, width)) / 8).astype(stored if stored != F2 else F4)
    layer = weight, np.zeros(0, dtype), np.ones(9, dtype), np.array([3, 4, 1e30], dtype)
    outputs = tuple(np.zeros(29, dtype) for _ in range(4))
    arguments = (ACTIVATIONS["tanh"], *rows, frame, slot, label, 8, *layer, 2.0**-10, *outputs)
    yield Case(f"bound-of-factors-{width}", stored, bound, arguments, {}, unrolled=width >= UNROLLED)


def _same_bits(dtype, stored, width):
    """Upper bounds are of the very bits that matrix products take."""
    rng = np.random.default_rng(33)
    frame, slot = (array.ravel() for array in np.indices((6, 5)))
    encoder, predictor = (rng.standard_normal((rows, width)).astype(stored) for rows in (6, 5))
    factors = listed(np.exp(2 * rng.standard_normal((11, width))).astype(dtype), THROUGHOUT | FEW)
    weight = rng.standard_normal((9, width)).astype(stored if stored != F2 else F4)
    none, every = np.zeros((0, width), dtype), np.arange(30)
    zeros = np.zeros((1, width), weight.dtype), np.zeros(30, np.int64)
    layer = weight, np.zeros(0, dtype), np.full(9, 4, dtype), np.array([3, 4, 1e30], dtype), 2.0**-10
    rows = encoder, predictor, factors, NO_DROPOUT, rng.permutation(6), rng.permutation(5), frame, slot
    label = rng.integers(-1, 9, 30).astype(np.int32)
    for name, entry in _tried(stored, width).items():
        arguments = (entry, *rows, none, every, *zeros, label, *layer)
        case = f"bound-equal-bits-{name}-{width}"
        yield Case(case, stored, bounds_that_differ, arguments, {}, unrolled=width >= UNROLLED)


def bounds_that_differ(activation, *arguments):
    """Places at which bounds are not those of the hidden vectors handed in, none where all are equal."""
    rows, (none, every, zero, first, label), layer = arguments[:8], arguments[8:13], arguments[13:]
    weight = layer[0]
    hidden = like(weight, (len(label), weight.shape[1]), weight.dtype)
    found, expected = (tuple(like(weight, len(label), none.dtype) for _ in range(4)) for _ in range(2))
    compute_hidden(activation, *rows, hidden)
    bound(activation, *rows, label, 8, *layer, *found)
    inputs = hidden, zero, none, like(weight, 0, np.int64), every, first[:1], every, first
    bound(ACTIVATIONS["identity"], *inputs, label, 8, *layer, *expected)
    on_host = [array if isinstance(array, np.ndarray) else array.get() for array in (*found, *expected)]
    return (np.argwhere(np.stack(on_host[:4]) != np.stack(on_host[4:])).astype(np.int64),)
