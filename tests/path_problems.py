"""Builders of small ragged problems with an alignment of each example; padding as in `tests/problems.py`."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from tests import problems
from tests.problems import GARBAGE_IDS, TOPOLOGIES, JointProblem, joint_problem, random_frames


@dataclass(frozen=True)
class PathProblem(JointProblem):
    """A joint problem with alignments: ``joint_path_loss_and_grad(*problem.args, **problem.options)``."""

    frames: np.ndarray | None = None  # (B, U), garbage on padding

    @property
    def args(self):
        *given, encoder_lengths, target_lengths = super().args
        return *given, self.frames, encoder_lengths, target_lengths

    @property
    def options(self):
        return {name: value for name, value in super().options.items() if name not in ("bounds", "encoder_index")}

    def single(self, b):
        """Example b alone, with the padding of the batch."""
        names = ["encoder", "predictor", "targets", "frames", "encoder_lengths", "target_lengths"]
        names += ["vocabulary"] * (self.vocabulary is not None) + ["vocabulary_lengths"] * (
            self.vocabulary_lengths is not None
        )
        return replace(self, **{name: getattr(self, name)[b : b + 1] for name in names})


def path_problem(seed=0, *, topology="monotonic", frames=None, **options):
    """`joint_problem` with a random alignment of each example."""
    options |= {} if frames is None else {"frames": frames}
    problem = joint_problem(seed, topology=topology, **options)
    rng, emitted = np.random.default_rng(seed), np.resize(GARBAGE_IDS[::-1], problem.targets.shape)
    for b, (t, u) in enumerate(zip(problem.encoder_lengths, problem.target_lengths, strict=True)):
        emitted[b, :u] = random_frames(rng, t, u, topology)
    return PathProblem(**vars(problem), frames=emitted.astype(problem.targets.dtype))


def path_problems():
    """Hypothesis strategy."""
    return st.builds(
        path_problem,
        vocab=st.integers(2, 9),
        width=st.integers(2, 6),
        activation=st.sampled_from(problems.ACTIVATIONS),
        dropout=st.sampled_from(problems.DROPOUTS),
        use_bias=st.booleans(),
        vocabulary=st.sampled_from([None, "full", "lengths", "endings"]),
        dtypes=problems.mixes(),
        **{name: strategy for name, strategy in problems.shapes().items() if name not in ("bounded", "topology")},
        topology=st.sampled_from(TOPOLOGIES),
    )
