"""Random parameters of the whole network: encoder, CTC layer, predictor, output layer."""

import numpy as np

from .encoder import MODES, Arrays
from .predictor import CONTEXT

EXPANSION = 2  # a block's inner linear layer is so many times as wide as its channels


def initial_parameters(
    rng: np.random.Generator,
    *,
    features: int,
    vocab_size: int,
    channels: int = 192,
    blocks: int = 6,
    width: int = 9,
    joint: int = 192,
    embedding: int = 64,
    mode: str = "none",
    dtype=np.float32,
) -> Arrays:
    """Random parameters.

    Parameters
    ----------
    rng : numpy.random.Generator
    features : int
        F, the values of a stacked frame.
    vocab_size : int
        V, the blank included.
    channels, blocks, width : int
        Of the encoder: C, L, and the frames that each block's convolution sees, an odd number.
    joint : int
        H.
    embedding : int
    mode : {"none", "inter", "self"}
        Only "self" has parameters of its own, drawn last: for one seed the others are the same in all modes.
    dtype : float32 or float64

    Returns
    -------
    dict of arrays
        `output.weight` (V, H) and `output.bias` (V,) are those that `lattice` takes; other weights are (inputs,
        outputs).
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, not {mode!r}")
    if width % 2 == 0:
        raise ValueError(f"width must be odd, not {width}")

    def normal(*shape: int, fan_in: int, gain: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * np.sqrt(gain / fan_in)).astype(dtype)

    def linear(name: str, inputs: int, outputs: int, gain: float = 1.0) -> Arrays:
        return {
            f"{name}.weight": normal(inputs, outputs, fan_in=inputs, gain=gain),
            f"{name}.bias": np.zeros(outputs, dtype),
        }

    def norm(name: str) -> Arrays:
        return {f"{name}.scale": np.ones(channels, dtype), f"{name}.bias": np.zeros(channels, dtype)}

    parameters = linear("input", features, channels)
    for block in range(blocks):
        name = f"block.{block}"
        parameters |= norm(f"{name}.norm")
        parameters[f"{name}.kernel"] = normal(width, channels, fan_in=width)
        # A ReLU halves the variance of what passes it; all blocks together add about as much as the input layer gave.
        parameters |= linear(f"{name}.up", channels, EXPANSION * channels, gain=2.0)
        parameters |= linear(f"{name}.down", EXPANSION * channels, channels, gain=1 / blocks)
    parameters |= norm("norm") | linear("ctc", channels, vocab_size) | linear("encoder", channels, joint)
    parameters["embedding"] = normal(vocab_size, embedding, fan_in=1)
    # At first the labels alone explain nothing: starting them small lets the sound be found sooner.
    parameters |= linear("predictor", CONTEXT * embedding, joint, gain=0.01)
    parameters["output.weight"] = normal(vocab_size, joint, fan_in=joint)
    parameters["output.bias"] = np.zeros(vocab_size, dtype)
    if mode == "self":
        # Of a network that knows nothing, the probabilities say nothing: they too start small.
        parameters["feedback.weight"] = normal(vocab_size, channels, fan_in=1, gain=0.01)
        parameters["feedback.bias"] = np.zeros(channels, dtype)
    return parameters
