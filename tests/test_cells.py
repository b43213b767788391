"""The scalar maths every kernel shares, called the way the kernels call it: compiled, typed."""

import math

import numba
import numpy as np
import pytest

from lattice.kernels import cells


@numba.njit
def exp_of(x, y):
    for i in range(x.shape[0]):
        y[i] = cells.exp(x[i])


@numba.njit
def log_add_of(a, b):
    return cells.log_add(a, b)


@pytest.mark.parametrize("dtype, lowest", [(np.float32, -87.0), (np.float64, -708.0)])
def test_exp_is_within_2_ulp_and_never_subnormal(dtype, lowest):
    x = np.concatenate([np.linspace(lowest, 0, 200_001), -np.logspace(-20, 0, 1001)]).astype(dtype)
    y = np.empty_like(x)
    exp_of(x, y)
    truth = np.exp(x.astype(np.longdouble))
    assert np.abs(y - truth).max() <= 2 * np.finfo(dtype).eps
    assert (np.abs(y - truth) / truth).max() <= 2 * np.finfo(dtype).eps
    assert y.min() >= np.finfo(dtype).tiny


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_at_the_edges(dtype):
    x = np.array([-np.inf, -1e30, -750, 0, np.nan, np.inf], dtype)
    y = np.empty_like(x)
    exp_of(x, y)
    assert y[:4].tolist() == [0, 0, 0, 1]
    assert np.isnan(y[4:]).all()


@numba.njit
def products_of(e, scale, smallest, y):
    for i in range(e.shape[0]):
        y[i] = cells.flushed_product(e[i], scale[i], smallest[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_near_the_least_entry(dtype):
    """Quotients that are rounded down would let products pass that are just below 2**-100."""
    least, eps = dtype(cells.NEGLIGIBLE), np.finfo(dtype).eps
    scale = np.random.default_rng(0).uniform(2.0**-40, 1, 10_000).astype(dtype) * np.array([1, -1], dtype).repeat(5_000)
    smallest = least / np.abs(scale)
    for steps in range(-2, 3):
        y = np.empty_like(scale)
        products_of(smallest * (1 + steps * eps).astype(dtype), scale, smallest, y)
        assert not ((y != 0) & (np.abs(y) < least)).any()
        assert y.all() if steps > 0 else not y.any()
    y = np.empty(3, dtype)
    products_of(np.array([np.nan, 1, 0], dtype), np.array([1, np.nan, -1], dtype), np.array([1, np.nan, 1], dtype), y)
    assert np.isnan(y[:2]).all() and y[2] == 0 and np.signbit(y[2])


@pytest.mark.parametrize(
    "a, b", [(-3.0, -4.0), (-1e4, -1e4 - 39.9), (-7.0, -60.0), (0.0, 0.0), (-math.inf, -2.0), (-2.0, -math.inf)]
)
def test_log_add(a, b):
    assert log_add_of(a, b) == pytest.approx(np.logaddexp(a, b), rel=1e-15, abs=1e-15)


def test_log_add_of_closed_arcs_and_of_nan():
    assert log_add_of(-math.inf, -math.inf) == -math.inf
    assert math.isnan(log_add_of(math.nan, -1.0)) and math.isnan(log_add_of(-1.0, math.nan))
    assert math.isnan(log_add_of(math.nan, -math.inf)) and math.isnan(log_add_of(-math.inf, math.nan))


def test_uncompiled_bodies_agree():
    """The CUDA simulator runs the bodies as plain Python."""
    for x in (np.float32(-1.25), np.float64(-1.25)):
        y = np.empty(1, x.dtype)
        exp_of(np.array([x]), y)
        assert cells.exp(x) == pytest.approx(y[0], rel=2 * float(np.finfo(x.dtype).eps))
        assert cells.typed(1, x).dtype == x.dtype
