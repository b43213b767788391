"""Values and slopes of every activation: their error, special values, and what stands in their documentation."""

import numpy as np
import pytest
from scipy.special import log_ndtr

from lattice.kernels.activations import ACTIVATIONS, SLOPES, entry_of
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.factors import TAIL, make_factors
from lattice.kernels.hidden import KERNELS, compute_hidden
from lattice.kernels.hidden_transpose import KERNELS as TRANSPOSES
from lattice.kernels.hidden_transpose import hidden_transpose
from tests import joint_oracle

DTYPES = [np.float32, np.float64]


def filled(entry, x, y=None, factored=False):
    """The values of an entry of either table at x + y, as hidden vectors of one number."""
    y = np.zeros_like(x) if y is None else y
    every, hidden = np.arange(len(x)), np.empty((len(x), 1), x.dtype)
    factors = np.empty((2 * len(x) * factored, 1 + TAIL), x.dtype)
    rows = x[:, None], y[:, None]
    if factored:
        make_factors(entry.rate, *rows, every, every, factors)
    compute_hidden(entry, *rows, factors, NO_DROPOUT, every, every, every, every, hidden)
    return hidden[:, 0]


def true_value(name, x):
    """In extended precision where NumPy has the function in it."""
    x = x.astype(np.longdouble)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name == "silu":
        return x / (1 + np.exp(-x))
    if name == "gelu":
        return x * np.exp(log_ndtr(x.astype(np.float64)))
    return joint_oracle.ACTIVATIONS[name][0](x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values(name, dtype):
    """Relative to the value, down to the tails, where the exponent of a bell is as exact as its square is."""
    x = np.concatenate([np.linspace(-12, 12, 4_001), [0.0, 1e-30, -1e-30, 80, -80, 1e4, -1e4]]).astype(dtype)
    ours, true, eps = filled(ACTIVATIONS[name], x), true_value(name, x), np.finfo(dtype).eps
    steepness = np.minimum(x.astype(np.float64) ** 2, 1e3) if name == "gelu" else np.minimum(np.abs(x), 100)
    allowed = eps * (4 + steepness) * np.abs(true) + np.finfo(dtype).tiny
    if name == "tanh":
        allowed = np.full_like(allowed, 2 * eps)  # beside 1: a sum of many is what it goes into
    assert (np.abs(ours - true) <= allowed).all(), x[np.abs(ours - true) > allowed]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_are_differences_of_values(name, dtype):
    """What the transpose makes of an upstream gradient of 1 and of -3, beside differences in float64."""
    x = np.linspace(-9, 9, 1_201).astype(dtype) + dtype(1e-3)
    entry, n, step = ACTIVATIONS[name], len(x), 1e-6
    x64 = x.astype(np.float64)
    slope = (true_value(name, x64 + step) - true_value(name, x64 - step)) / (2 * step)
    for upstream in (1, -3):
        given = filled(entry.slope or entry, x)[:, None]
        every, grads = np.arange(n), (np.zeros((n, 1), dtype), np.zeros((n, 1), dtype))
        gradient = np.full((n, 1), upstream, dtype)
        hidden_transpose(entry.slope or entry, given, gradient, NO_DROPOUT, every, every, None, None, None, *grads)
        for grad in grads:
            assert np.abs(grad[:, 0] - upstream * slope).max() < 3e-8 + 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name, entry in ACTIVATIONS.items() if entry.rate is not None])
def test_factors_give_the_same(name, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5_000)).astype(dtype) * dtype(5)
    ours, true = filled(ACTIVATIONS[name], x, y, factored=True), true_value(name, x.astype(np.longdouble) + y)
    assert np.abs(ours - true).max() < 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype):
    x = np.array([np.nan, np.inf, -np.inf, -0.0], dtype)
    ends = {"tanh": (1, -1), "relu": (np.inf, 0), "identity": (np.inf, -np.inf), "sigmoid": (1, 0)}
    ends |= {"leaky_relu": (np.inf, -np.inf), "gelu": (np.inf, np.nan), "silu": (np.inf, np.nan)}
    for name, (high, low) in ends.items():
        ours = filled(ACTIVATIONS[name], x)
        np.testing.assert_array_equal(ours[:3], [np.nan, high, low], err_msg=name)
        assert ours[3] == (0.5 if name == "sigmoid" else 0), name


def test_leaky_relu_at_zero_has_the_slope_below_zero():
    """As torch has it, and of either zero."""
    entry, x = ACTIVATIONS["leaky_relu"], np.array([[0.0], [-0.0], [1.0]])
    grads, every = (np.zeros((3, 1)), np.zeros((3, 1))), np.arange(3)
    hidden_transpose(entry, x, np.ones((3, 1)), NO_DROPOUT, every, every, None, None, None, *grads)
    assert grads[0][:, 0].tolist() == [0.01, 0.01, 1]


def test_tables():
    """Slopes are filled, and never an activation; every entry has a transpose."""
    assert set(KERNELS) == {*ACTIVATIONS.values(), *SLOPES}
    assert not {entry.name for entry in SLOPES} & set(ACTIVATIONS)
    for entry in ACTIVATIONS.values():
        assert (entry.slope or entry) in TRANSPOSES
    with pytest.raises(ValueError, match="expected an entry of ACTIVATIONS: tanh"):
        entry_of(TRANSPOSES, ACTIVATIONS["gelu"])
