"""Cases of `tests/kernel_cases.py` for the kernels of CTC."""

import ml_dtypes
import numpy as np

from lattice.ctc_frames import repeats
from lattice.kernels.ctc_path import ctc_path
from lattice.kernels.ctc_rows import ctc_emit, ctc_gradient
from lattice.kernels.ctc_sums import ctc_forward_backward, ctc_sums
from tests.kernel_compare import Case, in_float32, like

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
BLANK = 2
SHORT = np.array([7, 3, 40, 2, 5]), np.array([3, 0, 19, 3, 4])
WIDE = np.array([4, 1, 60, 148, 2]), np.array([2, 1, 50, 128, 120])
"""Frames and labels of each list. One of them has too few frames for its labels.

Of `WIDE`, the first two have four frames, which a loop goes on by at once, and one. In the third some lanes take four
states and the others three; in the fourth all take four labels, and in the last some do.
"""


def every_case() -> list[Case]:
    found = []
    for dtype, stored in ((F4, F4), (F8, F8), (F4, F2), (F4, BF)):
        found += [*_emissions(dtype, stored), *_gradients(dtype, stored)]
    for dtype in (F4, F8):
        found += _alignments(dtype)
    return found


def wide_cases() -> list[Case]:
    """So many labels that lanes take four; rows as in `kernel_cases.wide_cases`."""
    found = []
    for dtype, stored in ((F4, F4), (F8, F8), (F4, F2), (F4, BF)):
        found += [*_emissions(dtype, stored, (150,), WIDE), *_gradients(dtype, stored, (150,), WIDE)]
        found += [*_emissions(dtype, stored, (128, 129, 257)), *_gradients(dtype, stored, (128, 129, 250, 257))]
    for dtype in (F4, F8):
        found += _alignments(dtype, WIDE)
    return found


def _batch(rng, vocab, sizes):
    """Lists of targets with what belongs to them: repeated labels, none at all, more states than a warp has lanes."""
    T, U = sizes
    targets = rng.integers(0, vocab - 1, (5, U.max()))
    targets = (targets + (targets >= BLANK)).astype(np.int32)
    targets[0, :3] = targets[0, 0]
    targets[2, 4:6] = targets[2, 4]
    targets[4, :4] = targets[4, [0, 1, 0, 1]]
    example = np.repeat(np.arange(5, dtype=np.int32), T)
    starts, offset = np.append(0, np.cumsum(T)), np.append(0, np.cumsum(U[example]))
    return starts, example, offset, targets, *repeats(targets, U)


def _logits(rng, count, vocab, stored):
    logits = (3 * rng.standard_normal((count, vocab))).astype(stored)
    logits[8] = -np.inf
    logits[9, :3] = -np.inf
    logits[11, vocab // 2] = np.nan
    logits[12, 1] = np.inf
    logits[13] = -np.inf
    logits[13, 0] = np.nan
    return logits


def _emissions(dtype, stored, vocabs=(4, 150), sizes=SHORT):
    rng = np.random.default_rng(20)
    for vocab in vocabs:
        _, example, offset, targets, *_ = _batch(rng, vocab, sizes)
        row = rng.permutation(len(example))[5:]
        scores = np.zeros(len(example), dtype), np.zeros(offset[-1], dtype)
        norms = np.zeros(len(example), dtype), np.ones(len(example), dtype)
        logits = _logits(rng, len(example), vocab, stored)
        arguments = (5, logits, np.zeros(0, dtype), row, example, offset, targets, BLANK, *scores, *norms)
        # Where a row holds no finite logit or one that is not a number, no one reads its rest.
        yield Case(f"ctc-emit-{vocab}-{targets.shape[1]}", stored, ctc_emit, arguments, {}, 10, (10, 11))


def _scores(rng, offset, dtype):
    blank, label = (np.log(rng.random(n)).astype(dtype) for n in (len(offset) - 1, offset[-1]))
    label[4] = blank[3] = -np.inf
    return blank, label


def _alignments(dtype, sizes=SHORT):
    rng = np.random.default_rng(21)
    starts, example, offset, targets, distinct, following = _batch(rng, 9, sizes)
    widest = targets.shape[1]
    blank, label = _scores(rng, offset, dtype)
    poisoned = blank.copy(), label.copy()
    poisoned[0][8], poisoned[1][offset[8] : offset[9]] = np.nan, np.nan
    rolling, whole = np.zeros(2 * 5 * (2 * widest + 1)), np.zeros(2 * offset[-1] + len(example))
    for name, scores in (("", (blank, label)), ("-nan", poisoned)):
        given = (starts, example, offset, targets, distinct, following, widest, *scores)
        if sizes is SHORT:
            yield Case(f"ctc-loss{name}", dtype, loss_only, (*given, rolling, np.zeros(5)), {})
            yield Case(f"ctc-posteriors{name}", dtype, both_sweeps, (*given, whole, np.zeros(5)), {})
        else:
            for sweeps, alpha in ((loss_only, rolling), (both_sweeps, whole)):
                options = {"sweeps": sweeps}
                yield Case(
                    f"ctc-{sweeps.__name__}{name}-{widest}", dtype, rounded, (*given, alpha, np.zeros(5)), options
                )
        for last in (False, True):
            path = (
                starts,
                offset,
                targets,
                widest,
                *scores,
                rolling,
                np.zeros(len(whole), np.uint8),
                last,
                np.zeros(5),
            )
            of_run = "last" if last else "first"
            arguments = (*path, np.full((5, widest + 2), -1, np.int32))
            yield Case(f"ctc-path-{of_run}{name}-{widest}", dtype, ctc_path, arguments, {})


def loss_only(starts, example, offset, targets, distinct, following, *given):
    """Forward alone, which does without what posteriors take."""
    ctc_sums(starts, offset, targets, *given)


def both_sweeps(*given):
    """Forward and backward; beta is the device's alone."""
    alpha = given[-2]
    ctc_forward_backward(*given, like(alpha, len(alpha), np.float64))


def rounded(*given, sweeps):
    """What either of the two above gives, in float32."""
    fixed, own = given[:-4], [part.copy() for part in given[-4:]]
    sweeps(*fixed, *own)
    return in_float32(own[0], own[1], own[3])


def _gradients(dtype, stored, vocabs=(4, 150), sizes=SHORT):
    rng = np.random.default_rng(22)
    for vocab in vocabs:
        starts, example, offset, targets, distinct, following = _batch(rng, vocab, sizes)
        widest = targets.shape[1]
        scores, log_z = _scores(rng, offset, dtype), np.zeros(5)
        given = (starts, example, offset, targets, distinct, following, widest, *scores)
        ctc_forward_backward(*given, np.zeros(2 * offset[-1] + len(example)), log_z)
        logits = (3 * rng.standard_normal((len(example), vocab))).astype(stored)
        logits[11, -1] = logits[11].astype(F8).max() - 89  # its share is subnormal in float32
        logits[12, 0] = np.nan
        row = rng.permutation(len(example))[3:]
        norms = np.zeros((2, len(example)), dtype)
        norms[0, 3:] = logits[row].astype(dtype).max(axis=1)
        norms[1, 3:] = np.exp(logits[row].astype(dtype) - norms[0, 3:, None]).sum(axis=1)
        upstream = np.array([1.0, -0.3, 1e-3, 1.0, 0.0]).astype(dtype)
        known = (np.zeros(0, dtype), row, example, offset, distinct, BLANK, *scores, *norms, upstream)
        yield Case(
            f"ctc-gradient-{vocab}-{widest}", stored, apart, (logits, np.full(logits.shape, 7, stored), *known), {}
        )
        yield Case(f"ctc-gradient-in-place-{vocab}-{widest}", stored, in_place, (logits, *known), {})


def apart(logits, target, *known):
    """The gradient; the device overwrites its label posteriors, so they are its own."""
    known = list(known)
    known[7] = known[7].copy()
    ctc_gradient(3, logits, target, *known)


def in_place(logits, *known):
    """The gradient over the logits."""
    apart(logits, logits, *known)
