"""The doors of CTC from end to end on the simulated device, against the CPU; waits and memory."""

import numpy as np
import pytest

import lattice
from tests import compare
from tests.ctc_problems import ctc_problem
from tests.on_device import OnDevice
from tests.problems import DTYPES, name_of

SMALL = {"batch": 3, "frames": 7, "labels": 3}


@pytest.fixture(params=[False, True], ids=["host-ids", "device-ids"])
def there(request, device):
    return OnDevice(device.asarray, device.asnumpy, integers=request.param).module()


def assert_alike(there, problem, **options):
    """Everything the doors give, on the device and on the host; the loss on its own as well."""
    host = lattice.ctc_loss_and_grad(*problem.args, **problem.options, **options)
    ours = there.ctc_loss_and_grad(*problem.args, **problem.options, **options)
    pairs = [*zip(ours, host), (there.ctc_loss(*problem.args, **problem.options), host[0])]
    frames, score = there.ctc_alignment(*problem.args, **problem.options)
    host_frames, host_score = lattice.ctc_alignment(*problem.args, **problem.options)
    for one, other in (*pairs, (score, host_score)):
        compare.assert_same(one, other, k=64)
    np.testing.assert_array_equal(frames, host_frames)
    assert frames.dtype == np.int32
    return ours


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("blank", [0, -1])
def test_from_logits(there, dtype, blank):
    assert_alike(there, ctc_problem(0, dtype=dtype, blank=blank, **SMALL))


def test_repeats_no_labels_and_poisoned_examples(there):
    problem = ctc_problem(1, lengths=([9, 4, 3, 6], [4, 0, 3, 2]), vocab=4, repeated=0.9)
    problem.targets[2, :3] = 1  # needs five frames
    problem.logits[3, 2, 1] = np.nan
    loss, grad = assert_alike(there, problem, grad_loss=np.array([0.5, -2, 1, 1], np.float32))
    assert np.isfinite(loss[:2]).all() and np.isposinf(loss[2]) and np.isnan(loss[3])
    assert not grad[2].any() and np.isnan(grad[3, :6]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=name_of)
def test_in_place(there, dtype):
    problem = ctc_problem(2, dtype=dtype, **SMALL)
    host = lattice.ctc_loss_and_grad(*problem.args)
    logits = problem.logits.copy()
    loss, grad = there.ctc_loss_and_grad(logits, *problem.args[1:], out=logits)
    assert grad is logits
    compare.assert_same(loss, host[0], k=64)
    compare.assert_same(grad, host[1], k=64)


def test_an_empty_batch(there):
    empty = [x[:0] for x in ctc_problem(3).args]
    loss, grad = there.ctc_loss_and_grad(*empty)
    frames, score = there.ctc_alignment(*empty)
    assert loss.shape == score.shape == (0,) and grad.shape == empty[0].shape and frames.shape == empty[1].shape


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("door", ["ctc_loss", "ctc_loss_and_grad", "ctc_alignment"])
def test_waits_at_the_door_alone(device, door, integers):
    keep = () if integers else "iu"
    arguments = [device.asarray(x) if x.dtype.kind not in keep else x for x in ctc_problem(4, **SMALL).args]
    device.syncs = 0
    getattr(lattice, door)(*arguments)
    assert device.syncs == int(integers)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=name_of)
def test_memory_is_what_the_docstrings_say(device, dtype):
    problem = ctc_problem(5, batch=2, lengths=([30, 30], [14, 14]), slack=(0, 0), dtype=dtype)
    arguments = [device.asarray(problem.logits), *problem.args[1:]]
    cells, frames, wide = 2 * 30 * 14, 2 * 30, dtype == np.float64
    allowed = {
        "ctc_loss": (8 if wide else 4) * cells + (52 if wide else 40) * frames,
        "ctc_loss_and_grad": (40 if wide else 36) * cells + (60 if wide else 48) * frames + problem.logits.nbytes,
        "ctc_alignment": (10 if wide else 6) * cells + (52 if wide else 40) * frames,
    }
    for door, most in allowed.items():
        before = device.live_bytes
        device.peak_bytes = before
        getattr(lattice, door)(*arguments)
        # A few numbers for each label and example, and the rounding of each array to 64 bytes.
        assert device.peak_bytes - before <= most + 64 * (2 * 14 + 16), door
