"""The joint transducer loss as a `jax.custom_vjp` to copy: eager on the CPU or a GPU, and under jit through a callback.

The proof below it checks the gradients in float64, on every kind of device: by finite differences, and against jax's
own gradients through the full logits.

Run: python examples/04_jax_custom_vjp.py    (needs jax; for a GPU also CuPy)
"""

import os

# Before jax is imported: it would take most of a GPU's memory, and CuPy needs some.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np

import lattice

# ---- To copy, with the imports above ----


def joint_transducer_loss(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, **options):
    """Loss (B,), unreduced; options as in `lattice.joint_transducer_loss`, without `fastemit_lambda`.

    The backward pass runs the forward pass again. Options that are arrays are made outside `jit`. `vmap` fails.
    """

    def call(function, shapes, *given):
        if not any(isinstance(x, jax.core.Tracer) for x in given):
            # By DLPack: arrays on a GPU stay there. jax may use an input's memory for something else as soon as it is
            # let go, and does not know that another stream still reads it: hence the wait.
            return jax.block_until_ready(function(*given))

        # Under jit the arrays come to the host and go back, from a GPU too.
        def on_host(*xs):
            return function(*(None if x is None else np.asarray(x) for x in xs))

        return jax.pure_callback(on_host, shapes, *given)

    def gradients(grad_loss, *given):
        return tuple(lattice.joint_transducer_loss_and_grad(*given, grad_loss=grad_loss, **options)[1])

    @jax.custom_vjp
    def loss(*given):
        shape = jax.ShapeDtypeStruct(given[0].shape[:1], jnp.promote_types(given[0].dtype, jnp.float32))
        return call(lambda *xs: lattice.joint_transducer_loss(*xs, **options), shape, *given)

    def backward(given, grad_loss):
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), given[:4])
        return *call(gradients, shapes, grad_loss, *given), None, None, None

    loss.defvjp(lambda *given: (loss(*given), given), backward)
    return loss(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths)


# ---- The proof ----


def plain_loss(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths):
    """The same loss (B,) from logits that exist, for jax to go through."""
    scores = jax.nn.log_softmax(jnp.tanh(encoder[:, :, None] + predictor[:, None]) @ weight.T + bias)
    loss = []
    for score, ids, T, U in zip(scores, targets, encoder_lengths.tolist(), target_lengths.tolist()):
        climb = jnp.pad(score[:T, jnp.arange(U), ids[:U]].cumsum(1), ((0, 0), (1, 0)))  # [t, u]: u labels at t
        alpha = climb[0]
        for t in range(1, T):
            alpha = climb[t] + jax.lax.cumlogsumexp(alpha + score[t - 1, : U + 1, 0] - climb[t])
        loss.append(-alpha[U] - score[T - 1, U, 0])
    return jnp.stack(loss)


def prove(device):
    from jax.test_util import check_grads

    shapes = (2, 5, 4), (2, 4, 4), (6, 4), (6,)  # B=2, T=5, U=3, H=4, V=6
    inputs = [jax.random.normal(jax.random.key(i), shape, jnp.float64) for i, shape in enumerate(shapes)]
    lengths = jnp.array([[1, 2, 2], [5, 3, 0]]), jnp.array([5, 3]), jnp.array([3, 2])
    ours, plain = (lambda *x, f=f: f(*x, *lengths) for f in (joint_transducer_loss, plain_loss))
    upstream = jnp.array([0.5, -2.0])
    check_grads(ours, inputs, order=1, modes=["rev"], eps=1e-5)
    print(f"{device.platform}: gradients agree with finite differences")
    loss, vjp = jax.vjp(plain, *inputs)
    expected = [loss, *vjp(upstream)]
    for name, f in {"eager": ours, "jit": jax.jit(ours)}.items():
        loss, vjp = jax.vjp(f, *inputs)
        found = [loss, *vjp(upstream)]
        gap = max(float(abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        assert gap < 1e-6, gap
        assert {x.device for x in found} == {device}
        print(f"{device.platform}, {name}: loss and gradients are those of jax through the logits, to {gap:.0e}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    for one in {x.platform: x for x in jax.local_devices(backend="cpu") + jax.local_devices()}.values():
        with jax.default_device(one):
            prove(one)
