"""The best alignment with most cells never computed: the very one that all cells give."""

import numpy as np
import pytest
from hypothesis import given

import lattice
from lattice.kernels.best_path import best_path, extend, path_memory
from lattice.kernels.narrow import DENSE
from lattice.layout import WorkspaceTooSmall
from lattice.tiles import path as paths
from lattice.tiles.tiler import Tiler
from tests import certificate_cases, compare, problems
from tests.problems import DTYPES, TOPOLOGIES, joint_problem, name_of


def best_of(frames, moves, blank, label):
    """Frames and scores of the best alignments over scores."""
    N = len(frames.labels)
    left, bits = path_memory(np.empty, N, frames.widest, frames.cells, len(frames.example))
    score, best = np.empty(N), np.full((N, frames.widest), -1, np.int32)
    with np.errstate(invalid="ignore"):
        extend(frames, 0, len(frames.example), 0, N, moves, blank, label, left, bits)
        best_path(frames, moves, left, bits, np.arange(N), score, best)
    return best, score


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_left_out_is_on_no_best_alignment(dtype):
    shares = {}
    for name, frames, moves, exact, bounds in certificate_cases.lattices(np.dtype(dtype)):
        assert (bounds >= exact).all()
        *marked, computed, blank, label, _, rest = certificate_cases.narrowed(frames, moves, exact, bounds)
        assert not len(marked[-1]) and (computed == -1).all()
        assert len(np.unique(np.concatenate(marked))) == sum(map(len, marked)) == (rest >= 0).sum()
        ours, truth = best_of(frames, moves, blank, label), best_of(frames, moves, *exact)
        np.testing.assert_array_equal(ours[0], truth[0], err_msg=name)
        np.testing.assert_array_equal(ours[1], truth[1], err_msg=name)
        shares[name] = (rest >= 0).mean()
        cells = np.add.reduceat(np.append(rest >= 0, False), frames.offset[frames.starts[:-1]])
        # Cell 2 is wanted whatever it is worth, and its example is the first.
        assert not cells[1:][np.isneginf(truth[1][1:])].any()
    assert shares["False-False-6.0"] < 0.4 < shares["False-False-0.3"] and shares["True-False-6.0"] < 0.5


def test_beyond_a_share_of_an_example_all_its_cells_are_marked():
    shares = []
    for _, frames, moves, exact, bounds in certificate_cases.lattices(np.dtype(np.float64)):
        *_, rest = certificate_cases.narrowed(frames, moves, exact, bounds)
        cells = frames.offset[frames.starts]
        shares += [(rest[low:high] >= 0).mean() for low, high in zip(cells, cells[1:])]
    assert 1 in shares and min(shares) < DENSE and not any(DENSE < share < 1 for share in shares)


def counted(monkeypatch):
    """The cells whose exact scores a call computes, as they are listed; None for a run of cells."""
    found, score_listed, score_run = [], Tiler.score_listed, Tiler.score_run

    def listed(tiler, group, state, cells, first_cell, steps):
        found.append(int(first_cell[-1]))
        score_listed(tiler, group, state, cells, first_cell, steps)

    def run(tiler, group, state, span=None, steps=None):
        found.append(None)
        score_run(tiler, group, state, span, steps)

    monkeypatch.setattr(Tiler, "score_listed", listed)
    monkeypatch.setattr(Tiler, "score_run", run)
    return found


def align(problem, **options):
    return lattice.joint_transducer_alignment(*problem.args, **problem.options, **options)


def densely(problem, **options):
    """The same over all cells."""

    def without_room(*args, **planned):
        """No room for the state of all cells, nor for a band: the first plan, which is for that, fails."""
        raise WorkspaceTooSmall

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "plan_bands", without_room)
        return align(problem, **options)


@given(problems.joint_problems(dropout=False))
def test_anything(problem):
    """Alignments that score the same may differ where a product rounds otherwise; their scores may not."""
    (frames, score), (dense_frames, dense_score) = align(problem), densely(problem)
    compare.assert_same(score, dense_score)
    assert ((frames == -1) == (dense_frames == -1)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_sharp_lattices_compute_few_cells(monkeypatch, topology, dtype):
    problem = joint_problem(3, batch=3, frames=60, labels=12, vocab=40, topology=topology, sharpness=8.0, dtype=dtype)
    dense = densely(problem)
    found = counted(monkeypatch)
    frames, score = align(problem)
    np.testing.assert_array_equal(frames, dense[0])
    compare.assert_same(score, dense[1])
    assert None not in found and sum(found) < 0.4 * np.sum(problem.encoder_lengths * (problem.target_lengths + 1))


def test_flat_lattices_compute_all_cells_after_some_rounds(monkeypatch):
    problem = joint_problem(4, batch=2, frames=40, labels=10, vocab=40, lengths=([40, 40], [10, 10]))
    problem.weight[:] *= 0.1
    dense = densely(problem)
    found = counted(monkeypatch)
    np.testing.assert_array_equal(align(problem)[0], dense[0])
    assert sum(found) == 2 * 40 * 11 and 1 < len(found) < paths.ROUNDS


def test_rounds_end(monkeypatch):
    problem = joint_problem(4, batch=1, frames=40, labels=10, vocab=40, lengths=([40], [10]))
    monkeypatch.setattr(paths, "ROUNDS", 1)
    found = counted(monkeypatch)
    align(problem)
    assert found == [40 * 11]


def test_logits_that_cannot_be_bounded_are_computed_and_seen():
    problem = joint_problem(5, batch=3, frames=30, labels=6, sharpness=8.0, lengths=([30, 28, 30], [6, 5, 6]))
    alone = align(problem)
    problem.encoder[1, 20] = np.nan
    frames, score = align(problem)
    assert np.isnan(score[1]) and (frames[1] == -1).all()
    for n in (0, 2):
        np.testing.assert_array_equal(frames[n], alone[0][n])
        assert score[n] == alone[1][n]


def test_a_workspace_without_room_for_all_scores_computes_every_cell(monkeypatch):
    # Too narrow for a band.
    problem = joint_problem(6, batch=1, frames=800, labels=20, sharpness=8.0, lengths=([800], [20]))
    few = align(problem)
    found = counted(monkeypatch)
    frames, score = align(problem, memory_limit=300_000)
    assert set(found) == {None} and len(found) > 1
    np.testing.assert_array_equal(frames, few[0])
    compare.assert_same(score, few[1])
