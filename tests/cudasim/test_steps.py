"""Arcs that take several frames: every door on the simulated device, against the CPU."""

import numpy as np
import pytest

import lattice
from tests import compare
from tests.cudasim.test_walk import assert_alike, both
from tests.on_device import OnDevice
from tests.problems import BFLOAT16, name_of
from tests.steps_problems import joint_problem, logits_problem, poisoned

SMALL = {"batch": 3, "frames": 5, "labels": 3}
TOPOLOGIES = [
    lattice.Topology("tdt", durations=(0, 1, 3), sigma=0.05, delay_penalty=0.2),
    lattice.Topology("tdt", durations=(1, 2)),
    lattice.Topology("multiblank", durations=(2,), sigma=0.1),
]
TDT, STEADY, MULTIBLANK = TOPOLOGIES
F2, F4, F8 = map(np.dtype, (np.float16, np.float32, np.float64))
WITH_VOCABULARY, BOUNDED, SHARED = {"vocabulary": "lengths"}, {"bounded": True}, {"hypotheses": 4}
every = pytest.mark.parametrize("topology", TOPOLOGIES, ids=name_of)


@pytest.fixture
def there(device):
    return OnDevice(device.asarray, device.asnumpy, integers=False).module()


def assert_same(ours, host, **options):
    for one, other in zip(ours, host, strict=True):
        if one.dtype.kind == "i":
            np.testing.assert_array_equal(one, other)
        else:
            compare.assert_same(one, other, k=64, **options)


@every
def test_from_logits(there, topology):
    problem = logits_problem(3, topology, **SMALL)
    host = lattice.transducer_loss_and_grad(*problem.args, **problem.options, fastemit_lambda=0.25)
    ours = there.transducer_loss_and_grad(*problem.args, **problem.options, fastemit_lambda=0.25)
    assert np.isfinite(host[0]).all()
    assert_alike(ours, host, np.float32)
    assert_alike([there.transducer_loss(*problem.args, **problem.options)], host[:1], np.float32)
    for door in ("transducer_posteriors", "transducer_alignment"):
        found, expected = (getattr(module, door)(*problem.args, **problem.options) for module in (there, lattice))
        assert_same(found, expected)


@pytest.mark.parametrize(("durations", "frames", "labels"), [((2,), 4, 1), ((0, 2, 5), 7, 1)])
def test_poison_where_no_alignment_passes_is_nothing(there, durations, frames, labels):
    problem, bad, visited = poisoned(lattice.Topology("tdt", durations=durations), frames, labels)
    for door in ("transducer_loss_and_grad", "transducer_posteriors"):
        for one, other in zip(*(getattr(there, door)(*of.args, **of.options) for of in (bad, problem)), strict=True):
            np.testing.assert_array_equal(one[~visited], other[~visited])
    assert np.isnan(there.transducer_loss(*bad.args, **bad.options)[visited]).all()


@pytest.mark.parametrize(("topology", "dtype"), [(TDT, F2), (STEADY, F8), (MULTIBLANK, BFLOAT16)], ids=name_of)
def test_bounded_and_in_place(there, topology, dtype):
    problem = logits_problem(4, topology, bounded=True, dtype=dtype, **SMALL)
    for logits, banded in ((problem.pack(problem.logits), False), (problem.band(problem.logits, spare=1), True)):
        arguments, options = problem.args[1:], problem.options | {"banded": banded}
        host = lattice.transducer_loss_and_grad(logits, *arguments, **options)
        out = logits.copy()
        loss, grad = there.transducer_loss_and_grad(out, *arguments, **options, out=out)
        assert grad is out
        assert_alike((loss, grad), host, dtype)


@pytest.mark.parametrize(
    ("topology", "dtype"), [(TDT, F4), (TDT, BFLOAT16), (STEADY, F8), (MULTIBLANK, F2)], ids=name_of
)
def test_joint_dense(there, topology, dtype):
    problem = joint_problem(3, topology, dtype=dtype, **SMALL)
    both(there, problem, posterior_floor=0.0)
    # The operands of products are rounded to bfloat16 on a device.
    options = problem.options | {"posterior_floor": 0.0}
    found, host = (module.joint_transducer_posteriors(*problem.args, **options) for module in (there, lattice))
    assert_same(found, host, slack=2.0**-4 if dtype == BFLOAT16 else 0.0)


@pytest.mark.parametrize(
    ("topology", "kind"),
    [(t, kind) for t in (TDT, MULTIBLANK) for kind in (WITH_VOCABULARY, BOUNDED, SHARED)],
    ids=lambda value: name_of(value) or next(iter(value)),
)
def test_joint_certified(there, topology, kind):
    problem = joint_problem(3, topology, sharpness=8.0, **SMALL | {"frames": 8} | kind)
    both(there, problem)
    host, ours = (module.joint_transducer_report(*problem.args, **problem.options) for module in (lattice, there))
    np.testing.assert_array_equal(ours.certified, host.certified)
    np.testing.assert_array_equal(ours.occupied, host.occupied)
    for door in ("joint_transducer_posteriors", "joint_transducer_alignment"):
        found, expected = (getattr(module, door)(*problem.args, **problem.options) for module in (there, lattice))
        assert_same(found, expected)


@every
def test_what_the_bounds_skip_and_vjp(there, topology):
    problem = joint_problem(3, topology, sharpness=16.0, **SMALL | {"frames": 9})
    host = lattice.joint_transducer_report(*problem.args, **problem.options)
    ours = there.joint_transducer_report(*problem.args, **problem.options)
    assert (host.certified < host.cells).any()
    np.testing.assert_array_equal(ours.certified, host.certified)
    (loss, vjp), (host_loss, host_vjp) = (
        module.joint_transducer_loss_vjp(*problem.args, **problem.options) for module in (there, lattice)
    )
    upstream = np.array([1.0, -2.0, 0.5], np.float32)
    assert_alike((loss, *vjp(upstream)), (host_loss, *host_vjp(upstream)), np.float32)
