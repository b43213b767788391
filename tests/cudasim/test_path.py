"""The doors of alignments from end to end on the simulated device, against the CPU; waits and memory."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice.tiles import certificate
from tests import compare
from tests.cudasim.test_walk import SMALL, assert_alike
from tests.on_device import OnDevice
from tests.path_problems import path_problem
from tests.problems import BFLOAT16, DTYPES, TOPOLOGIES, joint_problem, logits_problem, name_of
from tests.test_joint_memory import least_limit

REAL = ("encoder", "predictor", "weight", "bias")
LOSS = {"label_smoothing": 0.2, "label_scale": 1.5, "focal": 0.5}


@pytest.fixture(params=[False, True], ids=["host-ids", "device-ids"])
def there(request, device):
    return OnDevice(device.asarray, device.asnumpy, integers=request.param).module()


def align(doors, problem, **extra):
    door = doors.transducer_alignment if hasattr(problem, "logits") else doors.joint_transducer_alignment
    return door(*problem.args, **problem.options, **extra)


def aligned_alike(there, problem, **extra):
    """Both alignments; those of bfloat16 weights, whose operands a device rounds, may differ."""
    frames, score = align(there, problem, **extra)
    host_frames, host_score = align(lattice, problem)
    rounded = not hasattr(problem, "logits") and problem.weight.dtype == BFLOAT16
    compare.assert_same(score, host_score, k=64, slack=2.0**-7 * np.abs(host_score).max() if rounded else 0.0)
    assert frames.dtype == np.int32 and frames.shape == host_frames.shape
    if not rounded:
        np.testing.assert_array_equal(frames, host_frames)
    return frames, score


def loss_alike(there, problem, **extra):
    host = lattice.joint_path_loss_and_grad(*problem.args, **problem.options, **LOSS)
    ours = there.joint_path_loss_and_grad(*problem.args, **problem.options, **LOSS, **extra)
    assert_alike((ours[0], *ours[1]), (host[0], *host[1]), problem.encoder.dtype, operands=problem.weight.dtype)
    return ours


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_alignments(there, dtype, topology):
    aligned_alike(there, logits_problem(0, dtype=dtype, topology=topology, **SMALL))
    aligned_alike(there, joint_problem(0, dtype=dtype, topology=topology, **SMALL))


@pytest.mark.parametrize(
    "kind", [{"bounded": True}, {"vocabulary": "lengths"}, {"hypotheses": 5, "use_bias": False}], ids=str
)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_alignments_in_runs_of_few_frames(there, topology, kind):
    problem = joint_problem(1, topology=topology, **SMALL, **kind)
    aligned_alike(there, problem)
    aligned_alike(there, problem, memory_limit=least_limit(problem, there.joint_transducer_alignment))


def test_infeasible_and_nan_examples_touch_no_other(there):
    problem = joint_problem(2, topology="monotonic", batch=3, lengths=([4, 2, 3], [3, 0, 3]))
    problem = replace(problem, encoder_lengths=np.array([4, 2, 2]))
    problem.encoder[1, 0] = np.nan
    frames, score = aligned_alike(there, problem)
    assert np.isfinite(score[0]) and np.isnan(score[1]) and np.isneginf(score[2]) and (frames[1:] == -1).all()
    problem = path_problem(2, batch=3, lengths=([4, 2, 3], [3, 0, 2]))
    masked = next(v for v in range(1, 9) if v not in problem.targets[2, :2])
    problem.targets[0, 1] = masked
    problem.bias[masked] = -np.inf
    problem.encoder[1, 0] = np.nan
    vocabulary = np.array([range(9), range(9), [v for v in range(9) if v != masked] + [-1]])
    loss, gradients = loss_alike(there, replace(problem, vocabulary=vocabulary))
    assert np.isposinf(loss[0]) and np.isnan(loss[1]) and np.isfinite(loss[2])
    assert not gradients.encoder[0].any() and np.isnan(gradients.encoder[1, :2]).all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_path_loss(there, dtype, topology):
    loss_alike(there, path_problem(3, dtype=dtype, topology=topology, **SMALL))


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=name_of)
def test_path_loss_with_vocabularies_and_in_small_tiles(there, dtype):
    problem = path_problem(4, dtype=dtype, vocabulary="endings", use_bias=False, blank=-1, **SMALL)
    loss_alike(there, problem)
    loss_alike(there, problem, memory_limit=least_limit(problem, there.joint_path_loss_and_grad))


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
def test_half_precision_meets_float32_weights(there, dtype):
    aligned_alike(there, joint_problem(5, dtype=dtype, weight_dtype=np.float32, **SMALL))
    loss_alike(there, path_problem(5, dtype=dtype, weight_dtype=np.float32, **SMALL))


def test_empty_batches(there):
    problem = path_problem(6, **SMALL)
    empty = [x if position in (2, 3) else x[:0] for position, x in enumerate(problem.args)]
    loss, gradients = there.joint_path_loss_and_grad(*empty)
    frames, score = there.joint_transducer_alignment(*empty[:5], *empty[6:])
    assert loss.shape == score.shape == (0,) and not gradients.weight.any() and frames.shape == empty[4].shape
    frames, score = there.transducer_alignment(*(x[:0] for x in logits_problem(6, **SMALL).args))
    assert score.shape == (0,) and frames.shape[0] == 0


def placed(device, args, integers):
    return [device.asarray(x) if integers or x.dtype.kind not in "iu" else x for x in args]


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("door", ["transducer_alignment", "joint_transducer_alignment", "joint_path_loss_and_grad"])
def test_waits(device, door, integers, monkeypatch):
    """Waits at the door for ids, lengths and frames, and once in each round of the search.

    The end of a loss waits once more, for what is not finite.
    """
    kind = {"transducer_alignment": logits_problem, "joint_transducer_alignment": joint_problem}.get(door, path_problem)
    problem, rounds, door = kind(7, **SMALL), [], getattr(lattice, door)
    arguments = placed(device, problem.args, integers)
    list_cells = certificate.list_cells
    monkeypatch.setattr(
        certificate, "list_cells", lambda *given, **kinds: rounds.append(0) or list_cells(*given, **kinds)
    )
    device.syncs = 0
    door(*arguments, **problem.options)
    at_the_door = int(integers)
    assert device.syncs == at_the_door + len(rounds) + (kind is path_problem)
    assert bool(rounds) == (kind is joint_problem)
    if rounds:  # without room for all scores there is nothing to search among
        rounds.clear()
        device.syncs = 0
        limit = least_limit(replace(problem, **dict(zip(REAL, arguments[:4]))), door)
        device.syncs = 0
        door(*arguments, **problem.options, memory_limit=limit)
        assert device.syncs == at_the_door and not rounds


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
def test_alignments_of_logits_take_what_the_docstring_says(device, dtype):
    problem = logits_problem(8, lengths=([30, 30], [14, 14]), vocab=5, slack=(0, 0), dtype=dtype)
    arguments = placed(device, problem.args, False)
    before = device.live_bytes
    device.peak_bytes = before
    lattice.transducer_alignment(*arguments)
    # A few numbers for each frame, label and example, and the rounding of each array to 64 bytes.
    assert (
        device.peak_bytes - before <= (60 if dtype == np.float64 else 40) * 2 * 30 * 15 + 100 * 2 * (30 + 15) + 64 * 24
    )


@pytest.mark.parametrize("vocabulary", [None, "lengths"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16], ids=name_of)
def test_the_smallest_workspaces_are_not_left(device, dtype, vocabulary):
    problem, path = (kind(9, dtype=dtype, vocabulary=vocabulary, **SMALL) for kind in (joint_problem, path_problem))
    for door, given in ((lattice.joint_transducer_alignment, problem), (lattice.joint_path_loss_and_grad, path)):
        arguments = placed(device, given.args, False)
        limit = least_limit(given, door)
        on_device = replace(given, **dict(zip(REAL, arguments[:4])))
        limit = max(limit, least_limit(on_device, door))
        before = device.live_bytes
        device.peak_bytes = before
        result, rest = door(*arguments, **given.options, memory_limit=limit)
        outputs = sum(array.nbytes for array in (result, *(rest if isinstance(rest, tuple) else (rest,))))
        # Losses in float64, the bias under way and the upstream gradient: some bytes an example (docs/memory.md).
        small = 64 * (8 + len(given.targets) + len(given.weight))
        assert device.peak_bytes - before <= limit + outputs + small, door.__name__
