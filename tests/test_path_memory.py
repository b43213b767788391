"""The limit of the best path and of the path loss.

Runs and tiles of any size give the same, and take no more memory.
"""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare, oracle, path_oracle
from tests.path_problems import path_problem
from tests.problems import HALF_ENCODER, HALF_PREDICTOR, TOPOLOGIES, joint_problem
from tests.test_joint_memory import PYTHON, extra_bytes, least_limit, size_of

SIZES = {"batch": 6, "frames": 60, "labels": 30, "vocab": 40, "width": 12}
KINDS = [
    {},
    {"topology": "monotonic", "use_bias": False},
    {"vocabulary": "lengths", "topology": "monotonic"},
    {"bounded": True, "activation": "relu"},
    {"hypotheses": 9, "vocabulary": "endings", "bounded": True},
    {"sharpness": 8.0},
    {"dtype": np.float64, "topology": "monotonic", "bounded": True},
    {"dtype": np.float16},
    {"dtype": np.float16, "weight_dtype": np.float32},
    HALF_PREDICTOR,
]
PATH_KINDS = [
    {},
    {"topology": "rnnt", "use_bias": False},
    {"vocabulary": "lengths", "topology": "rnnt"},
    {"vocabulary": "endings", "activation": "relu"},
    {"dtype": np.float64},
    {"dtype": np.float16},
    {"dtype": np.float16, "weight_dtype": np.float32, "topology": "rnnt"},
    HALF_ENCODER,
]
INDEX = 1 << 10  # bytes of the frames, labels and ids of one example, as whole numbers
LOSS = {"label_smoothing": 0.2, "label_scale": 1.5, "focal": 0.5}


def align(problem, **extra):
    return lattice.joint_transducer_alignment(*problem.args, **problem.options, **extra)


def path_loss(problem, **extra):
    return lattice.joint_path_loss_and_grad(*problem.args, **problem.options, **LOSS, **extra)


def limits(least):
    """From a run of one frame, and tiles of a few cells, to all at once."""
    return (least, 9 * least // 8, 3 * least // 2, 6 * least, 1 << 30)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_alignments_in_runs_of_any_size(kind):
    problem = joint_problem(1, **SIZES, **kind)
    frames, score = align(problem)
    assert np.isfinite(score).all()
    for limit in limits(least_limit(problem, lattice.joint_transducer_alignment)):
        new_frames, new_score = align(problem, memory_limit=limit)
        np.testing.assert_array_equal(new_frames, frames, err_msg=f"at {limit}")
        compare.assert_same(new_score, score, per_example=True, what=f"score at {limit}")


def test_a_run_that_ends_behind_the_first_cell_of_an_example():
    """Eight cells of one example and one of the next, whose vocabulary is another; its second frame does not fit."""
    problem = joint_problem(
        3, batch=3, lengths=([8, 12, 60], [0, 4, 8]), topology="monotonic", vocabulary="lengths", vocab=30
    )
    frames, score = align(problem)
    new_frames, new_score = align(problem, memory_limit=least_limit(problem, lattice.joint_transducer_alignment))
    np.testing.assert_array_equal(new_frames, frames)
    compare.assert_same(new_score, score, per_example=True)


@pytest.mark.parametrize("kind", PATH_KINDS, ids=str)
def test_path_losses_in_tiles_of_any_size(kind):
    problem = path_problem(2, **SIZES, **kind)
    loss, grads = path_loss(problem)
    for limit in limits(least_limit(problem, lattice.joint_path_loss_and_grad, **LOSS)):
        new_loss, new_grads = path_loss(problem, memory_limit=limit)
        compare.assert_same(new_loss, loss, per_example=True, what=f"loss at {limit}")
        for name, ours, other in zip(grads._fields, new_grads, grads, strict=True):
            if other is not None:
                compare.assert_same(ours, other, scale=loss.max(), what=f"{name} at {limit}")


@pytest.mark.parametrize("door", [lattice.joint_transducer_alignment, lattice.joint_path_loss_and_grad])
def test_one_byte_less_is_refused(door):
    kind = joint_problem if door is lattice.joint_transducer_alignment else path_problem
    for sizes in (
        {"frames": 20, "labels": 8, "vocab": 50},
        {"batch": 1, "frames": 300, "labels": 3},
        {"frames": 1, "labels": 0},
    ):
        problem = kind(4, **sizes)
        least = least_limit(problem, door)
        door(*problem.args, **problem.options, memory_limit=least)
        with pytest.raises(ValueError, match=f"memory_limit is {least - 1} bytes, expected at least {least}:"):
            door(*problem.args, **problem.options, memory_limit=least - 1)


@pytest.mark.parametrize(
    "kind", [{}, {"topology": "monotonic"}, {"vocabulary": "lengths"}, {"dtype": np.float16}, HALF_PREDICTOR], ids=str
)
def test_alignment_stays_below_the_limit(kind):
    """16 examples of up to 60 x 40 cells and 256 ids: several MB of logits, and a limit far below."""
    problem = joint_problem(5, batch=16, frames=60, labels=40, vocab=256, width=24, **kind)
    align(problem)  # compiled, imported, cached
    least = least_limit(problem, lattice.joint_transducer_alignment)
    for limit in (least, 1 << 18, 1 << 20):
        align(problem, memory_limit=limit)  # what a band or runs take, compiled, too
        used, (frames, score) = extra_bytes(lambda limit=limit: align(problem, memory_limit=limit))
        assert used - size_of(score) - frames.nbytes <= limit + PYTHON + 16 * INDEX


@pytest.mark.parametrize("poisoned", [False, True])
@pytest.mark.parametrize(
    "kind", [{}, {"topology": "rnnt"}, {"vocabulary": "lengths"}, {"dtype": np.float16}, HALF_ENCODER], ids=str
)
def test_path_loss_stays_below_the_limit(kind, poisoned):
    """Also where losses are not finite, and the gradients are computed again."""
    problem = path_problem(6, batch=16, frames=90, labels=40, vocab=256, width=48, **kind)
    if poisoned:
        problem.encoder[3, 0, 0] = np.nan
    path_loss(problem)
    least = least_limit(problem, lattice.joint_path_loss_and_grad, **LOSS)
    for limit in (least, 1 << 18, 1 << 20):
        used, result = extra_bytes(lambda limit=limit: path_loss(problem, memory_limit=limit))
        assert used - size_of(*result) <= limit + PYTHON + 16 * INDEX


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("limit", [1 << 20, 1 << 22])
def test_many_narrow_lattices_stay_below_the_limit(limit, topology):
    """Few labels and features: a frame takes mostly whole numbers, and the path's bounds lie beside the limit."""
    sizes = {"batch": 150, "lengths": ([500] * 150, [5] * 150), "vocab": 4, "width": 2, "topology": topology}
    problem, path = joint_problem(8, **sizes), path_problem(8, **sizes)
    for call, given, beside in (
        (align, problem, 0),
        (path_loss, path, 8 * (path.encoder[..., 0].size + path.frames.size)),
    ):
        call(given, memory_limit=limit)
        used, (first, second) = extra_bytes(lambda call=call, given=given: call(given, memory_limit=limit))
        outputs = size_of(first, second) if call is path_loss else first.nbytes + second.nbytes
        assert used - outputs <= limit + beside + PYTHON, call.__name__


@pytest.mark.slow
@pytest.mark.parametrize(("topology", "vocabulary"), [("rnnt", None), ("monotonic", "full")])
def test_an_hour_within_64_mib(topology, vocabulary):
    """T=3000 U=400, by a recursion that keeps all scores in float64; beside it a short example in the same runs."""
    lengths = ([3000, 7], [400, 3])
    problem = joint_problem(7, batch=2, lengths=lengths, vocab=6, width=4, topology=topology, vocabulary=vocabulary)
    problem = replace(problem, **{name: getattr(problem, name).astype(np.float64) for name in REAL})
    frames, score = align(problem, memory_limit=64 << 20)
    hidden = np.tanh(problem.encoder[0, :3000, None] + problem.predictor[0, None, :401])
    logits = hidden @ problem.weight.T + problem.bias
    _, *scores = oracle.arc_scores(logits, problem.targets[0, :400])
    best, expected = path_oracle.best_by_recursion(*scores, topology)
    assert frames[0, :400].tolist() == expected
    compare.assert_close(score[:1], np.array([best]), np.array([best]), what="score")
    small = replace(problem, **{name: getattr(problem, name)[1:] for name in ROWS}, vocabulary=None)
    np.testing.assert_array_equal(frames[1:], align(small)[0])
    # Cut into hundreds of runs, and as small as it can be.
    for limit in (2 << 20, least_limit(problem, lattice.joint_transducer_alignment)):
        again = align(problem, memory_limit=limit)
        np.testing.assert_array_equal(again[0], frames)
        compare.assert_same(again[1], score)


REAL = ("encoder", "predictor", "weight", "bias")
ROWS = ("encoder", "predictor", "targets", "encoder_lengths", "target_lengths")
