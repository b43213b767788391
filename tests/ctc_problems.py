"""Builders of small ragged problems of CTC. Padding frames are NaN, id padding is garbage: whoever reads it, fails."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from tests.problems import DTYPES, random_targets


@dataclass(frozen=True)
class CtcProblem:
    """Padded logits and what goes with them: ``door(*problem.args, **problem.options)``."""

    logits: np.ndarray  # (B, T, V), NaN on padding
    targets: np.ndarray  # (B, U), garbage on padding
    logit_lengths: np.ndarray  # (B,)
    target_lengths: np.ndarray  # (B,)
    blank: int = 0

    @property
    def args(self):
        return self.logits, self.targets, self.logit_lengths, self.target_lengths

    @property
    def options(self):
        return {"blank": self.blank}

    @property
    def real(self):
        """Boolean ``(B, T)``: the frames that are no padding."""
        return np.arange(self.logits.shape[1]) < self.logit_lengths[:, None]

    @property
    def examples(self):
        """Each example without its padding: (logits, targets)."""
        lengths = zip(self.logit_lengths, self.target_lengths, strict=True)
        return [(self.logits[b, :t], self.targets[b, :u]) for b, (t, u) in enumerate(lengths)]

    def single(self, b):
        """Example b alone, with the padding of the batch."""
        return replace(self, **{name: getattr(self, name)[b : b + 1] for name in LENGTHENED})


LENGTHENED = ("logits", "targets", "logit_lengths", "target_lengths")


def fewest_frames(targets):
    """Frames that a target needs: one for each label, and one between equal ones."""
    targets = np.asarray(targets)
    return max(1, len(targets) + int((targets[1:] == targets[:-1]).sum()))


def random_string(rng, targets, frames, blank):
    """The ids of a random alignment, one for each frame; the target must fit."""
    needed = []  # in order, all frames beyond them being copies of a neighbour or blanks at the edges
    for u, v in enumerate(targets):
        needed += [blank, v] if u and targets[u - 1] == v else [v]
    needed = needed or [blank]
    counts = rng.multinomial(frames - len(needed), np.full(len(needed), 1 / len(needed)))
    return np.repeat(needed, counts + 1)


def ctc_problem(
    seed=0,
    *,
    batch=4,
    frames=9,
    labels=4,
    vocab=6,
    blank=0,
    dtype=np.float32,
    spread=1.5,
    sharpness=0.0,
    repeated=0.3,
    lengths=None,
    slack=(1, 2),
    integer=np.int64,
):
    """A ragged problem with random logits.

    `spread` is the standard deviation of the logits. `sharpness` is the advantage of one random alignment. `repeated`
    is the share of labels that equal the label before. The two padded axes are `slack` longer than the longest example.
    `lengths` is a pair of lists instead of random lengths, which leave room for every alignment.
    """
    rng = np.random.default_rng(seed)
    if lengths is None:
        logit_lengths = rng.integers(max(1, frames // 2), frames + 1, batch)
        target_lengths = np.minimum(rng.integers(0, labels + 1, batch), (logit_lengths + 1) // 2)
        logit_lengths[0], target_lengths[0] = frames, min(labels, (frames + 1) // 2)
    else:
        logit_lengths, target_lengths = (np.asarray(n) for n in lengths)
    targets = random_targets(rng, target_lengths, max(target_lengths) + slack[1], vocab, blank)
    logits = np.full((len(targets), max(logit_lengths) + slack[0], vocab), np.nan, dtype)
    for b, (t_b, u_b) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        for u in range(1, u_b):
            targets[b, u] = targets[b, u - 1] if rng.random() < repeated else targets[b, u]
        rows = spread * rng.standard_normal((t_b, vocab))
        if sharpness and fewest_frames(targets[b, :u_b]) <= t_b:
            rows[np.arange(t_b), random_string(rng, targets[b, :u_b], t_b, blank % vocab)] += sharpness
        logits[b, :t_b] = rows.astype(dtype)
    return CtcProblem(
        logits, targets.astype(integer), logit_lengths.astype(integer), target_lengths.astype(integer), blank
    )


def ctc_problems():
    """Hypothesis strategy; some examples have no alignment."""
    lengths = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 5)), min_size=1, max_size=4)
    return st.builds(
        ctc_problem,
        seed=st.integers(0, 2**32 - 1),
        lengths=lengths.map(lambda pairs: tuple(zip(*pairs, strict=True))),
        vocab=st.integers(2, 7),
        blank=st.integers(-2, 1),
        dtype=st.sampled_from(DTYPES),
        spread=st.sampled_from([0.1, 1.5, 6.0]),
        sharpness=st.sampled_from([0.0, 3.0, 10.0]),
        repeated=st.sampled_from([0.0, 0.3, 0.8]),
        slack=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        integer=st.sampled_from([np.int32, np.int64]),
    )
