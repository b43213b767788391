"""Alignments against the times at which phones were spoken."""

import numpy as np

from studies.speech.features import HOP_SECONDS, WINDOW_SECONDS
from studies.speech.festvox import Phone

from .chunks import Alignment


def centre_seconds(frames: np.ndarray, stack: int) -> np.ndarray:
    """The middle of what an encoder frame hears: `stack` windows, each a hop after the one before."""
    return (frames * stack + (stack - 1) / 2) * HOP_SECONDS + WINDOW_SECONDS / 2


def errors_ms(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Median and mean absolute difference in ms, and the median without the median difference, which is the offset."""
    difference = 1000 * (found - wanted)
    offset = float(np.median(difference))
    return {
        "median_ms": float(np.median(np.abs(difference))),
        "mean_ms": float(np.mean(np.abs(difference))),
        "offset_ms": offset,
        "median_without_offset_ms": float(np.median(np.abs(difference - offset))),
    }


def alignment_errors(alignment: Alignment, phones: list[list[Phone]], stack: int) -> dict:
    """How far the frames lie from the phones they stand for.

    Parameters
    ----------
    alignment : list of (U,) int32
        The frame of each phone.
    phones : list of lists of Phone
    stack : int
        Frames of 10 ms in one of the alignment.

    Returns
    -------
    dict
        "end" and "centre", what the middle of the frame is compared with: as in `errors_ms`; "inside": the share of
        frames whose middle lies in their phone; "inside_without_offset": the same with all frames moved by the offset
        from the centre.
    """
    found = centre_seconds(np.concatenate(alignment), stack)
    begin, end = (
        np.array([getattr(phone, name) for sentence in phones for phone in sentence]) for name in ("begin", "end")
    )
    errors = {"end": errors_ms(found, end), "centre": errors_ms(found, (begin + end) / 2)}
    moved = found - errors["centre"]["offset_ms"] / 1000
    inside, inside_moved = (float(np.mean((begin <= middle) & (middle < end))) for middle in (found, moved))
    return {**errors, "inside": inside, "inside_without_offset": inside_moved}
