"""The proof, step by step: bounds hold for rounded scores, brackets hold log_z, and what is left out is negligible."""

import numpy as np
import pytest

from lattice import layout
from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.emissions import emit
from lattice.kernels.factors import TAIL, make_factors
from lattice.kernels.forward_backward import forward_backward
from lattice.kernels.hidden import compute_hidden
from lattice.kernels.layer import measure
from lattice.kernels.rows import NO_IDS
from lattice.kernels.state import BOUND, WANTED
from lattice.kernels.upper_bounds import bound, rounding_of
from tests.certificate_cases import selected
from tests.dropout_oracle import draws
from tests.kernel_compare import MOVES, RNNT
from tests.problems import TOPOLOGIES

COUNT = 400
DRAWS = draws((0.3, 5), np.arange(20) % 3, np.arange(20), np.arange(20))
WAYS = [
    *(pytest.param(name, False, NO_DROPOUT, id=name) for name in ACTIVATIONS),
    *(pytest.param(name, True, NO_DROPOUT, id=f"{name}-factors") for name in ("tanh", "sigmoid")),
    pytest.param("relu", False, DRAWS, id="relu-dropout"),
    pytest.param("tanh", True, DRAWS, id="tanh-factors-dropout"),
]
"""How hidden vectors are made: the activation, whether of factors, and what is dropped."""


def scores_and_bounds(rng, dtype, width, size, activation, scale, bias_scale=1.0, factored=False, dropout=NO_DROPOUT):
    """Exact scores of random cells as the walk computes them, their bounds (two arrays (2, cells)), and the marks."""
    encoder, predictor = (scale * rng.standard_normal((2, 20, width))).astype(dtype)
    weight = (scale * rng.standard_normal((size, width))).astype(dtype)
    # Rows that all but cancel: the dot products are small beside what rounding errs by.
    weight[:, width // 2 :] -= weight[:, : width - width // 2]
    bias = (bias_scale * rng.standard_normal(size)).astype(dtype)
    rows, places = np.arange(20), (rng.integers(0, 20, COUNT), rng.integers(0, 20, COUNT))
    label = rng.integers(-1, size, COUNT).astype(np.int32)
    label[label == 0] = -1
    factors = np.empty((40 * factored, width + TAIL), dtype)
    if factored:
        make_factors(activation.rate, encoder, predictor, rows, rows, factors)
    hidden, exact = np.empty((COUNT, width), dtype), tuple(np.empty(COUNT, dtype) for _ in range(4))
    compute_hidden(activation, encoder, predictor, factors, dropout, rows, rows, *places, hidden)
    emit(hidden @ weight.T, bias, np.arange(COUNT), NO_IDS, label, 0, *exact)
    norm, ceiling, bounds = np.empty(size, dtype), np.empty(3, dtype), tuple(np.empty(COUNT, dtype) for _ in range(4))
    measure(weight, bias, norm, ceiling)
    layer = (weight, bias, norm, ceiling, rounding_of(width, np.dtype(dtype), False))
    bound(activation, encoder, predictor, factors, dropout, rows, rows, *places, label, 0, *layer, *bounds)
    assert np.isneginf(bounds[0]).all() and np.isneginf(bounds[1]).all()
    return np.array(exact[:2]), np.array([bounds[2], bounds[3] - dtype(BOUND)]), bounds[3] == WANTED


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation, factored, dropout", WAYS)
@pytest.mark.parametrize("width", [1, 7, 64, 700])
@pytest.mark.parametrize("size", [2, 30, 1000])
def test_bounds_hold_for_scores_as_they_are_rounded(size, width, activation, factored, dropout, dtype):
    rng = np.random.default_rng(size * width)
    for scale in (1e-3, 0.3, 1.0, 30.0):
        entry = ACTIVATIONS[activation]
        options = {"factored": factored, "dropout": dropout}
        exact, bounds, wanted = scores_and_bounds(rng, dtype, width, size, entry, scale, **options)
        assert not wanted.any()
        assert (exact <= bounds).all(), f"by {(exact - bounds).max()} at {scale}"
        assert (bounds <= 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("width", [1, 37, 64, 700])
@pytest.mark.parametrize("dropout", [NO_DROPOUT, DRAWS], ids=["", "dropout"])
def test_bounds_are_of_the_hidden_vectors_that_products_take(dropout, width, factored, dtype):
    """Bounds of tanh are bit for bit those of its hidden vectors handed in: no error of tanh enters them."""
    rng, tanh, every, H = np.random.default_rng(width), ACTIVATIONS["tanh"], np.arange(COUNT), width
    encoder, predictor = rng.standard_normal((2, 20, H)).astype(dtype)
    encoder[3] *= 100  # beyond the reach of factors, throughout
    encoder[5, 0], predictor[7, -1] = 1e3, -1e3
    weight, bias = rng.standard_normal((30, H)).astype(dtype), rng.standard_normal(30).astype(dtype)
    rows, places = np.arange(20), (rng.integers(0, 20, COUNT), rng.integers(0, 20, COUNT))
    label = rng.integers(-1, 30, COUNT).astype(np.int32)
    factors, hidden = np.empty((40 * factored, H + TAIL), dtype), np.empty((COUNT, H), dtype)
    if factored:
        make_factors(tanh.rate, encoder, predictor, rows, rows, factors)
    norm, ceiling = np.empty(30, dtype), np.empty(3, dtype)
    measure(weight, bias, norm, ceiling)
    layer = label, 4, weight, bias, norm, ceiling, rounding_of(H, np.dtype(dtype), False)
    found, expected = (tuple(np.empty(COUNT, dtype) for _ in range(4)) for _ in range(2))
    bound(tanh, encoder, predictor, factors, dropout, rows, rows, *places, *layer, *found)
    compute_hidden(tanh, encoder, predictor, factors, dropout, rows, rows, *places, hidden)
    rows = hidden, np.zeros((1, H), dtype), np.empty((0, H), dtype)
    inputs = *rows, NO_DROPOUT, every, every[:1], every, np.zeros_like(every)
    bound(ACTIVATIONS["identity"], *inputs, *layer, *expected)
    for ours, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_of_two_ids_are_the_scores(dtype):
    """With nothing else in the vocabulary the bounds are tight, so they are not merely large."""
    exact, bounds, _ = scores_and_bounds(np.random.default_rng(0), dtype, 32, 2, ACTIVATIONS["tanh"], 0.5)
    has_label = np.isfinite(exact[1])
    assert has_label.any() and not has_label.all()
    assert np.isneginf(bounds[1][~has_label]).all()
    slack = 2000 * np.finfo(dtype).eps
    assert (bounds[:, has_label] - exact[:, has_label]).max() < slack


def test_rows_that_may_overflow_are_wanted():
    rng = np.random.default_rng(1)
    for scale, bias_scale in ((1e19, 1.0), (1.0, 1e38), (np.inf, 1.0), (1.0, np.nan)):
        with np.errstate(all="ignore"):
            _, _, wanted = scores_and_bounds(rng, np.float32, 16, 8, ACTIVATIONS["identity"], scale, bias_scale)
        assert wanted.all()


def test_an_id_that_is_closed_closes_its_bound():
    weight, bias = np.zeros((3, 2), np.float32), np.array([0, -np.inf, -np.inf], np.float32)
    rows, cells = np.zeros((1, 2), np.float32), np.zeros(3, np.int64)
    for blank in (0, 2):
        norm, ceiling, out = (
            np.empty(3, np.float32),
            np.empty(3, np.float32),
            tuple(np.empty(3, np.float32) for _ in range(4)),
        )
        measure(weight, bias, norm, ceiling)
        label = np.array([1, -1, 0], np.int32)
        inputs = rows, rows, rows[:0], NO_DROPOUT, cells[:1], cells[:1], cells, cells
        bound(ACTIVATIONS["tanh"], *inputs, label, blank, weight, bias, norm, ceiling, 1e-6, *out)
        assert np.isneginf(out[3]).tolist() == [True, True, False]
        assert np.isneginf(out[2]).all() == (blank == 2)
        assert not (out[3] == WANTED).any()


def lattices(rng, topology, sharpness, others):
    """Frames and logits (3, cells) of blank, label and the rest of eight trained-like lattices."""
    T, U = rng.integers(1, 70, 8), rng.integers(0, 20, 8)
    U = np.minimum(T, U)
    frames = layout.frames_of(np.arange(8), T, U, MOVES[topology], None)
    width = np.diff(frames.offset)
    u = np.arange(frames.cells) - np.repeat(frames.offset[:-1] - frames.first, width)
    due = np.repeat((frames.t + 1) * (frames.labels / T)[frames.example] + rng.normal(size=len(frames.t)), width)
    ahead = sharpness * (u - due)
    logits = np.stack([ahead, -ahead, others + np.zeros(frames.cells)]) + rng.normal(size=(3, frames.cells))
    at_end = u == np.repeat(frames.labels[frames.example], width)
    logits[1][at_end] = -np.inf
    return frames, logits


def posteriors_of(frames, moves, scores):
    """log_z, and the posterior of each cell."""
    blank, label = (part.astype(np.float64) for part in scores)
    log_z = np.empty(len(frames.labels))
    forward_backward(frames, moves, blank, label, np.empty(frames.cells), log_z)
    return log_z, blank + label


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("floor", [2.0**-24, 1e-3, 0.9])
def test_brackets_hold_and_what_is_left_out_is_negligible(topology, floor):
    """In float64, where rounding is far below everything that is claimed: 480 lattices a case."""
    rng = np.random.default_rng(int(1 / floor))
    sparse = 0
    for sharpness in (0.2, 0.5, 1.0, 2.0, 4.0, 12.0):
        for others in (-8.0, -2.0, 0.0, 3.0, 9.0):
            for _ in range(2):
                frames, logits = lattices(rng, topology, sharpness, others)
                scores = logits[:2] - np.logaddexp.reduce(logits, axis=0)
                bounds = logits[:2] - np.logaddexp(logits[0], logits[1])
                truth, posterior = posteriors_of(frames, MOVES[topology], scores)
                *marked, _, _, certificate, _, exact, skipped, _, blank, label, _, _ = selected(
                    frames, MOVES[topology], scores, bounds, np.log(floor), False, rounds=9
                )
                assert (certificate >= 0).all()
                lower, _ = posteriors_of(frames, MOVES[topology], (blank, label))
                error, rounding = truth - lower, 1e-12 * (1 + np.abs(truth))
                assert (error >= -rounding).all() and (error <= certificate + rounding).all()
                assert (certificate <= 1e-6).all()
                left = np.setdiff1d(np.arange(frames.cells), np.concatenate(marked))
                assert (posterior[left] <= floor * (1 + 1e-9)).all()
                owner = np.repeat(frames.example, np.diff(frames.offset))
                assert (np.bincount(owner[left], posterior[left], 8) <= skipped * (1 + 1e-9) + 1e-300).all()
                np.testing.assert_array_equal(
                    np.bincount(owner, minlength=8) - np.bincount(owner[left], minlength=8), exact
                )
                sparse += len(left) > 0
    assert sparse > 12


def test_of_an_example_without_an_alignment_only_what_cannot_be_bounded_is_computed():
    """A dense lattice would see NaN there, too."""
    first = np.zeros((1, 9), np.int64)
    last = np.full((1, 9), 3)
    last[0, 4] = -1
    frames = layout.frames_of(np.arange(1), np.array([9]), np.array([3]), RNNT, (first, last))
    scores = np.log(np.random.default_rng(0).dirichlet(np.ones(3), frames.cells)[:, :2].T)
    *marked, _, _, certificate, _, exact, skipped, _, _, _, _, total = selected(
        frames, RNNT, scores, scores, np.log(1e-3), False
    )
    assert [cells.tolist() for cells in marked] == [[2], [], [], []]
    assert certificate[0] == skipped[0] == 0 and exact[0] == 1 and (total < 0).sum() == frames.cells - 1
