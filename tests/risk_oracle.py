"""The expected risk of N-best lists, and its gradient. Imports neither package."""

import numpy as np

from tests.oracle import log_softmax


def expected_risk(scores, risks, lengths, *, scale=1.0, dtype=np.float64):
    """Risk ``(B,)`` of lists of hypotheses under softmax(scale * scores), and its gradient ``(B, N)``.

    The function does not read padding.
    """
    grad, risk = np.zeros(scores.shape, dtype), np.zeros(len(scores), dtype)
    for b, count in enumerate(lengths):
        score, cost = dtype(scale) * scores[b, :count].astype(dtype), risks[b, :count].astype(dtype)
        if np.isneginf(score).all():
            risk[b] = np.inf
            continue
        probability = np.exp(log_softmax(score))
        risk[b] = (probability * cost).sum()
        grad[b, :count] = dtype(scale) * probability * (cost - risk[b])
    return risk, grad
