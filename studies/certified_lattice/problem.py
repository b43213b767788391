"""One lattice as a trained model would make it, without training one."""

from typing import NamedTuple

import numpy as np

BLANK = 0
FLOOR = 2.0**-24  # the library's default posterior_floor


class Joint(NamedTuple):
    """Arguments of `joint_transducer_loss`, in its order, for a batch of one."""

    encoder: np.ndarray
    predictor: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    targets: np.ndarray
    encoder_lengths: np.ndarray
    target_lengths: np.ndarray


def trained_like(T: int, U: int, V: int, H: int, *, sharpness: float, seed: int) -> Joint:
    """A lattice as after training: each label falls due at a known frame, blanks win before it and the label behind it.

    The first hidden value is tanh of how many due labels cell (t, u) still lacks; it moves the blank down and all
    labels up. The others carry the identity of the next label, which picks one of the labels. No padding.

    Parameters
    ----------
    T, U, V, H : int
    sharpness : float
        All logits are multiplied by it: 1 is a model that is sure of most labels, 0 one that knows nothing.
    seed : int

    Returns
    -------
    Joint
    """
    rng = np.random.default_rng(seed)
    encoder = 0.1 * rng.standard_normal((1, T, H), np.float32)
    predictor = 0.1 * rng.standard_normal((1, U + 1, H), np.float32)
    targets = rng.integers(1, V, (1, U))
    codes = rng.standard_normal((V, H - 1), np.float32)
    due = np.sort(rng.choice(np.arange(1, T), U, replace=False))
    encoder[0, :, 0] = 1.5 * np.searchsorted(due, np.arange(T), side="right")
    predictor[0, :, 0] = -1.5 * (np.arange(U + 1) + 0.5)
    predictor[0, :U, 1:] += codes[targets[0]]
    weight = np.column_stack((np.full(V, 4, np.float32), codes * np.float32(15 / H)))
    weight[BLANK, 0] = -4
    bias = np.zeros(V, np.float32)
    bias[BLANK] = 12
    sharpness = np.float32(sharpness)
    return Joint(encoder, predictor, sharpness * weight, sharpness * bias, targets, np.array([T]), np.array([U]))
