"""The fused joint against the oracle: activations, topologies, vocabularies, bands, shared encoders, dtypes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from tests import compare, joint_oracle, oracle, problems
from tests.problems import BFLOAT16, DTYPES, TOPOLOGIES, joint_problem, name_of

NAMES = ("encoder", "predictor", "weight", "bias")


def slack_of(problem, posterior_floor, grad_loss=None, fastemit_lambda=0.0):
    """What skipping may cost an entry of the results: the l1 error of the logits' gradient, carried back."""
    cells = int(np.sum(problem.encoder_lengths * (problem.target_lengths + 1)))
    reach = 1 + np.abs(problem.weight.astype(float)).max()
    if problem.activation != "tanh":
        reach += np.nanmax(np.abs(problem.encoder.astype(float))) + np.nanmax(np.abs(problem.predictor.astype(float)))
    reach /= 1 if problem.dropout is None else 1 - problem.dropout[0]
    upstream = 1 if grad_loss is None else max(1, np.abs(grad_loss).max())
    return oracle.most_of_a_row(problem.topology) * cells * posterior_floor * reach * upstream * (1 + fastemit_lambda)


def gradient_scale(problem, loss, grad_loss=None):
    """The chain rule multiplies by the weights.

    float64 sums of scores, as large as the loss, are rounded to float64.
    """
    size = 1 + np.abs(problem.weight.astype(float)).max()
    if problem.encoder.dtype == np.float64:
        size *= np.abs(loss[np.isfinite(loss)]).max(initial=1)
    return size * (1 if grad_loss is None else max(1, np.abs(grad_loss).max()))


def check(problem, *, posterior_floor=0.0, memory_limit=256 << 20, truth_of=joint_oracle.joint_loss_and_grad, **extra):
    """Both doors against the oracle; returns what they gave."""
    truth, naive = oracle.truth_and_naive(truth_of, problem.weight.dtype, *problem.args, **problem.options, **extra)
    cost = {"posterior_floor": posterior_floor, "memory_limit": memory_limit}
    loss, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, **cost, **extra)
    alone = lattice.joint_transducer_loss(*problem.args, **problem.options, **cost)
    slack = slack_of(problem, posterior_floor, **extra)
    assert loss.dtype == alone.dtype == (np.float64 if problem.encoder.dtype == np.float64 else np.float32)
    compare.assert_close(loss, truth[0], naive[0], per_example=True, slack=slack, what="loss")
    compare.assert_close(alone, truth[0], naive[0], per_example=True, slack=slack, what="loss alone")
    scale = gradient_scale(problem, truth[0], extra.get("grad_loss"))
    assert isinstance(grads, lattice.JointGradients)
    assert grads._fields == NAMES
    for name, grad, true, other, source in zip(NAMES, grads, truth[1], naive[1], problem.args[:4], strict=True):
        if source is None:
            assert grad is None
            continue
        assert grad.dtype == source.dtype
        compare.assert_close(grad, true, other, scale=scale, slack=slack, what=name)
    assert not grads.encoder[np.isnan(problem.encoder)].any()
    assert not grads.predictor[np.isnan(problem.predictor)].any()
    return loss, grads


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_ragged_batches(activation, topology, dtype):
    options = {"activation": activation, "topology": topology, "dtype": dtype}
    check(joint_problem(1, frames=8, **options))
    check(joint_problem(2, use_bias=False, blank=-1, **options))
    check(joint_problem(3, frames=12, labels=6, sharpness=8.0, blank=4, **options))


@given(
    problems.joint_problems(),
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.37, -25.0]), min_size=5, max_size=5),
    st.sampled_from([0.0, 0.01, 1.0]),
    st.sampled_from([0.0, 2.0**-24, 1e-3]),
)
def test_anything(problem, grad_loss, fastemit_lambda, posterior_floor):
    grad_loss = np.array(
        grad_loss[: len(problem.targets)], np.float64 if problem.encoder.dtype == np.float64 else np.float32
    )
    check(problem, grad_loss=grad_loss, fastemit_lambda=fastemit_lambda, posterior_floor=posterior_floor)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_half_precision_meets_float32_weights(topology, dtype):
    problem = joint_problem(4, topology=topology, dtype=dtype, weight_dtype=np.float32)
    loss, grads = check(problem)
    assert loss.dtype == np.float32
    assert [grad.dtype for grad in grads] == [dtype, dtype, np.float32, np.float32]


@pytest.mark.parametrize("kind", ["full", "lengths", "endings"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_vocabularies(kind, topology, dtype):
    problem = joint_problem(5, batch=5, vocab=30, blank=7, topology=topology, dtype=dtype, vocabulary=kind)
    _, grads = check(problem)
    used = np.isin(np.arange(30), problem.vocabulary)
    assert kind == "full" or (grads.weight[~used] == 0).all()
    check(
        joint_problem(6, batch=6, vocab=12, topology=topology, dtype=dtype, vocabulary=kind, hypotheses=7, bounded=True)
    )
    check(joint_problem(7, frames=15, labels=7, sharpness=8.0, vocabulary=kind, topology=topology, dtype=dtype))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_hypotheses_share_encoder_rows(topology, dtype):
    problem = joint_problem(8, batch=3, hypotheses=8, topology=topology, dtype=dtype, blank=2)
    assert 2 not in problem.encoder_index
    assert len(np.unique(problem.encoder_index)) == 2
    _, grads = check(problem, grad_loss=np.linspace(-1, 2, 8).astype(np.float64 if dtype == np.float64 else np.float32))
    assert grads.encoder.shape == problem.encoder.shape
    assert not grads.encoder[2].any()  # nobody's row, NaN throughout
    assert grads.predictor.shape[0] == 8


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_bands(topology):
    for seed in range(5):
        check(joint_problem(seed, frames=12, labels=6, topology=topology, bounded=True))
    check(
        joint_problem(9, frames=25, labels=9, sharpness=8.0, topology=topology, bounded=True), posterior_floor=2.0**-24
    )


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_frame_no_labels_two_ids(topology, dtype):
    options = {"topology": topology, "dtype": dtype}
    check(joint_problem(10, batch=3, lengths=([1, 4, 1], [0, 0, 1]), **options))
    check(joint_problem(11, batch=2, lengths=([3, 1], [0, 0]), slack=(0, 0), **options))  # targets (B, 0)
    check(joint_problem(12, vocab=2, width=1, blank=1, **options))
    if topology == "rnnt":
        check(joint_problem(13, batch=2, lengths=([1, 1], [6, 3]), slack=(0, 0), **options))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_more_labels_and_ids_than_any_block(topology):
    """No sizes that divide anything: tiles and blocks end in the middle."""
    lengths = ([67, 41, 3], [37, 19, 3])
    problem = joint_problem(14, batch=3, lengths=lengths, vocab=131, width=13, topology=topology)
    check(problem)
    check(problem, posterior_floor=2.0**-24)


@pytest.mark.parametrize("sharpness", [6.0, 20.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_trained_like_lattices(topology, sharpness):
    """Most cells hold nothing here: with the default floor they are skipped, and the result is the dense one."""
    options = {"vocab": 40, "width": 16, "sharpness": sharpness, "topology": topology}
    problem = joint_problem(15, batch=3, lengths=([50, 31, 44], [20, 9, 0]), **options)
    dense = check(problem)
    skipped = check(problem, posterior_floor=2.0**-24)
    for ours, other in zip([skipped[0], *skipped[1]], [dense[0], *dense[1]], strict=True):
        compare.assert_same(ours, other, slack=slack_of(problem, 2.0**-24))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, BFLOAT16], ids=name_of)
def test_no_entry_is_below_the_least(dtype):
    """Seen in the bias, which the gradient of a row reaches as it is: entries that would be below 2**-100 are 0."""
    least = 2.0**-100
    row = np.append(0, np.log(least) + np.arange(-8, 14, 0.5))
    given = np.zeros((1, 1, 1), dtype), np.zeros((1, 1, 1), dtype), np.zeros((len(row), 1), dtype), row.astype(dtype)
    integers = np.zeros((1, 0), int), np.array([1]), np.array([0])
    grad_loss = np.array([-1e-3], np.float64 if dtype == np.float64 else np.float32)
    _, truth = joint_oracle.joint_loss_and_grad(*given, *integers, grad_loss=grad_loss, dtype=np.longdouble)
    magnitude = np.abs(truth[3])
    assert ((magnitude > least * 1e-3) & (magnitude < least)).any()  # there is something to flush
    _, grads = lattice.joint_transducer_loss_and_grad(*given, *integers, grad_loss=grad_loss)
    assert not ((grads.bias != 0) & (np.abs(grads.bias.astype(np.float64)) < least)).any()
    assert grads.bias[magnitude > 1.01 * least].all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_huge_weights(topology):
    problem = joint_problem(16, topology=topology)
    problem.weight[...] *= 3e3
    loss, grads = check(problem)
    assert np.isfinite(loss).all()
    assert all(np.isfinite(grad).all() for grad in grads)


def test_hypotheses_may_see_different_lengths_of_one_row():
    problem = joint_problem(20, batch=2, hypotheses=3, frames=8, labels=2)
    assert (problem.encoder_index == 0).all()
    check(replace(problem, encoder_lengths=problem.encoder_lengths - [0, 2, 1]))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
def test_a_bias_of_minus_infinity_masks_an_id(topology, posterior_floor):
    """Others never emit it, and an example that needs it has no alignment."""
    problem = joint_problem(19, vocab=12, topology=topology, lengths=([6, 5, 7], [3, 2, 4]), batch=3)
    used = set(problem.targets[:2][np.isin(problem.targets[:2], np.arange(12))].tolist())
    masked = next(v for v in problem.targets[2, :4].tolist() if v not in used)
    problem.bias[masked] = -np.inf
    loss, grads = check(problem, posterior_floor=posterior_floor)
    assert np.isposinf(loss).tolist() == [False, False, True]
    assert not grads.weight[masked].any()
    assert grads.bias[masked] == 0


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_loss_of_its_logits(topology, dtype):
    """Against the other door, on logits made here."""
    problem = joint_problem(17, topology=topology, dtype=dtype)
    hidden = np.tanh(problem.encoder[:, :, None] + problem.predictor[:, None])
    logits = hidden @ problem.weight.T + problem.bias
    loss, grad_logits = lattice.transducer_loss_and_grad(logits, *problem.args[4:], topology=topology)
    ours, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=0)
    compare.assert_same(ours, loss, what="loss")
    grad_bias = grad_logits.sum(axis=(0, 1, 2))
    grad_weight = np.einsum("btuv,btuh->vh", grad_logits, np.nan_to_num(hidden))
    scale = loss.max() * 2
    compare.assert_same(grads.bias, grad_bias, scale=scale, what="bias")
    compare.assert_same(grads.weight, grad_weight, scale=scale, what="weight")


def test_the_other_door_takes_the_same_blank_and_bounds():
    problem = joint_problem(18, bounded=True, blank=-2, activation="identity", use_bias=False, dtype=np.float64)
    logits = (problem.encoder[:, :, None] + problem.predictor[:, None]) @ problem.weight.T
    expected = lattice.transducer_loss(logits, *problem.args[4:], blank=-2, bounds=problem.bounds)
    ours = lattice.joint_transducer_loss(*problem.args, **problem.options, posterior_floor=0)
    compare.assert_same(ours, expected)
