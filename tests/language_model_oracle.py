"""The loss of a factorised transducer's internal language model. Imports neither package."""

import numpy as np

from tests.dropout_oracle import kept
from tests.joint_oracle import ACTIVATIONS
from tests.oracle import log_softmax


def internal_language_model_loss_and_grad(
    predictor,
    weight,
    bias,
    targets,
    target_lengths,
    *,
    blank=0,
    activation="tanh",
    dropout=None,
    grad_loss=None,
    dtype=np.float64,
):
    """Cross-entropy of each target under the softmax of all ids but the blank, with no encoder.

    A loss that is not finite has no gradient, or a gradient of NaN in the rows of its example.

    Returns
    -------
    loss : (B,) array
    gradients : (None, predictor, weight, bias), shaped like the inputs, 0 on padding, bias None if `bias` is
    """
    function, derivative = ACTIVATIONS[activation]
    weight = np.asarray(weight).astype(dtype)
    offset = np.zeros(len(weight), dtype) if bias is None else np.asarray(bias).astype(dtype)
    weight[blank], offset[blank] = 0, -np.inf
    loss, grad_predictor = np.zeros(len(targets), dtype), np.zeros(predictor.shape, dtype)
    grad_weight, grad_bias = np.zeros_like(weight), np.zeros_like(offset)
    for b, labels in enumerate(target_lengths):
        u, own = np.arange(labels), targets[b, :labels]
        before = predictor[b, :labels].astype(dtype)
        mask = 1 if dropout is None else kept(dropout, b, 1, *before.shape)[0].astype(dtype)
        hidden = function(before) * mask
        log_probs = log_softmax(hidden @ weight.T + offset)
        loss[b] = -log_probs[u, own].sum()
        grad_logits = np.exp(log_probs)
        grad_logits[u, own] -= 1
        if np.isposinf(loss[b]):
            grad_logits[...] = 0
        if np.isnan(loss[b]):
            grad_logits[...] = np.nan
        grad_logits[:, blank] = 0
        grad_logits *= dtype(1 if grad_loss is None else grad_loss[b])
        grad_predictor[b, :labels] = (grad_logits @ weight) * derivative(before, function(before)) * mask
        grad_weight += grad_logits.T @ hidden
        grad_bias += grad_logits.sum(axis=0)
    return loss, (None, grad_predictor, grad_weight, None if bias is None else grad_bias)
