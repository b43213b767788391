"""Labels and lengths of a batch of lattices, which every transducer and CTC door is given."""

from dataclasses import dataclass

import numpy as np

from .checks import index, read_integers, read_lengths, refuse

TOPOLOGIES = ("rnnt", "monotonic")


@dataclass(frozen=True)
class Targets:
    """Labels and lengths of N lattices.

    Attributes
    ----------
    positions : (N, U) int32
        Positions of the labels in the vocabulary in use; 0 beyond a target's length.
    blank : (N,) int64
        Position of the blank in the vocabulary in use.
    frame_lengths, target_lengths : (N,) int64
    monotonic : bool
    bounds : pair of (N, T) integer arrays, or None
    label_axis : int
        U, the size of the second axis of the argument `targets`.
    """

    positions: np.ndarray
    blank: np.ndarray
    frame_lengths: np.ndarray
    target_lengths: np.ndarray
    monotonic: bool
    bounds: tuple[np.ndarray, np.ndarray] | None
    label_axis: int


def read_targets(targets, target_lengths, blank, vocabulary, *, count: int, size: int, label_axis: int, label_source: str,
                 owner: str):  # fmt: skip
    """Check labels and map them to positions in the vocabulary in use.

    Returns
    -------
    positions : (count, U) int32
    blank_positions : (count,) int64
    target_lengths : (count,) int64
    """
    targets = read_integers(targets, "targets", (count, None), f"(B, U) for {owner}")
    U = min(targets.shape[1], label_axis)
    source = f"the size of targets {targets.shape}" if targets.shape[1] <= label_axis else label_source
    lengths = read_lengths(target_lengths, "target_lengths", count, 0, U, source, owner)
    real = np.arange(targets.shape[1]) < lengths[:, None]
    refuse(real & ((targets < 0) | (targets >= size)),
           lambda at: f"targets{index(at)} is {targets[at]}, expected 0 to {size - 1}, the ids of the vocabulary")  # fmt: skip
    refuse(real & (targets == blank), lambda at: f"targets{index(at)} is {targets[at]}, the blank")
    longest = int(lengths.max(initial=0))
    positions = np.zeros((count, max(1, longest)), np.int32)
    blank_positions = np.full(count, blank, np.int64)
    if vocabulary is None:
        np.copyto(positions[:, :longest], targets[:, :longest], casting="same_kind", where=real[:, :longest])
        return positions, blank_positions, lengths
    for n, ids in enumerate(vocabulary):
        order = np.argsort(ids)
        wanted = np.append(targets[n, : lengths[n]], blank)
        found = np.searchsorted(ids, wanted, sorter=order)
        found = order[np.minimum(found, len(ids) - 1)]
        missing = ids[found] != wanted
        if missing.any():
            u = int(np.argmax(missing))
            what = f"targets[{n}, {u}] = {wanted[u]}" if u < lengths[n] else f"the blank {blank}"
            raise ValueError(f"vocabulary[{n}] lacks {what}: it must hold the blank and every target of its example")
        positions[n, : lengths[n]] = found[:-1]
        blank_positions[n] = found[-1]
    return positions, blank_positions, lengths
