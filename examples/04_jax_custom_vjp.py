"""The joint transducer loss as a `jax.custom_vjp` to copy: eager on the CPU or a GPU, and under jit through a callback.

The proof below it checks the gradients in float64, on every kind of device: by finite differences, and against jax's
own gradients through the full logits. With dropout, a step is compiled once for all seeds.

Run: python examples/04_jax_custom_vjp.py    (needs jax; for a GPU also CuPy)
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # before jax is imported, or CuPy has no memory left
import jax
import jax.numpy as jnp
import numpy as np

import lattice

# ---- To copy, with the imports above ----


def joint_transducer_loss(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, **options):
    """Loss (B,), unreduced; options as in `lattice.joint_transducer_loss`, without `fastemit_lambda`.

    The backward pass runs the forward pass again. Options that are arrays are made outside `jit`. `vmap` fails. Of
    `dropout=(rate, seed)` the rate is a number, and the seed an integer below 2**32, which may be an argument of `jit`.
    """
    rate, seed = options.pop("dropout", None) or (0.0, 0)

    def call(function, shapes, *given):
        def run(*xs):
            return function(*xs[:-1], **options, dropout=(rate, int(xs[-1])))

        if not any(isinstance(x, jax.core.Tracer) for x in given):
            # By DLPack, on a GPU too. jax may reuse memory of inputs that another stream still reads: hence the wait.
            return jax.block_until_ready(run(*given))
        # Under jit the arrays come to the host and go back, from a GPU too.
        return jax.pure_callback(lambda *xs: run(*(x if x is None else np.asarray(x) for x in xs)), shapes, *given)

    def gradients(grad_loss, *given, **options):
        return tuple(lattice.joint_transducer_loss_and_grad(*given, grad_loss=grad_loss, **options)[1])

    @jax.custom_vjp
    def loss(*given):
        shape = jax.ShapeDtypeStruct(given[0].shape[:1], jnp.promote_types(given[0].dtype, jnp.float32))
        return call(lattice.joint_transducer_loss, shape, *given)

    def backward(given, grad_loss):
        return *call(gradients, given[:4], grad_loss, *given), None, None, None, None

    loss.defvjp(lambda *given: (loss(*given), given), backward)
    return loss(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, jnp.uint32(seed))


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
    *lengths, calls = jnp.array([[1, 2, 2], [5, 3, 0]]), jnp.array([5, 3]), jnp.array([3, 2]), []

    def step(seed, *x, loss=joint_transducer_loss):
        calls.append(seed)
        options = {} if seed is None else {"dropout": (0.3, seed)}
        value, vjp = jax.vjp(lambda *x: loss(*x, *lengths, **options), *x)
        return [value, *vjp(jnp.array([0.5, -2.0]))]

    for mask in (None, (0.3, 1)):
        check_grads(lambda *x, d=mask: joint_transducer_loss(*x, *lengths, dropout=d), inputs, 1, ["rev"], eps=1e-5)
    print(f"{device.platform}: gradients agree with finite differences, with dropout too")
    plain = step(None, *inputs, loss=plain_loss)
    eager, jit = ([f(seed, *inputs) for seed in (None, 1, 2)] for f in (step, jax.jit(step)))
    assert len(calls) == 6 and (eager[1][0] != eager[2][0]).all()  # one compilation for both seeds of dropout
    for name, found, truth, whose in ("eager", eager[0], plain, "jax through the logits"), ("jit", jit, eager, "eager"):
        gap = max(float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (found, truth)), strict=True))
        assert gap < 1e-6 and {x.device for x in jax.tree.leaves(found)} == {device}, gap
        print(f"{device.platform}, {name}: loss and gradients are those of {whose}, to {gap:.0e}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    for one in {x.platform: x for x in jax.local_devices(backend="cpu") + jax.local_devices()}.values():
        with jax.default_device(one):
            prove(one)
