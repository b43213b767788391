"""Banded logits: the loss of the same rows spread out over every cell, bit by bit, and the oracle's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from tests import compare, oracle
from tests.problems import DTYPES, TOPOLOGIES, LogitsProblem, logits_problem, logits_problems, name_of
from tests.test_inputs import WRONG, refuse
from tests.test_transducer import gradient_scale

FAR = 2**63 - 1
SHAPES = {"frames": 9, "labels": 5, "bounded": True}


def call(problem, logits, **extra):
    """Loss and gradient of banded logits."""
    arguments = logits, *problem.args[1:]
    return lattice.transducer_loss_and_grad(*arguments, **problem.options, banded=True, **extra)


def check(problem, *, spare=0, **extra):
    """Every door against the padded logits, and the loss and gradient against the oracle; returns the two."""
    banded = problem.band(problem.logits, spare=spare)
    untouched = banded.tobytes()
    loss, grad = call(problem, banded, **extra)
    assert banded.tobytes() == untouched  # bfloat16 has NaNs that compare unequal
    padded_loss, padded_grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options, **extra)
    assert loss.dtype == padded_loss.dtype and grad.dtype == banded.dtype and grad.shape == banded.shape
    np.testing.assert_array_equal(loss, padded_loss)
    # What the padded gradient has outside of the bounds is 0, so no row is lost.
    np.testing.assert_array_equal(grad, problem.band(padded_grad, spare=spare, fill=0))
    arguments = banded, *problem.args[1:]
    np.testing.assert_array_equal(lattice.transducer_loss(*arguments, **problem.options, banded=True), loss)
    for door in (lattice.transducer_alignment, lattice.transducer_posteriors):
        padded_results = door(*problem.args, **problem.options)
        for ours, theirs in zip(door(*arguments, **problem.options, banded=True), padded_results, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    truth, naive = (
        (told[0], problem.band(told[1], spare=spare, fill=0))
        for told in oracle.truth_and_naive(
            oracle.batch_loss_and_grad, banded.dtype, *problem.args, **problem.options, **extra
        )
    )
    compare.assert_close(loss, truth[0], naive[0], per_example=True, what="loss")
    scale = gradient_scale(truth[0], banded.dtype, extra.get("grad_loss"))
    compare.assert_close(grad, truth[1], naive[1], per_example=True, scale=scale, what="gradient")
    return loss, grad


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("spare", [0, 3])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_band_is_its_rows_of_the_lattice(topology, spare, dtype):
    problem = logits_problem(1, topology=topology, dtype=dtype, **SHAPES)
    loss, grad = check(problem, spare=spare)
    assert np.isfinite(loss).all() and grad.any(axis=(1, 2, 3)).all()
    grad_loss = np.array([1, 0, -2, 0.5], loss.dtype)
    check(problem, spare=spare, grad_loss=grad_loss, fastemit_lambda=0.3)


@given(logits_problems().filter(lambda problem: problem.bounds is not None), st.integers(0, 2))
def test_anything(problem, spare):
    check(problem, spare=spare)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_in_place_is_out_of_place(dtype):
    problem = logits_problem(2, dtype=dtype, **SHAPES)
    banded = problem.band(problem.logits, spare=1)
    loss, expected = call(problem, banded)
    new_loss, grad = call(problem, banded, out=banded)
    assert grad is banded
    np.testing.assert_array_equal(new_loss, loss)
    np.testing.assert_array_equal(banded, expected)
    out = np.full_like(banded, 7)
    np.testing.assert_array_equal(call(problem, problem.band(problem.logits, spare=1), out=out)[1], expected)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("rows", [2, 3])
def test_ranges_of_a_pruned_recipe(topology, rows):
    """As many positions in every frame, which go past the target of a short example; more labels than rows."""
    problem = logits_problem(3, lengths=([9, 8, 9, 5], [6, 4, 1, 0]), topology=topology)
    assert max(problem.target_lengths) + 1 > rows
    T, U = problem.logit_lengths[:, None], problem.target_lengths[:, None]
    first = np.minimum(np.arange(problem.logits.shape[1]) * U // np.maximum(1, T - 1), np.maximum(0, U - rows + 1))
    problem = replace(problem, bounds=(first, first + rows - 1))
    assert (problem.bounds[1] > U).any()
    loss, grad = check(problem)
    assert grad.shape[2] == rows and np.isfinite(loss).all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_labels_and_one_frame(topology):
    problem = logits_problem(4, lengths=([4, 1, 1], [0, 0, 1]), topology=topology, slack=(0, 0))
    bounds = tuple(np.full((3, 4), u) for u in (0, 1))
    check(replace(problem, bounds=bounds))
    # A row a frame, and targets (B, 0).
    narrow = logits_problem(4, lengths=([4, 2], [0, 0]), topology=topology, slack=(0, 0))
    assert narrow.targets.shape == (2, 0)
    check(replace(narrow, bounds=(np.zeros((2, 4), int), np.zeros((2, 4), int))))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_bands_below_and_above_the_lattice(topology):
    """Row r is counted from the first bound as it was given, whatever is cut off."""
    problem = logits_problem(5, lengths=([5, 5], [2, 2]), topology=topology)
    below, above = np.full((2, 6), -3), np.full((2, 6), 7)
    loss, _ = check(replace(problem, bounds=(below, above)))
    np.testing.assert_array_equal(loss, lattice.transducer_loss(*problem.args, topology=topology))


@pytest.mark.parametrize("first, last", [(3, 5), (FAR - 1, FAR), (-FAR - 1, -FAR), (-3, -1), (1, 0), (FAR, -FAR - 1)])
def test_frames_without_a_cell_have_no_alignment(first, last):
    problem = logits_problem(6, lengths=([5, 5], [2, 2]))
    bounds = np.zeros((2, 6), np.int64), np.full((2, 6), 2)
    bounds[0][0, 2], bounds[1][0, 2] = first, last
    banded = replace(problem, bounds=(np.zeros((2, 6), int), np.full((2, 6), 2))).band(problem.logits)
    loss, grad = call(replace(problem, bounds=bounds), banded)
    assert loss[0] == np.inf and not grad[0].any()
    np.testing.assert_array_equal(loss[1], lattice.transducer_loss(*problem.args)[1])
    assert grad[1].any() and np.isfinite(grad).all()


def test_no_row_at_all():
    problem = logits_problem(6, lengths=([5, 5], [2, 2]))
    bounds = np.ones((2, 6), int), np.zeros((2, 6), int)
    loss, grad = call(replace(problem, bounds=bounds), np.zeros((2, 6, 0, 7), np.float32))
    assert (loss == np.inf).all() and grad.shape == (2, 6, 0, 7)


def test_bounds_of_padded_frames_are_never_read():
    problem = logits_problem(7, **SHAPES)
    banded = problem.band(problem.logits)
    expected = call(problem, banded)
    first, last = (bound.astype(np.int64) for bound in problem.bounds)
    padded = np.arange(first.shape[1]) >= problem.logit_lengths[:, None]
    first[padded], last[padded] = -FAR - 1, FAR
    wide = tuple(np.pad(bound, ((0, 0), (0, 2)), constant_values=FAR) for bound in (first, last))
    for bounds in ((first, last), wide):
        for ours, theirs in zip(call(replace(problem, bounds=bounds), banded), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_poison_outside_of_the_band_stays_there():
    problem = logits_problem(8, **SHAPES)
    loss, grad = call(problem, problem.band(problem.logits, spare=2, fill=np.inf))
    assert np.isfinite(loss).all() and np.isfinite(grad).all()


def test_strided_logits():
    problem = logits_problem(9, **SHAPES)
    banded = problem.band(problem.logits)
    strided = np.repeat(banded, 2, axis=2)[:, :, ::2]
    for ours, theirs in zip(call(problem, strided), call(problem, banded), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_empty_batch():
    empty = LogitsProblem(
        np.zeros((0, 3, 2, 5), np.float32),
        *(np.zeros(shape, int) for shape in ((0, 4), 0, 0)),
        bounds=(np.zeros((0, 3), int), np.zeros((0, 3), int)),
    )
    loss, grad = call(empty, empty.logits)
    assert loss.shape == (0,) and grad.shape == empty.logits.shape


DOORS = ["transducer_loss", "transducer_loss_and_grad", "transducer_alignment", "transducer_posteriors"]


def test_what_is_refused():
    problem = logits_problem(10, lengths=([5, 4], [3, 3]))
    first, last = np.zeros((2, 6), np.int64), np.full((2, 6), 3)
    problem = replace(problem, bounds=(first, last))
    problem = replace(problem, logits=problem.band(problem.logits))  # (2, 6, 4, 7)
    on = {"banded": True}
    refuse(DOORS, problem, on | {"bounds": None}, ValueError, "banded", "bounds")
    refuse(DOORS, problem, on | {"logits": problem.logits.reshape(-1, 7)}, ValueError, "banded", "packed", "(48, 7)")
    for wrong in (1, None, "yes", np.array([True])):
        refuse(DOORS, problem, {"banded": wrong}, TypeError, "banded", "True or False")
    for at, low, high in (((1, 3), 0, 4), ((0, 0), -5, 0), ((0, 4), -FAR - 1, FAR), ((1, 2), -FAR - 1, -FAR + 3)):
        bounds = first.copy(), last.copy()
        bounds[0][at], bounds[1][at] = low, high
        place = str(list(at))
        refuse(DOORS, problem, on | {"bounds": bounds}, ValueError, f"bounds[1]{place}", high, low + 3, "rows", low)
    refuse(DOORS, problem, on | {"bounds": (first[:, :4], last)}, ValueError, "bounds[0]", 4, 5)
    refuse(DOORS, problem, on | {"bounds": first}, WRONG, "bounds", "pair")
    # The rows say nothing of U: only `targets` does.
    wide = on | {"target_lengths": np.array([3, 6])}
    refuse(DOORS, problem, wide, ValueError, "target_lengths", 6, 5, "targets")
