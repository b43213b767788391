"""What the documents show with torch is run, and its gradients are right."""

import pytest

torch = pytest.importorskip("torch")

import lattice  # noqa: E402
from tests.test_documents import python_blocks  # noqa: E402


def test_the_three_stages_from_torch():
    (block,) = python_blocks("docs/three_stage.md", torch=True)
    names = {}
    exec(block, names)
    inputs, targets, frames = (names[name] for name in ("inputs", "targets", "frames"))
    assert torch.isfinite(names["loss"]) and all(torch.isfinite(x.grad).all() and x.grad.any() for x in inputs)
    # By autograd through the rows on the path.
    leaves = [x.detach().double().requires_grad_() for x in inputs]
    encoder, predictor, weight, bias = leaves
    loss = 0.0
    for b, (T, U) in enumerate(((20, 5), (16, 3))):
        for t in range(T):
            u = int((frames[b, :U] < t).sum())
            emits = u < U and frames[b, u] == t
            row = (torch.tanh(encoder[b, t] + predictor[b, u]) @ weight.T + bias).log_softmax(-1)
            own = int(targets[b, u]) if emits else 0
            smoothed = torch.full_like(row, 0.1 / 11).scatter(0, torch.tensor(own), 0.9)
            loss = loss - (1 + 5 * bool(emits)) * (smoothed * row).sum()
    loss.backward()
    torch.testing.assert_close(names["loss"], loss.float(), rtol=1e-5, atol=0)
    for ours, leaf in zip(inputs, leaves):
        torch.testing.assert_close(ours.grad, leaf.grad.float(), rtol=1e-4, atol=1e-4)
    scores = names["scores"]
    assert not scores.grad[1, 2:].any() and scores.grad[0].any() and abs(scores.grad.sum()) < 1e-5
    assert isinstance(
        lattice.minimum_bayes_risk(scores.detach(), scores.detach(), torch.tensor([4, 2]))[0], torch.Tensor
    )
