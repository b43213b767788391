"""The encoder: convolutions over time, CTC after the last block and, if wanted, others; its gradient is written out.

Three modes: "none" has CTC after the last block only; "inter" also reads CTC logits off blocks in the middle (Lee and
Watanabe 2021, arXiv 2102.03216); "self" also feeds the probabilities of these back into the blocks above (Nozaki and
Komatsu 2021, arXiv 2104.02724). All CTC logits come from the same layer norm and the same linear layer.

Parameters and gradients are dicts of arrays with the same keys, in one real dtype: float32 to train, float64 to check
the gradients.
"""

from typing import NamedTuple

import numpy as np

from .layers import (
    depthwise_backward,
    depthwise_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    softmax,
    softmax_backward,
)

Arrays = dict[str, np.ndarray]

MODES = ("none", "inter", "self")


class Encoded(NamedTuple):
    """What the encoder returns.

    encoder : (B, T, H), zero past an utterance's end.
    ctc_logits : (B, T, V); past an utterance's end they hold the bias alone.
    intermediate_logits : one such array for each block read in the middle, () in mode "none".
    """

    encoder: np.ndarray
    ctc_logits: np.ndarray
    intermediate_logits: tuple[np.ndarray, ...]


class Saved(NamedTuple):
    """What `encoder_backward` needs: the input, which frames are real, what blocks, middle readings and head kept."""

    frames: np.ndarray
    real: np.ndarray
    blocks: list[tuple]
    readings: dict[int, tuple]
    head: tuple


def block_count(parameters: Arrays) -> int:
    """L, the number of blocks."""
    return sum(name.startswith("block.") and name.endswith(".kernel") for name in parameters)


def add_grads(grads: Arrays, name: str, weight: np.ndarray, bias: np.ndarray, *, kind: str = "weight") -> None:
    """Add the gradients of a layer to those that another use of it left in `grads`."""
    for key, grad in ((f"{name}.{kind}", weight), (f"{name}.bias", bias)):
        grads[key] = grads[key] + grad if key in grads else grad


def block_forward(parameters: Arrays, block: int, inputs: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Add to each frame a function of those around it: layer norm, depthwise convolution, linear, ReLU, linear."""
    name = f"block.{block}"
    normed, norm_saved = layer_norm_forward(inputs, parameters[f"{name}.norm.scale"], parameters[f"{name}.norm.bias"])
    normed *= real
    mixed = depthwise_forward(normed, parameters[f"{name}.kernel"])
    hidden = np.maximum(mixed @ parameters[f"{name}.up.weight"] + parameters[f"{name}.up.bias"], 0)
    change = hidden @ parameters[f"{name}.down.weight"] + parameters[f"{name}.down.bias"]
    return inputs + change, (norm_saved, normed, mixed, hidden)


def block_backward(
    parameters: Arrays, block: int, saved: tuple, real: np.ndarray, grad: np.ndarray, grads: Arrays
) -> np.ndarray:
    """The gradient of the block's inputs; those of its parameters go into `grads`."""
    name = f"block.{block}"
    norm_saved, normed, mixed, hidden = saved
    grad_hidden, *down = linear_backward(hidden, parameters[f"{name}.down.weight"], grad)
    add_grads(grads, f"{name}.down", *down)
    grad_mixed, *up = linear_backward(mixed, parameters[f"{name}.up.weight"], grad_hidden * (hidden > 0))
    add_grads(grads, f"{name}.up", *up)
    grad_normed, grads[f"{name}.kernel"] = depthwise_backward(normed, parameters[f"{name}.kernel"], grad_mixed)
    grad_inputs, *norm = layer_norm_backward(norm_saved, parameters[f"{name}.norm.scale"], grad_normed * real)
    add_grads(grads, f"{name}.norm", *norm, kind="scale")
    return grad + grad_inputs


def head_forward(parameters: Arrays, inputs: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple]:
    """The normed channels and their CTC logits."""
    normed, norm_saved = layer_norm_forward(inputs, parameters["norm.scale"], parameters["norm.bias"])
    normed *= real
    return normed, normed @ parameters["ctc.weight"] + parameters["ctc.bias"], (norm_saved, normed)


def head_backward(
    parameters: Arrays, saved: tuple, real: np.ndarray, grad_normed, grad_logits: np.ndarray | None, grads: Arrays
) -> np.ndarray:
    """The gradient of the head's inputs from those of its two outputs; those of its parameters are added to `grads`."""
    norm_saved, normed = saved
    if grad_logits is not None:
        through_logits, *ctc = linear_backward(normed, parameters["ctc.weight"], grad_logits)
        add_grads(grads, "ctc", *ctc)
        grad_normed = grad_normed + through_logits
    grad_inputs, *norm = layer_norm_backward(norm_saved, parameters["norm.scale"], grad_normed * real)
    add_grads(grads, "norm", *norm, kind="scale")
    return grad_inputs


def blocks_read(mode: str, L: int, intermediate: tuple[int, ...] | None) -> set[int]:
    """After how many blocks CTC logits are read in the middle."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, not {mode!r}")
    if mode == "none":
        return set()
    after = {L // 2} if intermediate is None else set(intermediate)
    for blocks in after:
        if not 1 <= blocks <= L:
            raise ValueError(f"intermediate holds {blocks}, outside 1..{L}")
    return after


def encoder_forward(
    parameters: Arrays,
    frames: np.ndarray,
    lengths: np.ndarray,
    *,
    mode: str,
    intermediate: tuple[int, ...] | None = None,
) -> tuple[Encoded, Saved]:
    """Encode a batch.

    Parameters
    ----------
    parameters : dict of arrays
    frames : (B, T, F)
        Anything may stand past an utterance's end.
    lengths : (B,) int
    mode : {"none", "inter", "self"}
    intermediate : tuple of int, optional
        CTC logits are read after so many blocks; by default after half of them. Without effect in mode "none".

    Returns
    -------
    encoded : Encoded
    saved : Saved
        For `encoder_backward`.
    """
    L = block_count(parameters)
    after = blocks_read(mode, L, intermediate)
    # Only convolutions see other frames, and each layer norm gives them zeros past an utterance's end, in any batch.
    real = (np.arange(frames.shape[1]) < lengths[:, None])[:, :, None]
    frames = np.where(real, frames, 0)
    hidden = frames @ parameters["input.weight"] + parameters["input.bias"]
    blocks, readings, intermediate_logits = [], {}, []
    for block in range(L):
        hidden, block_saved = block_forward(parameters, block, hidden, real)
        blocks.append(block_saved)
        if block + 1 in after:
            _, logits, head_saved = head_forward(parameters, hidden, real)
            intermediate_logits.append(logits)
            probabilities = softmax(logits) if mode == "self" else None
            readings[block] = (head_saved, probabilities)
            if mode == "self":
                hidden = hidden + probabilities @ parameters["feedback.weight"] + parameters["feedback.bias"]
    normed, ctc_logits, head_saved = head_forward(parameters, hidden, real)
    encoder = (normed @ parameters["encoder.weight"] + parameters["encoder.bias"]) * real
    return Encoded(encoder, ctc_logits, tuple(intermediate_logits)), Saved(frames, real, blocks, readings, head_saved)


def encoder_backward(
    parameters: Arrays,
    saved: Saved,
    grad_encoder: np.ndarray | None,
    grad_ctc_logits: np.ndarray | None = None,
    grad_intermediate: tuple[np.ndarray | None, ...] | None = None,
) -> Arrays:
    """The gradients of the encoder's parameters from those of its outputs.

    Parameters
    ----------
    parameters : dict of arrays
    saved : Saved
    grad_encoder : (B, T, H) or None
        None where there is no transducer, but a CTC model.
    grad_ctc_logits : (B, T, V), optional
        None without a CTC loss.
    grad_intermediate : tuple of (B, T, V) or None, optional
        In the order of `intermediate_logits`; None, or an entry None, where nothing reads them.

    Returns
    -------
    dict of arrays
        Those of the CTC layer are zero if no gradient reaches it; without `grad_encoder`, its layer has none.
    """
    frames, real, blocks, readings, head_saved = saved
    grads = {name: np.zeros_like(parameters[name]) for name in ("ctc.weight", "ctc.bias")}
    grad_readings = dict(zip(readings, grad_intermediate or [None] * len(readings), strict=True))
    grad_normed = np.zeros_like(head_saved[1])
    if grad_encoder is not None:
        grad_normed, *encoder = linear_backward(head_saved[1], parameters["encoder.weight"], grad_encoder * real)
        add_grads(grads, "encoder", *encoder)
    grad = head_backward(parameters, head_saved, real, grad_normed, grad_ctc_logits, grads)
    for block in reversed(range(len(blocks))):
        if block in readings:
            grad = reading_backward(parameters, readings[block], real, grad, grad_readings[block], grads)
        grad = block_backward(parameters, block, blocks[block], real, grad, grads)
    _, *inputs = linear_backward(frames, parameters["input.weight"], grad)
    add_grads(grads, "input", *inputs)
    return grads


def reading_backward(
    parameters: Arrays, saved: tuple, real: np.ndarray, grad: np.ndarray, grad_logits: np.ndarray | None, grads: Arrays
) -> np.ndarray:
    """The gradient of the block output that logits were read from, in addition to `grad` from the blocks above."""
    head_saved, probabilities = saved
    if probabilities is not None:
        grad_probabilities, *feedback = linear_backward(probabilities, parameters["feedback.weight"], grad)
        add_grads(grads, "feedback", *feedback)
        fed_back = softmax_backward(probabilities, grad_probabilities)
        grad_logits = fed_back if grad_logits is None else grad_logits + fed_back
    if grad_logits is None:
        return grad
    return grad + head_backward(parameters, head_saved, real, np.zeros_like(head_saved[1]), grad_logits, grads)
