"""The predictor: the last two labels embedded, and a linear layer; its gradient is written out."""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csc_array

from .encoder import Arrays
from .layers import linear_backward
from .units import BLANK

CONTEXT = 2  # the predictor sees the last two labels


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
    return embedded @ weight + parameters["predictor.bias"], (contexts, embedded)


def sum_by_id(ids: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Add up the rows of each id: (N,) ids and (N, E) rows to (count, E)."""
    # A product with a matrix of one 1 a column: many times faster than an indexed addition, and in a fixed order.
    ones = csc_array((np.ones(len(ids), rows.dtype), ids, np.arange(len(ids) + 1)), shape=(count, len(ids)))
    return ones @ rows


def predictor_backward(parameters: Arrays, saved: tuple, grad_predictor: np.ndarray) -> Arrays:
    """The gradients of the predictor's parameters from that of its output, (..., H)."""
    contexts, embedded = saved
    grad_embedded, grad_weight, grad_bias = linear_backward(embedded, parameters["predictor.weight"], grad_predictor)
    embedding = parameters["embedding"]
    return {
        "embedding": sum_by_id(contexts.reshape(-1), grad_embedded.reshape(contexts.size, -1), len(embedding)),
        "predictor.weight": grad_weight,
        "predictor.bias": grad_bias,
    }


def decoding_predictor(parameters: Arrays) -> Callable:
    """The predictor as the decoders of `lattice` call it.

    Returns
    -------
    predict : callable
        `predict(labels (N,), state) -> (predictor (N, H), state)`. A state is a tuple of one array, the last two labels
        (N, 2); None stands for two blanks.
    """

    def predict(labels: np.ndarray, state: tuple[np.ndarray] | None) -> tuple[np.ndarray, tuple[np.ndarray]]:
        contexts = np.full((len(labels), CONTEXT), BLANK) if state is None else state[0]
        contexts = np.column_stack((contexts[:, 1:], labels))
        return predictor_forward(parameters, contexts)[0], (contexts,)

    return predict
