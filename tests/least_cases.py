"""Cases of `tests/kernel_cases.py` for which entries of a gradient are 0: exactly those below 2**-100.

Entries fall by a factor e from one to the next, through 2**-100 down to subnormal numbers. None is nearer to 2**-100
than its rounding. The cases tell which are not 0, because the values themselves are far below any tolerance.
"""

import ml_dtypes
import numpy as np

from lattice.kernels.ctc_rows import ctc_gradient
from lattice.kernels.path_rows import path_rows
from lattice.kernels.risk import expected_risk
from tests.kernel_compare import Case
from tests.mixed_cases import gradient_apart

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
BF = np.dtype(ml_dtypes.bfloat16)
SIZE = 100
"""Entries of a row. A warp's lane has four of some."""


def every_case() -> list[Case]:
    found = []
    for dtype, stored in ((F4, F4), (F8, F8), (F4, BF)):
        logits = np.tile(-np.arange(SIZE), (4, 1)).astype(stored)
        maximum, rest = np.zeros(4, dtype), np.full(4, np.exp(-np.arange(1.0, SIZE)).sum(), dtype)
        # The last gives a row of weights that are themselves too small.
        upstream, owner = np.array([1, -1e-3, 1e5, -1e-31], dtype), np.arange(4, dtype=np.int32)
        no_bias, posteriors, target = np.zeros(0, dtype), np.full((2, 4), 0.4, dtype), np.full(logits.shape, 7, stored)
        label = np.array([1, -1, 90, 1], np.int32)
        known = (logits, target, np.arange(4), no_bias, label, owner, 0, *posteriors, maximum, rest, 0.0, upstream)
        for anew in (False, True):
            found.append(Case(f"gradient-least-{anew}", stored, gradient_kept, known, {"anew": anew}))
        taken, loss = np.zeros(4, np.uint8), np.zeros(4, dtype)
        for focal in (0.0, 2.0):
            known = (logits, target, no_bias, label, taken, owner, 0, 0.0, 0.0, focal, upstream, loss)
            found.append(Case(f"path-rows-least-{focal}", stored, path_kept, known, {}))
        offset, distinct = np.arange(5), np.array([[1], [-1], [90], [1]], np.int32)
        known = (no_bias, np.arange(4), owner, offset, distinct, 0, *posteriors, maximum, rest, upstream)
        found.append(Case("ctc-gradient-least", stored, ctc_kept, (0, logits, target, *known), {}, judge=1))
        # Of different risks, so that the gradient is not 0 for want of a difference.
        risks, grad = np.arange(4 * SIZE).reshape(4, SIZE) % 5 + 0.5, np.full(logits.shape, 7, dtype)
        lists = logits, risks, np.full(4, SIZE), 1.0, np.zeros(4, dtype), grad
        found.append(Case("risk-least", stored, risk_kept, lists, {}))
    return found


def kept(target):
    """Which entries are not 0, on the host."""
    found = target if isinstance(target, np.ndarray) else target.get()
    return ((found != 0).astype(np.uint8),)


def gradient_kept(logits, target, *known, anew):
    gradient_apart(logits, target, *known, anew=anew)
    return kept(target)


def path_kept(logits, target, *known):
    path_rows(logits, target, *known)
    return kept(target)


def ctc_kept(start, logits, target, *known):
    # With label posteriors of its own, which a GPU writes over.
    known = list(known)
    known[7] = known[7].copy()
    ctc_gradient(start, logits, target, *known)
    return kept(target)


def risk_kept(scores, risks, lengths, scale, risk, grad):
    expected_risk(scores, risks, lengths, scale, risk, grad)
    return kept(grad)
