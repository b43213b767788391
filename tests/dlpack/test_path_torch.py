"""Alignments of torch tensors, the loss along them against torch's autograd, and results in kind."""

import numpy as np
import pytest

import lattice
from tests.path_problems import path_problem
from tests.problems import TOPOLOGIES, logits_problem

torch = pytest.importorskip("torch")


def by_torch(problem, frames, upstream, *, label_smoothing, label_scale, focal):
    """The loss along alignments row by row, and the gradients that torch's autograd finds; topology "rnnt"."""
    given = [torch.tensor(np.nan_to_num(x), requires_grad=True) for x in problem.args[:4]]
    encoder, predictor, weight, bias = given
    total = []
    for b, (length, labels) in enumerate(zip(problem.encoder_lengths, problem.target_lengths, strict=True)):
        steps = sorted([(t, 0, u) for u, t in enumerate(frames[b, :labels])] + [(t, 1, None) for t in range(length)])
        u, loss = 0, 0
        for t, _, emitted in steps:
            row = torch.tanh(encoder[b, t] + predictor[b, u]) @ weight.T + bias
            own = problem.blank if emitted is None else int(problem.targets[b, emitted])
            # torch spreads its smoothing over all ids, the arc's own among them.
            spread = label_smoothing * len(row) / (len(row) - 1)
            entropy = torch.nn.functional.cross_entropy(row, torch.tensor(own), label_smoothing=spread)
            wrong = 1 - row.softmax(-1)[own]
            loss = loss + (1 if emitted is None else 1 + label_scale) * wrong**focal * entropy
            u += emitted is not None
        total.append(loss)
    total = torch.stack(total)
    total.backward(torch.tensor(upstream))
    return total.detach().numpy(), [x.grad.numpy() for x in given]


LOSSES = [(0.0, 0.0, 0.0), (0.2, 5.0, 1.5)]


@pytest.mark.parametrize(("label_smoothing", "label_scale", "focal"), LOSSES)
def test_loss_and_gradients_are_torchs(label_smoothing, label_scale, focal):
    loss = {"label_smoothing": label_smoothing, "label_scale": label_scale, "focal": focal}
    problem = path_problem(1, frames=8, labels=5, topology="rnnt", dtype=np.float64)
    upstream = np.array([1.0, -0.5, 2.0, 0.0])
    value, grads = lattice.joint_path_loss_and_grad(*problem.args, **problem.options, **loss, grad_loss=upstream)
    expected, expected_grads = by_torch(problem, problem.frames, upstream, **loss)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for ours, truth in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-12)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_in_kind(dtype, topology):
    problem = path_problem(2, topology=topology, vocabulary="lengths")
    args = [torch.from_numpy(x) for x in problem.args]
    args[:4] = (x.to(dtype) for x in args[:4])
    options = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in problem.options.items()}
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    frames, score = lattice.joint_transducer_alignment(*args[:5], *args[6:], **options)
    assert isinstance(frames, torch.Tensor) and frames.dtype == torch.int32 and score.dtype == wide
    loss, grads = lattice.joint_path_loss_and_grad(*args[:5], frames, *args[6:], **options)
    np.testing.assert_allclose(loss.numpy(), -score.numpy(), rtol=1e-6)
    upstream = torch.ones(4, dtype=wide)
    again = lattice.joint_path_loss_and_grad(*args[:5], frames, *args[6:], **options, grad_loss=upstream)
    for ours, other, source in zip((loss, *grads), (again[0], *again[1]), (loss, *args[:4]), strict=True):
        assert isinstance(ours, torch.Tensor) and ours.dtype == source.dtype and torch.equal(ours, other)
    with pytest.raises(ValueError, match=r"encoder requires a gradient: pass encoder.detach\(\)"):
        lattice.joint_path_loss_and_grad(args[0].requires_grad_(), *args[1:5], frames, *args[6:], **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alignments_of_logits_in_kind(dtype):
    problem = logits_problem(3)
    logits, *rest = (torch.from_numpy(x) for x in problem.args)
    logits = logits.to(dtype)
    frames, score = lattice.transducer_alignment(logits, *rest)
    assert isinstance(frames, torch.Tensor) and frames.dtype == torch.int32 and score.dtype == torch.float32
    expected = lattice.transducer_alignment(logits.to(torch.float32).numpy(), *problem.args[1:])
    np.testing.assert_array_equal(frames.numpy(), expected[0])
    np.testing.assert_array_equal(score.numpy(), expected[1])
