"""Posteriors of arcs and given scores of arcs on the simulated device, against the CPU; waits and memory."""

import numpy as np
import pytest

import lattice
from tests import compare
from tests.cudasim.test_device import placed
from tests.cudasim.test_walk import SMALL
from tests.on_device import OnDevice
from tests.problems import BFLOAT16, DTYPES, TOPOLOGIES, joint_problem, logits_problem, name_of, random_bounds
from tests.test_joint_memory import least_limit
from tests.test_scores import scores_problem


@pytest.fixture(params=[False, True], ids=["host-ids", "device-ids"])
def there(request, device):
    return OnDevice(device.asarray, device.asnumpy, integers=request.param).module()


def assert_alike(there, door, *given, slack=0.0, **options):
    """On the device and on the host."""
    host = getattr(lattice, door)(*given, **options)
    ours = getattr(there, door)(*given, **options)
    assert type(ours) is type(host)
    # In float64 the sums of scores are rounded to the same dtype.
    scale = max(1.0, np.abs(host[0][np.isfinite(host[0])]).max())
    for one, other in zip(ours, host, strict=True):
        compare.assert_same(one, other, k=64, slack=slack, scale=scale if one.dtype == np.float64 else None)
    return ours


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_posteriors(there, topology, dtype):
    problem = logits_problem(0, topology=topology, dtype=dtype, **SMALL)
    assert_alike(there, "transducer_posteriors", *problem.args, **problem.options)
    bounded = logits_problem(1, topology=topology, dtype=dtype, bounded=True, **SMALL)
    packed = bounded.pack(bounded.logits)
    assert_alike(there, "transducer_posteriors", packed, *bounded.args[1:], **bounded.options)
    joint = joint_problem(2, topology=topology, dtype=dtype, **SMALL)
    # The operands of products are rounded to bfloat16 on a device.
    slack = 2.0**-4 if dtype == BFLOAT16 else 0.0
    assert_alike(there, "joint_transducer_posteriors", *joint.args, **joint.options, posterior_floor=0.0, slack=slack)


@pytest.mark.parametrize(
    "kind", [{"hypotheses": 4}, {"vocabulary": "lengths"}, {"sharpness": 8.0, "frames": 8}], ids=str
)
def test_posteriors_of_several_groups(there, kind):
    problem = joint_problem(3, **SMALL | kind)
    assert_alike(there, "joint_transducer_posteriors", *problem.args, **problem.options)
    limit = least_limit(problem, there.joint_transducer_posteriors)
    found = there.joint_transducer_posteriors(*problem.args, **problem.options, memory_limit=limit)
    whole = lattice.joint_transducer_posteriors(*problem.args, **problem.options)
    for one, other in zip(found, whole, strict=True):
        compare.assert_same(one, other, k=64)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_given_scores(there, topology, dtype):
    given = scores_problem(4, topology=topology, dtype=dtype, batch=3, frames=5, labels=3, mean=20.0)
    bounds = random_bounds(np.random.default_rng(5), *given[2:], given.blank_scores.shape[1], topology)
    for options in (
        {"topology": topology, "bounds": bounds, "grad_loss": np.array([1, -0.5, 2], np.float32)},
        {"topology": lattice.Topology(topology, delay_penalty=0.5)},
    ):
        assert_alike(there, "scores_loss_and_grad", *given, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("name", ["blank_scores", "label_scores"])
def test_no_number_and_no_alignment(there, name, value):
    given = scores_problem(5, dtype=np.float64, lengths=([4, 4, 4], [2, 2, 2]))
    given.label_scores[0, :, 0] = -np.inf
    getattr(given, name)[1, 1, 1] = value
    loss, *_ = assert_alike(there, "scores_loss_and_grad", *given)
    assert loss[0] == np.inf and np.isnan(loss[1]) and np.isfinite(loss[2])


@pytest.mark.parametrize("integers", [True, False])
def test_waits(device, integers):
    """At the door for ids and lengths alone: occupied cells are not counted, and without a floor there is no round."""
    scores, logits = scores_problem(6), logits_problem(6, **SMALL)
    for door, problem in (
        (lattice.scores_loss_and_grad, scores),
        (lattice.transducer_posteriors, logits.args),
    ):
        arguments, device.syncs = placed(device, problem, integers=integers), 0
        found = door(*arguments)
        assert device.syncs == int(integers) and all(isinstance(array, device.ndarray) for array in found)
    joint = placed(device, joint_problem(6, **SMALL).args, integers=integers)
    device.syncs = 0
    lattice.joint_transducer_posteriors(*joint, posterior_floor=0.0)
    assert device.syncs == int(integers)


def test_memory_is_what_the_docstrings_say(device):
    given = placed(device, scores_problem(7, lengths=([20, 20], [9, 9])))
    before, cells = device.live_bytes, 2 * 20 * 10
    device.peak_bytes = before
    found = lattice.scores_loss_and_grad(*given)
    assert device.peak_bytes - before - sum(x.nbytes for x in found) <= 24 * cells + 112 * 40 + 4096
    joint = placed(device, joint_problem(7, batch=6, frames=12, labels=5, vocab=40).args)
    before = device.peak_bytes = device.live_bytes
    found = lattice.joint_transducer_posteriors(*joint, memory_limit=1 << 16)
    assert device.peak_bytes - before - sum(x.nbytes for x in found) <= (1 << 16) + 4096
