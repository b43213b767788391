"""The samplers on the device: the ids of the CPU to the bit, at sizes that fill a GPU, and into the joint."""

import numpy as np
import pytest

import lattice
import samplers
from tests import compare
from tests.problems import DTYPES, name_of


@pytest.mark.parametrize("strategy", ["example", "batch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_same_ids_as_on_the_cpu(cupy, dtype, strategy):
    rng = np.random.default_rng(0)
    B, V, size = 16, 5000, 600
    p = (rng.dirichlet(np.full(V, 0.2), B) + 1e-6).astype(dtype)
    targets, lengths = rng.integers(0, V - 1, (B, 20)), rng.integers(0, 21, B)
    for seed in range(8):
        options = {"strategy": strategy, "blank": -1, "seed": seed << 33, "row_offset": seed << 30}
        host = samplers.sample_vocabulary(targets, lengths, size, distribution=p, **options)
        placed = map(cupy.asarray, (targets, lengths))
        ours = samplers.sample_vocabulary(*placed, size, distribution=cupy.asarray(p), **options)
        np.testing.assert_array_equal(cupy.asnumpy(ours.ids), host.ids)
        compare.assert_same(cupy.asnumpy(ours.log_inclusion), host.log_inclusion, k=64)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_posteriors_and_allowed_ids(cupy, dtype):
    rng = np.random.default_rng(1)
    logits, lengths = (3 * rng.standard_normal((4, 50, 700))).astype(dtype), np.array([50, 1, 33, 20])
    host, ours = samplers.ctc_posterior(logits, lengths), samplers.ctc_posterior(cupy.asarray(logits), lengths)
    compare.assert_same(cupy.asnumpy(ours), host, k=64)
    p = np.round(host, 4)
    np.testing.assert_array_equal(
        cupy.asnumpy(samplers.allowed_vocabulary(cupy.asarray(p), 300)), samplers.allowed_vocabulary(p, 300)
    )


def test_drawn_ids_go_into_the_joint(cupy):
    rng = np.random.default_rng(2)
    arrays = (
        rng.standard_normal((2, 9, 8)),
        rng.standard_normal((2, 4, 8)),
        rng.standard_normal((60, 8)),
        rng.standard_normal(60),
    )
    integers = rng.integers(1, 60, (2, 3)), np.array([9, 5]), np.array([3, 1])
    drawn = samplers.sample_vocabulary(integers[0], integers[2], 20, distribution=samplers.uniform(60), seed=0)
    host = lattice.joint_transducer_loss(*arrays, *integers, vocabulary=drawn.ids)
    there = [cupy.asarray(array) for array in (*arrays, *integers)]
    drawn = samplers.sample_vocabulary(there[4], there[6], 20, distribution=samplers.uniform(60), seed=0)
    ours = lattice.joint_transducer_loss(*there, vocabulary=drawn.ids, vocabulary_lengths=drawn.lengths)
    np.testing.assert_allclose(cupy.asnumpy(ours), host, rtol=1e-10)
