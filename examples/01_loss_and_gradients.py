"""The transducer loss and its gradients, three ways: from logits, from the joint network, and in a workspace of 1 MiB.

Run: python examples/01_loss_and_gradients.py
"""

import numpy as np

import lattice

rng = np.random.default_rng(0)
B, T, U, H, V = 4, 60, 12, 64, 100  # examples, frames, labels, joint width, vocabulary with the blank

encoder = rng.standard_normal((B, T, H), np.float32)
predictor = rng.standard_normal((B, U + 1, H), np.float32)
weight = rng.standard_normal((V, H), np.float32) / 8
bias = np.zeros(V, np.float32)
targets = rng.integers(1, V, (B, U))  # id 0 is the blank
encoder_lengths = np.array([60, 55, 31, 12])
target_lengths = np.array([12, 7, 12, 0])
inputs, lengths = (encoder, predictor, weight, bias), (targets, encoder_lengths, target_lengths)

# 1. From logits: what every other library asks for. `out=logits` would let the gradient overwrite them.
hidden = np.tanh(encoder[:, :, None] + predictor[:, None])
logits = hidden @ weight.T + bias
loss, grad_logits = lattice.transducer_loss_and_grad(logits, *lengths)
print("loss in nats        ", loss.round(3))
print("logits and gradient ", f"{(logits.nbytes + grad_logits.nbytes) / 1e6:.1f} MB")

# 2. From the joint network: the logits never exist as a whole.
# You set the workspace: it is 256 MiB by default, and 1 GiB on a GPU.
loss, gradients = lattice.joint_transducer_loss_and_grad(*inputs, *lengths, memory_limit=1 << 20)
print("the same, in 1 MiB  ", loss.round(3))

# The two agree: the chain rule through the logits gives the same gradient of the weight.
expected = np.einsum("btuv,btuh->vh", grad_logits, hidden)
print("largest difference  ", f"{np.abs(expected - gradients.weight).max():.1e} of {np.abs(expected).max():.1f}")

# 3. For autograd hosts: the loss now, the gradients once the upstream gradient is known.
loss, vjp = lattice.joint_transducer_loss_vjp(*inputs, *lengths)
mean = vjp(np.full(B, 1 / B, np.float32))
print("gradient of the mean", f"{np.abs(mean.weight * B - gradients.weight).max():.1e} from {B} x the mean's")
