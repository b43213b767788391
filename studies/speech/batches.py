"""Padded batches of utterances of similar length."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .corpus import Utterances
from .units import BLANK

WINDOW = 20  # batches whose utterances are sorted together: more means less padding, and less chance in what meets


class Batch(NamedTuple):
    """A padded batch.

    frames : (B, T, F) float32, zero past an utterance's end; frame_lengths : (B,) int.
    targets : (B, U) int32 ids, zero past an utterance's end; target_lengths : (B,) int.
    rows : (B,) int, the places of the utterances.
    """

    frames: np.ndarray
    frame_lengths: np.ndarray
    targets: np.ndarray
    target_lengths: np.ndarray
    rows: np.ndarray


def pad(arrays: list[np.ndarray], value) -> tuple[np.ndarray, np.ndarray]:
    """Stack arrays of different lengths: (B, longest, ...), filled up with `value`, and their lengths (B,)."""
    lengths = np.array([len(array) for array in arrays])
    padded = np.full((len(arrays), lengths.max(), *arrays[0].shape[1:]), value, arrays[0].dtype)
    for row, array in zip(padded, arrays):
        row[: len(array)] = array
    return padded, lengths


def take_batch(utterances: Utterances, rows: np.ndarray) -> Batch:
    """The utterances at `rows` as a batch."""
    frames, frame_lengths = pad([utterances.features[row] for row in rows], 0)
    targets, target_lengths = pad([utterances.targets[row] for row in rows], BLANK)
    return Batch(frames, frame_lengths, targets, target_lengths, rows)


def batches(utterances: Utterances, batch: int, rng: np.random.Generator | None = None) -> Iterator[Batch]:
    """Every utterance once, in batches of utterances of similar length.

    Parameters
    ----------
    utterances : Utterances
    batch : int
        B; one batch may have fewer.
    rng : numpy.random.Generator, optional
        Mixes what meets in a batch, and the order of the batches. Without it they are sorted from short to long.

    Yields
    ------
    Batch
    """
    lengths = np.array([len(frames) for frames in utterances.features])
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    window = len(order) if rng is None else WINDOW * batch
    groups = []
    for begin in range(0, len(order), window):
        rows = order[begin : begin + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        groups += [rows[k : k + batch] for k in range(0, len(rows), batch)]
    for k in range(len(groups)) if rng is None else rng.permutation(len(groups)):
        yield take_batch(utterances, groups[k])
