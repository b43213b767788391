"""Layers of the encoder as plain functions of arrays, each with its gradient written out.

A forward function returns its output and what its backward function needs.
"""

import numpy as np

NORM_EPSILON = 1e-5


def layer_norm_forward(inputs: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Give each frame mean 0 and variance 1 over its channels, then a learned scale and bias (Ba et al. 2016)."""
    centred = inputs - inputs.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + inputs.dtype.type(NORM_EPSILON))
    normed = centred * inverse
    return normed * scale + bias, (normed, inverse)


def layer_norm_backward(saved: tuple, scale: np.ndarray, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of the inputs, the scale and the bias."""
    normed, inverse = saved
    channels = grad.shape[-1]
    grad_scale = (grad * normed).reshape(-1, channels).sum(axis=0)
    grad_bias = grad.reshape(-1, channels).sum(axis=0)
    grad_normed = grad * scale
    # The mean and the variance were made of the inputs too.
    through_mean = grad_normed.mean(axis=-1, keepdims=True)
    through_variance = normed * (grad_normed * normed).mean(axis=-1, keepdims=True)
    return (grad_normed - through_mean - through_variance) * inverse, grad_scale, grad_bias


def pad_frames(inputs: np.ndarray, width: int) -> np.ndarray:
    """Zeros before and after each utterance, for a window of `width` frames around every frame."""
    return np.pad(inputs, ((0, 0), (width // 2, width // 2), (0, 0)))


def depthwise_forward(inputs: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve each channel over time with its own kernel.

    Parameters
    ----------
    inputs : (B, T, C)
    kernel : (width, C)
        `width` is odd.

    Returns
    -------
    (B, T, C)
        The backward function needs the inputs alone.
    """
    T = inputs.shape[1]
    padded = pad_frames(inputs, len(kernel))
    outputs = np.zeros_like(inputs)
    for k, tap in enumerate(kernel):
        outputs += padded[:, k : k + T] * tap
    return outputs


def depthwise_backward(inputs: np.ndarray, kernel: np.ndarray, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of the inputs and of the kernel."""
    T = inputs.shape[1]
    padded, grad_padded = pad_frames(inputs, len(kernel)), pad_frames(grad, len(kernel))
    grad_inputs = np.zeros_like(inputs)
    grad_kernel = np.empty_like(kernel)
    for k in range(len(kernel)):
        grad_kernel[k] = np.einsum("btc,btc->c", padded[:, k : k + T], grad)
        grad_inputs += grad_padded[:, k : k + T] * kernel[-1 - k]
    return grad_inputs, grad_kernel


def linear_backward(
    inputs: np.ndarray, weight: np.ndarray, grad: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of the inputs, weight and bias of `inputs @ weight + bias`."""
    rows = grad.reshape(-1, grad.shape[-1])
    grad_weight = inputs.reshape(len(rows), -1).T @ rows
    return (rows @ weight.T).reshape(inputs.shape), grad_weight, rows.sum(axis=0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def softmax_backward(probabilities: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """The gradient of the logits."""
    return probabilities * (grad - (grad * probabilities).sum(axis=-1, keepdims=True))
