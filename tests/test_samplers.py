"""The doors of the samplers: distributions, vocabularies for training and for decoding, and every error."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
import samplers
from tests import compare

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
TARGETS = np.array([[3, 1, 3, 9], [2, -5, 99, 0], [4, 5, 6, 7]])
LENGTHS = np.array([3, 1, 4])


def softmax_mean(logits, frames, dtype):
    """The averaged posterior by its definition."""
    rows = np.asarray(logits[:frames]).astype(dtype)
    e = np.exp(rows - rows.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).mean(axis=0, dtype=dtype)


def test_closed_forms():
    np.testing.assert_allclose(samplers.uniform(4), 0.25)
    p = samplers.log_uniform(1000)
    assert p.sum() == pytest.approx(1) and (np.diff(p) < 0).all()
    assert p[9] == pytest.approx(np.log(11 / 10) / np.log(1001))
    np.testing.assert_allclose(samplers.unigram(np.array([1, 0, 3])), [0.25, 0, 0.75])
    np.testing.assert_allclose(samplers.unigram(np.array([0.5, 0.5], np.float32)), 0.5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, BFLOAT16], ids=lambda d: np.dtype(d).name)
def test_ctc_posterior_is_the_mean_over_real_frames(dtype):
    rng = np.random.default_rng(0)
    frames = np.array([7, 1, 40])
    logits = (4 * rng.standard_normal((3, 40, 21))).astype(dtype)
    logits[2] += np.array(1e4 if np.dtype(dtype).itemsize > 2 else 0, dtype)
    logits[1, 0, :20] = -np.inf
    truth = np.stack([softmax_mean(x, n, np.longdouble) for x, n in zip(logits, frames)])
    naive = np.stack(
        [softmax_mean(x, n, np.float64 if dtype == np.float64 else np.float32) for x, n in zip(logits, frames)]
    )
    for b, n in enumerate(frames):
        logits[b, n:] = np.nan
    ours = samplers.ctc_posterior(logits, frames)
    assert ours.dtype == (np.float64 if dtype == np.float64 else np.float32)
    compare.assert_close(ours, truth, naive, per_example=True)


def test_nan_stays_in_its_row():
    logits = np.zeros((2, 3, 5), np.float32)
    logits[0, 1, 2] = np.nan
    p = samplers.ctc_posterior(logits, np.array([3, 3]))
    assert np.isnan(p[0]).all()
    np.testing.assert_allclose(p[1], 0.2, rtol=1e-6)
    with pytest.raises(ValueError, match=r"distribution\[0, 0\] is nan, expected a finite number of at least 0"):
        samplers.sample_vocabulary(TARGETS[:2, :1] * 0 + 1, np.array([1, 1]), 3, distribution=p, seed=0)


def test_mixture_weighs_and_broadcasts():
    p = np.array([[0.5, 0.5, 0], [0, 0, 1]], np.float32)
    mixed = samplers.mixture([p, samplers.uniform(3)], [3, 1])
    np.testing.assert_allclose(mixed, 0.75 * p + 0.25 / 3)
    assert mixed.dtype == np.float64
    assert samplers.mixture([p, p[:1]], [1, 1]).dtype == np.float32
    assert samplers.mixture([p[0]], [2]).shape == (3,)


@pytest.mark.parametrize("integer", [np.int32, np.int64])
@pytest.mark.parametrize("blank", [0, 8, -1])
def test_rows_begin_with_blank_and_positives(integer, blank):
    V = 10
    targets = TARGETS.copy()
    targets[0] = [3, 1, 3, -8]
    p = np.full((3, V), 0.1)
    found = samplers.sample_vocabulary(
        targets.astype(integer), LENGTHS.astype(integer), 7, distribution=p, blank=blank, seed=11
    )
    assert [x.dtype for x in found] == [np.int32, np.int32, np.int32, np.float64]
    assert found.ids.shape == (3, 7) and (found.lengths == 7).all()
    assert found.num_positive.tolist() == [3, 2, 5]
    for row, count, positives in zip(found.ids, found.num_positive, ([1, 3], [2], [4, 5, 6, 7])):
        assert row[:count].tolist() == [blank % V, *positives]
        assert len(set(row)) == 7 and row.min() >= 0 and row.max() < V
    for row, count in zip(found.log_inclusion, found.num_positive):
        assert (row[:count] == 0).all() and (row[count:] < 0).all()


def test_batch_strategy_gives_every_example_one_vocabulary():
    p = np.random.default_rng(0).dirichlet(np.ones(20), 3).astype(np.float32)
    found = samplers.sample_vocabulary(TARGETS, LENGTHS, 12, distribution=p, strategy="batch", seed=2)
    assert (found.ids == found.ids[0]).all() and found.num_positive.tolist() == [8, 8, 8]
    assert found.ids[0, :8].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert (found.log_inclusion == found.log_inclusion[0]).all()
    pooled = samplers.sample_vocabulary(
        TARGETS, LENGTHS, 12, distribution=p.astype(float).sum(0), strategy="batch", seed=2
    )
    np.testing.assert_array_equal(found.ids, pooled.ids)


def test_ids_of_probability_zero_are_never_drawn():
    p = np.zeros((3, 10))
    p[:, [1, 8, 9]] = 1e-300, 0.5, 1e-12
    found = samplers.sample_vocabulary(TARGETS[:2], LENGTHS[:2], 4, distribution=p[:2], seed=0)
    assert found.ids[0].tolist() == [0, 1, 3, 8] and found.ids[1].tolist() == [0, 2, 8, 9]


@given(st.data())
def test_any_draw_is_a_vocabulary(data):
    V, B, U = data.draw(st.integers(2, 30)), data.draw(st.integers(1, 4)), data.draw(st.integers(0, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    blank = data.draw(st.integers(0, V - 1))
    targets, lengths = (blank + rng.integers(1, V, (B, U))) % V, rng.integers(0, U + 1, B)
    shared, strategy = data.draw(st.booleans()), data.draw(st.sampled_from(["example", "batch"]))
    p = rng.dirichlet(np.ones(V), None if shared else B)
    distinct = [set(row[:n].tolist()) for row, n in zip(targets, lengths)]
    wanted = [set().union(*distinct)] * B if strategy == "batch" else distinct
    size = data.draw(st.integers(1 + max(map(len, wanted)), V))
    found = samplers.sample_vocabulary(targets, lengths, size, distribution=p, strategy=strategy, blank=blank, seed=3)
    for row, count, positives in zip(found.ids, found.num_positive, wanted):
        assert row[0] == blank and row[1:count].tolist() == sorted(positives)
        assert len(set(row.tolist())) == size
    lattice.joint_transducer_loss(
        np.zeros((B, U + 1, 2)),
        np.zeros((B, U + 1, 2)),
        np.zeros((V, 2)),
        None,
        targets,
        np.full(B, U + 1),
        lengths,
        blank=blank,
        vocabulary=found.ids,
        vocabulary_lengths=found.lengths,
    )


def test_the_whole_vocabulary_is_none_and_a_part_never_costs_more():
    rng = np.random.default_rng(5)
    B, T, U, V, H = 4, 9, 4, 40, 12
    encoder, predictor = rng.standard_normal((B, T, H)), rng.standard_normal((B, U + 1, H))
    weight, bias = rng.standard_normal((V, H)), rng.standard_normal(V)
    targets, frames, lengths = rng.integers(1, V, (B, U)), rng.integers(1, T + 1, B), rng.integers(0, U + 1, B)
    arguments = (encoder, predictor, weight, bias, targets, frames, lengths)
    truth, gradients = lattice.joint_transducer_loss_and_grad(*arguments)
    before = np.full(B, -np.inf)
    for size in (6, 20, 39, 40):
        drawn = samplers.sample_vocabulary(targets, lengths, size, distribution=samplers.uniform(V), seed=1)
        loss, sampled = lattice.joint_transducer_loss_and_grad(
            *arguments, vocabulary=drawn.ids, vocabulary_lengths=drawn.lengths
        )
        # A smaller draw with the same seed is part of a larger draw. A smaller denominator makes every path more
        # probable.
        assert (loss <= truth + 1e-12).all() and (loss >= before - 1e-12).all()
        before = loss
    np.testing.assert_allclose(loss, truth, rtol=1e-13)
    for one, other in zip(sampled, gradients):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_allowed_vocabulary_is_the_most_probable_without_the_blank():
    p = np.array([[0.9, 0.3, 0.1, 0.3, 0.0], [0.1, 0.0, 0.5, 0.2, 0.5]], np.float32)
    assert samplers.allowed_vocabulary(p, 4).tolist() == [[1, 3, 2, 4], [2, 4, 3, 1]]
    assert samplers.allowed_vocabulary(p, 2, blank=-1).tolist() == [[0, 1], [2, 3]]
    assert samplers.allowed_vocabulary(p[0], 2).tolist() == [[1, 3]]
    assert samplers.allowed_vocabulary(p.astype(np.float16), 3).dtype == np.int32


P = np.full((3, 10), 0.1)


def changed_at(place, value):
    p = P.copy()
    p.flat[place] = value
    return p


ERRORS = {
    "size is 4, expected at least 5: row 2 of targets has 4 distinct ids beside the blank": {"size": 4},
    "size is 7, expected at least 8: the batch has 7 distinct ids": {"size": 7, "strategy": "batch"},
    r"size is 11, expected 1 to 10, the ids of distribution \(3, 10\)": {"size": 11},
    "size is 0, expected 1 to 10": {"size": 0},
    r"distribution\[1, 4\] is -0.1, expected a finite number of at least 0": {"distribution": changed_at(14, -0.1)},
    r"distribution\[2, 2\] is inf, expected a finite": {"distribution": changed_at(22, np.inf)},
    r"distribution\[0, 6\] is nan, expected a finite": {"distribution": np.where(np.arange(10) == 6, np.nan, P[0])},
    r"distribution\[1\] has 3 ids of positive probability beside the positives, expected at least 4 to fill size 6": {
        "distribution": np.where(np.arange(30).reshape(3, 10) % 20 < 15, P, 0)
    },
    "distribution has 1 ids of positive probability beside the positives, expected at least 3": {
        "distribution": np.where(np.arange(10) < 4, 0.25, 0)
    },
    r"distribution has shape \(2, 10\), expected \(V,\) or \(3, V\)": {"distribution": P[:2]},
    "distribution has 3 dimensions": {"distribution": P[None]},
    r"targets\[0, 1\] is 10, expected 0 to 9": {
        "targets": np.array([[1, 10], [1, 1], [1, 1]]),
        "target_lengths": np.full(3, 2),
    },
    r"targets\[2, 0\] is 0, the blank": {"targets": np.array([[1], [1], [0]]), "target_lengths": np.ones(3, np.int64)},
    r"target_lengths\[1\] is 5, expected 0 to 4": {"target_lengths": np.array([1, 5, 1])},
    "blank is 10, expected -10 <= blank < 10": {"blank": 10},
    "strategy is 'row', expected one of 'example', 'batch'": {"strategy": "row"},
    "seed is -1, expected 0 to 18446744073709551615": {"seed": -1},
    "row_offset is -2, expected 0 to": {"row_offset": -2},
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors_name_the_row(text):
    arguments = {"targets": TARGETS, "target_lengths": LENGTHS, "size": 6, "distribution": P, "seed": 0, **ERRORS[text]}
    with pytest.raises(ValueError, match=text):
        samplers.sample_vocabulary(**arguments)


@pytest.mark.parametrize("strategy", ["example", "batch"])
def test_a_wrong_entry_is_found_even_where_its_id_is_a_positive(strategy):
    p = P.copy()
    p[1, 2] = -0.05
    with pytest.raises(ValueError, match=r"distribution\[1, 2\] is -0.05"):
        samplers.sample_vocabulary(TARGETS, LENGTHS, 9, distribution=p, strategy=strategy, seed=0)


@pytest.mark.parametrize("call, kind, text", [
    (lambda: samplers.uniform(0), ValueError, "vocab_size is 0, expected at least 1"),
    (lambda: samplers.log_uniform(2.0), TypeError, "vocab_size is 2.0"),
    (lambda: samplers.unigram(np.array([1, -2])), ValueError,
     r"counts\[1\] is -2.0, expected a finite number of at least 0"),
    (lambda: samplers.unigram(np.zeros(4)), ValueError, "counts holds nothing but 0 in all 4 places"),
    (lambda: samplers.unigram(np.ones((2, 2))), ValueError, r"counts has shape \(2, 2\)"),
    (lambda: samplers.unigram(np.array([True])), TypeError, "counts has dtype bool"),
    (lambda: samplers.ctc_posterior(np.zeros((2, 3, 4)), np.array([1, 4])), ValueError,
     r"lengths\[1\] is 4, expected 1 to 3"),
    (lambda: samplers.ctc_posterior(np.zeros((3, 4)), np.array([1])), ValueError, "logits has 2 dimensions"),
    (lambda: samplers.ctc_posterior(np.zeros((1, 3, 0)), np.array([1])), ValueError, "V at least 1"),
    (lambda: samplers.mixture([], []), ValueError, "weights has 0 entries for 0 distributions"),
    (lambda: samplers.mixture([P], [1, 2]), ValueError, "weights has 2 entries for 1 distributions"),
    (lambda: samplers.mixture([P], [-1]), ValueError, r"weights\[0\] is -1"),
    (lambda: samplers.mixture([P], [0.0]), ValueError, "expected at least one above 0"),
    (lambda: samplers.mixture([P, P[:2]], [1, 1]), ValueError, r"distributions\[1\] has shape \(2, 10\)"),
    (lambda: samplers.mixture([P, P[:, :9]], [1, 1]), ValueError, r"distributions\[1\] has shape \(3, 9\)"),
    (lambda: samplers.allowed_vocabulary(P, 10), ValueError, "size is 10, expected 1 to 9"),
    (lambda: samplers.allowed_vocabulary(-P, 3), ValueError, r"probabilities\[0, 0\] is -0.1"),
    (lambda: samplers.sample_vocabulary(TARGETS, LENGTHS, 2.5, distribution=P, seed=0), TypeError, "size is 2.5"),
    (lambda: samplers.sample_vocabulary(TARGETS, LENGTHS, 6, distribution=P, seed=0.5), TypeError, "seed is 0.5"),
    (lambda: samplers.sample_vocabulary(TARGETS, LENGTHS, 6, distribution=TARGETS, seed=0), TypeError,
     "distribution has dtype"),
])  # fmt: skip
def test_other_errors(call, kind, text):
    with pytest.raises(kind, match=text):
        call()
