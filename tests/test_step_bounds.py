"""Upper bounds on steps: they hold for scores as matrix products round them, and are not merely large."""

import itertools

import numpy as np
import pytest

from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.emissions import emit
from lattice.kernels.factors import TAIL, make_factors
from lattice.kernels.hidden import compute_hidden
from lattice.kernels.layer import measure
from lattice.kernels.rows import NO_IDS
from lattice.kernels.state import BOUND, WANTED
from lattice.kernels.step_bounds import bound_head, bound_heads, bound_steps
from lattice.kernels.upper_bounds import bound, rounding_of, slacks_of
from tests.test_certificate_kernels import WAYS as ALL_WAYS

COUNT, START = 203, 3
KINDS = ("tdt", "multiblank")
WAYS = [way for way in ALL_WAYS if way.id.partition("-")[0] in ("tanh", "relu", "identity")]
"""Activations share all but how they fill a hidden vector, which bounds of two arcs try for each."""


class Problem:
    """Random cells of one layer of V + D rows (tdt), or of V rows whose last D - 1 are blanks (multiblank)."""

    def __init__(self, kind, rng, dtype, *, width=64, size=30, steps=5, scale=1.0, activation="tanh", factored=False):
        self.dtype, self.sigma, self.steps, self.activation = dtype, dtype(0.05), steps, ACTIVATIONS[activation]
        self.dropout = NO_DROPOUT
        self.tail = steps if kind == "tdt" else 0
        self.size = size if self.tail else max(size, steps)
        self.blank_ids = np.array([0]) if self.tail else np.arange(self.size - 1, self.size - steps, -1)
        self.encoder, self.predictor = (scale * rng.standard_normal((2, 20, width))).astype(dtype)
        self.weight = (scale * rng.standard_normal((self.size + self.tail, width))).astype(dtype)
        # Rows that all but cancel: the dot products are small beside what rounding errs by.
        self.weight[:, width // 2 :] -= self.weight[:, : width - width // 2]
        self.bias = rng.standard_normal(len(self.weight)).astype(dtype)
        self.places = rng.integers(0, 20, COUNT), rng.integers(0, 20, COUNT)
        self.label = rng.integers(-1, self.size, COUNT).astype(np.int32)
        self.label[np.isin(self.label, self.blank_ids)] = -1
        self.factors = np.empty((40 * factored, width + TAIL), dtype)
        if factored:
            rows = np.arange(20)
            make_factors(self.activation.rate, self.encoder, self.predictor, rows, rows, self.factors)

    @property
    def cells(self):
        rows = np.arange(20)
        return self.activation, self.encoder, self.predictor, self.factors, self.dropout, rows, rows, *self.places

    @property
    def layer(self):
        norm, ceiling = np.empty(len(self.weight), self.dtype), np.empty(3, self.dtype)
        measure(self.weight, self.bias, norm, ceiling)
        rounding = rounding_of(self.weight.shape[1], np.dtype(self.dtype), False)
        return self.weight, self.bias, norm, ceiling, rounding

    def score(self, logits, ids, bias):
        """Log-probabilities of one entry of each row of a head."""
        found = tuple(np.empty(COUNT, self.dtype) for _ in range(4))
        emit(logits.copy(), bias, np.arange(COUNT), NO_IDS, ids.astype(np.int32), 0, *found)
        return found[1]

    def scores(self, reverse=False):
        """(label, steps (D, n)) as a matrix product rounds them, in one order of summing or the other."""
        hidden = np.empty((COUNT, self.weight.shape[1]), self.dtype)
        compute_hidden(*self.cells, hidden)
        way = -1 if reverse else 1
        logits = np.ascontiguousarray(hidden[:, ::way]) @ np.ascontiguousarray(self.weight[:, ::way]).T
        V, none = self.size, np.zeros(COUNT, int)
        label = self.score(logits[:, :V], self.label, self.bias[:V])
        if self.tail:
            step = [self.score(logits[:, V:], none + n, self.bias[V:]) for n in range(self.steps)]
        else:
            step = [none.astype(self.dtype), *(self.score(logits, none + k, self.bias) for k in self.blank_ids)]
        return label, np.array(step) - self.sigma

    def bounds(self):
        """(label, steps (D, n), maximum, rest)."""
        state = tuple(np.full(COUNT, 7, self.dtype) for _ in range(4))
        step = np.full((self.steps, COUNT + 5), 7, self.dtype)
        arguments = self.blank_ids, self.tail, START, *self.layer, self.sigma, *state, step
        bound_steps(*self.cells, self.label, *arguments)
        assert np.isneginf(state[:2]).all()
        assert (step[:, :START] == 7).all() and (step[:, START + COUNT :] == 7).all(), "columns of other cells"
        return state[3] - self.dtype(BOUND), step[:, START : START + COUNT], state[2], state[3]


def assert_above(problem):
    label, step, maximum, rest = problem.bounds()
    assert not (rest == WANTED).any()
    assert (label <= 0).all() and (step <= -problem.sigma).all() and (maximum <= 0).all()
    for reverse in (False, True):
        exact_label, exact = problem.scores(reverse)
        assert (exact <= step).all(), f"by {(exact - step).max()}"
        assert (exact_label <= label).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation, factored, dropout", WAYS)
@pytest.mark.parametrize("width", [1, 7, 64, 700])
@pytest.mark.parametrize("steps", [2, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_for_scores_as_they_are_rounded(kind, steps, width, activation, factored, dropout, dtype):
    rng = np.random.default_rng(steps * width)
    options = {"width": width, "steps": steps, "activation": activation, "factored": factored}
    # Of few ids the bounds are the scores, but for rounding.
    for scale, size in ((1e-3, 30), (0.3, steps), (1.0, steps), (1.0, 30), (30.0, steps), (1e3, steps)):
        problem = Problem(kind, rng, dtype, scale=scale, size=size, **options)
        problem.dropout = dropout
        if size == steps:
            problem.weight[0] *= 100
        assert_above(problem)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_logits_within_the_slack_score_more(dtype):
    """Logits at all corners of what rounding may make of them, in numbers that are exact."""
    rng = np.random.default_rng(6)
    corners = np.array(list(itertools.product((-1, 1), repeat=4)))
    few, spare = slacks_of(4, np.dtype(dtype))
    given = [
        (spread, scale * rng.standard_normal((50, 4)))
        for scale, spread in itertools.product((0.1, 1.0, 10.0, 1e4), (2.0**-10, 0.25, 1.0, 100.0))
    ]
    # Nearly all of a gap is slack, so the bound is the small difference of large numbers.
    given += [
        (spread, np.pad(-2 * spread - rng.uniform(10, 30, (500, 3)), ((0, 0), (1, 0))))
        for spread in (60, 5001, 6001, 7001)
    ]
    for spread, rows in given:
        # A CPU takes many columns at once.
        table, spreads = rows.astype(dtype).T.copy(), np.full(len(rows), spread, dtype)
        bound_heads(table, 0, len(rows), spreads, dtype(1e30), few, spare, np.empty((4, len(rows)), dtype))
        for logits, bounds in zip(rows.astype(dtype), table.T):
            column = logits[:, None].copy()
            bound_head(column, 0, dtype(spread), dtype(1e30), few, spare)
            slack = spread + float(few) * float(np.abs(logits).max())
            moved = logits.astype(np.longdouble) + corners * slack
            exact = moved - np.logaddexp.reduce(moved, axis=1, keepdims=True)
            assert (exact.max(axis=0) <= np.minimum(column[:, 0], bounds)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_bias_rounds_the_logits(kind):
    """Products err by little then, and the sums with the bias by much."""
    for seed in range(20):
        problem = Problem(kind, np.random.default_rng(seed), np.float32, size=5, scale=0.1)
        problem.bias += np.float32(3e5)
        assert_above(problem)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_pair_is_bounded_as_without_durations(dtype):
    """The tokens' rows are those of `bound`, and so are the numbers, but for the order of a product's sum."""
    problem = Problem("tdt", np.random.default_rng(1), dtype)
    expected = tuple(np.empty(COUNT, dtype) for _ in range(4))
    weight, bias, norm, _, rounding = problem.layer
    V, ceiling = problem.size, problem.layer[3]
    bound(*problem.cells, problem.label, 0, weight[:V], bias[:V], norm[:V], ceiling, rounding, *expected)
    _, _, maximum, rest = problem.bounds()
    room = 32 * np.finfo(dtype).eps
    np.testing.assert_allclose(maximum, expected[2], rtol=room, atol=room)
    np.testing.assert_allclose(rest, expected[3], rtol=room, atol=room)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.01, 0.5])
def test_durations_are_tight(scale, dtype):
    """Slack is what rounding may move two logits by, and no more."""
    problem = Problem("tdt", np.random.default_rng(2), dtype, scale=scale)
    _, step, _, _ = problem.bounds()
    _, exact = problem.scores()
    weight, _, norm, _, rounding = problem.layer
    most = 2.5 * rounding * np.sqrt(weight.shape[1]) * norm.max() + 200 * np.finfo(dtype).eps
    assert (step - exact).max() < most * (1 - exact.min()) and (step > exact).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ids_that_are_all_of_the_layer_are_scored(dtype):
    """With nothing beside the label and the blanks in the layer the bounds are the scores."""
    problem = Problem("multiblank", np.random.default_rng(3), dtype, width=32, size=5, steps=5, scale=0.5)
    label, step, _, _ = problem.bounds()
    exact_label, exact = problem.scores()
    taken = problem.label >= 0
    assert taken.any() and not taken.all() and np.isneginf(label[~taken]).all()
    slack = 3000 * np.finfo(dtype).eps
    assert (label[taken] - exact_label[taken]).max() < slack and (step - exact)[:, taken].max() < slack
    # Where no label is left its id is one more in the layer, and the bounds leave it out.
    assert (step - exact)[1:, ~taken].min() > slack


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_of_minus_infinity_closes_a_step(kind):
    problem = Problem(kind, np.random.default_rng(4), np.float32)
    first = problem.size if problem.tail else problem.size - problem.steps + 1
    problem.bias[first + 1] = -np.inf
    assert_above(problem)
    _, step, _, _ = problem.bounds()
    # Multiblank counts its blanks from the last id down.
    closed = 1 if problem.tail else problem.steps - 2
    assert np.isneginf(step[closed]).all() and np.isfinite(np.delete(step, closed, axis=0)).all()
    problem.bias[first:] = -np.inf
    label, step, _, rest = problem.bounds()
    assert np.isneginf(step[1:]).all() and not np.isnan(step).any() and not np.isnan(rest).any()
    if problem.tail:
        assert np.isneginf(step[0]).all()
    else:
        # The label alone is left, and has a bound of 1.
        assert (label[problem.label >= 0] == 0).all() and (step[0] == -problem.sigma).all()
        assert np.isneginf(label[problem.label < 0]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["overflow", "bias", "nan", "nan in a step", "infinity in a cell"])
def test_rows_that_may_overflow_are_wanted_and_bounded_by_zero(what, kind):
    problem = Problem(kind, np.random.default_rng(5), np.float32, activation="identity")
    wanted = np.ones(COUNT, bool)
    if what == "overflow":
        problem.encoder *= np.float32(1e20)
        problem.weight *= np.float32(1e20)
    elif what == "bias":
        problem.bias[-1] = 1e38
    elif what == "nan":
        problem.weight[1, 1] = np.nan
    elif what == "nan in a step":
        problem.bias[-1] = np.nan
    else:
        problem.encoder[4, 3] = np.inf
        wanted = problem.places[0] == 4
    with np.errstate(all="ignore"):
        _, step, maximum, rest = problem.bounds()
    np.testing.assert_array_equal(rest == WANTED, wanted)
    assert (maximum[wanted] == 0).all() and (step[:, wanted] == -problem.sigma).all()
    assert not np.isnan(step).any()
