"""What leaves a set of cells: the walk against all alignments one by one, certificates, and how wrong bounds are."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice.kernels.state import CellState, label_bound_of
from lattice.tiles import band as tiles_band
from lattice.tiles.band import find_band, narrowed, walk, ways_of
from lattice.tiles.certificate import bound_group
from tests.band_problems import SHARPNESS, call, first_group, force, many, spied
from tests.frontier_oracle import inside_and_outside, reached
from tests.oracle import rules_of
from tests.problems import DROPOUTS, TOPOLOGIES, VARIANTS, joint_problem, name_of


def tiny(seed, topology, scale):
    """One example of few alignments."""
    rng = np.random.default_rng(seed)
    T, U = int(rng.integers(1, 7)), int(rng.integers(0, 5))
    problem = joint_problem(
        seed, batch=1, frames=T, labels=U, vocab=4, width=3, topology=topology, dtype=np.float64, slack=(0, 0)
    )
    return replace(problem, weight=scale * problem.weight)


def grid(frames, values, fill):
    """Values of cells of one example as (T, U+1)."""
    found = np.full((len(frames.example), int(frames.labels[0]) + 1), fill)
    for f, first in enumerate(frames.first):
        own = values[frames.offset[f] : frames.offset[f + 1]]
        found[f, first : first + len(own)] = own
    return found


def bounded_state(tiler, group):
    """Upper bounds on the scores of all cells of a group, and exact scores: two states."""
    states = [CellState.take(np.empty, group.frames.cells, tiler.work.dtype) for _ in range(2)]
    bound_group(tiler, group, states[0])
    tiler.score_run(group, states[1])
    return states


class Walked:
    """A walk through one tiny lattice, some cells of which are held and some computed, and what it should find."""

    def __init__(self, seed, topology, scale, *, largest=False, base=-np.inf, share=-np.inf, nats=np.inf, most=10**6):
        rng = np.random.default_rng(seed)
        problem = tiny(seed, topology, scale)
        tiler, context = first_group(problem)
        with tiler.device.active(), context as group:
            frames = group.frames
            bounds, exact = bounded_state(tiler, group)
            high = frames.first + np.diff(frames.offset) - 1
            width = int(frames.labels[0]) + 1
            low = frames.first + (rng.random(len(high)) < 0.15) * rng.integers(0, width, len(high))
            held = narrowed(
                tiler, group, low, high - (rng.random(len(high)) < 0.15) * rng.integers(0, width, len(high))
            )
            has_state = grid(held.frames, np.ones(held.frames.cells, bool), False)
            computed = has_state & (rng.random(has_state.shape) < rng.choice([0.7, 0.9, 1.0]))
            # The numbers of the held cells in the whole lattice, and which of them are computed.
            listed = grid(frames, np.arange(frames.cells), 0)[has_state]
            chosen = computed[has_state]
            state = CellState(
                *(np.where(chosen, own[listed], other[listed]) for own, other in zip(exact, bounds, strict=True))
            )
            limits = np.full(1, base), np.full(1, nats), np.full(1, most)
            none = np.empty(0, np.int32)
            ways = ways_of(tiler, share, largest=largest)
            (found,), (self.looked,) = walk(tiler, group, held.device_frames, state, ways, limits, (none, none))
            self.inside, self.outside = np.exp(found)
        inside = has_state if rules_of(topology).hat else computed
        true = [np.exp(grid(frames, scores, -np.inf)) for scores in exact.scores]
        upper = grid(frames, bounds.maximum, -np.inf), grid(frames, np.vectorize(label_bound_of)(bounds.rest), -np.inf)
        seen = [np.where(computed, own, np.exp(other)) for own, other in zip(true, upper, strict=True)]
        self.expected = inside_and_outside(*seen, inside, has_state, computed, topology, largest)
        self.true = inside_and_outside(*true, inside, np.ones_like(inside), computed, topology, largest)
        arcs = 1 if largest else int(frames.labels[0]) + len(high) + 1
        self.cells, self.cut = frames.cells, np.exp(base + share) / arcs


def outcomes(topology, **options):
    return [Walked(seed, topology, scale, **options) for scale in (0.2, 1.0, 4.0) for seed in range(25)]


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
@pytest.mark.parametrize("largest", [False, True])
def test_a_walk_sums_over_the_alignments_that_leave(topology, largest):
    """Where nothing is let go: those inside by their scores, the others by upper bounds where nothing is computed."""
    parts = 0
    for found in outcomes(topology, largest=largest):
        inside, outside = found.expected
        np.testing.assert_allclose(found.inside, inside, rtol=1e-13)
        np.testing.assert_allclose(found.outside, outside, rtol=1e-8)
        assert found.outside >= found.true[1]
        parts += inside > 0 < outside
    assert parts >= 5


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
@pytest.mark.parametrize("largest", [False, True])
def test_what_is_let_go_is_added(topology, largest):
    """By a share of the base, by distance from a frame's best cell, and where too many cells would be looked at."""
    fewer = 0
    for share in (-1.0, -4.0):
        for found in outcomes(topology, largest=largest, base=-1.0, share=share):
            assert found.true[1] <= found.outside
            followed = found.expected[1] * (1 + 1e-8)
            # Of the largest, one alone counts.
            most = max(followed, found.cut) if largest else followed + 2 * found.cells * found.cut
            assert found.outside <= most
            np.testing.assert_allclose(found.inside, found.expected[0], rtol=1e-13)
            fewer += found.outside > found.expected[1] * (1 + 1e-8)
    for options in ({"nats": 1.0}, {"most": 1}, {"most": 0}):
        for found in outcomes(topology, largest=largest, **options):
            assert found.true[1] <= found.outside
            np.testing.assert_allclose(found.inside, found.expected[0], rtol=1e-13)
            assert found.looked <= options.get("most", 0) + found.cells * ("nats" in options or options["most"])
            fewer += found.outside > found.expected[1] * (1 + 1e-8)
    assert fewer >= 5


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
@pytest.mark.parametrize("sharpness", [0.0, 2.0, 8.0])
def test_a_band_has_the_cells_that_the_bounds_reach(topology, sharpness, monkeypatch):
    force(monkeypatch)
    paired, narrow = rules_of(topology).name == "constrained", 0
    for seed, nats in enumerate((0.7, 2.0, 5.0, 15.0, 60.0)):
        problem = many(seed, topology, sharpness, batch=1)
        tiler, context = first_group(problem)
        with tiler.device.active(), context as group:
            frames = group.frames
            bounds, _ = bounded_state(tiler, group)
            exists = grid(frames, np.ones(frames.cells, bool), False)
            upper = (
                grid(frames, bounds.maximum, -np.inf),
                grid(frames, np.vectorize(label_bound_of)(bounds.rest), -np.inf),
            )
            expected = reached(*np.exp(upper), exists, nats, topology)
            band = find_band(tiler, group, np.full(1, nats)).frames
            for f in range(len(frames.example)):
                own = np.flatnonzero(expected[f])
                first, count = band.first[f], band.offset[f + 1] - band.offset[f]
                if not len(own):
                    assert count == 0
                    continue
                # A pair ends in the cell behind.
                end = min(own[-1] + paired, frames.first[f] + frames.offset[f + 1] - frames.offset[f] - 1)
                assert (first, first + count - 1) == (own[0], end), (nats, f)
            narrow += band.cells < frames.cells
    assert narrow


def test_a_band_that_would_be_too_large_is_the_whole_lattice(monkeypatch):
    force(monkeypatch)
    problem = many(3, "rnnt", 8.0, batch=3)
    tiler, context = first_group(problem)
    with tiler.device.active(), context as group:
        sizes = {}
        for share in (2.0, 0.2, 0.0):
            monkeypatch.setattr(tiles_band, "FOUND_DENSE", share)
            found = find_band(tiler, group, np.array([20.0, np.inf, 20.0]))
            sizes[share] = None if found is None else np.diff(found.frames.offset[found.frames.starts])
        cells = np.diff(group.frames.offset[group.frames.starts])
    assert sizes[2.0][0] < cells[0] and sizes[2.0][1] == cells[1]
    assert 0.2 * cells[0] < sizes[2.0][0]
    # The third has one alignment, and no cell of it can be left out.
    assert sizes[0.0] is None
    assert sizes[0.2] is None


COSTS = {"posterior_floor": 0.05}


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_certificates_are_never_below_the_error(topology, monkeypatch):
    """With a tolerance so large that errors can be seen: 648 lattices a case, in float64."""
    force(monkeypatch, tolerance=1e-2)
    rng = np.random.default_rng(VARIANTS.index(topology))
    found, errors = spied(monkeypatch), 0
    for number, sharpness in enumerate(3 * SHARPNESS):
        kind = rng.choice([None, "full", "lengths", "endings"])
        problem = many(
            number, topology, sharpness, vocabulary=kind, bounded=number % 3 == 1, blank=int(rng.integers(-2, 2)),
            hypotheses=24 if number % 4 == 2 else None, activation=str(rng.choice(["tanh", "relu", "identity"])),
            dropout=DROPOUTS[number % 3],
        )  # fmt: skip
        near = rng.integers(-1, problem.encoder_lengths[:, None], problem.targets.shape)
        extra = {"near": near} if number % 2 else {}
        told, loss = call("report", problem, **COSTS, **extra), call("loss", problem, **COSTS, **extra)
        dense = call("loss", problem, posterior_floor=0.0)
        error, rounding = loss - dense, 1e-13 * (10 + np.abs(dense))
        assert (error >= -rounding).all()
        assert (error <= told.certificate * (1 + 1e-9) + rounding).all()
        assert (told.certificate <= 1e-2).all()
        errors += int((error > 1e-9)[told.certified < told.cells].sum())
    assert errors > 30
    assert sum(cells is not None for cells in found) > 10


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_exit_posterior_is_no_less_than_what_bounds_cut_off(topology, monkeypatch):
    """Against dense losses with bounds and without: any margins, lattices of every sharpness."""
    rng = np.random.default_rng(VARIANTS.index(topology))
    name, tight, cut = rules_of(topology).name, [], 0
    for number, sharpness in enumerate(2 * SHARPNESS):
        problem = many(number, topology, sharpness, batch=12)
        likely = call("alignment", problem)[0]
        likely = np.where(rng.random((12, 1)) < 0.2, 0 if name == "rnnt" else np.arange(likely.shape[1]), likely)
        likely = np.where(np.arange(likely.shape[1]) < problem.target_lengths[:, None], likely, -1)
        left, right = (int(margin) for margin in rng.integers(0, 4, 2))
        own = problem.target_lengths, problem.encoder_lengths
        bounds = lattice.alignment_bounds(likely, *own, left=left, right=right, topology=name)
        whole = call("loss", problem, posterior_floor=0.0)
        problem = replace(problem, bounds=bounds)
        part = call("loss", problem, posterior_floor=0.0)
        for floor in (0.0, 2.0**-24):
            told = call("report", problem, posterior_floor=floor).exit_posterior
            true = -np.expm1(whole - part)
            assert (told >= true - 1e-11).all() and (told <= 1).all() and (told >= 0).all()
            # What the docstring says of the loss.
            short = told < 1 - 1e-7
            assert ((part - whole)[short] <= -np.log1p(-told[short]) + 1e-8).all()
        seen = true > 1e-6
        tight.extend((told / np.maximum(true, 1e-300))[seen])
        cut += int((true > 0.5).sum())
    assert cut > 3 and np.median(tight) < 3


def test_exit_posterior_where_bounds_leave_nothing_or_cut_nothing_off():
    for topology in TOPOLOGIES:
        problem = many(1, topology, 8.0, batch=3)
        T = problem.encoder.shape[1]
        first, last = np.zeros((3, T), np.int64), np.full((3, T), 99)
        told = call("report", replace(problem, bounds=(first, last)))
        np.testing.assert_allclose(told.exit_posterior, -np.expm1(-told.certificate), atol=1e-12)
        last[0, 7] = -1
        told = call("report", replace(problem, bounds=(first, last)))
        assert told.exit_posterior[0] == 1 and (told.exit_posterior[1:] < 1e-11).all()


@pytest.mark.parametrize("topology", ["monotonic", "constrained"])
def test_exit_posterior_of_an_example_without_an_alignment(topology):
    """Nothing is cut off, and nothing inside either."""
    problem = many(1, topology, 8.0, batch=3)
    numbers = {name: np.nan_to_num(getattr(problem, name)) for name in ("encoder", "predictor")}
    targets = np.clip(problem.targets, 1, 8)
    problem = replace(
        problem, **numbers, targets=targets, encoder_lengths=problem.encoder_lengths * [1, 0, 1] + [0, 3, 0]
    )
    problem = replace(problem, target_lengths=np.array([8, 8, 0]))
    T = problem.encoder.shape[1]
    for bounds in (None, (np.zeros((3, T), np.int64), np.full((3, T), 99))):
        told = call("report", replace(problem, bounds=bounds))
        assert told.cells[1] == 0 == told.exit_posterior[1]
        assert (told.exit_posterior < 1e-6).all()


def test_exit_posterior_of_nan_outside_of_the_bounds():
    """Nothing can be said there. The loss inside is a number."""
    problem = many(1, "rnnt", 8.0, batch=2, lengths=([26, 20], [8, 6]))
    predictor = problem.predictor.copy()
    predictor[0, 5] = np.nan
    T = problem.encoder.shape[1]
    first, last = np.zeros((2, T), np.int64), np.full((2, T), 4)
    last[1] = 6
    told = call("report", replace(problem, predictor=predictor, bounds=(first, last)))
    assert told.exit_posterior[0] == 1 and told.exit_posterior[1] < 1e-6
