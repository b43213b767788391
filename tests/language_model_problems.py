"""Small ragged problems of the internal language model; padding as in `tests/problems.py`."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from tests import problems
from tests.problems import DTYPES, joint_problem, mixes


@dataclass(frozen=True)
class LanguageModelProblem:
    """``internal_language_model_loss_and_grad(*problem.args, **problem.options)``."""

    predictor: np.ndarray  # (B, U+1, H), NaN on padding, and where no label follows
    weight: np.ndarray  # (V, H)
    bias: np.ndarray | None  # (V,)
    targets: np.ndarray  # (B, U), garbage on padding
    target_lengths: np.ndarray  # (B,)
    blank: int = 0
    activation: str = "tanh"
    dropout: tuple | None = None

    @property
    def args(self):
        return self.predictor, self.weight, self.bias, self.targets, self.target_lengths

    @property
    def options(self):
        return {"blank": self.blank, "activation": self.activation, "dropout": self.dropout}


def language_model_problem(seed=0, **options):
    """What a `joint_problem` has of it."""
    problem = joint_problem(seed, **options)
    predictor = problem.predictor.copy()
    predictor[np.arange(len(predictor)), problem.target_lengths] = np.nan
    integers = problem.targets, problem.target_lengths
    options = problem.blank, problem.activation, problem.dropout
    return LanguageModelProblem(predictor, problem.weight, problem.bias, *integers, *options)


def language_model_problems():
    """Hypothesis strategy."""
    return st.builds(
        language_model_problem,
        seed=st.integers(0, 2**32 - 1),
        batch=st.integers(1, 4),
        labels=st.integers(0, 6),
        vocab=st.integers(2, 9),
        width=st.integers(1, 6),
        blank=st.integers(-2, 1),
        activation=st.sampled_from(problems.ACTIVATIONS),
        dropout=st.sampled_from(problems.DROPOUTS),
        use_bias=st.booleans(),
        dtype=st.sampled_from(DTYPES),
        dtypes=mixes(),
        integer=st.sampled_from([np.int32, np.int64]),
    )
