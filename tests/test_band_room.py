"""Lattices that have no room in the workspace, but for a band: as with room for all cells, or an error that tells."""

import re

import numpy as np
import pytest

import lattice
from benchmarks import shapes
from lattice.tiles import path

SIZE = (3, 200, 60, 24, 8)
"""B, T, U, V, H: 61 cells a frame, of which a band has a few."""
HALVES = {
    "half with float32 weight": ("encoder", "predictor"),
    "half encoder alone": ("encoder",),
    "half predictor alone": ("predictor",),
}
DOORS = {
    "loss": lattice.joint_transducer_loss,
    "loss_and_grad": lattice.joint_transducer_loss_and_grad,
    "report": lattice.joint_transducer_report,
    "posteriors": lattice.joint_transducer_posteriors,
    "alignment": lattice.joint_transducer_alignment,
}


def sharp(B=SIZE[0], **options):
    return shapes.trained_like(B, *SIZE[1:], sharpness=4.0, lengths=((200, 190, 180), (60, 56, 52)), **options)


def least(door, problem, **options) -> int:
    """Bytes that are always enough, as the error says."""
    with pytest.raises(ValueError, match="memory_limit is 1 bytes") as refused:
        DOORS[door](*problem, memory_limit=1, **options)
    return int(re.search(r"at least (\d+)", str(refused.value))[1])


def flat(result) -> list[np.ndarray]:
    """All arrays of a result, whatever tuples it is of."""
    return [array for part in result for array in flat(part)] if isinstance(result, tuple) else [np.asarray(result)]


@pytest.mark.parametrize("door", [door for door in DOORS if door != "alignment"])
@pytest.mark.parametrize("topology", ["rnnt", "monotonic", lattice.Topology(hat=True)], ids=str)
def test_a_band_gives_what_all_cells_give(door, topology):
    problem = sharp(hat=topology not in ("rnnt", "monotonic"))
    enough = least(door, problem, topology=topology)
    ours = flat(DOORS[door](*problem, topology=topology, memory_limit=enough // 2))
    truth = flat(DOORS[door](*problem, topology=topology))
    for one, other in zip(ours, truth, strict=True):
        # Fields of a report that are not counts differ by what is left out.
        if door != "report":
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_the_alignment_in_a_band_is_the_best_of_all(monkeypatch):
    problem = sharp()
    walked = []
    in_band = path._in_band
    monkeypatch.setattr(path, "_in_band", lambda *given: walked.append(in_band(*given)) or walked[-1])
    frames, score = lattice.joint_transducer_alignment(*problem, memory_limit=200_000)
    truth, best = lattice.transducer_alignment(shapes.logits_of(problem), *problem[4:])
    assert walked == [True] * 3
    np.testing.assert_array_equal(frames, truth)
    np.testing.assert_allclose(score, best, rtol=1e-5)


def test_where_no_band_is_enough_all_cells_are_searched_in_runs():
    problem = shapes.untrained(*SIZE)
    frames, score = lattice.joint_transducer_alignment(*problem, memory_limit=110_000)
    truth, best = lattice.transducer_alignment(shapes.logits_of(problem), *problem[4:])
    np.testing.assert_array_equal(frames, truth)
    np.testing.assert_allclose(score, best, rtol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "shared encoder", *HALVES, "one frame"])
def test_rows_of_gradients_that_cannot_be_summed_in_place(kind):
    problem, options = sharp(), {}
    if kind == "float16":
        problem = problem._replace(**{name: getattr(problem, name).astype(np.float16) for name in problem._fields[:4]})
    elif kind in HALVES:
        problem = problem._replace(**{name: getattr(problem, name).astype(np.float16) for name in HALVES[kind]})
    elif kind == "shared encoder":
        # The second utterance twice.
        rows, options = [1, 1, 0], {"encoder_index": np.array([1, 1, 0])}
        problem = shapes.Joint(problem.encoder, problem.predictor[rows], *problem[2:4], *(x[rows] for x in problem[4:]))
    else:
        problem = problem._replace(encoder_lengths=np.array([200, 1, 180]), target_lengths=np.array([60, 50, 0]))
    enough = least("loss_and_grad", problem, **options)
    ours = flat(lattice.joint_transducer_loss_and_grad(*problem, memory_limit=enough * 2 // 3, **options))
    for one, other in zip(ours, flat(lattice.joint_transducer_loss_and_grad(*problem, **options)), strict=True):
        np.testing.assert_allclose(one.astype(np.float64), other.astype(np.float64), rtol=3e-3, atol=1e-4)


def test_what_a_vjp_needs_is_found_in_a_band_too():
    problem = sharp()
    enough, upstream = least("loss_and_grad", problem), np.array([1.0, -2.0, 0.5], np.float32)
    loss, vjp = lattice.joint_transducer_loss_vjp(*problem, memory_limit=enough // 2)
    for _ in range(2):
        ours = flat(vjp(upstream))
    truth = lattice.joint_transducer_loss_and_grad(*problem, grad_loss=upstream)
    for one, other in zip([np.asarray(loss), *ours], flat(truth), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_an_error_names_the_bytes_that_are_enough_where_a_band_is_not():
    problem = shapes.untrained(*SIZE)
    enough = least("loss_and_grad", problem)
    with pytest.raises(ValueError, match=f"at least {enough}: .* band of example 0 grew to"):
        lattice.joint_transducer_loss_and_grad(*problem, memory_limit=enough // 2)
    lattice.joint_transducer_loss_and_grad(*problem, memory_limit=enough)


def test_nothing_is_overwritten_where_it_is_not_known_whether_a_band_is_enough():
    problem = sharp()
    enough = least("loss_and_grad", problem)
    before = problem.encoder.copy()
    with pytest.raises(ValueError, match=f"at least {enough}"):
        lattice.joint_transducer_loss_and_grad(*problem, memory_limit=enough - 1, overwrite=True)
    np.testing.assert_array_equal(problem.encoder, before)


def test_narrow_lattices_are_refused_as_ever():
    problem = shapes.trained_like(1, 200, 25, 24, 8)
    enough = least("loss", problem)
    with pytest.raises(ValueError, match=f"at least {enough}"):
        lattice.joint_transducer_loss(*problem, memory_limit=enough - 1)
    lattice.joint_transducer_loss(*problem, memory_limit=enough)
