"""Cases of `tests/kernel_cases.py` whose arrays differ in dtype, or are moved from one dtype to another.

The doors have such arrays. Half precision meets float32 weights and float32 predictions, and results computed in one
dtype are given out in another.
"""

import itertools

import ml_dtypes
import numpy as np

from lattice.device.arrays import bits
from lattice.kernels import rows
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.gradient import gradient
from lattice.kernels.hidden import compute_hidden
from lattice.kernels.upper_bounds import bound
from samplers.inclusion import fill_inclusion
from tests.factor_cases import listed
from tests.kernel_compare import BROAD, Case

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
SPECIAL = [1 / 3, -0.0, np.nan, np.inf, -np.inf, 65504.0, 3.4e38, 1e-30]
HALFWAY = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11]
"""Between two neighbours, of which the even one is meant: the lower, and the upper."""


def every_case() -> list[Case]:
    return [
        *_casts(),
        *_unpacked((35,)),
        *_shared(),
        *_hidden((37,), BROAD.values()),
        *_bounds((37,), BROAD.values()),
        # Rows of two dtypes.
        *_hidden((37,), [BROAD["tanh"]], ((F4, F2, F4), (F2, BF, BF))),
        *_bounds((37,), [BROAD["tanh"]], (BF, F4, F4)),
        *_gradients((2, 150)),
        _inclusion(),
    ]


def wide_cases() -> list[Case]:
    """Rows as in `kernel_cases.wide_cases`.

    By width, some lanes take four entries, each lane takes four, one lane takes a fifth, or eight.
    """
    widths = (120, 128, 129, 250)
    return [
        *_unpacked(widths),
        *_hidden(widths, BROAD.values()),
        *_bounds(widths, BROAD.values()),
        *_gradients((*widths, 257)),
    ]


def _casts():
    """Widened and rounded by the bit, in arrays that are no whole number of blocks."""
    values = np.array(SPECIAL + HALFWAY, F8).repeat(27)
    pairs = (F8, F4), (F4, F8), (F4, F2), (F4, BF), (F2, F4), (F2, F8), (BF, F4), (BF, F8), (F4, F4), (F8, F8)
    for source, target in pairs:
        with np.errstate(over="ignore"):
            given = values.astype(source).reshape(9, 36)
        dtype = F8 if F8 in (source, target) else min(source, target, key=lambda dtype: dtype.itemsize)
        arguments = given, np.zeros((9, 36), target)
        yield Case(f"cast-{source.name}-to-{target.name}", dtype, rows.cast, arguments, {}, exact=True, stored=True)


def _unpacked(widths):
    """Packed rows that are not rounded on their way into padded arrays."""
    rng = np.random.default_rng(20)
    for width, dtype in itertools.product(widths, (F4, F8)):
        source, starts, target = (
            rng.standard_normal((9, width)).astype(dtype),
            np.array([0, 4, 4, 9]),
            np.full((4, 6, width), 7),
        )
        yield Case(
            f"unpack-{width}", dtype, rows.unpack, (source, starts, np.array([3, 0, 2]), target.astype(dtype)), {}
        )


def _shared():
    """The same rows, of predictors that examples share."""
    rng = np.random.default_rng(20)
    for dtype in (F4, F8):
        source, total = rng.standard_normal((9, 35)).astype(dtype), rng.standard_normal((6, 35)).astype(dtype)
        target = np.full((4, 6, 35), 7, dtype)
        for places, opens in (([2], [0]), ([1, 2, 2], [0, 1, 0]), ([1, 1, 1, 0], [0, 0, 0, 1])):
            begins = np.array([0, 4, 4, 9, 9])[: len(places) + 1]
            arguments = (source, begins, np.array(places), np.array(opens, np.uint8), total, target.copy())
            yield Case(f"share-{len(places)}", dtype, rows.share, arguments, {})


def _hidden(widths, activations, dtypes=((F2, F4, F4), (BF, F4, F4), (BF, F4, BF), (BF, BF, F4))):
    """The hidden vectors of a search: the predictor is widened where it arrives, the encoder never is."""
    rng = np.random.default_rng(21)
    encoder_row, slot, every = rng.permutation(6), rng.permutation(6), np.arange(6)
    for width, activation, (encoder, predictor, hidden) in itertools.product(widths, activations, dtypes):
        given = (rng.standard_normal((6, width)).astype(dtype) for dtype in (encoder, predictor))
        rows = (*given, np.zeros((0, width), F4), NO_DROPOUT, encoder_row, slot)
        arguments = (activation, *rows, every, every, np.zeros((6, width), hidden))
        name = f"hidden-{activation.name}-{width}-{predictor.name}-to-{hidden.name}"
        stored = min(encoder, predictor, key=lambda dtype: dtype.itemsize)
        yield Case(name, stored, compute_hidden, arguments, {})
        if activation.rate is not None:
            factors = np.exp(2 * np.random.default_rng(26).standard_normal((12, width))).astype(F4)
            arguments = (activation, *rows[:2], listed(factors, {}), *arguments[4:-1], np.zeros((6, width), hidden))
            yield Case(f"{name}-of-factors", stored, compute_hidden, arguments, {})


def _bounds(widths, activations, dtypes=(BF, BF, F4)):
    """Encoder, predictor and weight of these dtypes. Eighths, so that the products come out the same in any order.

    There is a warp more than cells, and tanh of what is not 0 is 1 or -1.
    """
    names = "" if dtypes == (BF, BF, F4) else "-" + "-".join(dtype.name for dtype in dtypes)
    for width, activation in itertools.product(widths, activations):
        rng, scale = np.random.default_rng(22), 640 if activation == BROAD["tanh"] else 1
        encoder, predictor, weight = (rng.integers(-4, 5, (n, width)) / 8 for n in (6, 5, 9))
        encoder_row, predictor_row = rng.permutation(6), rng.permutation(5)
        label = rng.integers(-1, 9, 41).astype(np.int32)
        frame, slot, outputs = rng.integers(0, 6, 41), rng.integers(0, 5, 41), (np.zeros(41, F4) for _ in range(4))
        none = np.zeros((0, width), F4)
        given = (scale * encoder).astype(dtypes[0]), (0 * predictor).astype(dtypes[1])
        inputs, layer = (*given, none, NO_DROPOUT, encoder_row, predictor_row), weight.astype(dtypes[2])
        layer = (layer, np.zeros(0, F4), np.ones(9, F4), np.array([3, 4, 1e30], F4))
        arguments = (activation, *inputs, frame, slot, label, 8, *layer, 2.0**-10, *outputs)
        yield Case(f"bound-mixed-{activation.name}-{width}{names}", BF, bound, arguments, {})
        if activation.rate is not None:
            # tanh of these is -1, 0, 1/2 or 1.
            factors = listed(rng.choice([1, 1, 3, 2.0**60, 2.0**-60], (11, width)).astype(F4), {})
            factors[6:, :width] = np.where(factors[6:, :width] == 3, 1, factors[6:, :width])
            fresh = tuple(np.zeros(41, F4) for _ in range(4))
            given = (activation, *inputs[:2], factors, *inputs[3:], *arguments[7:-4], *fresh)
            yield Case(f"bound-mixed-of-factors-{width}{names}", BF, bound, given, {})


def _gradients(sizes):
    """The gradient of float32 logits, rounded for the products that follow."""
    for size in sizes:
        rng = np.random.default_rng(23)
        logits, row = (3 * rng.standard_normal((12, size))).astype(F4), rng.permutation(12)[:11].astype(np.int64)
        label, owner = rng.integers(-1, size, 11).astype(np.int32), rng.integers(0, 3, 11).astype(np.int32)
        label[label == 1] = 0
        posteriors = (rng.random((2, 11)) * 0.5).astype(F4)
        posteriors[:, 4] = 0
        logits[row[5], -1] = 12
        maximum = logits[row].max(axis=1)
        rest = np.exp(logits[row] - maximum[:, None]).sum(axis=1)
        for bias in (np.zeros(0, F4), np.full(size, 0.25, F4)):
            out, upstream = np.full(logits.shape, 7, BF), np.array([1.0, -0.3, 1e-3], F4)
            arguments = (logits, out, row, bias, label, owner, 1, *posteriors, maximum, rest, 0.5, upstream)
            yield Case(f"gradient-mixed-{size}-bias{len(bias)}", BF, gradient_apart, arguments, {"anew": True})


def gradient_apart(logits, *rest, anew):
    """The gradient of logits of its own: where it is normalised anew, a GPU writes over two entries of a row."""
    gradient(bits(logits).copy().view(logits.dtype), *rest, anew=anew)


def _inclusion():
    """Probabilities of a whole batch are summed in float64, and given out in the dtype that they came in."""
    p = np.random.default_rng(24).dirichlet(np.ones(70), 1)
    ids = np.random.default_rng(25).integers(0, 70, (1, 9)).astype(np.int32)
    return Case(
        "inclusion-mixed", F8, fill_inclusion, (p, ids, np.array([2]), np.array([3.0]), np.zeros((1, 9), F4)), {}
    )
