"""The door of minimum Bayes risk on the simulated device, against the CPU; waits and memory."""

import numpy as np
import pytest

import lattice
from tests import compare
from tests.on_device import OnDevice
from tests.problems import BFLOAT16, DTYPES, name_of
from tests.test_risk import lists


def assert_alike(device, scores, risks, lengths, **options):
    """On the device and on the host; the results are arrays of the device."""
    host = lattice.minimum_bayes_risk(scores, np.asarray(risks), np.asarray(lengths), **options)
    there = OnDevice(device.asarray, device.asnumpy, integers=True).module()
    for results in (
        there.minimum_bayes_risk(scores, risks, lengths, **options),
        map(device.asnumpy, lattice.minimum_bayes_risk(device.asarray(scores), risks, lengths, **options)),
    ):
        for ours, other in zip(results, host, strict=True):
            compare.assert_same(ours, other, k=64)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_scores_on_the_device_and_risks_wherever_they_lie(device, dtype):
    scores, risks, lengths = lists(30, size=40, dtype=dtype)
    scores[2, : lengths[2]], scores[3, 0] = -np.inf, np.nan
    assert_alike(device, scores, risks, lengths, scale=0.3)
    for kind in (np.int32, BFLOAT16):
        assert_alike(device, np.asfortranarray(scores), np.asfortranarray(np.nan_to_num(risks).astype(kind)), lengths)


def test_an_empty_batch(device):
    empty = np.zeros((0, 3), np.float32)
    assert_alike(device, empty, empty, np.zeros(0, int))


@pytest.mark.parametrize("on_device", [(), (0,), (1,), (0, 1)], ids=["host", "risks", "lengths", "both"])
def test_waits_at_the_door_alone(device, on_device):
    scores, *rest = lists(31)
    rest = [device.asarray(x) if i in on_device else x for i, x in enumerate(rest)]
    scores, device.syncs = device.asarray(scores), 0
    risk, grad = lattice.minimum_bayes_risk(scores, *rest)
    assert device.syncs == int(bool(on_device))
    assert isinstance(risk, device.ndarray) and isinstance(grad, device.ndarray)


def test_memory_is_what_the_docstring_says(device):
    scores, risks, lengths = lists(32, batch=20, size=50, dtype=np.float32)
    scores = device.asarray(scores)
    before = device.live_bytes
    device.peak_bytes = before
    lattice.minimum_bayes_risk(scores, risks, lengths)
    assert device.peak_bytes - before <= (8 + 4) * scores.size + 64 * (20 + 8)
