"""Cases of `tests/kernel_cases.py` for the kernels of the samplers."""

import ml_dtypes
import numpy as np

from samplers.draw import CLOSED, LAST, REFUSED, choose, fill_keys
from samplers.inclusion import fill_inclusion
from samplers.mean import mean_softmax, pool_rows
from tests.kernel_compare import Case

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)


def every_case() -> list[Case]:
    found = []
    for dtype, stored in ((F4, F4), (F8, F8), (F4, F2), (F4, BF)):
        found += [*_keys(stored), *_inclusion(dtype, stored), *_means(dtype, stored)]
    return [*found, *_choices()]


def wide_cases() -> list[Case]:
    """Rows of about as many ids as a block of `THREADS` takes at once four times, and of more ids.

    Another row has fewer ids than the block has threads.
    """
    return [*_choices((1100,), 2), _many_taken(), _few_lanes()]


def _probabilities(stored):
    """Rows with zeros of both signs, and entries that are no probabilities."""
    p = np.random.default_rng(9).dirichlet(np.ones(70), 3).astype(stored)
    p[0, :2] = 0.0, -0.0
    p[1, [5, 6, 7]] = -0.25, np.nan, np.inf
    p[2, 3] = np.finfo(np.float64).tiny if stored == F8 else ml_dtypes.finfo(stored).smallest_subnormal
    return p


def _keys(stored):
    p = _probabilities(stored)
    for name, options in (("drawn", {"seed": 2**40 + 5, "row_offset": 2**33}), ("ranked", {})):
        for given in (p, p[2:]):
            keys = np.zeros(p.shape, np.int64)
            yield Case(f"keys-{name}-{len(given)}", stored, fill_keys, (given, keys), options)


def _choices(sizes=(70, 5), rows=5):
    rng = np.random.default_rng(10)
    for size in sizes:
        keys = rng.integers(0, LAST, (5, size))
        keys[1] = rng.integers(0, 3, size)
        keys[2, ::2], keys[2, 1] = CLOSED, LAST
        keys[3, ::3] = REFUSED
        keys[4] = LAST
        start = np.array([1, 2, 1, 4, 3])
        ids = np.zeros((5, 4), np.int32)
        ids[:] = rng.permutation(5)[:4]
        yield _choice(keys[:rows], start[:rows], ids[:rows])


def _choice(keys, start, ids):
    rows, size = keys.shape
    scratch = np.zeros(keys.shape, np.int32), np.zeros(keys.shape, np.int64)
    counts = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows)
    return Case(f"choose-{size}", np.dtype(np.int64), chosen, (keys, start, ids, *scratch, *counts), {}, exact=True)


def _many_taken():
    """Most threads have exactly four ids to look at, and the first ones four to take out; more than four are wanted.

    Id 0, which a loop that goes too far comes back to, is chosen or refused.
    """
    rng = np.random.default_rng(13)
    keys = rng.integers(1, LAST, (2, 1000))
    keys[:, 0] = 0
    keys[1, ::3] = REFUSED
    start = np.array([800, 801])
    ids = np.stack([1 + rng.permutation(999)[:810] for _ in start]).astype(np.int32)
    return _choice(keys, start, ids)


def _few_lanes():
    """Lane 31 has the one id that is refused, lanes of even number have all that may be chosen.

    No lane stands for its neighbour.
    """
    keys = np.full((1, 64), CLOSED)
    keys[0, ::2] = np.random.default_rng(14).integers(1, LAST, 32)
    keys[0, 31] = REFUSED
    return _choice(keys, np.ones(1, np.int64), np.zeros((1, 12), np.int32))


def chosen(keys, start, ids, listed, order, *counts):
    """`choose` with scratch of its own, which two targets may leave in different states."""
    choose(keys.copy(), start, ids, listed.copy(), order.copy(), *counts)


def _inclusion(dtype, stored):
    p = np.abs(np.nan_to_num(_probabilities(stored).astype(F4), posinf=0.5)).astype(stored) + stored.type(1e-3)
    ids = np.random.default_rng(11).integers(0, 70, (3, 9)).astype(np.int32)
    start, rejected = np.array([1, 9, 2]), np.array([3.0, 1.0, np.inf])
    for given in (p, p[:1]):
        arguments = (given, ids, start, rejected, np.zeros(ids.shape, dtype))
        yield Case(f"inclusion-{len(given)}", stored, fill_inclusion, arguments, {})


def _means(dtype, stored):
    rng = np.random.default_rng(12)
    logits = (3 * rng.standard_normal((12, 40))).astype(stored)
    logits[3, 4], logits[7, 1:] = np.nan, -np.inf
    row, first, frames = rng.permutation(12)[:10], np.array([0, 4, 5]), np.array([4, 1, 5])
    rows = logits[row].astype(dtype)
    maximum = rows.max(axis=1)
    total = np.exp(rows - maximum[:, None]).sum(axis=1)
    arguments = (logits, row, first, frames, maximum, total, np.zeros((3, 40), dtype))
    yield Case("mean", stored, mean_softmax, arguments, {})
    for count in (1, 3, 4, 9):
        pooled = np.resize(_probabilities(stored), (count, 70))
        yield Case(f"pool-{count}", stored, pool_rows, (pooled, np.zeros(70)), {})
