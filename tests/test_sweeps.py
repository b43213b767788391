"""alpha and beta as the sweeps of a CPU make them, against longdouble, which holds the probabilities themselves."""

import numpy as np
import pytest

from lattice import layout
from lattice.kernels import runs
from lattice.kernels.forward_backward import forward_backward, forward_sums
from tests.kernel_compare import MOVES, RNNT
from tests.problems import TOPOLOGIES
from tests.sums_oracle import HELD, alpha_of, flat, sharp


def lattice(T, U, moves=RNNT, bounds=None):
    return layout.frames_of(np.arange(1), np.array([T]), np.array([U]), moves, bounds)


def forward(frames, moves, blank, label):
    alpha, log_z = np.empty(frames.cells), np.empty(1)
    forward_sums(frames, moves, blank, label, alpha, log_z)
    return alpha, log_z[0]


@pytest.mark.parametrize("scores", [flat, sharp])
def test_alpha_of_a_long_utterance_is_rounded_once(scores):
    """At -7000 a step of float64 is 9e-13. Sums in the log domain were 12 steps off."""
    frames = lattice(1000, 100)
    blank, label = scores(np.random.default_rng(0), frames)
    truth, total = alpha_of(frames, False, blank, label)
    alpha, log_z = forward(frames, RNNT, blank, label)
    held = truth > HELD
    assert held.mean() > 0.6 and alpha[~held].max(initial=HELD) <= HELD
    alpha, truth = alpha[held], truth[held]
    error = np.abs(alpha - truth)
    assert (error <= np.spacing(np.abs(truth).astype(np.float64)) + 2e-14).all(), error.max()
    assert abs(log_z - total) <= np.spacing(abs(float(total))) + 2e-14
    assert error.max() < (1e-12 if scores is flat else 4e-12)


def band(T, U, width):
    first = np.arange(T)[None] * U // T - width // 2
    return first, first + width - 1


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("T, U", [(1, 0), (1, 1), (7, 3), (40, 17), (300, 5)])
def test_sums_in_every_shape_of_lattice(T, U, bounded, topology):
    rng, moves = np.random.default_rng(T), MOVES[topology]
    frames = lattice(T, U, moves, band(T, U, 4) if bounded else None)
    blank, label = flat(rng, frames)
    # Closed cells at the ends of frames, and between others.
    for part in (blank, label):
        part[rng.random(frames.cells) < 0.1] = -np.inf
    truth, total = alpha_of(frames, moves.monotonic, blank, label, moves.paired)
    alpha, log_z = forward(frames, moves, blank, label)
    np.testing.assert_allclose(alpha, truth.astype(np.float64), rtol=4e-16, atol=2e-14)
    np.testing.assert_allclose(log_z, float(total), rtol=4e-16, atol=2e-14)


def test_closed_cells_cost_nothing_and_change_nothing(monkeypatch):
    """Closed cells round an open band give the sums of that band, bit for bit."""
    rng, wide = np.random.default_rng(1), lattice(60, 30)
    bounds = band(60, 30, 5)
    narrow = lattice(60, 30, bounds=bounds)
    u = np.arange(wide.cells) % 31
    inside = (u >= np.repeat(bounds[0][0], 31)) & (u <= np.repeat(bounds[1][0], 31))
    scores = flat(rng, narrow)
    spread = np.full((2, wide.cells), -np.inf, np.float32)
    spread[:, inside] = scores
    alpha, log_z = forward(narrow, RNNT, *scores)
    wide_alpha, wide_log_z = forward(wide, RNNT, *spread)
    assert np.array_equal(wide_alpha[inside], alpha) and wide_log_z == log_z
    forward_backward(narrow, RNNT, *scores, alpha, np.empty(1))
    forward_backward(wide, RNNT, *spread, wide_alpha, np.empty(1))
    assert np.array_equal(spread[:, inside], scores) and not spread[:, ~inside].any()


def test_a_frame_of_more_cells_than_are_summed_between_normalisations():
    """Each step along a frame takes the largest factor that a score may have, or the smallest."""
    U = 3 * int(runs.PIECE) + 5
    for score in (-0.3466, -0.347, -40.2):
        frames = lattice(2, U)
        blank, label = np.full((2, frames.cells), score)
        truth, _ = alpha_of(frames, False, blank, label)
        alpha, _ = forward(frames, RNNT, blank, label)
        held = truth > HELD
        np.testing.assert_allclose(alpha[held], truth[held].astype(np.float64), rtol=1e-15, atol=1e-13)
        # Whether longdouble holds the sums of the last score or not.
        assert np.isfinite(alpha).all() and alpha[U] == pytest.approx(U * score, rel=1e-13)
        posteriors = forward_backward(frames, RNNT, blank, label, alpha, np.empty(1))
        assert (
            posteriors.blank[:-1].sum() == pytest.approx(1) and (posteriors.blank + posteriors.label).max() < 1 + 1e-9
        )


def test_scores_beyond_all_powers_of_float64():
    frames = lattice(3, 1)
    blank, label = np.full((2, frames.cells), -3e38, np.float32)
    alpha, log_z = forward(frames, RNNT, blank, label)
    assert log_z == pytest.approx(-4 * 3e38, rel=1e-7)
    posteriors = forward_backward(frames, RNNT, blank, label, alpha, np.empty(1))
    assert (posteriors.blank >= 0).all() and posteriors.blank[-1] == pytest.approx(1)


def test_no_label_arc_leads_from_the_last_cell_of_a_frame_to_the_first_of_the_next():
    frames = lattice(3, 2)
    blank, label = flat(np.random.default_rng(2), frames)
    blank[2], label[2] = -np.inf, np.nan
    truth, total = alpha_of(frames, False, blank, label)
    alpha, log_z = forward(frames, RNNT, blank, label)
    np.testing.assert_allclose(alpha, truth.astype(np.float64), rtol=1e-15)
    assert log_z == pytest.approx(float(total))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("first", [2**31 - 1, -1, -(2**31)])
def test_bounds_of_a_frame_without_cells_may_be_anywhere(first, topology):
    moves = MOVES[topology]
    bounds = np.zeros((1, 6), np.int64), np.full((1, 6), 3)
    bounds[0][0, 3], bounds[1][0, 3] = first, first - 1
    frames = lattice(6, 3, moves, bounds)
    assert frames.first[3] == 0
    scores, alpha = flat(np.random.default_rng(3), frames), np.full(frames.cells, 9.0)
    log_z = np.empty(1)
    forward_sums(frames, moves, *scores, alpha, log_z)
    assert log_z[0] == -np.inf and np.isneginf(alpha[frames.offset[4] :]).all()
    # At (t, t + 1) alignments only pass, from a label to its blank.
    assert np.isneginf(alpha[: frames.offset[2]]).sum() == 2 * moves.paired
    posteriors = forward_backward(frames, moves, *scores, alpha, log_z)
    assert not posteriors.blank.any() and not posteriors.label.any()


def test_a_nan_among_closed_cells_is_seen():
    """No alignment visits it, and yet it is a number that the caller wants to know of."""
    frames = lattice(8, 5)
    blank, label = flat(np.random.default_rng(5), frames)
    # t = 0 and u = 5, and what is round it.
    blank[[4, 5, 10, 11]] = label[[4, 5, 10, 11]] = -np.inf
    blank[5] = np.nan
    alpha, log_z = np.empty(frames.cells), np.empty(1)
    posteriors = forward_backward(frames, RNNT, blank, label, alpha, log_z)
    assert np.isnan(log_z[0]) and np.isnan(posteriors.blank).all() and np.isnan(posteriors.label).all()


def test_without_an_alignment_a_nan_is_no_matter():
    bounds = np.array([[0, 0, 3, 3]]), np.array([[0, 0, 3, 3]])
    frames = lattice(4, 3, bounds=bounds)
    blank, label = flat(np.random.default_rng(6), frames)
    blank[1] = label[1] = np.nan
    alpha, log_z = np.empty(frames.cells), np.empty(1)
    posteriors = forward_backward(frames, RNNT, blank, label, alpha, log_z)
    assert log_z[0] == -np.inf and not posteriors.blank.any() and not posteriors.label.any()


@pytest.mark.parametrize("frames, score", [(4, -1e20), (50, -1e16), (1000, -1e13), (1000, -1e30)])
def test_posteriors_of_scores_without_digits_are_at_most_one(frames, score):
    """Of one alignment all posteriors are 1, though nothing is known behind the point of such scores."""
    cells = lattice(frames, 0)
    blank, label = np.full(frames, score, np.float32), np.full(frames, -np.inf, np.float32)
    posteriors = forward_backward(cells, RNNT, blank, label, np.empty(frames), np.empty(1))
    assert (posteriors.blank <= 1).all() and (posteriors.blank >= 0).all()
