"""The integer tools on alignments with arrays of the simulated device: the same numbers, given back there, one wait."""

import numpy as np
import pytest

import lattice
from tests import test_alignments_inputs as inputs
from tests import test_alignments_laws as laws
from tests.on_device import OnDevice


@pytest.mark.parametrize("integers", [False, True], ids=["first-alone", "all-arrays"])
@pytest.mark.parametrize("problem", laws.PROBLEMS, ids=["monotonic", "rnnt"])
def test_the_same_numbers(device, monkeypatch, problem, integers):
    expected = laws.all_of(problem)
    for name, door in OnDevice(device.asarray, device.asnumpy, integers=integers).doors().items():
        monkeypatch.setattr(lattice, name, door)
    laws.assert_equal(laws.all_of(problem), expected)


@pytest.mark.parametrize("integers", [False, True], ids=["first-alone", "all-arrays"])
@pytest.mark.parametrize("name", inputs.GIVEN)
def test_one_wait_and_results_where_the_first_argument_is(device, name, integers):
    given = inputs.GIVEN[name]
    first = next(iter(given))
    there = {
        key: device.asarray(x) if isinstance(x, np.ndarray) and (integers or key == first) else x
        for key, x in given.items()
    }
    device.syncs = 0
    results = getattr(lattice, name)(**there)
    assert device.syncs == 1
    for array in results if isinstance(results, tuple) else (results,):
        assert type(array) is device.ndarray and array.dtype == np.int32 and array.flags.c_contiguous
    host = {key: x if key == first else there[key] for key, x in given.items()}
    results = getattr(lattice, name)(**host)
    assert all(type(array) is np.ndarray for array in (results if isinstance(results, tuple) else (results,)))
