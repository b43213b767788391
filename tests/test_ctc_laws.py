"""Laws of CTC: layout, padding, batches, poison, posteriors, and the worth of an alignment.

Many of them hold bit by bit.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from tests import compare, ctc_oracle
from tests.ctc_problems import ctc_problem, ctc_problems
from tests.problems import BFLOAT16, DTYPES, GARBAGE_IDS, name_of
from tests.test_ctc import check


def all_of(problem, **extra):
    """Loss, gradient, frames and score."""
    loss = lattice.ctc_loss_and_grad(*problem.args, **problem.options, **extra)
    return *loss, *lattice.ctc_alignment(*problem.args, **problem.options)


def assert_equal(results, others):
    for ours, theirs in zip(results, others, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@given(ctc_problems(), st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.37, -25.0]), min_size=4, max_size=4))
def test_anything(problem, grad_loss):
    grad_loss = np.array(
        grad_loss[: len(problem.logits)], np.float64 if problem.logits.dtype == np.float64 else np.float32
    )
    loss, _ = check(problem, grad_loss=grad_loss)
    assert_is_an_alignment(problem, loss)


def assert_is_an_alignment(problem, loss):
    """The string of the alignment collapses to the target, and its score is the score of its frames.

    The string is no more probable than all alignments together.
    """
    frames, score = lattice.ctc_alignment(*problem.args, **problem.options)
    ends = lattice.ctc_alignment(*problem.args, **problem.options, keep="last")[0]
    real = np.arange(frames.shape[1]) < problem.target_lengths[:, None]
    assert (frames[~real] == -1).all() and (ends[~real] == -1).all() and (np.isneginf(score) == np.isposinf(loss)).all()
    blank = problem.blank % problem.logits.shape[2]
    for b, (logits, targets) in enumerate(problem.examples):
        first, last = frames[b, : len(targets)], ends[b, : len(targets)]
        if np.isneginf(score[b]):
            assert (first == -1).all() and (last == -1).all()
            continue
        assert score[b] <= -loss[b] + 8 * np.finfo(score.dtype).eps * max(1, loss[b])
        log_probs = ctc_oracle.log_softmax(logits.astype(np.float64))
        string = best_string(log_probs, targets, first, blank)
        assert ctc_oracle.collapse(string, blank) == targets.tolist()
        assert ctc_oracle.first_frames(string, blank) == first.tolist()
        np.testing.assert_allclose(score[b], ctc_oracle.score_of(log_probs, string), rtol=1e-5, atol=1e-5)
        assert (last >= first).all() and (last[:-1] < first[1:]).all()


def best_string(log_probs, targets, first, blank):
    """The best string whose labels begin in these frames.

    Each label lasts for some frames, and the blank until the next label.
    """
    string = np.full(len(log_probs), blank)
    for u, (begin, end) in enumerate(zip(first, [*first[1:], len(log_probs)])):
        parted = u + 1 < len(targets) and targets[u] == targets[u + 1]
        lasts = range(begin + 1, end + (not parted))
        worth = [log_probs[begin:last, targets[u]].sum() + log_probs[last:end, blank].sum() for last in lasts]
        string[begin : lasts[np.argmax(worth)]] = targets[u]
    return string.tolist()


@pytest.mark.parametrize("repeated", [0.0, 0.6])
def test_last_frames_are_first_ones_of_the_reversed_problem(repeated):
    problem = ctc_problem(15, batch=5, frames=30, labels=11, repeated=repeated, dtype=np.float64)
    turned = replace(problem, logits=problem.logits.copy(), targets=problem.targets.copy())
    lengths = list(zip(problem.logit_lengths, problem.target_lengths, strict=True))
    for b, (frames, labels) in enumerate(lengths):
        turned.logits[b, :frames] = problem.logits[b, :frames][::-1]
        turned.targets[b, :labels] = problem.targets[b, :labels][::-1]
    last, _ = lattice.ctc_alignment(*problem.args, keep="last")
    first, _ = lattice.ctc_alignment(*turned.args, keep="first")
    assert (last != lattice.ctc_alignment(*problem.args)[0]).any()
    for b, (frames, labels) in enumerate(lengths):
        np.testing.assert_array_equal(last[b, :labels], frames - 1 - first[b, :labels][::-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("repeated", [0.0, 0.6])
def test_gradient_rows_sum_to_zero(dtype, repeated):
    problem = ctc_problem(1, frames=40, labels=18, vocab=9, repeated=repeated, dtype=dtype)
    for extra in ({}, {"grad_loss": np.array([1, -2, 0, 0.5], dtype)}):
        _, grad = lattice.ctc_loss_and_grad(*problem.args, **extra)
        sums = grad.sum(axis=-1, dtype=np.float64).astype(dtype)
        compare.assert_close(sums, np.zeros_like(sums), np.zeros_like(sums), k=8, what="row sum")


def test_the_posteriors_of_a_frame_sum_to_one():
    """Where all ids are as probable, the gradient less the softmax is the posterior."""
    problem = ctc_problem(2, lengths=([20, 9], [6, 4]), vocab=8, dtype=np.float64, spread=0.0)
    _, grad = lattice.ctc_loss_and_grad(*problem.args)
    posterior = (1 / 8 - grad)[problem.real]
    assert (posterior > -1e-14).all()
    np.testing.assert_allclose(posterior.sum(axis=-1), 1, rtol=1e-12)


def test_one_alignment_is_all_there_is():
    """With as many frames as a target needs, its posterior is 1 at each frame."""
    problem = ctc_problem(3, lengths=([5], [3]), vocab=4, dtype=np.float64, slack=(0, 0))
    problem.targets[0] = [2, 2, 2]
    _, grad = lattice.ctc_loss_and_grad(*problem.args)
    softmax = np.exp(ctc_oracle.log_softmax(problem.logits[0]))
    softmax[np.arange(5), [2, 0, 2, 0, 2]] -= 1
    np.testing.assert_allclose(grad[0], softmax, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_in_place_is_out_of_place(dtype):
    problem = ctc_problem(4, dtype=dtype)
    problem.logits.setflags(write=False)
    expected = lattice.ctc_loss_and_grad(*problem.args)
    logits = problem.logits.copy()
    loss, grad = lattice.ctc_loss_and_grad(logits, *problem.args[1:], out=logits)
    assert grad is logits and not logits[~problem.real].any()
    assert_equal((loss, grad), expected)
    out = np.full_like(problem.logits, 7)
    assert lattice.ctc_loss_and_grad(*problem.args, out=out)[1] is out
    assert_equal((loss, out), expected)


def test_half_precision_is_staged_in_pieces(monkeypatch):
    from lattice import staging

    problem = ctc_problem(5, dtype=BFLOAT16)
    expected = all_of(problem)
    monkeypatch.setattr(staging, "STAGING_BYTES", 3 * 4 * problem.logits.shape[2])
    assert_equal(all_of(problem), expected)


def test_results_are_fresh_contiguous_and_of_the_same_kind():
    problem = ctc_problem(6)
    results = all_of(problem)
    assert all(type(x) is np.ndarray and x.flags.c_contiguous and x.flags.writeable for x in results)
    assert results[0].shape == results[3].shape == (4,) and results[2].shape == problem.targets.shape
    assert results[1].shape == problem.logits.shape and not np.shares_memory(results[1], problem.logits)
    assert_equal(all_of(problem), results)


def test_a_batch_is_its_examples():
    problem = ctc_problem(7, batch=5, frames=17, labels=7)
    together = all_of(problem)
    for b in range(5):
        assert_equal(all_of(problem.single(b)), [x[b : b + 1] for x in together])


def test_padding_is_never_read():
    """Other padding, longer padding: the same bits. (Everywhere else the padding is NaN and ids out of range.)"""
    problem = ctc_problem(8, slack=(0, 0))
    loss, grad, frames, score = all_of(problem)
    T, U = grad.shape[1], frames.shape[1]
    long = ctc_problem(8, slack=(9, 7))
    found = all_of(long)
    assert_equal((found[0], found[1][:, :T], found[2][:, :U], found[3]), (loss, grad, frames, score))
    assert not found[1][:, T:].any() and (found[2][:, U:] == -1).all()
    long.logits[np.isnan(long.logits)] = np.inf
    long.targets[np.isin(long.targets, GARBAGE_IDS)] = 0  # the blank's id
    assert_equal(all_of(long), found)


def test_integers_of_either_width_and_strided_inputs():
    problem = ctc_problem(9)
    expected = all_of(problem)
    assert_equal(all_of(ctc_problem(9, integer=np.int32)), expected)
    logits, targets = problem.logits, np.repeat(problem.targets, 3, axis=1)[:, ::3]
    for strided in (np.asfortranarray(logits), np.repeat(logits, 2, axis=-1)[..., ::2], logits[::-1].copy()[::-1]):
        assert not strided.flags.c_contiguous
        assert_equal(all_of(replace(problem, logits=strided, targets=targets)), expected)


def test_an_empty_batch():
    empty = np.zeros(0, np.int64)
    args = np.zeros((0, 3, 5), np.float32), np.zeros((0, 2), int), empty, empty
    loss, grad = lattice.ctc_loss_and_grad(*args)
    frames, score = lattice.ctc_alignment(*args)
    assert loss.shape == score.shape == (0,) and grad.shape == (0, 3, 5) and frames.shape == (0, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relabelling_commutes(dtype):
    problem = ctc_problem(10, frames=14, labels=6, vocab=11, blank=2, dtype=dtype)
    loss, grad, frames, score = all_of(problem)
    order = np.random.default_rng(10).permutation(11)  # new id of each old id
    targets = problem.targets.copy()
    real = (targets >= 0) & (targets < 11)
    targets[real] = order[targets[real]]
    other = replace(problem, logits=problem.logits[..., np.argsort(order)], targets=targets, blank=int(order[2]))
    new_loss, new_grad, new_frames, new_score = all_of(other)
    compare.assert_same(new_loss, loss)
    compare.assert_same(new_score, score)
    np.testing.assert_array_equal(new_frames, frames)
    # The sum over ids has another order. In float64 the sums over alignments are as large as the loss, and are
    # rounded no finer.
    compare.assert_same(new_grad[..., order], grad, scale=loss.max() if dtype == np.float64 else None)


def test_a_negative_blank_counts_from_the_end():
    for blank in (-1, -3, -6):
        problem = ctc_problem(11, blank=blank)
        assert_equal(all_of(problem), all_of(replace(problem, blank=blank + 6)))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_infeasible_examples_touch_no_other(dtype):
    problem = ctc_problem(12, lengths=([3, 9, 4, 5], [4, 4, 3, 2]), dtype=dtype, repeated=0.0)
    problem.targets[2, :3] = 1
    for extra in ({}, {"grad_loss": np.array([-2, 1, 1e30, 1], np.float64 if dtype == np.float64 else np.float32)}):
        loss, grad, frames, score = all_of(problem, **extra)
        assert np.isposinf(loss[[0, 2]]).all() and np.isneginf(score[[0, 2]]).all()
        assert not grad[[0, 2]].any() and (frames[[0, 2]] == -1).all()
        for b in (1, 3):
            upstream = {name: values[b : b + 1] for name, values in extra.items()}
            assert_equal(all_of(problem.single(b), **upstream), [x[b : b + 1] for x in (loss, grad, frames, score)])


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("frame", [0, 3, 7])
def test_poison_stays_in_its_example_and_fills_it(bad, frame, dtype):
    problem = ctc_problem(13, lengths=([6, 8, 7], [3, 3, 2]), dtype=dtype)
    expected = all_of(problem)
    label = problem.targets[1, 1]
    for entry in (0, label, 1 + label % 5):  # blank, label, another id
        logits = problem.logits.copy()
        logits[1, frame, entry] = bad
        poisoned = replace(problem, logits=logits)
        loss, grad, frames, score = all_of(poisoned)
        assert np.isnan(loss[1]) and np.isnan(score[1]) and (frames[1] == -1).all()
        assert np.isnan(grad[1, :8]).all() and not grad[1, 8:].any()
        assert_equal([x[[0, 2]] for x in (loss, grad, frames, score)], [x[[0, 2]] for x in expected])
        assert_equal([lattice.ctc_loss(*poisoned.args)], [loss])


def test_poison_is_told_where_there_is_no_alignment():
    problem = ctc_problem(14, lengths=([2, 4], [4, 2]))
    for frame in (0, 1):
        logits = problem.logits.copy()
        logits[0, frame] = -np.inf
        logits[0, frame, 3] = np.nan
        loss, grad, _, score = all_of(replace(problem, logits=logits))
        assert np.isnan(loss[0]) and np.isnan(score[0]) and np.isnan(grad[0, :2]).all() and np.isfinite(loss[1])
