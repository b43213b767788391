"""The joint where a band is looked for, on the simulated device, against the CPU."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice.tiles.plan import seeks_band
from tests.band_problems import force, spied
from tests.cudasim.test_walk import both
from tests.on_device import OnDevice
from tests.problems import BFLOAT16, joint_problem

VARIANTS = [
    {},
    {"topology": lattice.Topology("monotonic", delay_penalty=0.3), "dtype": np.dtype(np.float64)},
    {"topology": lattice.Topology("constrained")},
    {"topology": lattice.Topology(hat=True, delay_penalty=-0.2), "vocabulary": "lengths"},
    {"activation": "relu", "dtype": BFLOAT16, "hypotheses": 4},
]


@pytest.fixture
def there(device):
    return OnDevice(device.asarray, device.asnumpy, integers=False).module()


def problem_of(topology="rnnt", **options):
    """Lengths are drawn for the name of a topology."""
    name = getattr(topology, "name", topology)
    problem = joint_problem(3, batch=3, frames=9, labels=4, sharpness=8.0, topology=name, **options)
    return replace(problem, topology=topology)


@pytest.mark.parametrize("options", VARIANTS, ids=repr)
def test_joint_in_a_band(there, monkeypatch, options):
    force(monkeypatch)
    problem, bands = problem_of(**options), spied(monkeypatch)
    both(there, problem)
    host, ours = (door(*problem.args, **problem.options) for door in doors(there, "joint_transducer_report"))
    for name in ("cells", "certified", "occupied", "rounds"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(host, name), err_msg=name)
    for name in ("certificate", "skipped_posterior", "exit_posterior"):
        np.testing.assert_allclose(getattr(ours, name), getattr(host, name), rtol=1e-2, atol=1e-9, err_msg=name)
    assert bands[0] and bands == bands[:1] * 4 and host.exit_posterior.any()


@pytest.mark.parametrize("options", VARIANTS[1:3], ids=repr)
def test_alignment_in_a_band(there, monkeypatch, options):
    force(monkeypatch)
    problem = problem_of(**options)
    host, ours = (door(*problem.args, **problem.options) for door in doors(there, "joint_transducer_alignment"))
    np.testing.assert_array_equal(ours[0], host[0])
    np.testing.assert_allclose(ours[1], host[1], rtol=1e-5)


def doors(there, name):
    """A door on the host, and on the device."""
    return getattr(lattice, name), getattr(there, name)


def test_a_walk_takes_less_than_bounds_on_a_device_where_cells_are_many():
    cells, frames = np.array([6400]), np.array([100])
    assert seeks_band(cells, frames, False) and not seeks_band(cells, frames, True)
    assert seeks_band(cells.repeat(256), frames.repeat(256), True)
    assert not seeks_band(cells[:0], frames[:0], True)
