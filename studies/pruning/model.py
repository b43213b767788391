"""The digit-string network of examples/02 with the two linear layers of k2's simple loss, trained by both losses."""

from collections.abc import Callable, Iterator

import numpy as np

from examples.digit_strings.adam import Adam, warmup_cosine
from examples.digit_strings.network import Arrays, backward, forward, initial_parameters
from examples.digit_strings.strings import BLANK, NUM_LABELS, DigitStrings, Scans, join_strings
from lattice import joint_transducer_loss_and_grad

from .bands import smoothed_loss

PEAK_LEARNING_RATE = 5e-3
SIMPLE_SCALE = 0.5
"""What the simple loss counts: icefall's recipes behind their warm-up."""
SIMPLE = "simple.am", "simple.lm"


def parameters_with_simple(rng: np.random.Generator, dtype=np.float32) -> Arrays:
    """Random parameters of the network, and of a layer to the ids behind encoder and predictor each."""
    parameters = initial_parameters(rng, dtype=dtype)
    H = parameters["output.weight"].shape[1]
    for name in SIMPLE:
        weight = rng.standard_normal((NUM_LABELS, H)) / np.sqrt(H)
        parameters |= {f"{name}.weight": weight.astype(dtype), f"{name}.bias": np.zeros(NUM_LABELS, dtype)}
    return parameters


def simple_logits(parameters: Arrays, encoder, predictor):
    """Logits (B, T, V) and (B, U+1, V) of the simple loss."""
    return [
        rows @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]
        for name, rows in zip(SIMPLE, (encoder, predictor), strict=True)
    ]


def loss_and_grads(parameters: Arrays, strings: DigitStrings) -> tuple[float, Arrays]:
    """The mean loss over all alignments in nats a label, and gradients of its sum with the simple loss."""
    encoder, predictor, saved = forward(parameters, strings)
    integers = strings.targets, strings.encoder_lengths, strings.target_lengths
    share = encoder.dtype.type(1 / strings.target_lengths.sum())
    grad_loss = np.full(len(encoder), share)
    loss, grads = joint_transducer_loss_and_grad(
        encoder, predictor, parameters["output.weight"], parameters["output.bias"], *integers, grad_loss=grad_loss
    )
    _, *simple, _ = smoothed_loss(*simple_logits(parameters, encoder, predictor), *integers, blank=BLANK)
    found, into = {}, [grads.encoder, grads.predictor]
    for k, (name, rows, grad) in enumerate(zip(SIMPLE, (encoder, predictor), simple, strict=True)):
        grad = SIMPLE_SCALE * share * grad
        into[k] = into[k] + grad @ parameters[f"{name}.weight"]
        found[f"{name}.weight"] = np.tensordot(grad, rows, ((0, 1), (0, 1)))
        found[f"{name}.bias"] = grad.sum((0, 1))
    grads = grads._replace(encoder=into[0], predictor=into[1])
    return float(loss @ grad_loss), backward(parameters, saved, grads) | found


def checkpoints(
    scans: Scans,
    steps: list[int],
    batch: int,
    parameters: Arrays,
    rng: np.random.Generator,
    grads_of: Callable[[Arrays, DigitStrings], tuple[float, Arrays]] = loss_and_grads,
) -> Iterator[tuple[int, float, Arrays]]:
    """Train in place, and give (step, mean loss in nats a label since the last one, parameters) at some steps.

    `steps` ascend; the last one ends the training. The loss of step 0 is NaN. `grads_of` gives the mean loss of a
    batch and its gradients.
    """
    adam, losses = Adam(parameters), []
    for step in range(steps[-1] + 1):
        if step in steps:
            yield step, float(np.mean(losses)) if losses else np.nan, parameters
            losses = []
        strings = join_strings(scans, batch, rng, jitter=True)
        loss, grads = grads_of(parameters, strings)
        losses.append(loss)
        adam.step(grads, warmup_cosine(step, steps[-1], PEAK_LEARNING_RATE))
