"""Topologies and their options on the simulated device, against the CPU."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare
from tests.cudasim.test_walk import assert_alike, both
from tests.on_device import OnDevice
from tests.problems import TOPOLOGIES, joint_problem, logits_problem

SMALL = {"batch": 3, "frames": 5, "labels": 3}
VARIANTS = [
    lattice.Topology(hat=True),
    lattice.Topology("monotonic", hat=True, delay_penalty=0.3),
    lattice.Topology("constrained", hat=True),
    lattice.Topology(delay_penalty=-0.2),
]


@pytest.fixture
def there(device):
    return OnDevice(device.asarray, device.asnumpy, integers=False).module()


def problem_of(make, variant, **options):
    # Lengths are drawn for the name.
    return replace(make(3, topology=variant.name, **(SMALL | options)), topology=variant)


@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
def test_from_logits(there, variant):
    problem = problem_of(logits_problem, variant)
    host = lattice.transducer_loss_and_grad(*problem.args, **problem.options, fastemit_lambda=0.25)
    ours = there.transducer_loss_and_grad(*problem.args, **problem.options, fastemit_lambda=0.25)
    assert_alike(ours, host, np.float32)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64)])
@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
def test_joint_dense(there, variant, dtype):
    both(there, problem_of(joint_problem, variant, dtype=dtype), posterior_floor=0.0)


@pytest.mark.parametrize("options", [{}, {"vocabulary": "lengths"}, {"bounded": True}, {"hypotheses": 4}], ids=repr)
@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
def test_joint_certified(there, variant, options):
    problem = problem_of(joint_problem, variant, frames=9, labels=4, sharpness=8.0, **options)
    both(there, problem)
    host = lattice.joint_transducer_report(*problem.args, **problem.options)
    ours = there.joint_transducer_report(*problem.args, **problem.options)
    # A narrow band and short targets may leave nothing to skip.
    assert options or (host.certified < host.cells).any()
    np.testing.assert_array_equal(ours.certified, host.certified)
    np.testing.assert_array_equal(ours.occupied, host.occupied)


@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
def test_vjp_and_alignment(there, variant):
    problem = problem_of(joint_problem, variant, frames=9, labels=4, sharpness=8.0)
    loss, vjp = there.joint_transducer_loss_vjp(*problem.args, **problem.options)
    host, host_vjp = lattice.joint_transducer_loss_vjp(*problem.args, **problem.options)
    upstream = np.array([1.0, -2.0, 0.5], np.float32)
    assert_alike((loss, *vjp(upstream)), (host, *host_vjp(upstream)), np.float32)
    ours = there.joint_transducer_alignment(*problem.args, **problem.options)
    expected = lattice.joint_transducer_alignment(*problem.args, **problem.options)
    np.testing.assert_array_equal(ours[0], expected[0])
    compare.assert_same(ours[1], expected[1], k=64, what="score")


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_posteriors_of_far_scores_are_at_most_one(there, name):
    """alpha + beta - log_z is off by many nats there, to either side."""
    blank, label = 1e30 * np.random.default_rng(0).standard_normal((2, 2, 6, 4))
    args = blank, label, np.array([6, 5]), np.array([3, 2])
    host, ours = lattice.scores_loss_and_grad(*args, topology=name), there.scores_loss_and_grad(*args, topology=name)
    np.testing.assert_allclose(ours[0], host[0], rtol=1e-15)
    for gradient in (*ours[1:], *host[1:]):
        assert gradient.min() >= -1 and gradient.max() <= 0
