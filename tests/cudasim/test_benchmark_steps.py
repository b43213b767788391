"""What `python -m benchmarks gpu` calls for the three stages takes arrays of a device."""

import numpy as np

from benchmarks.gpu import problems, three_stage
from benchmarks.three_stage import step_calls


def test_every_step_runs_on_the_device(device):
    shape = problems.Shape(np.array([9, 7]), np.array([3, 2]), 11, 6)
    problem = three_stage.on_device(problems.host_joint(shape, "trained-like"))
    assert isinstance(problem.encoder, device.ndarray) and isinstance(problem.targets, np.ndarray)
    calls = step_calls(problem, 3)
    assert len(calls) == 16
    for call in calls.values():
        parts = call()
        while isinstance(parts, tuple):
            parts = parts[0]
        assert isinstance(parts, device.ndarray)
