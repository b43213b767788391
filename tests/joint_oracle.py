"""The joint network by the plain chain rule over dense logits, for any loss of logits. Imports neither package."""

import numpy as np
from scipy.special import expit, ndtr

from tests.dropout_oracle import kept
from tests.oracle import loss_and_grad, row_of


def sigmoid(x):
    # In float64, because a ratio of two numbers of float32 would err by more than a function of float32 has to.
    return expit(np.float64(x)).astype(x.dtype)


def normal_share(x):
    return ndtr(np.float64(x)).astype(x.dtype)


def bell(x):
    return np.exp(-(x**2) / 2) / x.dtype.type(np.sqrt(2 * np.pi))


def leak(x):
    return np.where(x < 0, x * x.dtype.type(0.01), x)


ACTIVATIONS = {  # name: (function, derivative as a function of the preactivation and of the activation's value)
    "tanh": (np.tanh, lambda x, y: 1 - y**2),
    "relu": (lambda x: np.maximum(x, 0), lambda x, y: (y > 0).astype(y.dtype)),
    "identity": (lambda x: x, lambda x, y: np.ones_like(y)),
    "sigmoid": (sigmoid, lambda x, y: y * (1 - y)),
    "leaky_relu": (leak, lambda x, y: np.where(y > 0, 1, 0.01).astype(y.dtype)),
    "gelu": (lambda x: x * normal_share(x), lambda x, y: normal_share(x) + x * bell(x)),
    "silu": (lambda x: x * sigmoid(x), lambda x, y: sigmoid(x) * (1 + x * sigmoid(-x))),
}

ROUNDED_OPERANDS: set[str] = set()
"""Weight dtypes to which the device under test rounds the operands of its products. The naive joint does so too."""


def vocabulary_rows(vocabulary, vocabulary_lengths, rows, size):
    """The ids that each example's softmax runs over."""
    if vocabulary is None:
        return [np.arange(size)] * rows
    if vocabulary_lengths is not None:
        return [ids[:length] for ids, length in zip(vocabulary, vocabulary_lengths, strict=True)]
    return [ids[: list(ids).index(-1)] if -1 in ids else ids for ids in vocabulary]


def joint_loss_and_grad(
    encoder,
    predictor,
    weight,
    bias,
    targets,
    encoder_lengths,
    target_lengths,
    *,
    blank=0,
    activation="tanh",
    topology="rnnt",
    vocabulary=None,
    vocabulary_lengths=None,
    bounds=None,
    encoder_index=None,
    dropout=None,
    fastemit_lambda=0.0,
    grad_loss=None,
    dtype=np.float64,
):
    """The joint network and its loss over dense logits, by the chain rule; returns what `through_joint` does."""

    def of_logits(n, logits, labels, blank):
        return loss_and_grad(
            logits,
            labels,
            blank=blank,
            topology=topology,
            bounds=row_of(bounds, n),
            fastemit_lambda=fastemit_lambda,
            grad_loss=1 if grad_loss is None else grad_loss[n],
            dtype=dtype,
        )

    return through_joint(
        of_logits,
        *(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths),
        blank=blank,
        activation=activation,
        vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths,
        encoder_index=encoder_index,
        dropout=dropout,
        dtype=dtype,
    )


def through_joint(
    of_logits,
    encoder,
    predictor,
    weight,
    bias,
    targets,
    encoder_lengths,
    target_lengths,
    *,
    blank=0,
    activation="tanh",
    vocabulary=None,
    vocabulary_lengths=None,
    encoder_index=None,
    dropout=None,
    dtype=np.float64,
):
    """A loss of logits as one of encoder, predictor and output layer, with the gradients that the chain rule gives.

    Parameters
    ----------
    of_logits : callable
        ``of_logits(n, logits, labels, blank) -> (loss, grad_logits)`` of example n, ids as positions in its vocabulary.

    Returns
    -------
    loss : (N,) array
    gradients : (encoder, predictor, weight, bias), shaped like the inputs, 0 on padding, bias None if `bias` is
    """
    function, derivative = ACTIVATIONS[activation]
    stored = np.asarray(weight).dtype
    rounds = dtype == np.float32 and stored.name in ROUNDED_OPERANDS

    def operand(x):
        return x.astype(stored).astype(dtype) if rounds else x

    weight = np.asarray(weight).astype(dtype)
    offset = np.zeros(len(weight), dtype) if bias is None else np.asarray(bias).astype(dtype)
    rows = range(len(targets)) if encoder_index is None else encoder_index
    ids_of = vocabulary_rows(vocabulary, vocabulary_lengths, len(targets), len(weight))
    loss = np.zeros(len(targets), dtype)
    grad_encoder, grad_predictor = np.zeros(encoder.shape, dtype), np.zeros(predictor.shape, dtype)
    grad_weight, grad_bias = np.zeros_like(weight), np.zeros_like(offset)
    for n, row in enumerate(rows):
        frames, labels, ids = encoder_lengths[n], target_lengths[n], ids_of[n]
        local = {int(v): position for position, v in enumerate(ids)}
        before = encoder[row, :frames, None].astype(dtype) + predictor[n, None, : labels + 1].astype(dtype)
        mask = np.ones_like(before) if dropout is None else kept(dropout, n, *before.shape).astype(dtype)
        hidden = operand(function(before) * mask)
        loss[n], grad_logits = of_logits(
            n,
            hidden @ weight[ids].T + offset[ids],
            [local[int(v)] for v in targets[n, :labels]],
            local[blank % len(weight)],
        )
        grad_logits = operand(grad_logits)
        # Of what is dropped the mask is 0, whatever the value is.
        value = hidden / np.where(mask > 0, mask, 1)
        grad_before = (grad_logits @ weight[ids]) * operand(derivative(before, value)) * mask
        grad_encoder[row, :frames] += grad_before.sum(axis=1)
        grad_predictor[n, : labels + 1] += grad_before.sum(axis=0)
        grad_weight[ids] += np.einsum("tuv,tuh->vh", grad_logits, hidden)
        grad_bias[ids] += grad_logits.sum(axis=(0, 1))
    return loss, (grad_encoder, grad_predictor, grad_weight, None if bias is None else grad_bias)
