"""The draw.

The tests have the generator's own test vectors, the logarithm, the law of the draws, and the promises on their order.
"""

from itertools import permutations

import numba
import numpy as np
import pytest
from scipy import stats

import samplers
from samplers import draw, philox
from samplers.inclusion import log_inclusion_of

KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""Of the authors' Random123 distribution: counter, key, words."""


@numba.njit
def compiled_philox(a, b, c, d, k, m):
    return philox.philox(a, b, c, d, k, m)


@numba.njit(fastmath={"contract"})
def compiled_minus_log(u):
    result = np.empty_like(u)
    for i in range(len(u)):
        result[i] = philox.minus_log(u[i])
    return result


@numba.njit
def compiled_fma(a, b, c):
    return philox.fma(a, b, c)


@numba.njit
def compiled_uniform(key_0, key_1, row, v):
    return philox.uniform_of(key_0, key_1, row, v)


@pytest.mark.parametrize("counter, key, words", KNOWN_ANSWERS)
@pytest.mark.parametrize("function", [compiled_philox, philox.philox], ids=["compiled", "python"])
def test_known_answers(function, counter, key, words):
    assert tuple(map(int, function(*map(np.uint64, (*counter, *key))))) == words


def test_the_logarithm_is_within_an_ulp_and_the_same_compiled_and_not():
    rng = np.random.default_rng(0)
    u = np.concatenate(
        [rng.random(100_000), 1 - rng.random(1000) * 1e-9, 10 ** -(rng.random(1000) * 16), [2.0**-53, 1 - 2.0**-53]]
    )
    ours, truth = compiled_minus_log(u), -np.log(u.astype(np.longdouble))
    assert (np.abs(ours - truth) / np.spacing(np.abs(ours))).max() <= 1
    assert [philox.minus_log(x) for x in u[-3000:]] == ours[-3000:].tolist()


def test_fma_rounds_once():
    x = 1 + 2.0**-30
    for function in (philox.fma, compiled_fma):
        assert function(x, x, -(x * x)) == 2.0**-60


def test_uniform_numbers_stay_inside_and_differ_by_every_part_of_the_counter():
    base = (1, 2, 3, 4)
    values = [compiled_uniform(*base)]
    for place, other in ((0, 9), (1, 9), (2, 9), (2, 2**32 + 3), (3, 9)):
        changed = list(base)
        changed[place] = other
        values.append(compiled_uniform(*changed))
    assert len(set(values)) == len(values)
    assert philox.between(np.uint64(0), np.uint64(0)) == 2.0**-53
    assert philox.between(np.uint64(2**32 - 1), np.uint64(2**32 - 1)) == 1 - 2.0**-53
    many = np.array([compiled_uniform(0, 0, 0, v) for v in range(100_000)])
    assert many.min() > 0 and many.max() < 1
    assert stats.kstest(many, "uniform").pvalue > 1e-3


def drawn(distribution, size, rows, seed=0, **options):
    """Negatives of many rows without targets: (rows, size - 1)."""
    none, zero = np.zeros((rows, 1), np.int32), np.zeros(rows, np.int32)
    return samplers.sample_vocabulary(none, zero, size, distribution=distribution, seed=seed, **options)


def law_of_draws(p, count):
    """Probability of each ordered draw without replacement, by multiplying along it."""
    for order in permutations(range(len(p)), count):
        probability, left = 1.0, p.sum()
        for v in order:
            probability, left = probability * p[v] / left, left - p[v]
        yield order, probability


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_orders_of_draws_follow_their_law(scale):
    p, rows = np.array([0.0, 0.4, 0.1, 0.25, 0.05, 0.2]), 60_000
    ids = drawn(p * scale, 4, rows).ids[:, 1:] - 1
    codes, counts = np.unique(ids @ [100, 10, 1], return_counts=True)
    expected = {order[0] * 100 + order[1] * 10 + order[2]: rows * q for order, q in law_of_draws(p[1:], 3)}
    assert set(codes) <= set(expected)
    found = dict(zip(codes.tolist(), counts.tolist()))
    pairs = np.array([(found.get(code, 0), wanted) for code, wanted in expected.items()])
    assert stats.chisquare(*pairs.T).pvalue > 1e-3


def test_inclusion_frequencies_follow_theory_with_many_ids():
    """Given the first key turned away, each negative's inclusion has the probability that is reported."""
    rng = np.random.default_rng(3)
    p, rows = rng.dirichlet(np.full(40, 0.5)), 20_000
    p[0] = 0
    found = drawn(p, 11, rows, seed=5)
    # Summed over rows, 1 / probability of the ids drawn counts each id once a row: Horvitz and Thompson.
    weight = np.zeros((rows, 40))
    np.put_along_axis(weight, found.ids[:, 1:].astype(np.int64), np.exp(-found.log_inclusion[:, 1:]), axis=1)
    mean, error = weight.mean(axis=0)[1:], weight.std(axis=0)[1:] / np.sqrt(rows)
    often = p[1:] > 1e-3
    score = (mean[often] - 1) / error[often]
    assert stats.chi2.sf((score**2).sum(), often.sum()) > 1e-3


def test_pairs_of_neighbouring_rows_are_independent():
    p, rows = np.array([0.0, 0.5, 0.3, 0.2]), 40_000
    first = drawn(p, 2, rows, seed=7).ids[:, 1]
    table = np.zeros((3, 3))
    np.add.at(table, (first[:-1] - 1, first[1:] - 1), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_smaller_sizes_are_the_beginning_of_larger_ones():
    p = np.random.default_rng(1).dirichlet(np.ones(50), 4)
    targets, lengths = np.array([[3, 7, 3]] * 4), np.array([3, 1, 0, 2])
    whole = samplers.sample_vocabulary(targets, lengths, 50, distribution=p, seed=1)
    for size in (3, 4, 20, 49):
        part = samplers.sample_vocabulary(targets, lengths, size, distribution=p, seed=1)
        np.testing.assert_array_equal(part.ids, whole.ids[:, :size])
    assert (np.sort(whole.ids, axis=1) == np.arange(50)).all() and (whole.log_inclusion == 0).all()


def test_rows_of_a_batch_that_is_spread_over_devices():
    p = np.random.default_rng(2).dirichlet(np.ones(30), 6)
    targets, lengths = np.arange(1, 7)[:, None], np.ones(6, np.int64)
    whole = samplers.sample_vocabulary(targets, lengths, 9, distribution=p, seed=4)
    half = samplers.sample_vocabulary(targets[3:], lengths[3:], 9, distribution=p[3:], seed=4, row_offset=3)
    for one, other in zip(whole, half):
        np.testing.assert_array_equal(one[3:], other)
    other_seed = samplers.sample_vocabulary(targets, lengths, 9, distribution=p, seed=4 + 2**32)
    assert (whole.ids != other_seed.ids).any()


def test_of_equal_keys_the_lower_id_comes_first():
    keys = np.array([[5, 3, 3, 9, 3, 3, draw.CLOSED, 1]], np.int64)
    for wanted, expected in ((1, [7]), (3, [7, 1, 2]), (5, [7, 1, 2, 4, 5]), (6, [7, 1, 2, 4, 5, 0])):
        ids = np.full((1, wanted), -7, np.int32)
        scratch = np.empty(keys.shape, np.int32), np.empty(keys.shape, np.int64)
        candidates, refused, rejected = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1)
        draw.choose(keys.copy(), np.zeros(1, np.int64), ids, *scratch, candidates, refused, rejected)
        assert ids.tolist() == [expected] and candidates == 7 and refused == 0
        next_key = np.sort(keys[0])[wanted]
        assert rejected.view(np.int64) == next_key


@pytest.mark.parametrize("p, time", [(0.3, 2.0), (1e-200, 1e-150), (5e-324, 1e-3), (0.9, np.inf), (1e-9, 1.0)])
def test_log_inclusion_keeps_its_digits(p, time):
    x = np.longdouble(p) * np.longdouble(time)
    truth = np.log(-np.expm1(-x))
    assert log_inclusion_of(p, time) == pytest.approx(float(truth), rel=1e-14, abs=1e-300)
