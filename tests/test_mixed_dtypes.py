"""Encoder, predictor, weight and bias of any mix of float16, bfloat16 and float32, at every door of the fused joint.

A door computes in float32 what it is given, so that a mix has the result of the same numbers in float32. Gradients are
those in float32 too, each rounded once to the dtype of its input.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import lattice
from tests.decode_problems import decode_problem
from tests.language_model_problems import language_model_problem
from tests.path_problems import path_problem
from tests.problems import BFLOAT16, NARROW, TOPOLOGIES, joint_problem, name_of
from tests.test_joint import check

F4, F2, BF = NARROW
assert BF == BFLOAT16
NAMES = ("encoder", "predictor", "weight", "bias")
SMALL = {"batch": 2, "frames": 4, "labels": 3, "vocab": 7, "width": 5}
MIXES = [(BF, F4, F4, F4), (F4, BF, F2, F4), (F2, BF, BF, F2), (F4, F4, BF, F4), (BF, F2, F4, BF)]
KINDS = [
    {},
    {"hypotheses": 4, "topology": "monotonic"},
    {"vocabulary": "lengths", "activation": "relu"},
    {"bounded": True, "topology": "constrained"},
    {"frames": 30, "labels": 12, "sharpness": 8.0},
]
WITH_KINDS = [*zip(MIXES, KINDS, strict=True), (MIXES[2], KINDS[0]), (MIXES[3], KINDS[4])]


def names_of(value):
    """Test ids: the dtypes of a mix, and anything else as it is."""
    return "-".join(dtype.name for dtype in value) if isinstance(value, tuple) else str(value)


def wide(problem, names=NAMES):
    """The same numbers in float32."""
    given = {name: getattr(problem, name) for name in names if getattr(problem, name) is not None}
    return replace(problem, **{name: array.astype(F4) for name, array in given.items()})


def assert_rounded(grads, expected, inputs):
    """The gradients are those in float32, rounded to the dtypes of the inputs."""
    for name, grad, other, given in zip(grads._fields, grads, expected, inputs, strict=True):
        assert grad.dtype == given.dtype, name
        np.testing.assert_array_equal(grad, other.astype(given.dtype), err_msg=name)


def same_of_wide(door, problem, **extra):
    """Loss and gradients of a mix are those of the same numbers in float32."""
    own = wide(problem)
    (loss, grads), (other, expected) = (door(*x.args, **x.options, **extra) for x in (problem, own))
    assert loss.dtype == F4 and np.isfinite(loss).all()
    np.testing.assert_array_equal(loss, other)
    assert_rounded(grads, expected, problem.args[:4])


@pytest.mark.parametrize("predictor", NARROW, ids=name_of)
@pytest.mark.parametrize("encoder", NARROW, ids=name_of)
def test_every_mix(encoder, predictor):
    """Against the oracle, which takes the inputs for exact."""
    for weight, bias in product(NARROW, NARROW):
        problem = joint_problem(1, **SMALL, dtypes=(encoder, predictor, weight, bias))
        assert [x.dtype for x in problem.args[:4]] == [encoder, predictor, weight, bias]
        loss, _ = check(problem)
        assert loss.dtype == F4


@pytest.mark.parametrize("posterior_floor", [0.0, 2.0**-24])
@pytest.mark.parametrize(("dtypes", "kind"), WITH_KINDS, ids=names_of)
def test_a_mix_is_computed_in_float32(dtypes, kind, posterior_floor):
    problem = joint_problem(2, **(SMALL | kind), dtypes=dtypes)
    same_of_wide(lattice.joint_transducer_loss_and_grad, problem, posterior_floor=posterior_floor)
    check(problem, posterior_floor=posterior_floor)


@pytest.mark.parametrize("dtypes", MIXES, ids=names_of)
def test_without_bias(dtypes):
    _, grads = check(joint_problem(3, **SMALL, dtypes=dtypes, use_bias=False))
    assert grads.bias is None


@pytest.mark.parametrize("dtypes", MIXES, ids=names_of)
def test_the_loss_now_and_the_gradients_later(dtypes):
    problem = joint_problem(4, **SMALL, dtypes=dtypes)
    upstream = np.array([-0.5, 2.0], F4)
    loss, vjp = lattice.joint_transducer_loss_vjp(*problem.args, **problem.options)
    expected = lattice.joint_transducer_loss_and_grad(*wide(problem).args, **problem.options, grad_loss=upstream)
    np.testing.assert_array_equal(loss, expected[0])
    for _ in range(2):
        assert_rounded(vjp(upstream), expected[1], problem.args[:4])


@pytest.mark.parametrize("door", ["joint_transducer_loss_and_grad", "joint_transducer_loss_vjp"])
@pytest.mark.parametrize("dtypes", MIXES, ids=names_of)
def test_overwritten_in_place(dtypes, door):
    problem = joint_problem(5, **SMALL, dtypes=dtypes)
    expected = lattice.joint_transducer_loss_and_grad(*wide(problem).args, **problem.options)
    victim = replace(problem, encoder=problem.encoder.copy(), predictor=problem.predictor.copy())
    loss, grads = getattr(lattice, door)(*victim.args, **victim.options, overwrite=True)
    grads = grads() if callable(grads) else grads
    np.testing.assert_array_equal(loss, expected[0])
    assert_rounded(grads, expected[1], problem.args[:4])
    assert grads.encoder is victim.encoder and grads.predictor is victim.predictor


@pytest.mark.parametrize("dtypes", MIXES, ids=names_of)
def test_reports_and_posteriors(dtypes):
    problem = joint_problem(6, **(SMALL | KINDS[-1]), dtypes=dtypes)
    own = wide(problem)
    for door in (lattice.joint_transducer_report, lattice.joint_transducer_posteriors):
        ours, expected = (door(*x.args, **x.options) for x in (problem, own))
        for name, one, other in zip(ours._fields, ours, expected, strict=True):
            # Rows that were widened lie in the workspace.
            if name != "workspace_bytes":
                np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtypes", MIXES, ids=names_of)
def test_along_a_path_and_the_best_path(dtypes, topology):
    problem = path_problem(7, **SMALL, dtypes=dtypes, topology=topology)
    same_of_wide(lattice.joint_path_loss_and_grad, problem, label_smoothing=0.1, focal=0.5)
    problem = joint_problem(8, **SMALL, dtypes=dtypes, topology=topology)
    for one, other in zip(
        *(lattice.joint_transducer_alignment(*x.args, **x.options) for x in (problem, wide(problem))), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtypes", MIXES, ids=names_of)
def test_the_internal_language_model(dtypes):
    problem = language_model_problem(9, **SMALL, dtypes=dtypes)
    door, own = lattice.internal_language_model_loss_and_grad, wide(problem, NAMES[1:])
    (loss, grads), (other, expected) = (door(*x.args, **x.options) for x in (problem, own))
    np.testing.assert_array_equal(loss, other)
    for grad, one, given in zip(grads[1:], expected[1:], problem.args[:3], strict=True):
        assert grad.dtype == given.dtype
        np.testing.assert_array_equal(grad, one.astype(given.dtype))


@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("door", ["greedy_decode", "beam_decode"])
@pytest.mark.parametrize("dtypes", MIXES, ids=names_of)
def test_searches(dtypes, door, allowed):
    """Also where `predict` returns one dtype now and another one later."""
    problem = decode_problem(10, batch=3, frames=4, dtypes=dtypes, allowed=allowed, most=3)
    expected = getattr(lattice, door)(*wide(problem, ("encoder", "weight", "bias")).args, **problem.options)
    assert expected.score.dtype == F4 and expected.lengths.any()
    table, calls = problem.predictor.table, []

    def changing(labels, state):
        predictor, state = problem.predictor(labels, state)
        calls.append(len(labels))
        return (predictor if len(calls) % 2 else predictor.astype(F4)), state

    for predict in (problem.predictor, changing):
        args = [*problem.args]
        args[2] = predict
        for one, other in zip(getattr(lattice, door)(*args, **problem.options), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert table.dtype == dtypes[1] and len(calls) > 1
