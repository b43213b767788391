"""torch and JAX arrays through the samplers: read without a copy, given back in kind, and into the joint."""

import numpy as np
import pytest

import lattice
import samplers

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

TARGETS, LENGTHS = np.array([[3, 1, 3], [2, 4, 9]], np.int32), np.array([3, 1], np.int32)


@pytest.mark.parametrize(
    "put, kind", [(torch.from_numpy, torch.Tensor), (jax.numpy.asarray, jax.Array)], ids=["torch", "jax"]
)
def test_results_come_in_kind(put, kind):
    logits = np.random.default_rng(0).standard_normal((2, 6, 30)).astype(np.float32)
    host = samplers.ctc_posterior(logits, np.array([6, 4]))
    p = samplers.ctc_posterior(put(logits), put(np.array([6, 4], np.int32)))
    mixed = samplers.mixture([p, samplers.uniform(30)], [0.9, 0.1])
    drawn = samplers.sample_vocabulary(put(TARGETS), put(LENGTHS), 12, distribution=p, seed=0)
    allowed = samplers.allowed_vocabulary(p, 5)
    counted = samplers.unigram(put(np.arange(4, dtype=np.int32)))
    assert all(isinstance(x, kind) for x in (p, mixed, *drawn, allowed, counted))
    np.testing.assert_array_equal(np.asarray(p), host)
    np.testing.assert_array_equal(
        np.asarray(drawn.ids), samplers.sample_vocabulary(TARGETS, LENGTHS, 12, distribution=host, seed=0).ids
    )
    rows, weight = np.ones((2, 4, 3), np.float32), np.ones((30, 3), np.float32)
    loss = lattice.joint_transducer_loss(
        put(rows),
        put(rows),
        put(weight),
        None,
        put(TARGETS),
        put(np.array([4, 4], np.int32)),
        put(LENGTHS),
        vocabulary=drawn.ids,
        vocabulary_lengths=drawn.lengths,
    )
    assert isinstance(loss, kind) and np.isfinite(np.asarray(loss)).all()


def test_half_precision_tensors_are_drawn_from():
    p = torch.softmax(torch.arange(40.0).reshape(1, 40) / 8, 1)
    targets = torch.tensor([[3]])
    for dtype in (torch.bfloat16, torch.float16):
        half = p.to(dtype)
        ours = samplers.sample_vocabulary(targets, torch.tensor([1]), 9, distribution=half, seed=0).ids
        wide = samplers.sample_vocabulary(targets, torch.tensor([1]), 9, distribution=half.float(), seed=0).ids
        assert torch.equal(ours, wide)
