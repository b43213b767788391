"""The loss along given alignments against the oracle: small problems, every dtype, every option, hard numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from lattice import Topology
from tests import compare, oracle, path_oracle
from tests.path_problems import path_problem, path_problems
from tests.problems import BFLOAT16, DTYPES, TOPOLOGIES, name_of
from tests.test_joint import NAMES, gradient_scale
from tests.test_path_oracle import LOSSES


def check(problem, *, scale=None, **extra):
    """The door against the oracle; returns what it gave."""
    truth, naive = oracle.truth_and_naive(
        path_oracle.joint_path_loss_and_grad, problem.weight.dtype, *problem.args, **problem.options, **extra
    )
    loss, grads = lattice.joint_path_loss_and_grad(*problem.args, **problem.options, **extra)
    assert loss.dtype == (np.float64 if problem.encoder.dtype == np.float64 else np.float32)
    compare.assert_close(loss, truth[0], naive[0], per_example=True, what="loss")
    scale = scale_of(problem, truth[0], **extra) if scale is None else scale
    assert isinstance(grads, lattice.JointGradients)
    for name, grad, true, other, source in zip(NAMES, grads, truth[1], naive[1], (*problem.args[:4],), strict=True):
        if source is None:
            assert grad is None
            continue
        assert grad.dtype == source.dtype
        compare.assert_close(grad, true, other, scale=scale, what=name)
    assert not grads.encoder[np.isnan(problem.encoder)].any()
    assert not grads.predictor[np.isnan(problem.predictor)].any()
    return loss, grads


def scale_of(problem, loss, grad_loss=None, label_scale=0.0, focal=0.0, **_):
    """As of any loss of the joint; rows count `1 + label_scale` times, and `focal` times the largest loss of a row."""
    return gradient_scale(problem, loss, grad_loss) * (1 + label_scale) * (1 + focal * 10)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_ragged_batches(topology, dtype, loss):
    options = {"topology": topology, "dtype": dtype}
    check(path_problem(1, frames=8, **options), **loss)
    check(path_problem(2, activation="relu", use_bias=False, blank=-1, **options), **loss)
    check(path_problem(3, activation="identity", frames=12, labels=6, sharpness=8.0, blank=4, **options), **loss)


@given(
    path_problems(),
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.37, -25.0]), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_anything(problem, grad_loss, label_smoothing, label_scale, focal):
    grad_loss = np.array(
        grad_loss[: len(problem.targets)], np.float64 if problem.encoder.dtype == np.float64 else np.float32
    )
    check(problem, grad_loss=grad_loss, label_smoothing=label_smoothing, label_scale=label_scale, focal=focal)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_half_precision_meets_float32_weights(topology, dtype):
    problem = path_problem(4, topology=topology, dtype=dtype, weight_dtype=np.float32)
    loss, grads = check(problem, **LOSSES[-1])
    assert loss.dtype == np.float32
    assert [grad.dtype for grad in grads] == [dtype, dtype, np.float32, np.float32]


@pytest.mark.parametrize("kind", ["full", "lengths", "endings"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_vocabularies(kind, topology, dtype):
    """Smoothing spreads over the ids in use, so examples differ in what each gets."""
    problem = path_problem(5, batch=5, vocab=30, blank=7, topology=topology, dtype=dtype, vocabulary=kind)
    _, grads = check(problem, label_smoothing=0.3, focal=0.5)
    used = np.isin(np.arange(30), problem.vocabulary)
    assert kind == "full" or (grads.weight[~used] == 0).all()


def test_a_vocabulary_of_the_blank_alone():
    """Nothing to choose from, and no other id to smooth over: each row is certain."""
    problem = path_problem(6, lengths=([4, 6], [0, 2]), batch=2)
    vocabulary = np.array([[0, -1, -1, -1], [0, *problem.targets[1, :2], -1]])
    vocabulary[1, 3] = next(v for v in range(1, 9) if v not in vocabulary[1])
    assert len(set(vocabulary[1])) == 4
    for extra in LOSSES:
        loss, grads = check(replace(problem, vocabulary=vocabulary), **extra)
        assert loss[0] == 0 and not grads.encoder[0].any()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_upstream_gradients_of_either_sign_and_zero(topology):
    problem = path_problem(7, topology=topology)
    _, plain = check(problem, **LOSSES[-1])
    _, grads = check(problem, grad_loss=np.array([0.25, 0, -3, 2], np.float32), **LOSSES[-1])
    assert not grads.encoder[1].any() and not grads.predictor[1].any() and plain.encoder[1].any()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_several_labels_in_one_frame_none_and_one_frame(loss):
    problem = path_problem(8, batch=4, lengths=([3, 1, 4, 1], [4, 5, 0, 0]), topology="rnnt", dtype=np.float64)
    problem.frames[0, :4] = [1, 1, 1, 2]
    check(problem, **loss)
    check(path_problem(9, batch=3, lengths=([1, 5, 1], [1, 5, 0]), slack=(0, 0)), **loss)
    check(path_problem(9, batch=2, lengths=([3, 1], [0, 0]), slack=(0, 0)), **loss)  # targets (B, 0)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_gradient_is_that_of_the_loss(topology, loss):
    problem = path_problem(10, batch=2, frames=4, labels=3, slack=(0, 0), topology=topology, dtype=np.float64)
    upstream = np.array([1.0, -0.6])
    options = {**problem.options, **loss}
    _, grads = lattice.joint_path_loss_and_grad(*problem.args, **options, grad_loss=upstream)
    for position, grad in enumerate(grads):

        def weighted(x, position=position):
            args = [*problem.args[:position], x, *problem.args[position + 1 :]]
            return upstream @ lattice.joint_path_loss_and_grad(*args, **options)[0]

        expected = oracle.finite_differences(weighted, problem.args[position])
        np.testing.assert_allclose(grad, np.where(np.isnan(problem.args[position]), 0, expected), atol=1e-7)


HAT = Topology("monotonic", hat=True)


def one_row(row, dtype, *, is_label=False, **loss):
    """The loss of one given row of logits, and the gradient of its bias; blank 0, label 1."""
    encoder, frames = np.zeros((1, 1, 1), dtype), np.zeros((1, 1), int)
    given = encoder, np.zeros((1, 2, 1), dtype), np.ones((len(row), 1), dtype), np.array(row, dtype)
    args = *given, frames + 1, frames, np.array([1]), np.array([int(is_label)])
    expected = oracle.truth_and_naive(path_oracle.joint_path_loss_and_grad, dtype, *args, **loss)
    (truth, truth_grads), (naive, naive_grads) = expected
    value, grads = lattice.joint_path_loss_and_grad(*args, **loss)
    scale = max(1, truth[0]) if np.isfinite(truth[0]) else 1
    compare.assert_close(value, truth, naive, what="loss")
    compare.assert_close(grads.bias, truth_grads[3], naive_grads[3], scale=scale, what="gradient")
    return value[0], grads.bias


@pytest.mark.parametrize("loss", [*LOSSES, {"label_smoothing": 0.1, "focal": 0.5}], ids=str)
@pytest.mark.parametrize("gap", [9, 18, 30, 80, 100, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_are_certain_to_rounding(dtype, gap, loss):
    """1 - p is formed without p: a power of it near 0 would make a gradient out of what rounding left."""
    certain, grad = one_row([gap, 0, 0.5, 1, -3], dtype, **loss)
    wrong, _ = one_row([gap, 0, 0.5, 1, -3], dtype, is_label=True, **loss)
    assert 0 <= certain < wrong and np.abs(grad).max() < 1
    one_row([-gap, gap, 0, -gap], dtype, **loss)
    one_row([-gap, gap, gap, -gap], dtype, is_label=True, **loss)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_with_minus_infinity_and_poison(dtype, loss):
    inf = np.inf
    smooths = "label_smoothing" in loss
    for row, expected in (
        ([-inf, 1, 2], inf),  # the arc's
        ([0.5, 1, -inf], inf if smooths else None),  # another one, of which smoothing asks a share
        ([-inf] * 3, inf),
        ([1, -inf, -inf], inf if smooths else 0),
    ):
        value, grad = one_row(row, dtype, **loss)
        assert value == expected if expected is not None else np.isfinite(value)
        assert np.isfinite(value) or not grad.any()
    for row in ([np.nan, 1, 2], [1, np.nan, -inf], [1, inf, 0], [inf, 0, -inf], [-inf, -inf, np.nan]):
        value, grad = one_row(row, dtype, **loss)
        assert np.isnan(value) and np.isnan(grad).all()


@pytest.mark.parametrize("loss", [*LOSSES, {"label_smoothing": 0.1, "focal": 0.5}], ids=str)
@pytest.mark.parametrize("gap", [9, 18, 30, 80, 100, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_heads_that_are_certain_to_rounding(dtype, gap, loss):
    """1 - p of a label is what the blank has and what the other labels have, each formed by itself."""
    for row in ([gap, 0, 0.5, 1, -3], [gap, gap, 0, 1], [-gap, gap, 0, -gap], [-gap, gap, gap, 3], [0, gap, -gap]):
        for is_label in (False, True):
            value, grad = one_row(row, dtype, is_label=is_label, topology=HAT, **loss)
            assert value >= 0 and np.isfinite(value) and np.isfinite(grad).all()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_heads_with_minus_infinity_and_poison(dtype, loss):
    inf = np.inf
    smooths = "label_smoothing" in loss
    for row, is_label, expected in (
        ([-inf, 1, 2], False, inf),
        ([-inf, 1, 2], True, inf if smooths else None),
        ([0.5, -inf, 1], True, inf),
        ([0.5, -inf, 1], False, inf if smooths else None),
        ([0.5, -inf, -inf], False, inf if smooths else None),  # the blank needs no label
        ([0.5, -inf, -inf], True, inf),
        ([-inf] * 3, False, inf),
        ([0.5], False, None),
    ):
        value, grad = one_row(row, dtype, is_label=is_label, topology=HAT, **loss)
        assert value == expected if expected is not None else np.isfinite(value)
        assert np.isfinite(value) or not grad.any()
    for row in ([np.nan, 1, 2], [1, np.nan, -inf], [1, inf, 0], [inf, 0, -inf], [-inf, -inf, np.nan], [1, -inf, inf]):
        for is_label in (False, True):
            value, grad = one_row(row, dtype, is_label=is_label, topology=HAT, **loss)
            assert np.isnan(value) and np.isnan(grad).all()


@pytest.mark.parametrize("topology", ["monotonic", HAT], ids=name_of)
@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("loss", [{}, {"focal": 2.0}, {"focal": 0.5}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, BFLOAT16], ids=name_of)
def test_no_entry_is_below_the_least(dtype, loss, certain, topology):
    """Seen in the bias, which a row's gradient reaches as it is.

    In a certain row the arc's own entry is as small as the others.
    """
    wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    least = 2.0**-100
    row = np.array(
        [0] * (1 if certain else 3) + [np.log(least) + gap for gap in np.arange(-1, 2 if certain else 14, 0.5)]
    )
    given = np.zeros((1, 1, 1), dtype), np.zeros((1, 1, 1), dtype), np.zeros((len(row), 1), dtype), row.astype(dtype)
    integers = np.zeros((1, 0), int), np.zeros((1, 0), int), np.array([1]), np.array([0])
    if topology is HAT:
        # The row of a label, whose softmax leaves a blank out that is never taken.
        row = np.append(-np.inf, row)
        given = (
            np.zeros((1, 1, 1), dtype),
            np.zeros((1, 2, 1), dtype),
            np.zeros((len(row), 1), dtype),
            row.astype(dtype),
        )
        integers = np.ones((1, 1), int), np.zeros((1, 1), int), np.array([1]), np.array([1])
    options = {**loss, "grad_loss": np.array([-1e-3], wide), "topology": topology}
    _, truth = path_oracle.joint_path_loss_and_grad(*given, *integers, **options, dtype=np.longdouble)
    magnitude = np.abs(truth[3])
    assert (certain and loss) or ((magnitude > least * 1e-3) & (magnitude < least)).any()  # there is something to flush
    _, grads = lattice.joint_path_loss_and_grad(*given, *integers, **options)
    assert not ((grads.bias != 0) & (np.abs(grads.bias.astype(np.float64)) < least)).any()
