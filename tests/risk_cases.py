"""Cases of `tests/kernel_cases.py` for the kernel of minimum Bayes risk."""

import ml_dtypes
import numpy as np

from lattice.kernels.risk import expected_risk
from tests.kernel_compare import Case

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)


def every_case() -> list[Case]:
    found = []
    for dtype, stored in ((F4, F4), (F8, F8), (F4, F2), (F4, BF)):
        found += _lists(dtype, stored)
    return found


def _lists(dtype, stored):
    """Lists of one, of more than a warp has lanes, of four a lane; equal scores, and scores that are no numbers."""
    rng = np.random.default_rng(30)
    for size in (3, 33, 70, 128):
        scores = (4 * rng.standard_normal((12, size)) - 50).astype(stored)
        scores[2] = np.round(scores[2])
        scores[3, ::2] = -np.inf
        scores[4, 1], scores[5, -1], scores[6, 0] = np.nan, np.inf, -np.inf
        scores[7:10] = -np.inf
        scores[8, 1], scores[9, -1] = np.nan, -5000  # so low that nothing counts if it is not taken off
        scores[10, 1] = scores[10].astype(F8).max() - 180  # what it counts is subnormal in float32
        risks, lengths = 0.25 * rng.integers(-3, 9, (12, size)), np.full(12, size)
        lengths[[0, 1, 6, 11]] = 1, 2, size - size // 8, (size + 1) // 2
        for b, count in enumerate(lengths):
            scores[b, count:] = np.nan
            risks[b, count:] = np.nan
        results = np.zeros(12, dtype), np.full(scores.shape, 7, dtype)
        yield Case(f"risk-of-{size}", stored, expected_risk, (scores, risks, lengths, 0.5, *results), {})
