"""What the door of minimum Bayes risk refuses.

Its errors say which argument, where, which value and what would do.
"""

import numpy as np
import pytest

import lattice
from tests.signatures import signature
from tests.test_inputs import WRONG, changed, says
from tests.test_inputs_values import NeedsGradient
from tests.test_risk import lists

SCORES = np.random.default_rng(0).standard_normal((3, 5))
GIVEN = {"scores": SCORES, "risks": np.arange(15).reshape(3, 5), "lengths": np.array([5, 2, 3])}


def refuse(changes, exception, *words):
    given = GIVEN | {name: change(GIVEN[name]) if callable(change) else change for name, change in changes.items()}
    with pytest.raises(exception, match=says(*words)):
        lattice.minimum_bayes_risk(**given)


def test_signature():
    """Names, order and defaults are the contract."""
    assert signature(lattice.minimum_bayes_risk) == "scores risks lengths * scale=1.0"


@pytest.mark.parametrize("name", list(GIVEN))
@pytest.mark.parametrize("wrong", [lambda x: x.tolist(), None, "text"], ids=["list", "None", "str"])
def test_not_an_array(name, wrong):
    refuse({name: wrong}, TypeError, name)


def test_dimensions_and_sizes():
    for name in GIVEN:
        refuse({name: lambda x: x[None]}, ValueError, f"{name} has", (1, *GIVEN[name].shape))
        refuse({name: lambda x: x[0]}, WRONG, name)
        refuse({name: lambda x: x[:2]}, ValueError, name, 2, 3)
    refuse({"scores": lambda x: x[:, :4]}, ValueError, "risks", (3, 5), (3, 4))
    refuse({"risks": lambda x: x[:, :1]}, ValueError, "risks", (3, 1), (3, 5))
    refuse({"risks": lambda x: x.T}, ValueError, "risks", (5, 3), (3, 5))


@pytest.mark.parametrize("dtype", [np.int64, np.complex64, bool, np.longdouble, ">f4"])
def test_dtypes_of_reals(dtype):
    refuse({"scores": np.zeros((3, 5), dtype)}, TypeError, "scores", "dtype", np.dtype(dtype))
    if dtype != np.int64:
        refuse({"risks": np.zeros((3, 5), dtype)}, TypeError, "risks", "dtype", np.dtype(dtype))


def test_dtypes_of_integers():
    for dtype in (np.float32, np.int16, np.uint8, bool):
        refuse({"lengths": lambda x, dtype=dtype: x.astype(dtype)}, TypeError, "lengths", np.dtype(dtype).name)


def test_lengths():
    for value in (0, -1, 6):
        refuse({"lengths": changed(GIVEN["lengths"], 1, value)}, ValueError, "lengths[1]", value, "1 to 5", (3, 5))
    refuse({"scores": SCORES[:, :0], "risks": SCORES[:, :0]}, ValueError, "lengths[0]", "1 to 0", (3, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e300, -2e300])
def test_risks_that_are_not_finite(value):
    risks = GIVEN["risks"].astype(np.float64)
    refuse({"risks": changed(risks, (2, 1), value)}, ValueError, "risks[2, 1]", value, "finite", 1e300)
    unread = lattice.minimum_bayes_risk(SCORES, changed(risks, (2, 3), value), GIVEN["lengths"])
    assert np.isfinite(unread[0]).all() and np.isfinite(unread[1]).all()


def test_the_largest_risks_have_finite_results():
    risks = changed(changed(GIVEN["risks"].astype(np.float64), (0, 0), 1e300), (0, 1), -1e300)
    risk, grad = lattice.minimum_bayes_risk(SCORES, risks, GIVEN["lengths"])
    assert np.isfinite(risk).all() and np.isfinite(grad).all() and abs(grad[0, 0]) > 1e297


def test_scale():
    for value in (0.0, 0, -1.0, np.nan, np.inf):
        refuse({"scale": value}, ValueError, "scale", value, "above 0")
    for value in (None, "1", [1.0], True, np.ones(3)):
        refuse({"scale": value}, TypeError, "scale", "number")
    for value in (2, np.float32(2), np.int64(2)):
        for ours, other in zip(
            lattice.minimum_bayes_risk(**GIVEN, scale=value), lattice.minimum_bayes_risk(**GIVEN, scale=2.0)
        ):
            np.testing.assert_array_equal(ours, other)


def test_tensors_that_require_a_gradient_get_advice():
    for name in ("scores", "risks"):
        refuse({name: NeedsGradient()}, WRONG, name, ".detach()")


def test_arguments_are_left_alone():
    given = lists(0)
    lattice.minimum_bayes_risk(*given)
    for ours, other in zip(given, lists(0), strict=True):
        np.testing.assert_array_equal(ours, other)
