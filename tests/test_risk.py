"""Minimum Bayes risk against the oracle: every dtype, closed forms, what changes nothing, hard numbers."""

from math import exp, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from tests import compare, oracle, risk_oracle
from tests.problems import BFLOAT16, DTYPES, name_of

WIDE = [np.float32, np.float64]


def lists(seed=0, *, batch=5, size=9, dtype=np.float64, spread=3.0, offset=0.0, largest=20):
    """Scores, risks and lengths; the first list is full, the second has one hypothesis. Padding is NaN."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, size + 1, batch)
    lengths[:2] = [size, 1][:batch]
    scores = (spread * rng.standard_normal((batch, size)) + offset).astype(dtype)
    risks = rng.integers(0, largest, (batch, size)).astype(np.float64)
    padding = np.arange(size) >= lengths[:, None]
    scores[padding] = risks[padding] = np.nan
    return scores, risks, lengths


def one(scores, risks, dtype=np.float64, **options):
    """The door for one list: (risk, gradient)."""
    risk, grad = lattice.minimum_bayes_risk(
        np.array([scores], dtype), np.array([risks]), np.array([len(scores)]), **options
    )
    return risk[0], grad[0]


def check(scores, risks, lengths, scale=1.0, **policy):
    """The door against the oracle; returns what it gave."""
    truth, naive = oracle.truth_and_naive(risk_oracle.expected_risk, scores.dtype, scores, risks, lengths, scale=scale)
    risk, grad = lattice.minimum_bayes_risk(scores, risks, lengths, scale=scale)
    assert risk.dtype == grad.dtype == (np.float64 if scores.dtype == np.float64 else np.float32)
    compare.assert_close(risk, truth[0], naive[0], per_example=True, what="risk", **policy)
    compare.assert_close(grad, truth[1], naive[1], per_example=True, what="gradient", **policy)
    assert not grad[np.arange(grad.shape[1]) >= lengths[:, None]].any()
    return risk, grad


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("scale", [1.0, 0.3, 20.0])
@pytest.mark.parametrize("offset", [0.0, -7000.0])
def test_every_dtype(dtype, scale, offset):
    check(*lists(0, dtype=dtype, offset=offset), scale)


@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 4),
    size=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    spread=st.sampled_from([0.1, 3.0, 100.0]),
    largest=st.sampled_from([1, 2, 1000]),
    scale=st.sampled_from([0.01, 1.0, 7.0]),
)
def test_any_lists(scale, **shape):
    check(*lists(**shape), scale)


@pytest.mark.parametrize("dtype", WIDE)
def test_long_lists(dtype):
    check(*lists(1, batch=3, size=5000, dtype=dtype, offset=-300), k=64)  # one sum of thousands of terms, in order


@pytest.mark.parametrize("scale", [1.0, 0.3, 2.5])
def test_the_gradient_is_that_of_the_risk(scale):
    scores, risks, lengths = lists(2, batch=3, size=6)
    _, grad = lattice.minimum_bayes_risk(scores, risks, lengths, scale=scale)
    expected = oracle.finite_differences(
        lambda x: lattice.minimum_bayes_risk(x, risks, lengths, scale=scale)[0].sum(), scores
    )
    assert np.abs(grad).max() > 0.01
    np.testing.assert_allclose(grad, expected, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_one_hypothesis_and_equal_risks_leave_nothing_to_learn(dtype):
    for scores, risks in (([-3.7], [5.5]), ([-1.0, 0.3, -7.0], [0.3] * 3), ([2.0] * 7, [-1e9] * 7)):
        risk, grad = one(scores, risks, dtype, scale=0.3)
        assert risk == risk.dtype.type(risks[0]) and not grad.any()


@pytest.mark.parametrize("gap", [0.0, 0.5, 8.0, 40.0, 300.0, 700.0])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("swapped", [False, True])
def test_two_hypotheses_have_a_closed_form_to_the_last_digits(gap, scale, swapped):
    """The gradient of the better one is a difference of nearly equal risks, and keeps its digits down to 2**-100."""
    scores, risks = [-40.0, -40.0 - gap], [3.0, 11.0]
    order = slice(None, None, -1 if swapped else 1)
    risk, grad = one(scores[order], risks[order], scale=scale)
    second = exp(-scale * gap) / (1 + exp(-scale * gap))
    np.testing.assert_allclose(risk, 3 + 8 * second, rtol=4e-15)
    expected = 8 * scale * second * (1 - second)
    np.testing.assert_allclose(grad[order], (expected if expected > 2.0**-100 else 0) * np.array([-1, 1]), rtol=1e-13)


def test_a_large_scale_picks_the_best_and_a_small_one_none():
    scores, risks = [-5.0, -4.0, -9.0, -4.0, -inf], np.array([1.0, 7.0, 0.0, 4.0, 100.0])
    for scale in (1e3, 1e30):
        risk, grad = one(scores, risks, scale=scale)
        assert risk == 5.5  # two are equally good
        np.testing.assert_allclose(grad, scale * np.array([0, 0.75, 0, -0.75, 0]))
        assert one(scores[:3], risks[:3], scale=scale)[0] == 7.0
    risk, grad = one(scores[:4], risks[:4], scale=1e-9)
    np.testing.assert_allclose(risk, 3.0, rtol=1e-8)
    np.testing.assert_allclose(grad, 1e-9 * (risks[:4] - 3) / 4, rtol=1e-8)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("offset", [-7000.0, 1e4])
def test_an_offset_of_the_scores_changes_nothing(dtype, offset):
    scores, risks, lengths = lists(3, dtype=dtype)
    scores = np.round(scores * 64) / 64  # the sums are exact
    for ours, other in zip(
        lattice.minimum_bayes_risk(scores + dtype(offset), risks, lengths, scale=0.3),
        lattice.minimum_bayes_risk(scores, risks, lengths, scale=0.3),
    ):
        np.testing.assert_array_equal(ours, other)


def test_an_offset_of_the_risks_is_one_of_the_risk_alone():
    scores, risks, lengths = lists(4)
    risk, grad = lattice.minimum_bayes_risk(scores, risks, lengths)
    for offset in (2.0**40, -(2.0**47)):
        moved, same = lattice.minimum_bayes_risk(scores, risks + offset, lengths)
        np.testing.assert_array_equal(same, grad)
        np.testing.assert_allclose(moved, risk + offset, rtol=1e-15)


@pytest.mark.parametrize("largest", [20, 10**9])
def test_gradients_sum_to_zero(largest):
    scores, risks, lengths = lists(5, batch=20, size=40, largest=largest)
    _, grad = lattice.minimum_bayes_risk(scores, risks, lengths)
    assert np.abs(grad).sum(axis=1).min(initial=inf, where=lengths > 1) > 0
    compare.assert_close(grad.sum(axis=1), np.zeros(20), np.zeros(20), scale=np.abs(grad).max())


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_impossible_hypotheses_are_as_if_not_listed(dtype):
    scores, risks, lengths = lists(6, size=7, dtype=dtype)
    wide = np.full((5, 12), -inf, dtype), np.full((5, 12), 1e6)
    for new, old in zip(wide, (scores, risks)):
        new[:, [0, 3, 4, 7, 8, 9, 11]] = old
    missing = np.isnan(wide[0])
    wide[0][missing], wide[1][missing] = -inf, -3
    risk, grad = check(*wide, np.full(5, 12))
    expected_risk, expected = lattice.minimum_bayes_risk(scores, risks, lengths)
    compare.assert_same(risk, expected_risk)
    compare.assert_same(grad[:, [0, 3, 4, 7, 8, 9, 11]], expected)
    assert not grad[np.isneginf(wide[0])].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_a_list_without_a_possible_hypothesis_is_infeasible(dtype):
    scores, risks, lengths = lists(7, dtype=dtype)
    _, plain = check(scores, risks, lengths)
    scores[2:4] = -inf
    risk, grad = check(scores, risks, lengths)
    assert np.isposinf(risk[2:4]).all() and not grad[2:4].any()
    np.testing.assert_array_equal(grad[[0, 1, 4]], plain[[0, 1, 4]])


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("value", [np.nan, inf])
@pytest.mark.parametrize("place", [0, 2])
def test_what_is_no_score_spoils_its_own_list_alone(dtype, value, place):
    scores, risks, lengths = lists(8, size=5, dtype=dtype)
    lengths[2:4] = 4, 3
    scores[2:4], risks[2:4] = -inf, 1
    scores[3, 1] = -2  # one list with a possible hypothesis beside it, and one without
    expected_risk, expected = lattice.minimum_bayes_risk(scores, risks, lengths)
    scores[2:4, place] = value
    risk, grad = check(scores, risks, lengths)
    assert np.isnan(risk[2:4]).all() and np.isnan(grad[2, :4]).all() and np.isnan(grad[3, :3]).all()
    assert not grad[2, 4:].any() and not grad[3, 3:].any()
    for b in (0, 1, 4):
        assert risk[b] == expected_risk[b] and np.array_equal(grad[b], expected[b])


def test_a_batch_is_its_singles():
    scores, risks, lengths = lists(9, batch=300, size=20)
    risk, grad = lattice.minimum_bayes_risk(scores, risks, lengths)
    for b in range(0, 300, 13):
        count = lengths[b]
        alone, own = lattice.minimum_bayes_risk(scores[b : b + 1, :count], risks[b : b + 1, :count], lengths[b : b + 1])
        assert alone[0] == risk[b]
        np.testing.assert_array_equal(own[0], grad[b, :count])


@pytest.mark.parametrize("dtype", WIDE)
def test_the_order_of_a_list_does_not_matter(dtype):
    scores, risks, _ = lists(10, size=40, dtype=dtype)
    scores, risks, lengths = scores[:1], risks[:1], np.array([40])
    scores[0, [3, 8]] = scores[0].max()
    risk, grad = lattice.minimum_bayes_risk(scores, risks, lengths)
    order = np.random.default_rng(0).permutation(40)
    new_risk, new_grad = lattice.minimum_bayes_risk(scores[:, order], risks[:, order], lengths)
    compare.assert_same(new_risk, risk)
    compare.assert_same(new_grad, grad[:, order])


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_other_layouts_are_copied(dtype):
    scores, risks, lengths = lists(11, dtype=dtype)
    expected = lattice.minimum_bayes_risk(scores, risks, lengths)
    apart = np.repeat(scores, 2, axis=1)[:, ::2], np.repeat(risks, 2, axis=0)[::2]
    turned = np.asfortranarray(scores), np.ascontiguousarray(risks[:, ::-1])[:, ::-1]
    for given_scores, given_risks in (apart, turned):
        for ours, other in zip(
            lattice.minimum_bayes_risk(given_scores, given_risks, np.repeat(lengths, 2)[::2]), expected
        ):
            np.testing.assert_array_equal(ours, other)
            assert ours.flags.c_contiguous


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, np.int8, np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize("integer", [np.int32, np.int64])
def test_risks_of_any_kind(kind, integer):
    scores, risks, lengths = lists(12)
    expected = lattice.minimum_bayes_risk(scores, risks, lengths)
    given = np.nan_to_num(risks, nan=77).astype(kind)
    for ours, other in zip(lattice.minimum_bayes_risk(scores, given, lengths.astype(integer)), expected):
        np.testing.assert_array_equal(ours, other)
    signed, _ = lattice.minimum_bayes_risk(scores, -risks, lengths)
    np.testing.assert_array_equal(signed, -expected[0])


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != np.float64], ids=name_of)
def test_narrow_scores_are_computed_in_float64_and_rounded_once(dtype):
    scores, risks, lengths = lists(13, batch=20, size=30, dtype=dtype)
    wide = lattice.minimum_bayes_risk(scores.astype(np.float64), risks, lengths, scale=0.7)
    for ours, other in zip(lattice.minimum_bayes_risk(scores, risks, lengths, scale=0.7), wide):
        np.testing.assert_array_equal(ours, other.astype(np.float32))


@pytest.mark.parametrize("dtype", WIDE)
def test_no_entry_is_below_the_least(dtype):
    least = 2.0**-100
    scores = -np.arange(0, 100, 0.5, dtype)[None]
    risks = np.arange(scores.size)[None] % 5
    count = np.array([scores.size])
    truth = np.abs(risk_oracle.expected_risk(scores, risks, count, dtype=np.longdouble)[1])
    assert ((truth > least * 1e-3) & (truth < least)).any() and ((truth > least) & (truth < least * 1e3)).any()
    _, grad = check(scores, risks, count)
    assert not ((grad != 0) & (np.abs(grad) < least)).any()
    assert grad[truth > 1.01 * least].all()
    assert not lattice.minimum_bayes_risk(scores, risks, count, scale=1e-300 if dtype == np.float32 else 1e-320)[
        1
    ].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_an_empty_batch(dtype):
    for size in (0, 3):
        empty = np.zeros((0, size), dtype)
        risk, grad = lattice.minimum_bayes_risk(empty, empty, np.zeros(0, int))
        assert risk.shape == (0,) and grad.shape == (0, size) and risk.dtype == grad.dtype
