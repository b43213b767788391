"""Three ways to one gradient: the plain call, memory that is overwritten, and a function of the upstream gradient."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare
from tests.problems import BFLOAT16, DTYPES, TOPOLOGIES, joint_problem, name_of

KINDS = [
    {},
    {"topology": "monotonic", "activation": "relu", "vocabulary": "lengths"},
    {"use_bias": False, "bounded": True, "blank": -1},
    {"sharpness": 8.0, "frames": 30, "labels": 12, "activation": "identity"},
]


def plain(problem, **extra):
    return lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, **extra)


def assert_same_grads(ours, other, **options):
    assert type(ours) is type(other) is lattice.JointGradients
    for name, one, two in zip(ours._fields, ours, other, strict=True):
        if two is None:
            assert one is None
            continue
        compare.assert_same(one, two, what=name, **options)


def copied(problem):
    return replace(problem, encoder=problem.encoder.copy(), predictor=problem.predictor.copy())


@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_overwriting_changes_where_not_what(kind, dtype, posterior_floor):
    problem = joint_problem(1, dtype=dtype, **kind)
    loss, expected = plain(problem, posterior_floor=posterior_floor)
    victim = copied(problem)
    new_loss, grads = plain(victim, posterior_floor=posterior_floor, overwrite=True)
    np.testing.assert_array_equal(new_loss, loss)
    assert_same_grads(grads, expected)
    assert np.shares_memory(grads.encoder, victim.encoder)
    assert np.shares_memory(grads.predictor, victim.predictor)
    np.testing.assert_array_equal(victim.encoder, grads.encoder)
    np.testing.assert_array_equal(victim.predictor, grads.predictor)
    assert not victim.encoder[np.isnan(problem.encoder)].any()
    assert not victim.predictor[np.isnan(problem.predictor)].any()


def test_overwriting_rows_that_are_shared_is_refused():
    problem = joint_problem(3, hypotheses=5)
    with pytest.raises(ValueError, match=r"overwrite.*encoder_index|encoder_index.*overwrite"):
        plain(problem, overwrite=True)
    with pytest.raises(ValueError, match=r"overwrite.*encoder_index|encoder_index.*overwrite"):
        lattice.joint_transducer_loss_vjp(*problem.args, **problem.options, overwrite=True)


def test_read_only_arrays_are_not_overwritten():
    for name in ("encoder", "predictor"):
        problem = joint_problem(4)
        before = [array.copy() for array in problem.args[:2]]
        getattr(problem, name).setflags(write=False)
        for door in (lattice.joint_transducer_loss_and_grad, lattice.joint_transducer_loss_vjp):
            with pytest.raises(ValueError, match=name):
                door(*problem.args, **problem.options, overwrite=True)
        for array, untouched in zip(problem.args[:2], before, strict=True):
            np.testing.assert_array_equal(array, untouched)


def test_errors_come_before_overwriting():
    problem = joint_problem(5)
    victim = copied(problem)
    with pytest.raises(ValueError, match="grad_loss"):
        plain(victim, overwrite=True, grad_loss=np.ones(3, np.float32))
    np.testing.assert_array_equal(victim.encoder, problem.encoder)


@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("kind", [*KINDS, {"hypotheses": 6}], ids=str)
def test_vjp_is_the_gradient(kind, dtype, posterior_floor):
    problem = joint_problem(6, dtype=dtype, **kind)
    real = np.float64 if dtype == np.float64 else np.float32
    rng = np.random.default_rng(6)
    loss, vjp = lattice.joint_transducer_loss_vjp(*problem.args, **problem.options, posterior_floor=posterior_floor)
    assert loss.dtype == real
    for upstream in (np.ones(len(loss), real), rng.standard_normal(len(loss)).astype(real), np.zeros(len(loss), real)):
        expected_loss, expected = plain(problem, posterior_floor=posterior_floor, grad_loss=upstream)
        np.testing.assert_array_equal(loss, expected_loss)
        grads = vjp(upstream)
        assert_same_grads(grads, expected)
        again = vjp(upstream)  # repeatable, into fresh memory
        for one, two in zip(grads, again, strict=True):
            if one is not None:
                np.testing.assert_array_equal(one, two)
                assert not np.shares_memory(one, two)
    assert not any(grad.any() for grad in again if grad is not None)  # the last upstream gradient was zero


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_vjp_is_linear(topology):
    problem = joint_problem(7, dtype=np.float64, topology=topology)
    loss, vjp = lattice.joint_transducer_loss_vjp(*problem.args, **problem.options, fastemit_lambda=0.1)
    rng = np.random.default_rng(7)
    one, two = rng.standard_normal((2, len(loss)))
    combined = vjp(2 * one - 3 * two)
    expected = lattice.JointGradients(*(2 * a - 3 * b for a, b in zip(vjp(one), vjp(two), strict=True)))
    assert_same_grads(combined, expected, scale=10 * loss.max())


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=name_of)
def test_vjp_with_overwriting_works_once(dtype):
    problem = joint_problem(8, dtype=dtype)
    upstream = np.array([1, -2, 0, 0.5], np.float32)
    loss, expected = plain(problem, grad_loss=upstream)
    victim = copied(problem)
    new_loss, vjp = lattice.joint_transducer_loss_vjp(*victim.args, **victim.options, overwrite=True)
    np.testing.assert_array_equal(new_loss, loss)
    np.testing.assert_array_equal(
        victim.encoder.view(np.uint8), problem.encoder.view(np.uint8)
    )  # not before it is asked for
    grads = vjp(upstream)
    assert_same_grads(grads, expected)
    assert np.shares_memory(grads.encoder, victim.encoder)
    with pytest.raises(RuntimeError, match="overwrite"):
        vjp(upstream)


def test_vjp_checks_its_argument():
    problem = joint_problem(9)
    _, vjp = lattice.joint_transducer_loss_vjp(*problem.args, **problem.options)
    with pytest.raises(ValueError, match=r"grad_loss.*3"):
        vjp(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="grad_loss"):
        vjp([1.0] * 4)
    with pytest.raises(TypeError, match="grad_loss"):
        vjp(np.ones(4, int))


def test_a_poisoned_or_infeasible_example_does_not_spoil_a_vjp():
    problem = joint_problem(10, batch=3, lengths=([5, 6, 4], [3, 2, 2]))
    first = np.zeros(problem.encoder.shape[:2], np.int32)
    first[1, 2] = 5
    closed = replace(problem, bounds=(first, np.full_like(first, 9)))
    loss, vjp = lattice.joint_transducer_loss_vjp(*closed.args, **closed.options)
    assert loss[1] == np.inf
    grads = vjp(np.ones(3, np.float32))
    assert not grads.encoder[1].any()
    assert all(np.isfinite(grad).all() for grad in grads)
    problem.encoder[1, 0, 0] = np.nan
    loss, vjp = lattice.joint_transducer_loss_vjp(*problem.args, **problem.options)
    assert np.isnan(loss).tolist() == [False, True, False]
    grads = vjp(np.ones(3, np.float32))
    assert np.isfinite(grads.encoder[[0, 2]]).all()
    assert np.isfinite(grads.predictor[[0, 2]]).all()
