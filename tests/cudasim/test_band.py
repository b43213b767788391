"""The joint where a band is looked for, on the simulated device, against the CPU."""

import math
from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice.tiles import band, full_sum, plan
from tests.cudasim.test_walk import both
from tests.on_device import OnDevice
from tests.problems import BFLOAT16, joint_problem

VARIANTS = [
    {},
    {"topology": lattice.Topology("monotonic", delay_penalty=0.3), "dtype": np.float64},
    {"topology": lattice.Topology("constrained")},
    {"topology": lattice.Topology(hat=True, delay_penalty=-0.2), "vocabulary": "lengths"},
    {"activation": "relu", "dtype": BFLOAT16, "hypotheses": 4},
]


@pytest.fixture
def there(device):
    return OnDevice(device.asarray, device.asnumpy, integers=False).module()


@pytest.fixture
def numbered(monkeypatch):
    """A band is looked for in lattices of any width, and kept however much it holds; the bands that were kept."""
    found = []

    def renumber(cells, frames, lattice):
        found.append(len(cells))
        return full_sum_renumber(cells, frames, lattice)

    full_sum_renumber = full_sum.renumber
    monkeypatch.setattr(full_sum, "renumber", renumber)
    limits = (plan, "SMALL", 1e-9), (band, "FOUND_DENSE", 2.0), (band, "HOPELESS", math.inf)
    for module, name, value in (*limits, (full_sum, "NARROW", math.inf)):
        monkeypatch.setattr(module, name, value)
    return found


def problem_of(topology="rnnt", **options):
    """Lengths are drawn for the name of a topology."""
    name = getattr(topology, "name", topology)
    problem = joint_problem(3, batch=3, frames=9, labels=4, sharpness=8.0, topology=name, **options)
    return replace(problem, topology=topology)


@pytest.mark.parametrize("options", VARIANTS, ids=repr)
def test_joint_in_a_band(there, numbered, options):
    problem = problem_of(**options)
    both(there, problem)
    assert numbered and numbered[: len(numbered) // 2] == numbered[len(numbered) // 2 :]
    host = lattice.joint_transducer_report(*problem.args, **problem.options)
    ours = there.joint_transducer_report(*problem.args, **problem.options)
    for name in ("cells", "certified", "occupied", "rounds"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(host, name), err_msg=name)
    for name in ("certificate", "skipped_posterior", "exit_posterior"):
        np.testing.assert_allclose(getattr(ours, name), getattr(host, name), rtol=1e-2, atol=1e-9, err_msg=name)
    assert host.exit_posterior.any()
