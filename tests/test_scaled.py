"""Scaled numbers, called the way the kernels call them: compiled, over rows. Truth is longdouble."""

import math

import numba
import numpy as np
import pytest

from lattice.kernels import scaled

LN2 = np.log(np.longdouble(2))
EPS = 2.0**-52


@numba.njit(fastmath={"contract"})
def split_of(x, value, power):
    for i in range(x.shape[0]):
        value[i], power[i] = scaled.split(x[i])


@numba.njit(fastmath={"contract"})
def log_of(value, power, found):
    for i in range(value.shape[0]):
        found[i] = scaled.log_of(value[i], power[i])


added = numba.njit(scaled.added)
probability_of = numba.njit(scaled.probability_of)


def split(x):
    x = np.asarray(x, np.float64)
    value, power = np.empty_like(x), np.empty_like(x)
    split_of(x, value, power)
    return value, power


def log(value, power):
    value, power = np.array(value, np.float64), np.array(power, np.float64)
    found = np.empty_like(value)
    log_of(value, power, found)
    return found


def test_a_score_is_split_to_an_ulp_whatever_it_is():
    x = np.concatenate([-np.logspace(-20, 30, 20_001), np.linspace(-40, 40, 20_001), -np.logspace(30, 150, 99)])
    value, power = split(x)
    logarithm = np.log(value.astype(np.longdouble)) + power.astype(np.longdouble) * LN2
    assert (np.abs(logarithm - x) <= EPS * np.maximum(1, np.abs(x))).all()
    assert (np.abs(np.log(value)) <= np.where(np.abs(x) < 1e9, 0.35, 1)).all()
    # Between 2**51 and 2**52 a power may be half an integer, which is less than the step between two scores.
    assert (power == np.rint(power))[np.abs(x) < 1e15].all()


def test_scores_at_the_edges():
    value, power = split([0.0, -np.inf, -1.7e308, np.nan, np.inf])
    assert value[:3].tolist() == [1, 0, 0] and np.isnan(value[3:]).all()
    assert power.tolist() == [0, *(scaled.EMPTY,) * 4]


def test_a_logarithm_is_within_an_ulp_of_itself_or_of_1():
    rng = np.random.default_rng(0)
    value, power = 1 + rng.random(40_000), -np.rint(10 ** (10 * rng.random(40_000) - 2))
    value[:4], power[:4] = (1, 2 - EPS, 1 + EPS, 1.4142135623730951), (-1, -1, 0, 0)
    truth = np.log(value.astype(np.longdouble)) + power.astype(np.longdouble) * LN2
    assert (np.abs(log(value, power) - truth) <= EPS * np.maximum(1, np.abs(truth))).all()


def test_logarithms_at_the_edges():
    found = log([1, 0, 0, np.nan], [0, scaled.EMPTY, scaled.EMPTY - 1e9, 0])
    assert found[:3].tolist() == [0, -np.inf, -np.inf] and np.isnan(found[3])


def test_a_sum_is_normalised_and_right():
    rng = np.random.default_rng(1)
    for power, other in ((0, 0), (5, -3), (-7000, -7050), (-7000, -8200), (-1e12, -1e12 + 20), (3, scaled.EMPTY)):
        a, b = (0.5 + rng.random(2)) * ((1, 0) if other == scaled.EMPTY else (1, 1))
        for terms in ((a, power, b, other), (b, other, a, power)):
            value, top = added(*map(float, terms))
            assert 1 <= value < 2
            distance = min(power - top, 1e4), min(other - top, 1e4)
            truth = sum(np.ldexp(np.longdouble(x), int(max(d, -1e4))) for x, d in zip((a, b), distance, strict=True))
            assert abs(value - truth) <= 2 * EPS


def test_nothing_and_nan_in_a_sum():
    nothing = 0.0, scaled.EMPTY
    assert added(*nothing, *nothing) == nothing
    assert added(1.5, -9.0, *nothing) == (1.5, -9.0)
    for known in ((1.5, -9.0), nothing):
        for terms in ((math.nan, scaled.EMPTY, *known), (*known, math.nan, scaled.EMPTY)):
            assert math.isnan(added(*terms)[0])


def test_powers_do_not_overflow():
    """Sums of 2**31 of the lowest float32 are still numbers, and nothing stays nothing."""
    value, power = split([-3.4e38])
    low = value[0], power[0] * 2.0**31
    assert added(*low, 0.0, scaled.EMPTY + low[1]) == (1.0, low[1])
    assert log([0.0], [scaled.EMPTY * 2.0**31])[0] == -np.inf


@pytest.mark.parametrize("tiny", [float(np.finfo(dtype).tiny) for dtype in (np.float32, np.float64)])
def test_probabilities_are_never_subnormal(tiny):
    assert probability_of(1.5, -2.0, tiny) == 0.375
    assert probability_of(1.0, math.log2(tiny), tiny) == tiny
    assert probability_of(1.9, math.log2(tiny) - 1, tiny) == 0
    assert probability_of(1.9, -1e30, tiny) == 0 and probability_of(0.0, scaled.EMPTY, tiny) == 0
    assert math.isnan(probability_of(math.nan, scaled.EMPTY, tiny))


def test_uncompiled_bodies_agree():
    """The CUDA simulator runs the bodies as plain Python."""
    for x in (-1.25, -7000.0):
        number = tuple(map(float, scaled.split(np.float64(x))))
        assert number == pytest.approx(tuple(part[0] for part in split([x])), rel=EPS)
    total = scaled.added(*map(np.float64, (1.25, -3.0, 1.75, -4.0)))
    assert total == added(1.25, -3.0, 1.75, -4.0)
    assert float(scaled.log_of(*total)) == pytest.approx(log(*([part] for part in total))[0], rel=EPS)
