"""Utterances cut into chunks of a few seconds with the labels that an alignment puts into them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from studies.speech.batches import WINDOW, pad
from studies.speech.corpus import Utterances
from studies.speech.predictor import label_contexts
from studies.speech.units import BLANK

Alignment = list[np.ndarray]  # of each utterance, the frame of each label: (U,) int32


class Chunks(NamedTuple):
    """A padded batch of chunks.

    frames : (N, T, F) float32, zero past a chunk's end; frame_lengths : (N,) int.
    targets : (N, U) int32 ids of the labels in the chunk; target_lengths : (N,) int.
    label_frames : (N, U) int32, the frame of each label, counted from the chunk's beginning.
    contexts : (N, U+1, 2) int32, the last two labels before each row of the lattice, whichever chunk they are in.
    """

    frames: np.ndarray
    frame_lengths: np.ndarray
    targets: np.ndarray
    target_lengths: np.ndarray
    label_frames: np.ndarray
    contexts: np.ndarray


class Cut(NamedTuple):
    """An utterance's place, and the frames `begin` to `end` (exclusive) of it."""

    row: int
    begin: int
    end: int


def cuts_of(row: int, length: int, chunk: int, hop: int) -> list[Cut]:
    """Cuts of `chunk` frames that begin every `hop` frames, the last one shorter, so that no frame is left out."""
    starts = range(0, max(1, length - chunk + hop), hop)
    return [Cut(row, begin, min(length, begin + chunk)) for begin in starts]


def take_chunks(utterances: Utterances, alignment: Alignment, cuts: list[Cut]) -> Chunks:
    """The cuts as a batch."""
    columns = []
    for row, begin, end in cuts:
        frames, targets = alignment[row], utterances.targets[row]
        first, last = np.searchsorted(frames, (begin, end))
        contexts = label_contexts(targets[None])[0, first : last + 1]
        columns.append((utterances.features[row][begin:end], targets[first:last], frames[first:last] - begin, contexts))
    features, targets, label_frames, contexts = zip(*columns)
    padded, frame_lengths = pad(features, 0)
    padded_targets, target_lengths = pad(targets, BLANK)
    return Chunks(
        padded, frame_lengths, padded_targets, target_lengths, pad(label_frames, -1)[0], pad(contexts, BLANK)[0]
    )


def chunk_batches(
    utterances: Utterances, alignment: Alignment, *, chunk: int, hop: int, frames: int, rng: np.random.Generator
) -> Iterator[Chunks]:
    """Every chunk once, in batches of similar length and about `frames` frames, padding included.

    Parameters
    ----------
    utterances : Utterances
    alignment : list of (U,) int32
    chunk, hop : int
        Frames in a chunk, and from the beginning of one to that of the next: half of `chunk` for an overlap of 50 %.
    frames : int
    rng : numpy.random.Generator
        Mixes what meets in a batch, and the order of the batches.
    """
    cuts = [cut for row, target in enumerate(utterances.features) for cut in cuts_of(row, len(target), chunk, hop)]
    count = max(1, round(frames / np.mean([cut.end - cut.begin for cut in cuts])))
    order = [cuts[k] for k in rng.permutation(len(cuts))]
    groups = []
    for begin in range(0, len(order), WINDOW * count):
        window = sorted(order[begin : begin + WINDOW * count], key=lambda cut: cut.end - cut.begin)
        groups += [window[k : k + count] for k in range(0, len(window), count)]
    for k in rng.permutation(len(groups)):
        yield take_chunks(utterances, alignment, groups[k])
