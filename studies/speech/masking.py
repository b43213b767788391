"""Features with stretches of time and frequency taken out, so that training sees nothing twice (Park et al. 2019)."""

import numpy as np


def mask(
    frames: np.ndarray,
    lengths: np.ndarray,
    rng: np.random.Generator,
    *,
    bands: int = 40,
    time_share: float = 0.1,
    widest_time: int = 5,
    frequency_masks: int = 2,
    widest_frequency: int = 8,
) -> np.ndarray:
    """A copy of a batch with random masks, which hold the mean of the corpus: zero.

    Parameters
    ----------
    frames : (B, T, F)
        Normalised and stacked: F is a multiple of `bands`.
    lengths : (B,) int
    rng : numpy.random.Generator
    bands : int
        Mel bands of a frame before it was stacked.
    time_share : float
        About the share of frames that are masked, in stretches of 0 to `widest_time`.
    widest_time : int
        In frames.
    frequency_masks, widest_frequency : int
        Stretches of 0 to `widest_frequency` bands masked throughout an utterance.

    Returns
    -------
    (B, T, F)
    """
    masked = frames.copy()
    for utterance, length in zip(masked, lengths):
        by_band = utterance.reshape(len(utterance), -1, bands)
        for _ in range(round(2 * time_share * length / widest_time)):
            width = rng.integers(min(widest_time, length) + 1)
            begin = rng.integers(length - width + 1)
            by_band[begin : begin + width] = 0
        for _ in range(frequency_masks):
            width = rng.integers(min(widest_frequency, bands) + 1)
            begin = rng.integers(bands - width + 1)
            by_band[:, :, begin : begin + width] = 0
    return masked
