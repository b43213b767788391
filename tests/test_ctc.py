"""CTC loss, gradient and alignment against the oracle: small problems, every dtype, closed forms, hard numbers."""

from dataclasses import replace
from math import comb, log

import numpy as np
import pytest

import lattice
from tests import compare, ctc_oracle, oracle, problems
from tests.ctc_problems import ctc_problem, fewest_frames
from tests.problems import DTYPES, name_of
from tests.test_transducer import gradient_scale


def check(problem, *, scale=None, **extra):
    """Both doors against the oracle; returns what they gave."""
    dtype = problem.logits.dtype
    truth, naive = oracle.truth_and_naive(
        ctc_oracle.batch_loss_and_grad, dtype, *problem.args, **problem.options, **extra
    )
    loss, grad = lattice.ctc_loss_and_grad(*problem.args, **problem.options, **extra)
    alone = lattice.ctc_loss(*problem.args, **problem.options)
    assert loss.dtype == alone.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert grad.dtype == dtype
    compare.assert_close(loss, truth[0], naive[0], per_example=True, what="loss")
    compare.assert_close(alone, truth[0], naive[0], per_example=True, what="loss alone")
    if scale is None:
        scale = gradient_scale(truth[0], dtype, extra.get("grad_loss"))
    compare.assert_close(grad, truth[1], naive[1], per_example=True, scale=scale, what="gradient")
    assert not grad[~problem.real].any()
    return loss, grad


def check_alignment(problem):
    """Both alignments against the enumeration of all of them; returns the one of first frames."""
    blank = problem.blank % problem.logits.shape[2]

    def enumerate_batch(dtype):
        found = [ctc_oracle.best_by_enumeration(*example, blank=blank, dtype=dtype) for example in problem.examples]
        return np.array([score for score, _ in found]), [string for _, string in found]

    (truth, strings), (naive, _) = oracle.truth_and_naive(enumerate_batch, problem.logits.dtype)
    frames, score = lattice.ctc_alignment(*problem.args, **problem.options)
    assert frames.dtype == np.int32 and frames.shape == problem.targets.shape
    assert score.dtype == (np.float64 if problem.logits.dtype == np.float64 else np.float32)
    compare.assert_close(score, truth, naive, per_example=True, what="score")
    ends, same_score = lattice.ctc_alignment(*problem.args, **problem.options, keep="last")
    np.testing.assert_array_equal(same_score, score)
    for b, string in enumerate(strings):
        for ours, expected in ((frames, ctc_oracle.first_frames), (ends, ctc_oracle.last_frames)):
            found = [] if string is None else expected(string, blank)
            np.testing.assert_array_equal(ours[b], np.append(found, np.full(ours.shape[1] - len(found), -1)))
    return frames, score


def every_small_length():
    return np.array([(t, u) for t in range(1, 6) for u in range(4)]).T


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("repeated", [0.0, 0.5])
def test_every_small_problem_is_its_enumeration(dtype, repeated):
    problem = ctc_problem(0, lengths=every_small_length(), vocab=4, repeated=repeated, dtype=dtype)

    def enumerate_batch(dtype):
        return np.array([ctc_oracle.loss_by_enumeration(*example, dtype=dtype) for example in problem.examples])

    truth, naive = oracle.truth_and_naive(enumerate_batch, dtype)
    assert np.isinf(truth).any() and np.isfinite(truth).any()
    compare.assert_close(lattice.ctc_loss(*problem.args), truth, naive, per_example=True, what="loss")
    check(problem, scale=1.0)
    check_alignment(problem)


def test_the_gradient_is_that_of_the_loss():
    problem = ctc_problem(1, lengths=([6], [3]), dtype=np.float64, slack=(0, 0), repeated=0.9)
    assert fewest_frames(problem.targets[0]) > 3
    _, grad = lattice.ctc_loss_and_grad(*problem.args)
    expected = oracle.finite_differences(lambda x: lattice.ctc_loss(x, *problem.args[1:])[0], problem.logits)
    np.testing.assert_allclose(grad, expected, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("frames", "labels", "vocab"),
    [(1, 0, 1), (1, 0, 2), (1, 1, 2), (5, 5, 7), (200, 100, 128), (3, 1, 16384), (1200, 600, 601), (1100, 3, 4)],
)
def test_equal_logits_have_a_closed_form(frames, labels, vocab, dtype):
    """Labels differ from their neighbours.

    Each of the C(T + U, 2U) paths through the states then has the same probability.
    """
    targets = np.arange(1, labels + 1)[None]
    logits = np.full((1, frames, vocab), 3.0, dtype)
    loss, grad = lattice.ctc_loss_and_grad(logits, targets, np.array([frames]), np.array([labels]))
    expected = np.array([frames * log(vocab) - log(comb(frames + labels, 2 * labels))])
    scale = max(1, frames * log(vocab)) * (frames if dtype == np.float64 else 1)  # float64 rounds at each frame
    compare.assert_close(loss, expected, expected, k=2, scale=scale, what="loss")
    compare.assert_close(grad.sum(axis=-1), np.zeros(grad.shape[:2]), 0 * grad[..., 0], what="row sum")


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("sharpness", [0.0, 8.0, 40.0])
@pytest.mark.parametrize("blank", [0, 3, 5, -1])
def test_ragged_batches(dtype, sharpness, blank):
    check(ctc_problem(2, frames=12, labels=6, blank=blank, dtype=dtype, sharpness=sharpness))
    check_alignment(ctc_problem(2, frames=6, labels=3, vocab=6, blank=blank, dtype=dtype, sharpness=sharpness))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_upstream_gradient(dtype):
    problem = ctc_problem(3, dtype=dtype)
    _, plain = check(problem)
    _, grad = check(problem, grad_loss=np.array([0.25, 0, -3, 2], np.float64 if dtype == np.float64 else np.float32))
    assert not grad[1].any() and plain[1].any()


def test_no_labels_one_frame_and_as_few_frames_as_labels_need():
    check(ctc_problem(4, lengths=([1, 5, 1, 3], [0, 0, 1, 0])), scale=1.0)
    check(ctc_problem(4, lengths=([4, 2], [0, 0]), slack=(0, 0)), scale=1.0)  # targets (B, 0)
    problem = ctc_problem(5, lengths=([5, 7, 9, 6, 4], [5, 5, 5, 3, 4]), vocab=5)
    problem.targets[:, :5] = [[1, 2, 1, 2, 3], [4, 4, 1, 1, 2], [3, 3, 3, 3, 3], [2, 2, 2, -1, -1], [1, 2, 2, 1, -1]]
    loss, grad = check(problem)
    assert np.isfinite(loss[:4]).all() and np.isposinf(loss[4])
    frames, score = lattice.ctc_alignment(*problem.args)
    expected = [[0, 1, 2, 3, 4], [0, 2, 3, 5, 6], [0, 2, 4, 6, 8]]  # only one alignment
    np.testing.assert_array_equal(frames[:3, :5], expected)
    compare.assert_same(score[:3], -loss[:3])
    assert np.isneginf(score[4]) and (frames[4] == -1).all()
    # Where there is only one alignment, the gradient is the softmax less one at its ids.
    assert (np.sort(grad[2, :9], axis=-1)[:, 0] < 0).all() and (np.sort(grad[2, :9], axis=-1)[:, 1] >= 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits(dtype):
    """Differences of 1e4 decide everything: posteriors are 0 and 1, and nothing overflows."""
    check(ctc_problem(6, spread=1e4, dtype=dtype), scale=1.0)
    check_alignment(ctc_problem(6, frames=6, labels=3, spread=1e4, dtype=dtype))


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_an_offset_costs_nothing(offset):
    """A float32 logit minus a float32 log_norm would lose half of the loss's digits here."""
    problem = ctc_problem(7, frames=14, labels=6)
    problem.logits[...] += offset
    check(problem)
    wide = replace(problem, logits=problem.logits.astype(np.float64))
    for door in (lattice.ctc_loss, lambda *args: lattice.ctc_alignment(*args)[1]):
        compare.assert_same(door(*problem.args), door(*wide.args).astype(np.float32), per_example=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_minus_infinity_closes_ways(dtype):
    problem = ctc_problem(8, lengths=([7, 6, 6, 5], [3, 2, 2, 2]), vocab=5, dtype=dtype)
    problem.logits[0, ::2, 1] = problem.logits[1, 1:, 0] = -np.inf
    problem.logits[0, 3, 2:] = -np.inf
    problem.targets[1, :2] = 2  # no blank left to part them
    problem.logits[2, 3] = -np.inf  # a whole frame: no alignment
    loss, grad = check(problem)
    assert np.isfinite(loss[[0, 3]]).all() and np.isposinf(loss[[1, 2]]).all()
    assert not grad[1:3].any() and not grad[np.isneginf(problem.logits)].any()
    check_alignment(problem)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_long_problem_keeps_its_digits(dtype):
    """No allowance for the size of the loss here: alpha and beta are float64, so the error stays that of the scores."""
    problem = ctc_problem(9, lengths=([300], [80]), vocab=8, dtype=dtype, slack=(0, 0))
    (_, truth), (_, naive) = oracle.truth_and_naive(ctc_oracle.batch_loss_and_grad, dtype, *problem.args)
    _, grad = lattice.ctc_loss_and_grad(*problem.args)
    compare.assert_close(grad, truth, naive, k=32, scale=np.abs(truth).max(), what="gradient")
    compare.assert_relative_l2(grad, truth, 2e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("sharpness", [0.0, 8.0])
def test_long_audio_within_the_stated_error(sharpness):
    problem = ctc_problem(10, lengths=([1000], [150]), vocab=30, slack=(0, 0), sharpness=sharpness)
    _, truth = ctc_oracle.batch_loss_and_grad(*problem.args)
    _, grad = lattice.ctc_loss_and_grad(*problem.args)
    compare.assert_relative_l2(grad, truth, 2e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, problems.BFLOAT16], ids=name_of)
def test_no_entry_is_below_the_least(dtype):
    """Tiny posteriors, a tiny upstream gradient: entries that would be below 2**-100 are 0."""
    least = 2.0**-100
    problem = ctc_problem(11, lengths=([60, 60], [9, 9]), vocab=40, spread=20, dtype=dtype)
    grad_loss = np.array([1, -1e-3], np.float64 if dtype == np.float64 else np.float32)
    _, truth = ctc_oracle.batch_loss_and_grad(*problem.args, grad_loss=grad_loss, dtype=np.longdouble)
    magnitude = np.abs(truth[problem.real])
    assert ((magnitude > least * 1e-3) & (magnitude < least)).any()  # there is something to flush
    _, grad = check(problem, grad_loss=grad_loss)
    assert not ((grad != 0) & (np.abs(grad.astype(np.float64)) < least)).any()
    assert grad[problem.real][magnitude > 1.01 * least].all()


@pytest.mark.parametrize("dtype", [np.float16, problems.BFLOAT16], ids=name_of)
def test_half_gradients_are_rounded_once(dtype):
    """The float32 computation on the same numbers, to half a unit in the last place and the smallest number."""
    half = ctc_problem(12, dtype=dtype, spread=1.0)
    loss, grad = lattice.ctc_loss_and_grad(*half.args)
    expected_loss, expected = lattice.ctc_loss_and_grad(half.logits.astype(np.float32), *half.args[1:])
    compare.assert_same(loss, expected_loss)
    info = problems.ml_dtypes.finfo(dtype)
    error = np.abs(grad.astype(np.float32) - expected)
    assert (error <= 0.51 * float(info.eps) * np.abs(expected) + float(info.smallest_subnormal)).all()


@pytest.mark.parametrize(
    ("targets", "earliest"), [([1, 2], [0, 1]), ([1, 1], [0, 2]), ([1, 2, 1], [0, 1, 2]), ([], [])]
)
@pytest.mark.parametrize("frames", [3, 6])
@pytest.mark.parametrize("last_blank", [0, -5])
def test_ties_go_to_what_is_further_on_from_the_last_frame_back(targets, earliest, frames, last_blank):
    """Where all alignments score the same, or all that end in a label, that is the earliest one."""
    problem = ctc_problem(13, lengths=([frames], [len(targets)]), vocab=3, dtype=np.float64)
    problem.targets[0, : len(targets)] = targets
    problem.logits[...] = 0
    problem.logits[0, frames - 1, 0] = last_blank
    found, _ = check_alignment(problem)
    assert found[0, : len(targets)].tolist() == earliest
