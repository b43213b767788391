"""The share that leaves bounds on the simulated device, against the CPU; waits."""

import numpy as np
import pytest

import lattice
from tests import compare
from tests.cudasim.test_device import placed
from tests.on_device import OnDevice
from tests.problems import DTYPES, TOPOLOGIES, logits_problem, name_of

SMALL = {"batch": 3, "frames": 6, "labels": 3, "bounded": True}


@pytest.fixture(params=[False, True], ids=["host-ids", "device-ids"])
def there(request, device):
    return OnDevice(device.asarray, device.asnumpy, integers=request.param).module()


def assert_alike(there, problem):
    expected = lattice.transducer_exit_posterior(*problem.args, **problem.options)
    ours = there.transducer_exit_posterior(*problem.args, **problem.options)
    banded = problem.band(problem.logits), *problem.args[1:]
    also = there.transducer_exit_posterior(*banded, **problem.options, banded=True)
    np.testing.assert_array_equal(also, ours)
    assert ours.dtype == np.float64
    # Scores of float32 are rounded otherwise.
    kind = np.float64 if problem.logits.dtype == np.float64 else np.float32
    compare.assert_same(ours.astype(kind), expected.astype(kind), k=64)
    return ours


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_shares(there, topology, dtype):
    assert (assert_alike(there, logits_problem(0, topology=topology, dtype=dtype, **SMALL)) < 1).any()
    variant = lattice.Topology(topology, hat=True, delay_penalty=0.3)
    assert_alike(there, logits_problem(1, topology=variant, dtype=dtype, **SMALL))


def test_no_number_and_no_alignment(there):
    problem = logits_problem(2, **SMALL | {"lengths": ([6, 6, 6], [3, 3, 3])})
    problem.bounds[0][0, 2], problem.bounds[1][0, 2] = 3, 1
    problem.logits[1, 0, 0, 0] = np.nan
    ours = assert_alike(there, problem)
    assert ours[0] == 1 and np.isnan(ours[1]) and np.isfinite(ours[2])


@pytest.mark.parametrize("integers", [True, False])
def test_waits(device, integers):
    """At the door for ids and lengths, and for the result."""
    problem = logits_problem(3, **SMALL)
    arguments, device.syncs = placed(device, problem.args, integers=integers), 0
    share = lattice.transducer_exit_posterior(*arguments, bounds=problem.bounds)
    assert device.syncs == int(integers) + 1 and isinstance(share, device.ndarray)
