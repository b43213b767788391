"""Builders of random alignments. What lies beyond a length is garbage: whoever reads it, fails."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from tests.problems import GARBAGE_IDS, TOPOLOGIES, consumes, random_frames, random_lengths, random_targets


@dataclass(frozen=True)
class Alignments:
    """The frames of labels and what goes with them."""

    frames: np.ndarray  # (B, U), garbage on padding
    targets: np.ndarray  # (B, U), garbage on padding
    lengths: np.ndarray  # (B,)
    target_lengths: np.ndarray  # (B,)
    blank: int
    topology: str

    @property
    def real(self):
        """Boolean ``(B, U)``: the labels that are no padding."""
        return np.arange(self.frames.shape[1]) < self.target_lengths[:, None]

    @property
    def examples(self):
        """Each example without its padding: (frames, targets, length)."""
        lengths = zip(self.lengths, self.target_lengths, strict=True)
        return [(self.frames[b, :u].tolist(), self.targets[b, :u].tolist(), int(t)) for b, (t, u) in enumerate(lengths)]

    @property
    def labelled(self):
        return self.frames, self.targets, self.lengths, self.target_lengths

    def single(self, b):
        """Example b alone, with the padding of the batch."""
        names = ("frames", "targets", "lengths", "target_lengths")
        return replace(self, **{name: getattr(self, name)[b : b + 1] for name in names})

    def strings(self, keep="last"):
        """Ids ``(B, T)`` that CTC reads as the targets.

        Each label lasts as long as it may: up to its frame, or with `keep="first"` from its frame on.
        """
        ids = np.resize(GARBAGE_IDS, (len(self.lengths), max(self.lengths) + 1))
        for row, (frames, targets, length) in zip(ids, self.examples, strict=True):
            row[:length] = self.blank
            if keep == "first":
                frames, targets = [length - 1 - t for t in frames[::-1]], targets[::-1]
            for u, (t, v) in enumerate(zip(frames, targets, strict=True)):
                begin = 0 if u == 0 else frames[u - 1] + 1 + (targets[u - 1] == v)
                row[begin : t + 1] = v
            if keep == "first":
                row[:length] = row[:length][::-1].copy()
        return ids.astype(self.frames.dtype)


def random_alignments(
    seed=0, *, batch=4, frames=7, labels=4, vocab=4, blank=0, topology="rnnt", slack=2, lengths=None, integer=np.int64
):
    """A batch with a random alignment of each example.

    The label axis is `slack` longer than the longest example. `lengths` is a pair of lists instead of random lengths.
    """
    rng = np.random.default_rng(seed)
    if lengths is None:
        lengths = random_lengths(rng, batch, frames, min(labels, frames) if consumes(topology) else labels, topology)
    lengths, target_lengths = (np.asarray(n) for n in lengths)
    targets = random_targets(rng, target_lengths, max(target_lengths) + slack, vocab, blank)
    emitted = np.resize(GARBAGE_IDS[::-1], targets.shape)
    for b, (t, u) in enumerate(zip(lengths, target_lengths, strict=True)):
        emitted[b, :u] = random_frames(rng, t, u, topology)
    given = emitted, targets, lengths, target_lengths
    return Alignments(*(x.astype(integer) for x in given), blank, topology)


def any_alignments(topologies=TOPOLOGIES):
    """Hypothesis strategy."""
    return st.builds(
        random_alignments,
        seed=st.integers(0, 2**32 - 1),
        batch=st.integers(1, 5),
        frames=st.integers(1, 9),
        labels=st.integers(0, 7),
        vocab=st.integers(2, 5),
        blank=st.integers(0, 1),
        topology=st.sampled_from(list(topologies)),
        slack=st.integers(0, 2),
        integer=st.sampled_from([np.int32, np.int64]),
    )
