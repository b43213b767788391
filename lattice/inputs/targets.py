"""Labels and lengths of a batch of lattices, which every transducer and CTC door is given."""

from dataclasses import dataclass

import numpy as np

from ..topology import Moves, Topology
from .checks import index, read_integers, read_lengths, refuse


@dataclass(frozen=True)
class Targets:
    """Labels and lengths of N lattices, on the host.

    Attributes
    ----------
    positions : (N, U) int32
        Positions of the labels in the vocabulary in use, which without a vocabulary are the ids. 0 beyond a target's
        length.
    blank_ids : (N, 1 + K) int64
        Positions of the blank and of the big blanks in the vocabulary in use, in the order of durations. K is 0 but for
        "multiblank".
    frame_lengths, target_lengths : (N,) int64
    topology : Topology
    bounds : pair of (N, T) int32 arrays, or None
        First and last label position that exist at each frame.
    label_axis : int
        U, the size of the second axis of the argument `targets`.
    """

    positions: np.ndarray
    blank_ids: np.ndarray
    frame_lengths: np.ndarray
    target_lengths: np.ndarray
    topology: Topology
    bounds: tuple[np.ndarray, np.ndarray] | None
    label_axis: int

    @property
    def moves(self) -> Moves:
        return self.topology.moves

    @property
    def blank_id(self) -> np.ndarray:
        """(N,) int64: position of the blank itself."""
        return self.blank_ids[:, 0]

    @property
    def owed(self) -> np.ndarray:
        """(N,) float64 nats by which the sums over alignments lie above those of the kernels' scores (delay.py)."""
        return abs(self.topology.delay_penalty) * 0.5 * self.target_lengths * (self.frame_lengths - 1)


def read_targets(
    targets, target_lengths, blank, vocabulary, *,
    count: int, size: int, label_axis: float, label_source: str, owner: str, tail: int = 0, big_blanks=(),
):  # fmt: skip
    """Check labels and map them to positions in the vocabulary in use.

    Parameters
    ----------
    targets, target_lengths : (count, U) and (count,) int32 or int64
    blank : int
        Not negative.
    vocabulary : list of `count` arrays, or None
        From `read_vocabulary`.
    count, size : int
        Examples, and ids of the whole vocabulary.
    label_axis : int or inf
        The most labels that the lattice has room for.
    label_source, owner : str
        Where `label_axis` comes from, and where `count` does, for the error texts.
    tail : int
        How many entries of a row behind the ids are durations, for the error texts.
    big_blanks : (K,) int64
        From `read_big_blanks`. No label is one of them.

    Returns
    -------
    positions : (count, longest U_b, at least 1) int32
    blank_positions : (count, 1 + K) int64
        Of the blank, and behind it of the big blanks.
    target_lengths : (count,) int64
    """
    targets = read_integers(targets, "targets", (count, None), f"(B, U) for {owner}")
    # The tighter bound is the one that the error text names.
    U = min(targets.shape[1], label_axis)
    source = f"the size of targets {targets.shape}" if targets.shape[1] <= label_axis else label_source
    lengths = read_lengths(target_lengths, "target_lengths", count, low=0, high=U, source=source, owner=owner)
    real = np.arange(targets.shape[1]) < lengths[:, None]  # (count, U)
    unknown = real & ((targets < 0) | (targets >= size))
    what = f"the ids of the vocabulary; the {tail} rows behind are durations" if tail else "the ids of the vocabulary"
    refuse(unknown, lambda at: f"targets{index(at)} is {targets[at]}, expected 0 to {size - 1}, {what}")
    refuse(real & (targets == blank), lambda at: f"targets{index(at)} is {targets[at]}, the blank")
    big = real & np.isin(targets, big_blanks)
    refuse(big, lambda at: f"targets{index(at)} is {targets[at]}, the big blank {blank - targets[at]} below the blank")
    # Cut to the longest target: what lies behind, or in the padding, is never read again.
    longest = int(lengths.max(initial=0))
    positions = np.zeros((count, max(1, longest)), np.int32)
    blanks = np.append(blank, big_blanks).astype(np.int64)  # (1 + K,)
    blank_positions = np.tile(blanks, (count, 1))
    if vocabulary is None:
        # An id that was checked fits into int32 as a position does.
        np.copyto(positions[:, :longest], targets[:, :longest], casting="same_kind", where=real[:, :longest])
        return positions, blank_positions, lengths
    for n, ids in enumerate(vocabulary):
        order = np.argsort(ids)  # (S,) a vocabulary may stand in any order
        wanted = np.append(targets[n, : lengths[n]], blanks)  # (U_b + 1 + K,)
        found = np.searchsorted(ids, wanted, sorter=order)
        # An id above all others is looked for behind the last one; the comparison then tells that it is missing.
        found = order[np.minimum(found, len(ids) - 1)]
        missing = ids[found] != wanted
        if missing.any():
            u = int(np.argmax(missing))
            if u > lengths[n]:
                raise ValueError(f"vocabulary[{n}] lacks {wanted[u]}, a big blank: it must hold all blanks")
            what = f"targets[{n}, {u}] = {wanted[u]}" if u < lengths[n] else f"the blank {blank}"
            raise ValueError(f"vocabulary[{n}] lacks {what}: it must hold the blank and every target of its example")
        positions[n, : lengths[n]], blank_positions[n] = found[: lengths[n]], found[lengths[n] :]
    return positions, blank_positions, lengths
