"""Strings of handwritten digits, joined at random from the 8 x 8 scans that come with scikit-learn."""

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

BLANK = 0
NUM_LABELS = 11  # blank and ten digits: digit d has id d + 1
SIDE = 8  # a scan is SIDE x SIDE pixels, so a frame has SIDE values
TRAIN_SCANS = 1500
MIN_DIGITS, MAX_DIGITS = 3, 10
MAX_GAP = 4


class Scans(NamedTuple):
    """Single scans and what they show.

    images : (N, 8, 8) float32 in 0..1, rows by columns; digits : (N,) int; rows : (N,) int, the place in `load_digits`.
    """

    images: np.ndarray
    digits: np.ndarray
    rows: np.ndarray


class DigitStrings(NamedTuple):
    """A padded batch of strings, one pixel column a frame.

    frames : (B, T, 8) float32, zero past a string's end; encoder_lengths : (B,) int.
    targets : (B, U) int ids, zero past a string's end; target_lengths : (B,) int.
    starts : (B, U) int, the frame where each digit's scan begins.
    """

    frames: np.ndarray
    encoder_lengths: np.ndarray
    targets: np.ndarray
    target_lengths: np.ndarray
    starts: np.ndarray


def split_scans(seed: int) -> tuple[Scans, Scans]:
    """Split the 1,797 scans into 1,500 for training and 297 held out.

    The split is by scan, so no pixel of a held-out string has been seen in training.
    """
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(images))
    train, held_out = order[:TRAIN_SCANS], order[TRAIN_SCANS:]
    return (
        Scans(images[train], digits.target[train], train),
        Scans(images[held_out], digits.target[held_out], held_out),
    )


def join_strings(
    scans: Scans,
    count: int,
    rng: np.random.Generator,
    *,
    jitter: bool = False,
    digits: tuple[int, int] = (MIN_DIGITS, MAX_DIGITS),
) -> DigitStrings:
    """Join `count` strings of 3 to 10 random scans with gaps of 0 to 4 empty columns.

    Parameters
    ----------
    scans : Scans
    count : int
        B, the number of strings.
    rng : numpy.random.Generator
    jitter : bool
        Shift each scan up or down by at most one pixel (for training).
    digits : (int, int)
        The fewest and the most scans of a string, where 3 and 10 are not wanted.

    Returns
    -------
    DigitStrings
        T and U are those of the longest string.
    """
    target_lengths = rng.integers(digits[0], digits[1] + 1, size=count)
    U = target_lengths.max()
    real = np.arange(U) < target_lengths[:, None]
    chosen = rng.integers(len(scans.digits), size=(count, U))
    # There is a gap before each scan and one after the last, so that a string may begin and end anywhere.
    gaps = rng.integers(MAX_GAP + 1, size=(count, U))
    last_gap = rng.integers(MAX_GAP + 1, size=count)
    shifts = rng.integers(-1, 2, size=(count, U)) if jitter else np.zeros((count, U), dtype=int)

    starts = np.where(real, np.cumsum(gaps + SIDE, axis=1) - SIDE, 0)
    encoder_lengths = starts.max(axis=1) + SIDE + last_gap
    frames = np.zeros((count, encoder_lengths.max(), SIDE), dtype=np.float32)
    for b, u in np.argwhere(real):
        image, shift, start = scans.images[chosen[b, u]], shifts[b, u], starts[b, u]
        # Rows that leave the picture are lost: rolling would bring them back on the other side.
        kept = image[max(0, -shift) : SIDE - max(0, shift)]
        frames[b, start : start + SIDE, max(0, shift) : SIDE - max(0, -shift)] = kept.T
    targets = np.where(real, scans.digits[chosen] + 1, BLANK)
    return DigitStrings(frames, encoder_lengths, targets, target_lengths, starts)


def first_of_length(strings: DigitStrings, length: int) -> DigitStrings:
    """The first string of `length` digits, as a batch of one; the first of all if none has that length."""
    return take_string(strings, int(np.argmax(strings.target_lengths == length)))


def take_string(strings: DigitStrings, b: int) -> DigitStrings:
    """String `b` alone, as a batch of one without padding."""
    T, U = strings.encoder_lengths[b], strings.target_lengths[b]
    row = slice(b, b + 1)
    return DigitStrings(
        strings.frames[row, :T],
        strings.encoder_lengths[row],
        strings.targets[row, :U],
        strings.target_lengths[row],
        strings.starts[row, :U],
    )
