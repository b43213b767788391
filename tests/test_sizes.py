"""Long lattices and large vocabularies: closed forms, and float32 gradients against the float64 oracle."""

import numpy as np
import pytest

import lattice
from tests import oracle


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("topology, T", [("rnnt", 40), ("monotonic", 1530)])
def test_uniform_logits_in_closed_form(topology, T, dtype, tolerance):
    """U=1500, V=16384. The rows of zero weights make uniform logits without an array of 4 GB."""
    U, V = 1500, 16384
    encoder, predictor = np.zeros((1, T, 1), dtype), np.zeros((1, U + 1, 1), dtype)
    targets = np.random.default_rng(0).integers(1, V, (1, U))
    loss = lattice.joint_transducer_loss(
        encoder, predictor, np.zeros((V, 1), dtype), None, targets, np.array([T]), np.array([U]), topology=topology
    )
    assert loss == pytest.approx(oracle.uniform_loss(T, U, V, topology), rel=tolerance)


@pytest.mark.parametrize("topology", ["rnnt", "monotonic"])
@pytest.mark.parametrize("sharpness", [0.0, 6.0])
def test_float32_gradient_of_a_long_lattice(topology, sharpness):
    """T=1000, U=150: within 2e-5, relative l2, of the float64 gradient of the same logits."""
    T, U, V = 1000, 150, 12
    rng = np.random.default_rng(1)
    targets = rng.integers(1, V, U)
    logits = rng.standard_normal((T, U + 1, V), np.float32)
    # With sharpness, each label falls due at a frame: blanks win before it, the label after it.
    due = np.sort(rng.choice(np.arange(1, T - 1), U, replace=False))
    lead = np.tanh(np.searchsorted(due, np.arange(T), side="right")[:, None] - np.arange(U + 1) - 0.5).astype(
        np.float32
    )
    logits[:, :, 0] -= sharpness * lead
    logits[:, np.arange(U), targets] += sharpness * lead[:, :U]
    _, grad = lattice.transducer_loss_and_grad(
        logits[None], targets[None], np.array([T]), np.array([U]), topology=topology
    )
    _, truth = oracle.loss_and_grad(logits.astype(np.float64), targets, topology=topology)
    assert np.linalg.norm(grad[0] - truth) <= 2e-5 * np.linalg.norm(truth)


def test_the_same_bits_from_run_to_run():
    rng = np.random.default_rng(2)
    encoder, predictor = rng.standard_normal((3, 200, 64), np.float32), rng.standard_normal((3, 31, 64), np.float32)
    weight, targets = rng.standard_normal((300, 64), np.float32), rng.integers(1, 300, (3, 30))
    lengths = np.array([200, 150, 90]), np.array([30, 10, 25])

    def call():
        loss, gradients = lattice.joint_transducer_loss_and_grad(
            encoder, predictor, weight, None, targets, *lengths, memory_limit=4 << 20
        )
        return [loss, *gradients[:3]]

    first = call()
    for _ in range(3):
        assert all(np.array_equal(a, b) for a, b in zip(first, call()))


def test_certain_rows_keep_their_digits():
    """What one entry leaves to all others vanishes in a float32 sum with it.

    Loss and gradient consist of this remainder all the same.
    """
    T, V = 400, 40
    logits = np.zeros((1, T, 1, V), np.float32)
    logits[..., 0] = np.linspace(12, 22, T)[:, None]
    lengths = np.zeros((1, 0), np.int32), np.array([T]), np.array([0])
    loss, grad = lattice.transducer_loss_and_grad(logits, *lengths)
    ctc, grad_ctc = lattice.ctc_loss_and_grad(logits[:, :, 0], *lengths)
    rest = (V - 1) * np.exp(-logits[0, :, 0, 0].astype(np.float64))
    for found, rows in ((loss, grad[0, :, 0]), (ctc, grad_ctc[0])):
        np.testing.assert_allclose(found, np.log1p(rest).sum(), rtol=3e-7)
        np.testing.assert_allclose(rows[:, 0], -rest / (1 + rest), rtol=2e-6)
        np.testing.assert_allclose(rows[:, 1], rest / (V - 1) / (1 + rest), rtol=2e-6)
