"""Loss and gradient of given logits against the oracle: small lattices, every dtype, closed forms, hard numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from tests import compare, oracle, problems
from tests.problems import DTYPES, TOPOLOGIES, logits_problem, name_of


def gradient_scale(loss, dtype, grad_loss=None):
    """Scale of each example's gradient.

    In float64 the sums of scores, as large as the loss, are rounded to the same dtype. Narrower sums are not.
    """
    size = np.maximum(1, np.where(np.isfinite(loss), np.abs(loss), 1)) if dtype == np.float64 else np.ones(len(loss))
    return size.astype(float) * (1 if grad_loss is None else np.abs(grad_loss))


def check(problem, *, scale=None, truth_of=oracle.batch_loss_and_grad, **extra):
    """Both doors against the oracle; returns what they gave."""
    truth, naive = oracle.truth_and_naive(truth_of, problem.logits.dtype, *problem.args, **problem.options, **extra)
    loss, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options, **extra)
    alone = lattice.transducer_loss(*problem.args, **problem.options)
    assert loss.dtype == alone.dtype == (np.float64 if problem.logits.dtype == np.float64 else np.float32)
    assert grad.dtype == problem.logits.dtype
    nats = loss_scale(truth[0], problem)  # (B,)
    compare.assert_close(loss, truth[0], naive[0], per_example=True, scale=nats, what="loss")
    compare.assert_close(alone, truth[0], naive[0], per_example=True, scale=nats, what="loss alone")
    if scale is None:
        scale = gradient_scale(truth[0], problem.logits.dtype, extra.get("grad_loss"))
    compare.assert_close(grad, truth[1], naive[1], per_example=True, scale=scale, what="gradient")
    assert not grad[~problem.real].any()
    return loss, grad


def loss_scale(truth, problem):
    """(B,) of a loss: itself, at least 1, and what a delay penalty moves it by, which is taken off a larger sum."""
    topology, (_, _, frames, labels) = problem.options.get("topology"), problem.args
    moved = abs(getattr(topology, "delay_penalty", 0.0)) * 0.5 * labels * (frames - 1)
    return np.maximum(1, np.abs(np.where(np.isfinite(truth), truth, 0))) + moved


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_small_lattice_is_its_enumeration(topology, dtype):
    lengths = np.array([(t, u) for t in range(1, 5) for u in range(5) if topology == "rnnt" or u <= t]).T
    problem = logits_problem(0, lengths=lengths, vocab=5, topology=topology, dtype=dtype)

    def enumerate_batch(dtype):
        return np.array(
            [
                oracle.loss_by_enumeration(
                    problem.logits[b, :t, : u + 1], problem.targets[b, :u], topology=topology, dtype=dtype
                )
                for b, (t, u) in enumerate(lengths.T)
            ]
        )

    truth, naive = oracle.truth_and_naive(enumerate_batch, dtype)
    loss = lattice.transducer_loss(*problem.args, topology=topology)
    compare.assert_close(loss, truth, naive, per_example=True, what="loss")
    check(problem, scale=1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    ("frames", "labels", "vocab"),
    [
        (1, 0, 1),
        (1, 0, 2),
        (1, 1, 2),
        (5, 5, 3),
        (200, 150, 64),
        (3, 1, 16384),
        (2, 2, 16384),
        (1200, 3, 3),
        (1100, 1100, 2),  # more labels than a block has threads
    ],
)
def test_equal_logits_have_a_closed_form(frames, labels, vocab, topology, dtype):
    logits = np.full((1, frames, labels + 1, vocab), 3.0, dtype)
    targets = np.ones((1, labels), np.int32)
    loss, grad = lattice.transducer_loss_and_grad(
        logits, targets, np.array([frames]), np.array([labels]), topology=topology
    )
    expected = np.array([oracle.uniform_loss(frames, labels, vocab, topology)])
    arcs = frames + labels
    scale = max(1, arcs * np.log(vocab)) * (
        arcs if dtype == np.float64 else 1
    )  # the recursion rounds at each arc, in float64
    compare.assert_close(loss, expected, expected, k=2, scale=scale, what="loss")
    compare.assert_close(grad.sum(axis=-1), np.zeros(grad.shape[:3]), 0 * grad[..., 0], what="row sum")


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("sharpness", [0.0, 8.0, 40.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("blank", [0, 3, 6, -1])
def test_ragged_batches(dtype, sharpness, topology, blank):
    check(logits_problem(1, frames=9, labels=5, blank=blank, topology=topology, dtype=dtype, sharpness=sharpness))


@given(
    problems.logits_problems(),
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.37, -25.0]), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.01, 1.0]),
)
def test_anything(problem, grad_loss, fastemit_lambda):
    grad_loss = np.array(
        grad_loss[: len(problem.logits)], np.float64 if problem.logits.dtype == np.float64 else np.float32
    )
    check(problem, grad_loss=grad_loss, fastemit_lambda=fastemit_lambda)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_upstream_gradient_and_fastemit(topology, dtype):
    problem = logits_problem(2, batch=4, topology=topology, dtype=dtype)
    grad_loss = np.array([0.25, 0, -3, 2], np.float64 if dtype == np.float64 else np.float32)
    _, plain = check(problem)
    loss, fast = check(problem, fastemit_lambda=0.5)
    np.testing.assert_array_equal(loss, lattice.transducer_loss(*problem.args, **problem.options))
    assert not np.array_equal(plain, fast)
    _, grad = check(problem, grad_loss=grad_loss, fastemit_lambda=0.5)
    assert not grad[1].any()
    assert grad[0].any()
    assert grad[2].any()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_labels_one_frame_and_repeated_labels(topology):
    check(logits_problem(3, lengths=([1, 5, 1, 3], [0, 0, 1, 0]), topology=topology), scale=1.0)
    check(logits_problem(3, lengths=([4, 2], [0, 0]), topology=topology, slack=(0, 0)), scale=1.0)  # targets (B, 0)
    if topology == "rnnt":
        check(logits_problem(4, lengths=([1, 1], [6, 3]), slack=(0, 0)))
    problem = logits_problem(5, lengths=([6, 6, 6], [5, 4, 6]), topology=topology)
    problem.targets[0, :5] = 2
    problem.targets[1, :4] = [2, 3, 2, 3]
    problem.targets[2, :6] = [1, 1, 1, 4, 4, 4]
    check(problem)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits(topology, dtype):
    """Differences of 1e4 decide everything: posteriors are 0 and 1, and nothing overflows."""
    check(logits_problem(6, spread=1e4, topology=topology, dtype=dtype), scale=1.0)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_an_offset_costs_nothing(topology, offset):
    """A float32 logit minus a float32 log_norm would lose half of the loss's digits here."""
    problem = logits_problem(7, frames=12, labels=6, topology=topology)
    problem.logits[...] += offset
    check(problem)
    wide = logits_problem(7, frames=12, labels=6, topology=topology, dtype=np.float64)
    wide.logits[...] = problem.logits
    compare.assert_same(
        lattice.transducer_loss(*problem.args, **problem.options),
        lattice.transducer_loss(*wide.args, **wide.options).astype(np.float32),
        per_example=True,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_minus_infinity_closes_arcs(topology, dtype):
    problem = logits_problem(8, lengths=([7, 6, 6, 5], [3, 3, 2, 2]), topology=topology, dtype=dtype)
    rng = np.random.default_rng(8)
    drop = rng.random(problem.logits.shape) < 0.15
    drop[2:] = False
    drop[:, [0, 1, 2, 3, -3, -2], 0] = False  # a way through remains: some blanks stay
    problem.logits[drop] = -np.inf
    problem.logits[2, 2, 1] = -np.inf  # a whole row: the cell is closed
    problem.logits[3, 1] = -np.inf  # a whole frame: no alignment
    loss, grad = check(problem)
    assert np.isfinite(loss[2])
    assert loss[3] == np.inf
    assert not grad[3].any()
    assert not grad[2, 2, 1].any()
    assert not grad[:2][np.isneginf(problem.logits[:2])].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_long_lattice_keeps_its_digits(topology, dtype):
    """No allowance for the size of the loss here: alpha and beta are float64, so the error stays that of the scores."""
    problem = logits_problem(9, lengths=([300], [80]), vocab=8, topology=topology, dtype=dtype, slack=(0, 0))
    (_, truth), (_, naive) = oracle.truth_and_naive(oracle.batch_loss_and_grad, dtype, *problem.args, topology=topology)
    _, grad = lattice.transducer_loss_and_grad(*problem.args, topology=topology)
    compare.assert_close(grad, truth, naive, k=32, scale=np.abs(truth).max(), what="gradient")
    compare.assert_relative_l2(grad, truth, 2e-5 if dtype == np.float32 else 1e-12)


def test_long_audio_within_the_stated_error():
    problem = logits_problem(10, lengths=([1000], [150]), vocab=6, slack=(0, 0))
    _, truth = oracle.batch_loss_and_grad(*problem.args)
    _, grad = lattice.transducer_loss_and_grad(*problem.args)
    compare.assert_relative_l2(grad, truth, 2e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, problems.BFLOAT16], ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_entry_is_below_the_least(topology, dtype):
    """Tiny posteriors, a tiny upstream gradient: entries that would be below 2**-100 are 0.

    Not float16, whose smallest number is 6e-8.
    """
    least = 2.0**-100
    problem = logits_problem(11, lengths=([12, 12], [6, 6]), vocab=20, spread=20, topology=topology, dtype=dtype)
    grad_loss = np.array([1, -1e-3], np.float64 if dtype == np.float64 else np.float32)
    _, truth = oracle.batch_loss_and_grad(*problem.args, **problem.options, grad_loss=grad_loss, dtype=np.longdouble)
    magnitude = np.abs(truth[problem.real])
    assert ((magnitude > least * 1e-3) & (magnitude < least)).any()  # there is something to flush
    _, grad = check(problem, grad_loss=grad_loss)
    assert not ((grad != 0) & (np.abs(grad.astype(np.float64)) < least)).any()
    assert grad[problem.real][magnitude > 1.01 * least].all()
    _, grad = lattice.transducer_loss_and_grad(*problem.args, topology=topology, grad_loss=grad_loss * 1e-33)
    assert not grad.any()


@pytest.mark.parametrize("dtype", [np.float16, problems.BFLOAT16], ids=name_of)
def test_half_gradients_are_rounded_once(dtype):
    """The float32 computation on the same numbers, to half a unit in the last place and the smallest normal number."""
    half = logits_problem(12, dtype=dtype, spread=1.0)
    single = logits_problem(12, dtype=np.float32, spread=1.0)
    single.logits[...] = half.logits
    loss, grad = lattice.transducer_loss_and_grad(*half.args)
    expected_loss, expected = lattice.transducer_loss_and_grad(*single.args)
    compare.assert_same(loss, expected_loss)
    info = problems.ml_dtypes.finfo(dtype)
    error = np.abs(grad.astype(np.float32) - expected)
    assert (error <= 0.51 * float(info.eps) * np.abs(expected) + float(info.smallest_subnormal)).all()


def test_gradient_rows_sum_to_zero():
    for topology in TOPOLOGIES:
        problem = logits_problem(13, frames=20, labels=8, vocab=40, topology=topology)
        for extra in ({}, {"fastemit_lambda": 0.4}, {"grad_loss": np.array([1, -2, 0, 0.5], np.float32)}):
            _, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options, **extra)
            sums = grad.sum(axis=-1, dtype=np.float64).astype(np.float32)
            compare.assert_close(sums, np.zeros_like(sums), np.zeros_like(sums), k=8, what="row sum")
