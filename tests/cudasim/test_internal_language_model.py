"""The loss of the internal language model on the simulated device, against the CPU; waits and memory."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests.cudasim.test_walk import assert_alike
from tests.language_model_problems import language_model_problem
from tests.on_device import OnDevice
from tests.problems import BFLOAT16, DTYPES, name_of
from tests.test_joint_memory import least_limit

SMALL = {"batch": 3, "labels": 4}
NAMES = ("predictor", "weight", "bias")


@pytest.fixture(params=[False, True], ids=["host-ids", "device-ids"])
def there(request, device):
    return OnDevice(device.asarray, device.asnumpy, integers=request.param).module()


@pytest.mark.parametrize("kind", [{}, {"use_bias": False, "blank": -1, "activation": "relu"}], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_device_finds_what_the_host_finds(there, dtype, kind):
    problem = language_model_problem(1, dtype=dtype, **SMALL, **kind)
    upstream = np.array([1, -0.5, 2], np.float64 if dtype == np.float64 else np.float32)
    arguments = problem.args, problem.options | {"grad_loss": upstream}
    host = lattice.internal_language_model_loss_and_grad(*arguments[0], **arguments[1])
    ours = there.internal_language_model_loss_and_grad(*arguments[0], **arguments[1])
    assert ours[1].encoder is None
    assert_alike((ours[0], *ours[1]), (host[0], *host[1]), dtype, operands=dtype)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
def test_float32_weights_beside_half(there, dtype):
    problem = language_model_problem(2, dtype=dtype, weight_dtype=np.float32, **SMALL)
    host = lattice.internal_language_model_loss_and_grad(*problem.args, **problem.options)
    ours = there.internal_language_model_loss_and_grad(*problem.args, **problem.options)
    assert_alike((ours[0], *ours[1]), (host[0], *host[1]), dtype)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_losses_that_are_not_finite(there, bad):
    problem = language_model_problem(3, **SMALL)
    if np.isnan(bad):
        problem.predictor[0, 0, 0] = bad
    else:
        problem.bias[problem.targets[0, 0]] = bad
    host = lattice.internal_language_model_loss_and_grad(*problem.args, **problem.options)
    ours = there.internal_language_model_loss_and_grad(*problem.args, **problem.options)
    assert not np.isfinite(host[0]).all()
    assert_alike((ours[0], *ours[1]), (host[0], *host[1]), np.float32)


@pytest.mark.parametrize("integers", [False, True], ids=["host-ids", "device-ids"])
def test_waits(device, integers):
    """At the door for integers that lie on the device, and at the end for what is not finite."""
    problem = language_model_problem(4, **SMALL)
    put = {name: device.asarray(getattr(problem, name)) for name in NAMES}
    if integers:
        put |= {name: device.asarray(getattr(problem, name)) for name in ("targets", "target_lengths")}
    problem = replace(problem, **put)
    device.syncs = 0
    lattice.internal_language_model_loss_and_grad(*problem.args, **problem.options)
    assert device.syncs == integers + 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16], ids=name_of)
def test_the_smallest_workspace_is_not_left(device, dtype):
    problem = language_model_problem(5, dtype=dtype, **SMALL)
    problem = replace(problem, **{name: device.asarray(getattr(problem, name)) for name in NAMES})
    door = lattice.internal_language_model_loss_and_grad
    limit = least_limit(problem, door)
    before = device.live_bytes
    device.peak_bytes = before
    loss, grads = door(*problem.args, **problem.options, memory_limit=limit)
    outputs = loss.nbytes + sum(array.nbytes for array in grads if array is not None)
    small = 64 * (10 + len(problem.targets) + len(problem.weight))
    assert device.peak_bytes - before <= limit + outputs + small
