"""The joint transducer loss as a `torch.autograd.Function` to copy: on the CPU, and on CUDA where there is one.

The proof checks gradients in float64: by gradcheck, with `dropout=(rate, seed)` too, and by autograd through logits.

Run: python examples/03_torch_autograd.py    (needs torch; for CUDA also CuPy)
"""

import contextlib

import torch

import lattice

# ---- To copy, with the imports above ----


class JointTransducerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, *given):  # encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
        if options.get("overwrite"):
            raise ValueError("overwrite=True would write over tensors that autograd still needs")
        detached = [x if x is None else x.detach() for x in given]
        with torch_stream(given[0]):
            loss, ctx.vjp = lattice.joint_transducer_loss_vjp(*detached, **options)
        ctx.save_for_backward(*given[:4])  # a loss holds its inputs
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss):
        encoder = ctx.saved_tensors[0]  # raises if torch has changed an input in place since
        with torch_stream(encoder):
            return None, *ctx.vjp(grad_loss.detach()), None, None, None


@contextlib.contextmanager
def torch_stream(tensor):
    """lattice works on CuPy's current stream: make it torch's, so that neither has to wait for the other."""
    if not tensor.is_cuda:
        yield
        return
    import cupy

    with torch.cuda.device(tensor.device), cupy.cuda.Stream.from_external(torch.cuda.current_stream()):
        yield


def joint_transducer_loss(
    encoder, predictor, weight, bias, targets, logit_lengths, target_lengths, *, blank=0, reduction="none", **options
):
    """Names are torchaudio's, whose defaults are -1 and "mean". `dropout=(rate, seed)` wants a fresh seed each step."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'reduction is {reduction!r}, expected "none", "mean" or "sum"')
    options["blank"] = blank
    loss = JointTransducerLoss.apply(options, encoder, predictor, weight, bias, targets, logit_lengths, target_lengths)
    return loss if reduction == "none" else getattr(loss, reduction)()


# ---- The proof ----


def plain_loss(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths):
    """The same loss (B,) from logits that exist, for autograd to go through."""
    scores = (torch.tanh(encoder[:, :, None] + predictor[:, None]) @ weight.T + bias).log_softmax(-1)
    loss = []
    for score, ids, T, U in zip(scores, targets, encoder_lengths.tolist(), target_lengths.tolist()):
        climb = torch.nn.functional.pad(score[:T, torch.arange(U), ids[:U].long()].cumsum(1), (1, 0))  # [t, u]
        alpha = climb[0]
        for t in range(1, T):
            alpha = climb[t] + (alpha + score[t - 1, : U + 1, 0] - climb[t]).logcumsumexp(0)
        loss.append(-alpha[U] - score[T - 1, U, 0])
    return torch.stack(loss)


def prove(device):
    torch.manual_seed(0)
    shapes = (2, 5, 4), (2, 4, 4), (6, 4), (6,)  # B=2, T=5, U=3, H=4, V=6
    inputs = [torch.randn(shape, dtype=torch.float64).to(device).requires_grad_() for shape in shapes]
    lengths = [torch.tensor(x, dtype=torch.int32, device=device) for x in ([[1, 2, 2], [5, 3, 0]], [5, 3], [3, 2])]
    for options in ({"posterior_floor": 0}, {"posterior_floor": 0, "dropout": (0.3, 1)}):
        assert torch.autograd.gradcheck(lambda *x, own=options: joint_transducer_loss(*x, *lengths, **own), inputs)
    ours, plain = (loss(*inputs, *lengths) for loss in (joint_transducer_loss, plain_loss))
    pairs = zip(*(torch.autograd.grad(loss.mean(), inputs) for loss in (ours, plain)))
    assert torch.allclose(ours, plain) and all(torch.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in pairs)
    print(f"{device}: gradcheck passed, with dropout too; loss and gradients are those of autograd through the logits")
    optimizer, losses = torch.optim.SGD(inputs, lr=0.5), []
    for step in range(10):
        optimizer.zero_grad()
        loss = joint_transducer_loss(*inputs, *lengths, dropout=(0.2, step)).mean()  # a fresh mask each step
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[5:]) < min(losses[:2]), losses
    print(f"{device}: mean loss {losses[0]:.3f} -> {losses[-1]:.3f} nats in {len(losses)} steps of SGD with dropout")


if __name__ == "__main__":
    for name in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        prove(name)
