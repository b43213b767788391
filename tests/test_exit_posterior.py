"""The share of alignments that leaves bounds: never below the true one, the same for banded logits as for padded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from tests import compare, oracle
from tests.problems import DTYPES, TOPOLOGIES, VARIANTS, logits_problem, logits_problems, name_of
from tests.signatures import signature
from tests.test_inputs import refuse

DOOR = "transducer_exit_posterior"


def shares(problem, dtype):
    """The oracle's share of each example, (B,): 1 - Z inside / Z, 0 where there is no alignment."""
    found = []
    for b, (frames, labels) in enumerate(zip(problem.logit_lengths, problem.target_lengths, strict=True)):
        own = problem.logits[b, :frames, : labels + 1].astype(dtype), problem.targets[b, :labels]
        lost = []
        for bounds in (oracle.row_of(problem.bounds, b), None):
            options = {"blank": problem.blank, "topology": problem.topology, "bounds": bounds}
            lost.append(oracle.arc_posteriors(*oracle.arc_scores(*own, **options)[1:], problem.topology)[0])
        found.append(-np.expm1(lost[1] - lost[0]) if np.isfinite(lost[1]) else dtype(0))
    return np.array(found)


def leaving(problem, **more):
    return lattice.transducer_exit_posterior(*problem.args, **problem.options, **more)


def check(problem):
    """Never below the oracle's share; banded and packed logits make the same bits. Returns ours and the truth."""
    dtype = problem.logits.dtype
    ours = leaving(problem)
    assert ours.dtype == np.float64 and ours.shape == (len(problem.targets),)
    assert ((ours >= 0) & (ours <= 1)).all()
    wide, same = (np.longdouble, np.float64) if dtype == np.float64 else (np.float64, np.float32)
    truth = shares(problem, wide)
    lower = np.minimum(ours, truth).astype(same)
    compare.assert_close(lower, truth, shares(problem, same), per_example=True, what="share")
    rest = problem.args[1:]
    banded = lattice.transducer_exit_posterior(problem.band(problem.logits), *rest, **problem.options, banded=True)
    packed = lattice.transducer_exit_posterior(problem.pack(problem.logits), *rest, **problem.options)
    np.testing.assert_array_equal(banded, ours)
    np.testing.assert_array_equal(packed, ours)
    return ours, truth


def beside_best(problem, left, right):
    """The problem with bounds beside its best alignments."""
    options = problem.options | {"bounds": None}
    frames, _ = lattice.transducer_alignment(*problem.args, **options)
    lengths = problem.target_lengths, problem.logit_lengths
    bounds = lattice.alignment_bounds(frames, *lengths, left=left, right=right, topology=problem.topology)
    depth = problem.logits.shape[1] - bounds[0].shape[1]
    # Rows of problems have an entry for each padded frame.
    return replace(problem, bounds=tuple(np.pad(bound, ((0, 0), (0, depth))) for bound in bounds))


@given(logits_problems().filter(lambda problem: problem.bounds is not None))
def test_anything(problem):
    check(problem)


@pytest.mark.parametrize("sharpness", [0.0, 4.0, 12.0])
@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_bounds_beside_the_best_alignment(topology, sharpness):
    problem = logits_problem(
        1, frames=24, labels=8, dtype=np.float64, topology=topology, sharpness=sharpness, batch=8, spread=1.0
    )
    for reach in (0, 1, 3):
        ours, _ = check(beside_best(problem, reach, reach))
        # Where a network is sure, the bound tells. HAT is less sure here, and a penalty may be owed by what leaves.
        if sharpness == 12 and reach == 3 and topology in map(lattice.Topology, TOPOLOGIES):
            assert (ours <= 1e-2).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_dtypes_and_bounds_that_reach_beyond_the_lattice(topology, dtype):
    problem = logits_problem(2, frames=9, labels=5, blank=-1, topology=topology, dtype=dtype, bounded=True)
    check(problem)
    wide = replace(problem, bounds=tuple(np.full_like(bound, u) for bound, u in zip(problem.bounds, (-3, 99))))
    np.testing.assert_array_equal(leaving(wide), 0)


def test_exact_where_all_that_leaves_comes_to_the_end():
    """Behind the last label the blank is certain, so beta is 1 where the last label is emitted before its time."""
    problem = logits_problem(3, lengths=([8, 8], [2, 1]), slack=(0, 0), dtype=np.float64)
    for b, U in enumerate(problem.target_lengths):
        problem.logits[b, :, U] = -np.inf
        problem.logits[b, :, U, problem.blank] = 0
    early = np.arange(8) < 2
    first, last = np.zeros((2, 8), int), np.where(early, problem.target_lengths[:, None] - 1, 99)
    ours, truth = check(replace(problem, bounds=(first, last)))
    assert (ours > 0.01).all() and (ours < 0.99).all()
    # It is rounded up by 2**-30.
    np.testing.assert_allclose(ours, truth.astype(np.float64), rtol=2.0**-29)


def test_cells_outside_are_not_looked_at():
    problem = logits_problem(4, frames=9, labels=5, bounded=True)
    expected = leaving(problem)
    u = np.arange(problem.logits.shape[2])
    outside = (u < problem.bounds[0][..., None]) | (u > problem.bounds[1][..., None])
    problem.logits[outside] = np.nan
    np.testing.assert_array_equal(leaving(problem), expected)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_alignment_inside_or_at_all(topology):
    lengths = ([5, 5, 5, 5], [3, 3, 3, 3])
    problem = logits_problem(5, lengths=lengths, topology=topology, slack=(0, 0))
    bounds = np.zeros((4, 5), int), np.full((4, 5), 3)
    bounds[0][0, 2], bounds[1][0, 2] = 3, 1  # a frame without cells
    bounds[0][1] = 1  # without the first cell
    bounds[1][2] = 1  # too far from the end
    ours, _ = check(replace(problem, bounds=bounds))
    np.testing.assert_array_equal(ours, [1, 1, 1, 0])
    if topology != "rnnt":
        more = logits_problem(5, lengths=([3, 5], [4, 3]), topology="rnnt", slack=(0, 0))
        more = replace(more, topology=topology, bounds=(np.zeros((2, 5), int), np.full((2, 5), 1)))
        np.testing.assert_array_equal(leaving(more), [0, 1])


@pytest.mark.parametrize("hat", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nan_touches_its_own_example(topology, value, hat):
    """The loss is NaN there, too."""
    problem = logits_problem(6, lengths=([6, 6, 6], [3, 3, 3]), topology=lattice.Topology(topology, hat=hat))
    problem = replace(problem, bounds=(np.zeros((3, 7), int), np.full((3, 7), 2)))
    problem.bounds[1][:, 4:] = 3
    expected = leaving(problem)
    problem.logits[1, 2, 1, 3] = value
    ours = leaving(problem)
    assert np.isnan(ours[1]) and np.isnan(lattice.transducer_loss(*problem.args, **problem.options)[1])
    np.testing.assert_array_equal(ours[[0, 2]], expected[[0, 2]])
    assert (expected[[0, 2]] > 0).all() and (expected < 1).all()


def test_the_report_says_the_same_of_bounds():
    """From the joint, without a look at a cell outside, it is never above the joint's, which follows what leaves."""
    from tests.problems import joint_problem

    problem = joint_problem(7, frames=12, labels=5, bounded=True, dtype=np.float64, activation="identity")
    hidden = problem.encoder[:, :, None] + problem.predictor[:, None]
    logits = hidden @ problem.weight.T + (0 if problem.bias is None else problem.bias)
    integers = problem.targets, problem.encoder_lengths, problem.target_lengths
    options = {name: problem.options[name] for name in ("blank", "topology", "bounds")}
    ours = lattice.transducer_exit_posterior(logits, *integers, **options)
    told = lattice.joint_transducer_report(*problem.args, **problem.options, posterior_floor=0.0).exit_posterior
    assert (told <= ours * (1 + 1e-9)).all() and (ours > 0).any()


def test_an_empty_batch():
    none = np.zeros(0, int)
    bounds = np.zeros((0, 4), int), np.zeros((0, 4), int)
    logits = np.zeros((0, 4, 3, 5), np.float32)
    assert lattice.transducer_exit_posterior(logits, np.zeros((0, 2), int), none, none, bounds=bounds).shape == (0,)


@given(st.integers(0, 50))
def test_an_example_alone(seed):
    problem = logits_problem(seed, frames=8, labels=4, bounded=True)
    together = leaving(problem)
    for b in range(len(together)):
        np.testing.assert_array_equal(leaving(problem.single(b)), together[b : b + 1])


def test_signature():
    assert signature(lattice.transducer_exit_posterior) == (
        "logits targets logit_lengths target_lengths * blank=0 topology='rnnt' bounds banded=False"
    )


def test_what_is_refused():
    problem = logits_problem(8, lengths=([5, 4], [3, 3]), bounded=True)
    refuse([DOOR], problem, {"bounds": None}, TypeError, "bounds is None", "pair (first, last)")
    refuse([DOOR], problem, {"bounds": problem.bounds[0]}, TypeError, "bounds", "pair")
    refuse([DOOR], problem, {"banded": 1}, TypeError, "banded", "True or False")
    refuse([DOOR], problem, {"blank": 7}, ValueError, "blank", 7)
    refuse([DOOR], problem, {"target_lengths": np.array([3, 9])}, ValueError, "target_lengths", 9)
    refuse([DOOR], problem, {"logits": lambda x: np.zeros(x.shape, int)}, TypeError, "logits")
    with pytest.raises(TypeError, match="bounds"):
        lattice.transducer_exit_posterior(*problem.args)
