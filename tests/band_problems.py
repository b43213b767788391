"""Small lattices that look for a band as wide ones do, and what the tests of bands have in common."""

import numpy as np

import lattice
from lattice.inputs.joint import read_joint
from lattice.tiles import band, certificate, full_sum, path, plan
from lattice.tiles.tiler import Tiler
from tests.problems import joint_problem

LIMITS = {"SMALL": 1e-9, "SIDE_BY_SIDE": 0.0, "FOUND_DENSE": 2.0, "HOPELESS": 1e300, "NARROW": 1e300}
SHARPNESS = (0.0, 0.3, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 30.0)


def force(monkeypatch, names=tuple(LIMITS), tolerance=None):
    """Let every lattice have a band, whatever it costs, and certificates be as large as `tolerance` nats."""
    for name in names:
        for module in (band, full_sum, path, plan):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, LIMITS[name])
    if tolerance is not None:
        for dtype in list(certificate.TOLERANCE):
            monkeypatch.setitem(certificate.TOLERANCE, dtype, tolerance)


def spied(monkeypatch):
    """What `_sum_band` gives, call by call: from each example to the cells of its band, or None."""
    found, sum_band = [], full_sum._sum_band

    def spy(tiler, group, *rest):
        summed = sum_band(tiler, group, *rest)
        cells = None if summed is None else certificate.cells_of(summed.band).tolist()
        found.append(cells and dict(zip(group.examples.tolist(), cells, strict=True)))
        return summed

    monkeypatch.setattr(full_sum, "_sum_band", spy)
    return found


def many(seed, topology, sharpness, *, batch=24, dtype=np.float64, **options):
    """Ragged examples, the first as long as can be, the last without labels."""
    size = {"frames": 26, "labels": 8, "vocab": 9, "width": 6}
    return joint_problem(seed, batch=batch, topology=topology, sharpness=sharpness, dtype=dtype, **{**size, **options})


def call(door, problem, **extra):
    return getattr(lattice, f"joint_transducer_{door}")(*problem.args, **problem.options, **extra)


def first_group(problem, **extra):
    """A tiler of a problem, and the context of the group of all its examples."""
    read = read_joint(*problem.args, **problem.options, **{"posterior_floor": 2.0**-24, **extra})
    work = full_sum.plan(read, gradients=True, limit=read.memory_limit)
    assert len(work.plan.groups) == 1
    tiler = Tiler(work)
    return tiler, tiler.group(0)
