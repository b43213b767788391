"""Maximum and rest of a row as a lane of a warp finds them, eight logits at a time, against float64."""

import itertools
import math

import numpy as np
import pytest

from lattice.kernels.normaliser import fold_eight, fold_four, join

CLOSED = np.float32(-np.inf)


def folded(logits):
    """Maximum and rest of float32 logits, a multiple of four of them, eight at once as long as they last."""
    highest, rest = CLOSED, np.float32(0)
    logits = [tuple(np.asarray(four, np.float32)) for four in np.reshape(logits, (-1, 4))]
    while len(logits) > 1:
        highest, rest = fold_eight(highest, rest, logits.pop(0), logits.pop(0))
    return fold_four(highest, rest, logits[0]) if logits else (highest, rest)


def truth(logits):
    logits = np.sort(np.asarray(logits, np.float32).astype(np.float64))
    return logits[-1], np.exp(logits[:-1] - logits[-1]).sum()


@pytest.mark.parametrize("count", [4, 8, 12, 20, 24])
def test_wherever_the_maximum_stands(count):
    for place in range(count):
        logits = np.random.default_rng(place).standard_normal(count)
        logits[place] += 9
        np.testing.assert_allclose(folded(logits), truth(logits), rtol=1e-6)


def test_a_certain_row_keeps_its_digits():
    """Beside the maximum's own 1 they would be lost."""
    for place in range(16):
        logits = np.random.default_rng(place).uniform(-60, -40, 16)
        logits[place] = 3
        highest, rest = folded(logits)
        assert highest == 3 and rest < 1e-18
        np.testing.assert_allclose(rest, truth(logits)[1], rtol=1e-6)


def test_equal_maxima_count_but_one():
    assert folded([2] * 16) == (2, 15)


@pytest.mark.parametrize("count", [8, 12, 16])
def test_nan_stays_wherever_it_stands(count):
    for place, other in itertools.product(range(count), (1.0, -np.inf)):
        logits = np.full(count, other)
        logits[place] = np.nan
        assert any(map(math.isnan, folded(logits))), place


def test_closed_logits_are_no_terms():
    assert folded([-np.inf] * 16) == (-np.inf, 0)
    for place in range(16):
        logits = np.full(16, -np.inf)
        logits[place] = 5
        assert folded(logits) == (5, 0)


def test_parts_are_joined_from_either_side():
    one, other = np.random.default_rng(0).standard_normal((2, 8)) + [[0], [30]]
    whole = truth(np.concatenate([one, other]))
    for a, b in ((one, other), (other, one)):
        np.testing.assert_allclose(join(*folded(a), *folded(b)), whole, rtol=1e-6)
        assert join(*folded(a), CLOSED, np.float32(0)) == join(CLOSED, np.float32(0), *folded(a)) == folded(a)
