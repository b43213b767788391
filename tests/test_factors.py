"""Groups that make factors, by their own choice or against it: the oracle's results, within the same limit."""

import numpy as np
import pytest

from lattice.inputs.joint import read_joint
from lattice.kernels.factors import LISTED, TAIL, make_factors
from lattice.tiles import full_sum, groups, plan
from tests import compare
from tests.problems import DTYPES, TOPOLOGIES, joint_problem, name_of
from tests.test_joint import check, slack_of
from tests.test_joint_memory import call, least_limit

KINDS = [
    {},
    {"use_bias": False, "blank": -1, "bounded": True},
    {"sharpness": 8.0, "frames": 12, "labels": 6},
    {"vocabulary": "endings", "vocab": 20},
    {"hypotheses": 7},
]


@pytest.fixture
def always(monkeypatch):
    """Factors wherever the activation has them; gives the groups that made some."""
    made = []

    def make(*arguments):
        made.append(arguments)
        make_factors(*arguments)

    monkeypatch.setattr(plan, "CELLS_A_ROW", 0)
    monkeypatch.setattr(groups, "make_factors", make)
    return made


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_against_the_oracle(kind, topology, dtype, always):
    problem = joint_problem(21, dtype=dtype, topology=topology, **kind)
    check(problem)
    check(problem, posterior_floor=2.0**-24)
    assert always


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_rows_without_factors(dtype, always):
    """Large inputs in one frame of each example: its cells are made of the inputs, beside others."""
    problem = joint_problem(22, frames=12, labels=6, width=20, dtype=dtype)
    problem.encoder[:, 0] *= 300
    check(problem)
    check(problem, posterior_floor=2.0**-24)
    counts = far_counts(always)
    assert counts.max() > LISTED and counts.min() == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_a_column_that_counts(dtype, always):
    """Frames less labels in two of the columns: these entries are made of the inputs, all others of factors."""
    problem = joint_problem(22, frames=12, labels=6, width=70, dtype=dtype)
    for column in (0, -1):
        problem.encoder[:, :, column] = 100 * np.arange(problem.encoder.shape[1]) + 0.25
        problem.predictor[:, :, column] = -200 * np.arange(problem.predictor.shape[1])
    check(problem)
    check(problem, posterior_floor=2.0**-24)
    assert set(np.unique(far_counts(always))) <= {0, 2} and far_counts(always).any()


def far_counts(made):
    """How many entries are far in each row of factors that a group made."""
    return np.concatenate([factors[:, -TAIL] for *_, factors in made])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_cell_that_is_not_finite(value, always):
    problem = joint_problem(23, frames=12, labels=6)
    problem.encoder[1, 0, 2] = value
    loss, _ = call(problem)
    others = np.arange(len(loss)) != 1
    if np.isnan(value):
        assert np.isnan(loss[1])
    assert np.isfinite(loss[others]).all()


def test_other_activations_have_none(always):
    for activation in ("relu", "identity"):
        check(joint_problem(24, activation=activation))
    assert not always


def planned(problem, limit):
    return full_sum.plan(read_joint(*problem.args, **problem.options), gradients=True, limit=limit)


def test_they_are_left_out_where_room_is_short_or_cells_are_few():
    wide = joint_problem(25, batch=2, lengths=([60, 40], [30, 20]), width=40)
    least = least_limit(wide)
    short, ample = planned(wide, least), planned(wide, 1 << 24)
    assert not short.factored and ample.factored
    # The smallest limit is that of a workspace without them.
    assert short.plan.least == ample.plan.least == least
    # They would fit, and leave tiles less than half as long.
    size = 4 * (40 + TAIL) * (60 + 31 + 40 + 21)
    tight = [planned(wide, limit) for limit in range(least + size, least + 3 * size, size // 16)]
    assert any(not work.factored and work.plan.tile >= 40 for work in tight) and tight[-1].factored
    narrow = joint_problem(25, batch=2, lengths=([60, 40], [2, 1]), width=40)
    assert not planned(narrow, 1 << 24).factored


def test_the_workspace_counts_them(monkeypatch):
    """A plan that forgets them runs out of its block."""
    problem = joint_problem(25, batch=2, lengths=([60, 40], [30, 20]), width=40)
    work = planned(problem, 1 << 24)
    monkeypatch.setattr(plan, "CELLS_A_ROW", 10**9)
    without = planned(problem, 1 << 24)
    rows = 60 + 31 + 40 + 21
    assert work.plan.size - without.plan.size == work.plan.space - without.plan.space == rows * (40 + TAIL) * 4


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_with_and_without_they_agree(topology, monkeypatch):
    problem = joint_problem(26, batch=3, frames=40, labels=14, vocab=50, width=24, topology=topology, sharpness=4.0)
    loss, grads = call(problem)
    monkeypatch.setattr(plan, "CELLS_A_ROW", 10**9)
    other_loss, others = call(problem)
    slack = 2 * slack_of(problem, 2.0**-24)
    compare.assert_same(loss, other_loss, per_example=True, slack=slack)
    for name, ours, other in zip(grads._fields, grads, others, strict=True):
        compare.assert_same(ours, other, scale=loss.max(), slack=slack, what=name)
