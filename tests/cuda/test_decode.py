"""The searches on the device, against the host."""

import numpy as np
import pytest

from tests import decode_on_device
from tests.decode_on_device import DOORS
from tests.decode_problems import decode_problem
from tests.problems import DTYPES, TOPOLOGIES, name_of


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("allowed", [None, "all", "some"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("door", DOORS)
def test_the_device_finds_what_the_host_finds(door, topology, allowed, dtype, cupy):
    problem = decode_problem(0, topology=topology, allowed=allowed, dtype=dtype, blank=1, blank_lead=0.0)
    decode_on_device.both(door, problem, cupy, cupy.asnumpy)


@pytest.mark.parametrize("door", DOORS)
def test_wide_rows_and_nan(door, cupy):
    problem = decode_problem(1, vocab=300, blank=299, most=2, blank_lead=4.0)
    problem.encoder[2, 0] = np.nan
    assert np.isnan(decode_on_device.both(door, problem, cupy, cupy.asnumpy)[2][2]).all()
