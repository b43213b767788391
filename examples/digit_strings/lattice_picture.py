"""The posterior of every lattice cell of one string, and its best path."""

from typing import NamedTuple

import numpy as np


class LatticePicture(NamedTuple):
    """What the picture of one lattice shows.

    posterior : (T, U+1), the probability that an alignment visits cell (t, u).
    label_frames : (U,) int, the frame on which the best path emits each label.
    """

    posterior: np.ndarray
    label_frames: np.ndarray


def lattice_picture_arrays(
    encoder: np.ndarray, predictor: np.ndarray, weight: np.ndarray, bias: np.ndarray, targets: np.ndarray, blank: int
) -> LatticePicture:
    """Forward, backward and best path over one lattice, in float64.

    Parameters
    ----------
    encoder : (T, H)
    predictor : (U+1, H)
    weight : (V, H)
    bias : (V,)
    targets : (U,) int
    blank : int

    Returns
    -------
    LatticePicture
    """
    logits = np.tanh(encoder[:, None] + predictor).astype(np.float64) @ weight.T + bias
    scores = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    blank_score = scores[:, :, blank]
    label_score = scores[:, np.arange(len(targets)), targets]

    alpha = forward(blank_score, label_score, np.logaddexp)
    beta = backward(blank_score, label_score)
    best = forward(blank_score, label_score, np.maximum)
    return LatticePicture(np.exp(alpha + beta - beta[0, 0]), trace_back(best, label_score))


def forward(blank_score: np.ndarray, label_score: np.ndarray, add: np.ufunc) -> np.ndarray:
    """The scores of all ways from cell (0, 0) to each cell, combined with `add`; (T, U+1)."""
    alpha = np.full(blank_score.shape, -np.inf)
    alpha[0, 0] = 0.0
    for t, u in np.ndindex(alpha.shape):
        if t > 0:
            alpha[t, u] = alpha[t - 1, u] + blank_score[t - 1, u]
        if u > 0:
            alpha[t, u] = add(alpha[t, u], alpha[t, u - 1] + label_score[t, u - 1])
    return alpha


def backward(blank_score: np.ndarray, label_score: np.ndarray) -> np.ndarray:
    """The log-probability of all ways from each cell to the end; (T, U+1)."""
    T, U = label_score.shape
    beta = np.full(blank_score.shape, -np.inf)
    beta[T - 1, U] = blank_score[T - 1, U]
    for t in reversed(range(T)):
        for u in reversed(range(U + 1)):
            if t < T - 1:
                beta[t, u] = beta[t + 1, u] + blank_score[t, u]
            if u < U:
                beta[t, u] = np.logaddexp(beta[t, u], beta[t, u + 1] + label_score[t, u])
    return beta


def trace_back(best: np.ndarray, label_score: np.ndarray) -> np.ndarray:
    """Walk from the last cell to the first along the best arcs; the frame of each label, (U,) int."""
    t, u = best.shape[0] - 1, best.shape[1] - 1
    label_frames = np.zeros(u, dtype=int)
    while u > 0:
        # `best` holds this very sum if the label arc won, so the comparison is exact.
        if best[t, u] == best[t, u - 1] + label_score[t, u - 1]:
            u -= 1
            label_frames[u] = t
        else:
            t -= 1
    return label_frames
