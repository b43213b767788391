"""Scores and gradient rows of arcs that take several frames, head by head, against `heads_oracle.py`."""

import numpy as np
import pytest

from lattice.kernels.heads import emit_steps
from lattice.kernels.heads_gradient import gradient_steps
from lattice.kernels.rows import NO_IDS
from tests.heads_oracle import gradient, heads_of, scores

KINDS = {"tdt": ([3], 5), "tdt of one": ([0], 1), "multiblank": ([7, 2, 0], 0), "multiblank of one": ([8], 0)}
"""Blanks, and the tail of a row."""
SIZE, SIGMA = 9, 0.05
TINY = 2.0**-100

of_kinds = pytest.mark.parametrize("kind", KINDS)
of_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def emitted(logits, label, blanks, tail, *, bias=None, sigma=SIGMA, place=NO_IDS, start=0, row=None, spare=0):
    """(blank, label, steps, maximum, rest) of the kernel; what no cell writes to is 7."""
    n, dtype = len(label), logits.dtype
    bias, row = np.zeros(0, dtype) if bias is None else bias, np.arange(n) if row is None else row
    state = [np.full(n + spare, 7, dtype) for _ in range(4)]
    steps = np.full((tail or len(blanks) + 1, n + start + spare), 7, dtype)
    given = logits.copy(), bias, row, place, start, label, np.array(blanks), tail, sigma
    emit_steps(*given, *state, steps)
    return *state[:2], steps, *state[2:]


def assert_near(found, truth, dtype, scale=8):
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(np.longdouble), truth, rtol=scale * np.finfo(dtype).eps, atol=TINY)


def rows_of(rng, kind, dtype, n=40):
    """(logits, labels, blanks, tail); every fifth cell has no label left."""
    blanks, tail = KINDS[kind]
    logits = (3 * rng.standard_normal((n, SIZE + tail))).astype(dtype)
    free = [v for v in range(SIZE) if v not in blanks]
    label = rng.choice(free, n).astype(np.int32)
    label[::5] = -1
    return logits, label, blanks, tail


@of_kinds
@of_dtypes
def test_scores(kind, dtype):
    rng = np.random.default_rng(0)
    logits, label, blanks, tail = rows_of(rng, kind, dtype)
    logits[1, SIZE // 2], logits[2, -1], logits[2, 4], logits[3, blanks[0]] = 60, 60, 60, -np.inf
    for bias, start in ((None, 0), (rng.standard_normal(SIZE + tail).astype(dtype), 3)):
        given = logits if bias is None else logits + bias
        truth = scores(given, label, blanks, tail, np.longdouble(SIGMA))
        for places in (False, True):
            place = rng.permutation(43)[:40] if places else NO_IDS
            row = rng.permutation(40)
            found = emitted(
                logits[np.argsort(row)], label, blanks, tail, bias=bias, place=place, start=start, row=row, spare=3
            )
            cells = place if places else np.arange(40)
            columns = place if places else np.arange(start, start + 40)
            for ours, expected in zip(found[:2], truth[:2], strict=True):
                assert_near(ours[cells], expected, dtype)
            assert_near(found[2][:, columns], truth[2], dtype)
            assert (np.delete(found[2], columns, axis=1) == 7).all() and (np.delete(found[0], cells) == 7).all()
            tokens = heads_of(given, tail)[0]
            np.testing.assert_array_equal(found[3][cells], tokens.max(axis=1))
            below = np.sort(tokens.astype(np.longdouble), axis=1)[:, :-1] - tokens.max(axis=1)[:, None]
            assert_near(found[4][cells], np.exp(below).sum(axis=1), dtype, 64)


@of_kinds
@of_dtypes
def test_sure_and_far_heads_keep_their_digits(kind, dtype):
    """Scores of 1e-18, and of logits that have 1e4 in common."""
    logits, label, blanks, tail = rows_of(np.random.default_rng(1), kind, dtype)
    at = np.arange(40)
    logits[at, np.where(at % 2, blanks[0], np.maximum(label, 0))] += 45
    if tail:
        logits[at, SIZE + at % tail] += 45
    for offsets in ((0, 0), (1e4, -1e4), (-1e4, 1e4)):
        moved = logits.copy()
        for head, offset in zip(heads_of(moved, tail), offsets, strict=False):
            head += dtype(offset)
        found = emitted(moved, label, blanks, tail, sigma=0.0)
        for ours, expected in zip(found[:3], scores(moved, label, blanks, tail, 0), strict=True):
            # A sum of the logits' exponentials is known to some roundings, and an exponential to those of its logit.
            assert_near(ours, expected, dtype, 64)
        assert (found[2] <= 0).all()


@of_kinds
@of_dtypes
def test_minus_infinity_closes_arcs(kind, dtype):
    logits, label, blanks, tail = rows_of(np.random.default_rng(2), kind, dtype)
    logits[0], logits[1, : SIZE // 2] = -np.inf, -np.inf
    logits[2, :SIZE], logits[3, SIZE:], logits[4, -1] = -np.inf, -np.inf, -np.inf
    logits[5, blanks], logits[6, label[6]] = -np.inf, -np.inf
    found, truth = emitted(logits, label, blanks, tail), scores(logits, label, blanks, tail, np.longdouble(SIGMA))
    for ours, expected in zip(found[:3], truth, strict=True):
        assert_near(ours, expected, dtype)
        assert not np.isnan(ours).any()
    of_blank, of_label, steps = found[:3]
    assert np.isneginf([of_blank[[0, 2]], of_label[[0, 2]]]).all() and of_label[6] == -np.inf
    if tail:
        assert np.isneginf([of_blank[3], of_label[3], *steps[:, 3], steps[-1, 4]]).all()
    else:
        assert np.isneginf(steps[:, [0, 2]]).all() and np.isneginf(steps[1:, 5]).all() and of_blank[5] == 0


@of_kinds
@of_dtypes
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("others", [0, -np.inf])
def test_poison_anywhere_in_a_row_makes_its_scores_nan(kind, dtype, bad, others):
    """In one head or the other, and where the other entries are closed; a cell in between is as it was."""
    rng = np.random.default_rng(3)
    logits, label, blanks, tail = rows_of(rng, kind, dtype, 2 * (SIZE + KINDS[kind][1]))
    logits[::2] += dtype(others)
    logits[::2][np.eye(SIZE + tail, dtype=bool)] = bad
    found = emitted(logits, label, blanks, tail)
    for ours in found[:2]:
        assert np.isnan(ours[::2]).all() and not np.isnan(ours[1::2]).any()


def posteriors_of(rng, kind, dtype, label):
    """((blank, label) (2, n), steps (D, n)) whose sums agree; a cell without a label gives no label its weight."""
    blanks, tail = KINDS[kind]
    n = len(label)
    steps = rng.dirichlet(np.full(tail or len(blanks) + 1, 0.3), n).T * rng.random(n)
    if not tail:
        steps[0, label < 0] = 0
        return np.stack([steps[1:].sum(axis=0), steps[0]]).astype(dtype), steps.astype(dtype)
    of_label = np.where(label < 0, 0, rng.random(n)) * steps.sum(axis=0)
    return np.stack([steps.sum(axis=0) - of_label, of_label]).astype(dtype), steps.astype(dtype)


def written(logits, label, blanks, tail, arcs, steps, *, bias=None, factor=1.5, upstream=None, anew=False, over=False):
    """The rows of the kernel; each cell is an example of its own."""
    n, dtype = len(label), logits.dtype
    upstream = np.ones(n, dtype) if upstream is None else upstream
    known = emitted(logits, label, blanks, tail, bias=bias)[3:]
    if anew:
        known = known[0] + dtype.type(0.5), known[1] * dtype.type(2)
    logits = logits.copy()
    target = logits if over else np.full_like(logits, 7)
    bias = np.zeros(0, dtype) if bias is None else bias
    start, wide = 2, np.full((len(steps), n + 4), np.nan, dtype)
    wide[:, 2:-2] = steps
    cells = np.arange(n), bias, label, np.arange(n, dtype=np.int32), np.array(blanks), tail
    gradient_steps(logits, target, *cells, *arcs, wide, start, *known, factor - 1, upstream, anew=anew)
    return target


def assert_rows(found, truth, parts, given, tail):
    """Each entry to some roundings of what it is a difference of; below 2**-100 it may be 0."""
    gap = np.concatenate([head.max(axis=1, keepdims=True, initial=-1e9) - head for head in heads_of(given, tail)], 1)
    slack = np.finfo(found.dtype).eps * (24 + 4 * np.minimum(gap, 1e5)) * parts + TINY
    assert (np.abs(found - truth) <= slack).all(), (np.abs(found - truth) / slack).max()


@of_kinds
@of_dtypes
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("anew", [False, True])
def test_gradient_rows(kind, dtype, anew, over):
    """Usual rows, rows that are sure by the arc that is taken or by another one, and rows with closed entries."""
    rng = np.random.default_rng(4)
    logits, label, blanks, tail = rows_of(rng, kind, dtype, 80)
    arcs, steps = posteriors_of(rng, kind, dtype, label)
    for i in range(20, 50):
        logits[i, (blanks[i % len(blanks)], label[i])[i % 2]] += 50
        if tail:
            logits[i, SIZE + i % tail] += 50
    for i in range(50, 60):
        # One step alone, in sure heads: what is left is as small as what the others have.
        k = i % len(steps)
        steps[:, i] *= 1e-12
        steps[k, i] = 0.5
        label[i] = max(label[i], next(v for v in range(SIZE) if v not in blanks))
        arcs[:, i] = steps[1 - bool(tail) :, i].sum(), 0 if tail else steps[0, i]
        logits[i, blanks[0] if tail else (label[i], *blanks)[k]] += 40
        if tail:
            logits[i, SIZE + k] += 40
    logits[60:70, 1] = -np.inf
    label[60:70] = 4 if 4 not in blanks else 5
    upstream = rng.choice([1.0, -0.3, 1e-3], 80).astype(dtype)
    for bias in (None, rng.standard_normal(SIZE + tail).astype(dtype)):
        given = logits if bias is None else logits + bias
        truth, parts = gradient(given, label, blanks, tail, arcs, steps, 1.5, upstream)
        found = written(logits, label, blanks, tail, arcs, steps, bias=bias, upstream=upstream, anew=anew, over=over)
        assert_rows(found, truth, parts, given, tail)
        for head in heads_of(found, tail):
            assert (abs(head.sum(axis=1)) <= 32 * np.finfo(dtype).eps * abs(head).sum(axis=1) + TINY).all()


@of_kinds
@of_dtypes
def test_fastemit_is_for_tokens(kind, dtype):
    rng = np.random.default_rng(5)
    logits, label, blanks, tail = rows_of(rng, kind, dtype)
    arcs, steps = posteriors_of(rng, kind, dtype, label)
    plain, more = (written(logits, label, blanks, tail, arcs, steps, factor=factor) for factor in (1.0, 3.0))
    np.testing.assert_array_equal(more[:, SIZE:], plain[:, SIZE:])
    of_label = gradient(logits, label, blanks, tail, arcs * [[0], [1]], 0 * steps, 2.0, np.ones(40))[0]
    np.testing.assert_allclose(more[:, :SIZE], (plain + of_label)[:, :SIZE], rtol=0, atol=16 * np.finfo(dtype).eps)


@of_kinds
@of_dtypes
@pytest.mark.parametrize("over", [False, True])
def test_what_is_negligible_is_nothing(kind, dtype, over):
    rng = np.random.default_rng(6)
    logits, label, blanks, tail = rows_of(rng, kind, dtype)
    arcs, steps = posteriors_of(rng, kind, dtype, label)
    # Weights below 2**-100, and closed heads, which no alignment uses.
    arcs[:, :10], steps[:, :10] = arcs[:, :10] * dtype(1e-32), steps[:, :10] * dtype(1e-32)
    arcs[:, 10:13], steps[:, 10:13] = 0, 0
    # In the token head alone.
    arcs[:, 8:10], steps[:, 8:10] = 1e-32, 0.5
    logits[10], logits[11, :SIZE], logits[12, SIZE:] = -np.inf, -np.inf, -np.inf
    logits[20:30, 1], logits[20:30, -1] = -75, -75
    found = written(logits, label, blanks, tail, arcs, steps, over=over)
    assert not found[:13].any()
    assert (found[13:20] != 0).any(axis=1).all() and np.isfinite(found).all()
    assert not found[(found != 0) & (abs(found) < TINY)].any()


@of_kinds
@of_dtypes
def test_nan_posteriors_fill_the_row(kind, dtype):
    rng = np.random.default_rng(7)
    logits, label, blanks, tail = rows_of(rng, kind, dtype)
    arcs, steps = posteriors_of(rng, kind, dtype, label)
    arcs[:, 4], steps[:, 4] = np.nan, np.nan
    found = written(logits, label, blanks, tail, arcs, steps)
    assert np.isnan(found[4]).all() and np.isfinite(np.delete(found, 4, axis=0)).all()
