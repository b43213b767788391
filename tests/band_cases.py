"""Cases of `tests/kernel_cases.py` for the walk along the cells that alignments reach, and for a band's numbers.

Weights and inputs are fractions as in `certificate_cases`, so that every target makes the same bounds but for the
roundings of exponentials.
"""

import math

import ml_dtypes
import numpy as np

from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.frontier import ROWS, Ways
from lattice.kernels.locate import renumber
from lattice.kernels.reach import Rules, reach
from lattice.kernels.state import BOUND, WANTED, CellState
from lattice.kernels.upper_bounds import slacks_of
from tests.certificate_cases import fraction_layer
from tests.factor_cases import listed
from tests.kernel_compare import BROAD, MOVES, NARROW, RNNT, UNROLLED, Case, frames_for, in_float32, like

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
BLANK = 8
LENGTHS = np.array([6, 1, 4, 3]), np.array([4, 0, 2, 3])
PLAIN = Ways(False, False, False, False, 0.0, math.log(1e-2))


def every_case() -> list[Case]:
    hat, none = {"by_label": True}, (np.array([3, 2]), np.array([0, 1]))
    found = [_numbers()]
    for dtype in (F4, F8):
        found += [
            _walk("reach-find", dtype, find=True),
            _walk("reach-leave", dtype, penalty=0.25),
            _walk("reach-constrained", dtype, "constrained", penalty=-0.5),
            _walk("reach-hat-tanh", dtype, **hat, find=True),
        ]
    found += [
        _walk("reach-find-monotonic", F8, "monotonic", find=True),
        _walk("reach-leave-monotonic", F4, "monotonic"),
        _walk("reach-largest", F4, largest=True),
        _walk("reach-no-label", F4, lengths=none),
        _walk("reach-hat-factors", F4, **hat, factors=True),
        _walk("reach-hat-constrained", F4, "constrained", **hat, penalty=0.5),
        _walk("reach-hat-leave", F4, **hat),
    ]
    # Other activations share the walk, as compiled for each type.
    for stored, layer in ((F4, F4), (F8, F8), (F2, F4), (BF, BF), (BF, F4)):
        for activation in BROAD:
            own = {"activation": activation, "layer": layer}
            if activation != "tanh" or stored not in (F4, F8):
                name = f"reach-hat-{activation}" + "-mixed" * (stored == BF and layer == F4)
                found.append(_walk(name, stored, **own, **hat))
            if activation != "tanh" and stored == F8:
                found.append(_walk(f"reach-{activation}-constrained", F8, "constrained", **own, find=True))
                found.append(_walk(f"reach-hat-{activation}-monotonic", F8, "monotonic", **own))
    found += [_walk(f"reach-hat-{name}", F4, activation=name, **hat) for name in NARROW]
    # Walks along cells whose scores are given take it, in either dtype.
    return [*found, _walk("reach-hat-identity", F8, activation="identity", **hat)]


def wide_cases() -> list[Case]:
    """More label positions than a block has warps, in wide rows."""
    wide, hat = (np.array([3, 2]), np.array([21, 9])), {"by_label": True}
    return [
        _walk("reach-wide", F4, lengths=wide, width=130),
        _walk("reach-wide-find", F4, lengths=wide, width=130, find=True),
        _walk("reach-wide-hat-factors", F2, **hat, layer=F4, lengths=wide, width=250, factors=True),
        _walk("reach-wide-hat-relu", F8, **hat, lengths=wide, width=130, activation="relu"),
    ]


def _walk(
    name, stored, topology="rnnt", lengths=LENGTHS, layer=None, activation="tanh", width=37, find=False, factors=False,
    **options,
):  # fmt: skip
    """A walk where no cell has a state, to `find` a band, or where the cells of a band with holes have one."""
    rng, dtype, moves = np.random.default_rng(60), F8 if stored == F8 else F4, MOVES[topology]
    frames = frames_for(moves, False, lengths)
    count, N = len(frames.example), len(frames.labels)
    label_base = np.append(0, np.cumsum(frames.labels.astype(np.int64) + 1))
    # tanh of these, and of their sums, is -1, 0 or 1.
    scale, parts = (640, 8) if activation == "tanh" else (1, None)
    encoder, predictor = (
        fraction_layer(rng, stored, rows, width, parts) * stored.type(scale) for rows in (count, label_base[-1])
    )
    made = rng.choice([1, 3, 2.0**60, 2.0**-60], (factors * (count + len(predictor)), width)).astype(dtype)
    if factors:
        # A frame and a label position are far throughout, and made of the inputs.
        made = listed(made, {1: slice(None), count + 2: slice(None)})
    inputs = encoder, predictor, made, NO_DROPOUT, rng.permutation(count), rng.permutation(len(predictor))
    # Nobody reads what stands behind an example's labels.
    label_row = rng.integers(0, BLANK, (N, frames.widest + 1)).astype(np.int32)
    label_row[np.arange(frames.widest + 1) >= frames.labels[:, None]] = 2**30
    bias, norm = (rng.integers(-4, 5, 9) / 8).astype(dtype), (rng.permutation(9) / 8 + 1).astype(dtype)
    output = fraction_layer(rng, layer or stored, width=width), bias, norm, np.array([3, 4, 1e30], dtype)
    held, state, most = frames, _state(rng, 0, dtype, False), np.diff(frames.offset[frames.starts])
    if find:
        held = frames._replace(first=np.zeros(count, np.int32), offset=np.zeros(count + 1, np.int64))
        # The band of the last example is too large.
        most[-1] //= 4
    else:
        held = _with_holes(rng, frames)
        state = _state(rng, held.cells, dtype, options.get("by_label", False))
    limits = np.where(find, -np.inf, -2.0 * np.diff(frames.starts)), np.where(np.arange(N) % 3, np.inf, 6.0), most
    arguments = ACTIVATIONS[activation], *inputs, frames, held, label_base, label_row, *output, *state, *limits
    ways = PLAIN._replace(monotonic=moves.monotonic, paired=moves.paired, **options)
    own = {"ways": ways, "find": find}
    return Case(name, stored, walked, arguments, own, unrolled=width >= UNROLLED)


def _with_holes(rng, frames):
    """The middle of each frame, of the first and the last frame all, and of a frame of the first example nothing."""
    width = np.diff(frames.offset)
    count = np.maximum(1, width - 1 - rng.integers(0, 2, len(width)))
    count[frames.starts[1] // 2] = 0
    skipped = np.minimum(rng.integers(0, 2, len(width)), width - count)
    ends = np.isin(np.arange(len(width)), (frames.starts[:-1], frames.starts[1:] - 1))
    count, skipped = np.where(ends, width, count), np.where(ends, 0, skipped)
    first = np.where(count, frames.first + skipped, 0).astype(np.int32)
    return frames._replace(first=first, offset=np.append(0, np.cumsum(count)))


def _state(rng, count, dtype, by_label):
    """Cells of all kinds, and one of NaN."""
    blank, label = np.log(rng.dirichlet(np.ones(3), count)[:, :2].T).astype(dtype) if count else np.zeros((2, 0), dtype)
    known = rng.random(count) < 0.85
    rest = np.where(known, 0.5, BOUND + 0.5 * label).astype(dtype)
    maximum = (blank if by_label else 0.5 * blank).copy()
    blank[~known & (not by_label)], label[~known] = -np.inf, -np.inf
    if count > 20:
        rest[7], rest[-3], label[-3] = WANTED, np.nan, np.nan
    return CellState(blank, label, maximum, rest)


def walked(
    activation, encoder, predictor, factors, dropout, encoder_row, predictor_row, frames, held, label_base, label_row,
    weight, bias, norm, ceiling, blank, label, maximum, rest, base, nats, most, *, ways, find,
):  # fmt: skip
    """What keeps to the set and what leaves it, how many cells were looked at, and the band."""
    N, count, real = len(base), len(frames.example) if find else 0, norm.dtype
    rules = Rules(BLANK, weight, bias, norm, ceiling, real.type(2.0**-10), *slacks_of(len(weight), real))
    rows = like(base, N * ROWS * (frames.widest + 2), np.float64)
    rows.fill(np.nan)
    first, last = like(base, count, np.int32), like(base, count, np.int32)
    first.fill(2**30)
    last.fill(-1)
    weighed, looked = like(base, 2 * N, np.float64), like(base, N, np.int64)
    given = encoder, predictor, factors, dropout, encoder_row, predictor_row
    inputs = activation, given, frames, held, label_base, label_row
    found = (first, last), weighed.reshape(N, 2), looked
    limits = base, nats, most
    state = CellState(blank, label, maximum, rest)
    reach(*inputs, rules, ways, state, *limits, rows.reshape(N, ROWS, -1), *found)
    # It is known as well as the scores are.
    return (weighed if real == F8 else in_float32(weighed)[0], looked, first, last)


def _numbers():
    """Cells of a band as they are numbered in the lattice."""
    frames = frames_for(RNNT, False)
    held = _with_holes(np.random.default_rng(61), frames)
    return Case("renumber", F4, renumber, (np.flatnonzero(np.arange(held.cells) % 4), held, frames), {})
