"""The posterior of every lattice cell of one string, and its best path."""

from typing import NamedTuple

import numpy as np

from lattice.kernels.forward_backward import forward_backward
from lattice.layout import frames_of


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
    """Posteriors and best path of one lattice, in float64; the sums over alignments are the library's.

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
    blank_score = scores[:, :, blank].copy()
    label_score = scores[:, np.arange(len(targets)), targets]

    # The kernel turns both score arrays into the posteriors of their arcs; without a label left, the arc is closed.
    blank_arc, label_arc = blank_score.ravel(), np.pad(label_score, ((0, 0), (0, 1)), constant_values=-np.inf).ravel()
    frames = frames_of(np.arange(1), np.array([len(encoder)]), np.array([len(targets)]), False, None)
    forward_backward(frames, False, blank_arc, label_arc, np.empty(frames.cells), np.empty(1), posteriors=True)
    posterior = (blank_arc + label_arc).reshape(blank_score.shape)
    return LatticePicture(posterior, trace_back(best_scores(blank_score, label_score), label_score))


def best_scores(blank_score: np.ndarray, label_score: np.ndarray) -> np.ndarray:
    """The score of the best way from cell (0, 0) to each cell; (T, U+1)."""
    best = np.full(blank_score.shape, -np.inf)
    best[0, 0] = 0.0
    for t, u in np.ndindex(best.shape):
        if t > 0:
            best[t, u] = best[t - 1, u] + blank_score[t - 1, u]
        if u > 0:
            best[t, u] = max(best[t, u], best[t, u - 1] + label_score[t, u - 1])
    return best


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
