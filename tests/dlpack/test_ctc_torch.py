"""CTC against the loss that torch computes on the CPU, and torch tensors in kind."""

import numpy as np
import pytest

import lattice
from tests.ctc_problems import ctc_problem, fewest_frames

torch = pytest.importorskip("torch")


def by_torch(problem, upstream):
    """torch's loss and the gradient that its autograd finds for the logits, without their padding."""
    logits = torch.tensor(np.nan_to_num(problem.logits), requires_grad=True)
    real = np.arange(problem.targets.shape[1]) < problem.target_lengths[:, None]
    loss = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        torch.tensor(np.where(real, problem.targets, 1)),
        torch.tensor(problem.logit_lengths),
        torch.tensor(problem.target_lengths),
        blank=problem.blank % problem.logits.shape[2],
        reduction="none",
    )
    loss.backward(torch.tensor(upstream))
    return loss.detach().numpy(), logits.grad.numpy()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("blank", [0, -1])
def test_loss_and_gradient_are_torchs(seed, repeated, blank):
    problem = ctc_problem(seed, batch=6, frames=25, labels=9, vocab=14, blank=blank, repeated=0.5, dtype=np.float64)
    if not repeated:
        problem.targets[...] = np.random.default_rng(seed).permuted(np.tile(np.arange(1, 12), (6, 1)), axis=1)
    needed = np.array([fewest_frames(targets) for _, targets in problem.examples])
    assert (needed > np.maximum(1, problem.target_lengths)).any() == repeated
    upstream = np.random.default_rng(seed).standard_normal(6)
    loss, grad = lattice.ctc_loss_and_grad(*problem.args, **problem.options, grad_loss=upstream)
    expected, expected_grad = by_torch(problem, upstream)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-12)


def test_too_few_frames_are_torchs():
    problem = ctc_problem(5, lengths=([3, 8], [4, 4]), dtype=np.float64)
    loss = lattice.ctc_loss(*problem.args)
    assert np.isposinf(loss[0]) and np.isposinf(by_torch(problem, np.ones(2))[0][0])
    np.testing.assert_allclose(loss[1], by_torch(problem, np.ones(2))[0][1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_in_kind(dtype):
    problem = ctc_problem(6)
    logits, *rest = (torch.from_numpy(x) for x in problem.args)
    logits = logits.to(dtype)
    loss, grad = lattice.ctc_loss_and_grad(logits, *rest)
    frames, score = lattice.ctc_alignment(logits, *rest)
    assert loss.dtype == score.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert grad.dtype == dtype and frames.dtype == torch.int32
    assert torch.equal(lattice.ctc_loss(logits, *rest), loss)
    host_loss, host_grad = lattice.ctc_loss_and_grad(logits.to(torch.float64).numpy(), *problem.args[1:])
    np.testing.assert_allclose(loss.numpy(), host_loss, rtol=1e-5)
    np.testing.assert_allclose(grad.to(torch.float64).numpy(), host_grad, atol=2.0**-8)
    assert lattice.ctc_loss_and_grad(logits, *rest, out=logits)[1] is logits and torch.equal(logits, grad)
    with pytest.raises(ValueError, match=r"logits requires a gradient: pass logits.detach\(\)"):
        lattice.ctc_loss(logits.requires_grad_(), *rest)
