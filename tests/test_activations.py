"""Hidden vectors, made of the inputs or of factors: their error against extended precision, and special values."""

import numpy as np
import pytest

from benchmarks.hidden import INPUTS, SIZE, TANH, errors, hidden_of, inputs
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.factors import LISTED, TAIL, make_factors, reach_of
from lattice.kernels.hidden import compute_hidden


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", INPUTS)
def test_error_of_tanh(name, dtype):
    """With factors at most 1.8e-7 in float32, and the mean square root error of the other way or below."""
    x, y = inputs(name, dtype, SIZE["default"])
    eps = float(np.finfo(dtype).eps)
    plain, factored = errors(x, y, False), errors(x, y, True)
    assert plain[0] < eps and factored[0] < 1.5 * eps
    assert max(plain[1], factored[1]) < 0.31 * eps
    assert name == "cancelling" or factored[1] < 1.25 * plain[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_on_a_grid(dtype):
    """Of an input and 0: monotonic but for rounding, odd, and exact where float32 cannot tell tanh from 1."""
    x = np.linspace(-30, 30, 6_001).astype(dtype)[:, None]
    for factored in (False, True):
        y = hidden_of(x, np.zeros_like(x), factored)
        assert np.abs(y - np.tanh(x.astype(np.longdouble))).max() < 2 * np.finfo(dtype).eps
        assert (np.abs(y) <= 1).all() and (y[np.abs(x) > 20] == np.sign(x[np.abs(x) > 20])).all()
        assert (np.sign(y) * np.sign(x) >= 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    """Rows beyond the reach are made of the inputs, bit for bit; NaN and infinity do what they do there."""
    far = reach_of(dtype) / TANH.rate
    pairs = [(0.0, -0.0), (-0.0, -0.0), (np.inf, 1), (-np.inf, 1), (np.inf, -np.inf), (np.nan, 0), (1, np.nan)]
    pairs += [(1e30, -1e30), (1e30, 1), (-1e30, 1e29), (1.01 * far, -far), (1e-30, 1e-30)]
    x, y = np.array(pairs).T.astype(dtype)
    near = (np.abs(x) <= far) & (np.abs(y) <= far)
    # In a row of their own, and beside a number that has factors.
    for others in (np.empty((len(x), 0), dtype), np.full((len(x), 1), 0.3, dtype)):
        rows = np.append(x[:, None], others, 1), np.append(y[:, None], -others, 1)
        plain, factored = hidden_of(*rows, False), hidden_of(*rows, True)
        np.testing.assert_array_equal(factored[~near], plain[~near])
        assert np.isnan(factored[4:7, 0]).all() and np.isfinite(factored[7:, 0]).all()
        # Zeros of either sign; inputs too small to be seen beside 1 are 0.
        assert not factored[[0, 1, 11], 0].any() and factored[near].shape[0] == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_factors_are_normal_numbers(dtype):
    reach = np.array([[reach_of(dtype) / TANH.rate]]).astype(dtype)
    reach = np.nextafter(reach, dtype(0))
    factors = np.empty((2, 1 + TAIL), dtype)
    make_factors(TANH.rate, reach, -reach, np.arange(1), np.arange(1), factors)
    info = np.finfo(dtype)
    (large,), (small,) = factors[:, :1]
    assert np.isfinite(large**2) and small**2 >= info.tiny and large * small == pytest.approx(1)
    assert not factors[:, 1].any()
    make_factors(TANH.rate, np.nextafter(reach, dtype(1e3)) * dtype(1 + 1e-5), -reach, *[np.arange(1)] * 2, factors)
    assert np.isnan(factors[:, 0]).tolist() == [True, False] and factors[:, 1].tolist() == [1, 0] and factors[0, 2] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lists_of_far_entries(dtype):
    """A row lists its far entries from the left, and no more of them than there is room for."""
    x, y = np.zeros((3, 40), dtype), np.zeros((1, 40), dtype)
    x[0, [39, 3, 17]], x[1, 4 : 4 + LISTED], y[0] = 1000, -1000, np.nan
    factors = np.full((6, 40 + TAIL), 5, dtype)
    make_factors(TANH.rate, x, y, np.arange(3), np.arange(1), factors[:4])
    assert factors[:, 40].tolist() == [3, LISTED, 0, 40, 5, 5]
    assert factors[0, 41:44].tolist() == [3, 17, 39] and factors[1, 41:].tolist() == list(range(4, 4 + LISTED))
    assert (np.isnan(factors[:4, :40]) == (np.append(x, y, 0) != 0)).all() and (factors[4:] == 5).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_entries_alone_are_made_of_the_inputs(dtype):
    """Up to as many as a row lists, of both rows together. The factors here are of other inputs."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 8, 120)).astype(dtype)
    x[1, [3, 20]], y[2, 119], x[3, :LISTED], y[4, 1 : 2 + LISTED] = 1000, -1000, 1000, -1000
    x[5, :4], y[5, 2:5] = 1000, -1000
    x[6, :4], y[6, 2:6] = 1000, -1000
    every = np.arange(8)
    factors, hidden = np.empty((16, 120 + TAIL), dtype), np.empty((8, 120), dtype)
    make_factors(TANH.rate, x, y, every, every, factors)
    compute_hidden(TANH, x + 1, y, factors, NO_DROPOUT, every, every, every, every, hidden)
    far = (abs(x) > 900) | (abs(y) > 900)
    far[[4, 6]] = True
    expected = np.tanh(np.where(far, x + 1, x).astype(np.float64) + y)
    np.testing.assert_allclose(hidden, expected, atol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("width, alone", [(15, 0), (16, 1), (47, 2), (112, 7), (200, 7)])
def test_far_entries_are_made_alone_where_that_pays(width, alone):
    """Otherwise all entries are made of the inputs, which are others than the factors' here."""
    every = np.arange(9)
    x, y = np.zeros((2, 9, width), np.float32)
    for k in every:
        x[k, :k] = 1000
    factors, hidden = np.empty((18, width + TAIL), np.float32), np.empty((9, width), np.float32)
    make_factors(TANH.rate, x, y, every, every, factors)
    compute_hidden(TANH, x + 1, y, factors, NO_DROPOUT, every, every, every, every, hidden)
    assert [not row[-1] for row in hidden] == [k <= alone for k in every]
