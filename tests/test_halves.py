"""A float32 matrix in two halves of TF32, and the three products that stand for one."""

import re

import numpy as np
import pytest

from benchmarks.gpu import dry, problems
from lattice.kernels.halves import Halves, split, terms
from tests.problems import joint_problem
from tests.test_joint_laws import flat

F4 = np.float32


def halves_of(values):
    values = np.atleast_2d(np.asarray(values, F4))
    return split(values, np.empty_like(values), np.empty_like(values))


def kept(array):
    """Whether every number has at most the ten bits of a fraction that TF32 keeps."""
    return not (array.view(np.uint32) & 0x1FFF).any()


def test_halves_of_random_numbers():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((50, 70)) * 2.0 ** rng.integers(-60, 60, (50, 70))).astype(F4)
    high, low = halves_of(values)
    assert kept(high)
    exact = values.astype(np.float64)
    assert (np.abs(low) <= 2.0**-11 * np.abs(exact)).all()
    assert (exact == high.astype(np.float64) + low).all()
    # Rounded, not cut: halves of both signs, or the product that is left out would add up.
    assert 0.4 < np.mean(np.sign(low) == np.sign(values)) < 0.6


@pytest.mark.parametrize(
    ("value", "high", "low"),
    [
        (0.0, 0.0, 0.0),
        (1 + 2.0**-10, 1 + 2.0**-10, 0.0),
        (1 + 2.0**-12, 1.0, 2.0**-12),
        (1 + 3 * 2.0**-12, 1 + 2.0**-10, -(2.0**-12)),
        (-1 - 3 * 2.0**-12, -1 - 2.0**-10, 2.0**-12),
        (2.0**-140, 0.0, 2.0**-140),
    ],
)
def test_halves_of_one_number(value, high, low):
    found = halves_of([value])
    assert (found.high, found.low) == (F4(high), F4(low))


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, np.finfo(F4).max])
@pytest.mark.parametrize("bits", [None, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001])
def test_what_is_not_finite_is_seen_in_a_product(value, bits):
    """NaN with all bits set would become a zero where it is rounded."""
    values = np.array([[value]], F4) if bits is None else np.array([[bits]], np.uint32).view(F4)
    with np.errstate(all="ignore"):
        three = sum(one @ other for one, other in terms(halves_of(values), halves_of([[0.5]])))
    assert not np.isfinite(three).all()


def test_the_upper_half_may_take_the_place_of_the_numbers():
    values = np.random.default_rng(1).standard_normal((3, 5)).astype(F4)
    apart, low = halves_of(values), np.empty_like(values)
    together = split(values, values, low)
    assert together.high is values and (values == apart.high).all() and (low == apart.low).all()


def test_the_products_that_are_made():
    a, b = Halves("A", "a"), Halves("B", "b")
    assert terms(a, b) in ([("A", "b"), ("a", "B"), ("A", "B")], [("a", "B"), ("A", "b"), ("A", "B")])
    assert terms("x", b) == [("x", "b"), ("x", "B")] and terms(a, "x") == [("a", "x"), ("A", "x")]
    assert terms("x", "y") == [("x", "y")]


def test_three_products_are_as_exact_as_one_in_float32():
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(shape).astype(F4) for shape in ((40, 300), (300, 30)))
    truth = a.astype(np.float64) @ b
    three = sum(one @ other for one, other in terms(halves_of(a), halves_of(b)))
    plain, rounded = a @ b, halves_of(a).high @ halves_of(b).high
    error, of_one, of_rounded = (np.abs(found - truth).max() for found in (three, plain, rounded))
    assert error < 3 * of_one and error < of_rounded / 100


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("vocabulary", [None, 300])
@pytest.mark.parametrize("more", [0, 1 << 20])
def test_halves_have_room_in_the_workspace(more, vocabulary, gradients):
    """Nothing is computed here. A piece that the plan has no room for is an error of the workspace."""
    shape, kind = problems.full(3, 40, 9, 600, 500), dry.Kind((0.5, 0.5), 1.0)
    options = {"precision": "tf32x3", "gradients": gradients}
    if vocabulary:
        options["vocabulary"] = np.arange(vocabulary, dtype=np.int32).repeat(3).reshape(-1, 3).T
    with pytest.raises(ValueError, match="expected at least") as refused:
        dry.joint(shape, kind, "float32", 1, **options)
    limit = int(re.search(r"at least (\d+)", str(refused.value))[1])
    blocks = dry.joint(shape, kind, "float32", limit + more, **options)
    rows = sum(block.repeat * step.rows for block in blocks for step in block.steps if step.name == "split_cuda")
    # Of each cell its hidden vector, on the way back again, and its gradient row. The output layer comes on top.
    assert rows > shape.cells * (3 if gradients else 1)


def test_on_the_host_precision_changes_no_bit():
    problem = joint_problem(12)
    for one, other in zip(flat(problem), flat(problem, precision="tf32x3"), strict=True):
        np.testing.assert_array_equal(one, other)
