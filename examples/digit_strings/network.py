"""The encoder and the predictor as plain functions of arrays, each with its gradient written out.

A forward function returns its output and what its backward function needs. Parameters and gradients are dicts of
arrays with the same keys, in one real dtype: float32 to train, float64 to check the gradients.
"""

import numpy as np

from lattice import JointGradients

from .strings import BLANK, NUM_LABELS, SIDE, DigitStrings

Arrays = dict[str, np.ndarray]

WIDTHS = (3, 3, 5, 7, 1)  # columns each layer sees; together 15: a whole digit and what stands on either side of it
CONTEXT = 2  # the predictor sees the last two labels


def initial_parameters(
    rng: np.random.Generator, *, channels: int = 64, joint: int = 64, embedding: int = 16, dtype=np.float32
) -> Arrays:
    """Random parameters of the encoder, the predictor and the output layer; `joint` is H."""

    def normal(*shape: int, fan_in: int, gain: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * np.sqrt(gain / fan_in)).astype(dtype)

    parameters = {}
    sizes = (SIDE, *[channels] * (len(WIDTHS) - 1), joint)
    for layer, (width, inputs, outputs) in enumerate(zip(WIDTHS, sizes[:-1], sizes[1:])):
        # A ReLU halves the variance of what passes it; the last layer has none.
        gain = 2.0 if layer < len(WIDTHS) - 1 else 1.0
        parameters[f"encoder.{layer}.weight"] = normal(width * inputs, outputs, fan_in=width * inputs, gain=gain)
        parameters[f"encoder.{layer}.bias"] = np.zeros(outputs, dtype)
    parameters["embedding"] = normal(NUM_LABELS, embedding, fan_in=1)
    # At first the labels alone explain nothing: starting them small lets the pixels be found sooner.
    parameters["predictor.weight"] = normal(CONTEXT * embedding, joint, fan_in=CONTEXT * embedding, gain=0.01)
    parameters["predictor.bias"] = np.zeros(joint, dtype)
    parameters["output.weight"] = normal(NUM_LABELS, joint, fan_in=joint)
    parameters["output.bias"] = np.zeros(NUM_LABELS, dtype)
    return parameters


def forward(parameters: Arrays, strings: DigitStrings) -> tuple[np.ndarray, np.ndarray, tuple]:
    """What the joint network takes of both networks, (B, T, H) and (B, U+1, H), and what `backward` needs."""
    encoder, encoder_saved = encoder_forward(parameters, strings.frames, strings.encoder_lengths)
    predictor, predictor_saved = predictor_forward(parameters, label_contexts(strings.targets))
    return encoder, predictor, (encoder_saved, predictor_saved)


def backward(parameters: Arrays, saved: tuple, grads: JointGradients) -> Arrays:
    """The gradients of all parameters from the gradients that the joint call returned."""
    encoder_saved, predictor_saved = saved
    return {
        **encoder_backward(parameters, encoder_saved, grads.encoder),
        **predictor_backward(parameters, predictor_saved, grads.predictor),
        "output.weight": grads.weight,
        "output.bias": grads.bias,
    }


def stack_windows(inputs: np.ndarray, width: int) -> np.ndarray:
    """Lay the `width` frames around each frame side by side: (B, T, C) to (B, T, width * C), zeros past the ends."""
    T = inputs.shape[1]
    padded = np.pad(inputs, ((0, 0), (width // 2, width // 2), (0, 0)))
    return np.concatenate([padded[:, k : k + T] for k in range(width)], axis=-1)


def stack_windows_backward(grad_windows: np.ndarray, width: int) -> np.ndarray:
    """Add each window's gradient back onto its frames: (B, T, width * C) to (B, T, C)."""
    B, T, stacked = grad_windows.shape
    half, C = width // 2, stacked // width
    grad_padded = np.zeros((B, T + 2 * half, C), grad_windows.dtype)
    for k in range(width):
        grad_padded[:, k : k + T] += grad_windows[:, :, k * C : (k + 1) * C]
    return grad_padded[:, half : half + T]


def encoder_forward(parameters: Arrays, frames: np.ndarray, encoder_lengths: np.ndarray) -> tuple[np.ndarray, list]:
    """Convolutions over the pixel columns, a ReLU after each but the last.

    Parameters
    ----------
    parameters : dict of arrays
    frames : (B, T, 8)
    encoder_lengths : (B,) int

    Returns
    -------
    encoder : (B, T, H)
        Zero past a string's end.
    saved : list
        For `encoder_backward`.
    """
    # Padded frames are set to zero after every layer: a string then sees the same zeros past its end in any batch.
    real = (np.arange(frames.shape[1]) < encoder_lengths[:, None])[:, :, None]
    saved = []
    hidden = frames * real
    for layer, width in enumerate(WIDTHS):
        windows = stack_windows(hidden, width)
        hidden = windows @ parameters[f"encoder.{layer}.weight"] + parameters[f"encoder.{layer}.bias"]
        passes = real & (hidden > 0) if layer < len(WIDTHS) - 1 else real
        hidden = hidden * passes
        saved.append((windows, passes))
    return hidden, saved


def encoder_backward(parameters: Arrays, saved: list, grad_encoder: np.ndarray) -> Arrays:
    """The gradients of the encoder's parameters from that of its output, (B, T, H)."""
    grads = {}
    grad = grad_encoder
    for layer in reversed(range(len(WIDTHS))):
        windows, passes = saved[layer]
        grad = grad * passes
        rows = grad.reshape(-1, grad.shape[-1])
        grads[f"encoder.{layer}.weight"] = windows.reshape(len(rows), -1).T @ rows
        grads[f"encoder.{layer}.bias"] = rows.sum(axis=0)
        if layer > 0:  # the pixels need no gradient
            grad = stack_windows_backward(grad @ parameters[f"encoder.{layer}.weight"].T, WIDTHS[layer])
    return grads


def label_contexts(targets: np.ndarray) -> np.ndarray:
    """The last two labels before each lattice row, oldest first: (B, U) to (B, U+1, 2), blank before the first."""
    history = np.pad(targets, ((0, 0), (CONTEXT, 0)), constant_values=BLANK)
    rows = targets.shape[1] + 1
    return np.stack([history[:, k : k + rows] for k in range(CONTEXT)], axis=-1)


def predictor_forward(parameters: Arrays, contexts: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Embed the last labels and pass them through a linear layer.

    Parameters
    ----------
    parameters : dict of arrays
    contexts : (..., 2) int
        (B, U+1, 2) in training, (N, 2) in decoding.

    Returns
    -------
    predictor : (..., H)
    saved : tuple
        For `predictor_backward`.
    """
    weight = parameters["predictor.weight"]
    embedded = parameters["embedding"][contexts].reshape(*contexts.shape[:-1], len(weight))
    predictor = embedded @ weight + parameters["predictor.bias"]
    return predictor, (contexts, embedded)


def predictor_backward(parameters: Arrays, saved: tuple, grad_predictor: np.ndarray) -> Arrays:
    """The gradients of the predictor's parameters from that of its output, (..., H)."""
    contexts, embedded = saved
    rows = grad_predictor.reshape(-1, grad_predictor.shape[-1])
    grad_embedded = rows @ parameters["predictor.weight"].T
    grad_embedding = np.zeros_like(parameters["embedding"])
    # A label occurs many times in a batch: a plain indexed += would keep only one of its gradients.
    np.add.at(grad_embedding, contexts.reshape(-1), grad_embedded.reshape(contexts.size, -1))
    return {
        "embedding": grad_embedding,
        "predictor.weight": embedded.reshape(len(rows), -1).T @ rows,
        "predictor.bias": rows.sum(axis=0),
    }
