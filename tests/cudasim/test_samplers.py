"""The samplers' doors on the simulated device.

The ids are the same as on the CPU. The tests see where results lie and how often the host waits.
"""

import numpy as np
import pytest

import samplers
from tests import compare
from tests.problems import DTYPES, name_of

TARGETS, LENGTHS = np.array([[3, 1, 3], [2, -5, 99], [4, 5, 6]], np.int32), np.array([3, 1, 2], np.int32)
V = 40


def posterior(dtype=np.float32, rows=3):
    return np.random.default_rng(0).dirichlet(np.ones(V), rows).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("strategy", ["example", "batch"])
@pytest.mark.parametrize("rows", [1, 3])
def test_both_devices_draw_the_same_ids(device, dtype, strategy, rows):
    p = posterior(dtype, rows)
    p = p[0] if rows == 1 else p
    options = {"strategy": strategy, "blank": -1, "seed": 2**50 + 3, "row_offset": 2**35}
    host = samplers.sample_vocabulary(TARGETS, LENGTHS, 20, distribution=p, **options)
    placed = map(device.asarray, (TARGETS, LENGTHS))
    ours = samplers.sample_vocabulary(*placed, 20, distribution=device.asarray(p), **options)
    assert all(isinstance(part, device.ndarray) for part in ours)
    for one, other in zip(ours[:3], host[:3]):
        np.testing.assert_array_equal(device.asnumpy(one), other)
        assert one.dtype == other.dtype
    compare.assert_same(device.asnumpy(ours.log_inclusion), host.log_inclusion, k=64)


@pytest.mark.parametrize("targets_there, distribution_there", [(False, True), (True, False)])
def test_results_lie_where_the_targets_do(device, targets_there, distribution_there):
    p = posterior()
    host = samplers.sample_vocabulary(TARGETS, LENGTHS, 9, distribution=p, seed=1)
    targets = device.asarray(TARGETS) if targets_there else TARGETS
    distribution = device.asarray(p) if distribution_there else p
    ours = samplers.sample_vocabulary(targets, LENGTHS, 9, distribution=distribution, seed=1)
    for one, other in zip(ours, host):
        assert isinstance(one, device.ndarray if targets_there else np.ndarray)
        np.testing.assert_allclose(device.asnumpy(one) if targets_there else one, other, rtol=1e-6)


def test_waits(device):
    targets, lengths, p = map(device.asarray, (TARGETS, LENGTHS, posterior()))
    logits = device.asarray(np.zeros((3, 4, V), np.float32))
    device.syncs = 0
    samplers.sample_vocabulary(targets, lengths, 9, distribution=p, seed=1)
    assert device.syncs == 2
    samplers.allowed_vocabulary(p, 9)
    assert device.syncs == 3
    samplers.ctc_posterior(logits, LENGTHS)
    assert device.syncs == 3
    samplers.ctc_posterior(logits, lengths)
    assert device.syncs == 4
    samplers.mixture([p, samplers.uniform(V)], [1, 1])
    assert device.syncs == 4


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_posterior_mixture_and_allowed_ids(device, dtype):
    rng = np.random.default_rng(1)
    logits, lengths = (3 * rng.standard_normal((3, 5, V))).astype(dtype), np.array([5, 1, 3])
    host = samplers.ctc_posterior(logits, lengths)
    ours = samplers.ctc_posterior(device.asarray(logits), lengths)
    compare.assert_same(device.asnumpy(ours), host, k=64)
    mixed = samplers.mixture([samplers.uniform(V), ours], [0.1, 0.9])
    assert isinstance(mixed, device.ndarray) and mixed.shape == (3, V)
    np.testing.assert_allclose(
        device.asnumpy(mixed), samplers.mixture([samplers.uniform(V), host], [0.1, 0.9]), rtol=1e-5
    )
    p = (np.round(host * 50) / 50).astype(dtype)
    allowed = samplers.allowed_vocabulary(device.asarray(p), 12)
    np.testing.assert_array_equal(device.asnumpy(allowed), samplers.allowed_vocabulary(p, 12))


def test_counts_on_a_device(device):
    p = samplers.unigram(device.asarray(np.array([1, 3])))
    assert isinstance(p, device.ndarray) and device.asnumpy(p).tolist() == [0.25, 0.75]


def test_errors_name_the_row(device):
    p = posterior()
    p[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"distribution\[1, 3\] is nan"):
        samplers.sample_vocabulary(TARGETS, LENGTHS, 9, distribution=device.asarray(p), seed=0)
    p[1] = 0
    with pytest.raises(ValueError, match=r"distribution\[1\] has 0 ids of positive probability"):
        samplers.sample_vocabulary(TARGETS, LENGTHS, 9, distribution=device.asarray(p), seed=0)
