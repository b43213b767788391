"""activation(encoder + predictor) for a tile of cells, and its transpose.

The transpose is split over columns: each thread walks all cells of the tile in order, so the sums over cells come out the same
whatever the number of threads, without atomics.
"""

import math

from numba.extending import register_jitable

from .cells import exp, typed
from .launch import cpu_sweep, sweep

ACTIVATIONS = {"tanh": 0, "relu": 1, "identity": 2}


@register_jitable
def tanh(x):
    """tanh by the exponential of cells.py, so that the loop over H vectorises; absolute error about 1 ulp of 1."""
    one = typed(1, x)
    e = exp(-abs(x + x))
    return math.copysign((one - e) / (one + e), x)


@register_jitable
def activate_row(activation, encoder, predictor, hidden):
    if activation == 0:
        for h in range(hidden.shape[0]):
            hidden[h] = tanh(encoder[h] + predictor[h])
    elif activation == 1:
        for h in range(hidden.shape[0]):
            x = encoder[h] + predictor[h]
            hidden[h] = typed(0, x) if x < 0 else x
    else:
        for h in range(hidden.shape[0]):
            hidden[h] = encoder[h] + predictor[h]


@cpu_sweep
def hidden_cpu(begin, end, activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    for i in range(begin, end):
        activate_row(activation, encoder[encoder_row[frame[i]]], predictor[predictor_row[slot[i]]], hidden[i])


def compute_hidden(activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    """Fill the hidden vectors of a tile.

    Parameters
    ----------
    activation : int
        A value of `ACTIVATIONS`.
    encoder, predictor : (rows, H)
    encoder_row, predictor_row : (frames,) int64, (slots,) int64
        The rows of the group's frames and of its label positions.
    frame, slot : (n,) int64
        Frame and label position of each cell.
    hidden : (n, H)
        Filled here.
    """
    sweep(
        hidden_cpu, len(hidden), activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden,
        work=4 * hidden.size,
    )  # fmt: skip


@register_jitable
def through(activation, hidden, grad_hidden):
    """Gradient before the activation, from the gradient behind it and the activation's value."""
    if activation == 0:
        return grad_hidden - grad_hidden * hidden * hidden
    if activation == 1 and hidden <= 0:
        return typed(0, grad_hidden)
    return grad_hidden


@register_jitable
def spread(activation, hidden, grad_hidden, to_encoder, to_predictor):
    for h in range(hidden.shape[0]):
        x = through(activation, hidden[h], grad_hidden[h])
        to_encoder[h] += x
        to_predictor[h] += x


@cpu_sweep
def hidden_transpose_cpu(begin, end, activation, hidden, grad_hidden, frame, slot, grad_encoder, grad_predictor):
    for i in range(hidden.shape[0]):
        to_encoder = grad_encoder[frame[i], begin:end]
        to_predictor = grad_predictor[slot[i], begin:end]
        if activation == 0:
            spread(0, hidden[i, begin:end], grad_hidden[i, begin:end], to_encoder, to_predictor)
        elif activation == 1:
            spread(1, hidden[i, begin:end], grad_hidden[i, begin:end], to_encoder, to_predictor)
        else:
            spread(2, hidden[i, begin:end], grad_hidden[i, begin:end], to_encoder, to_predictor)


def hidden_transpose(activation, hidden, grad_hidden, frame, slot, grad_encoder, grad_predictor):
    """Add the gradient of a tile's hidden vectors to the rows they were made of.

    Parameters
    ----------
    activation : int
    hidden, grad_hidden : (n, H)
    frame, slot : (n,) int64
    grad_encoder, grad_predictor : (frames, H), (slots, H)
        Added to, cell by cell in order.
    """
    sweep(
        hidden_transpose_cpu, hidden.shape[1], activation, hidden, grad_hidden, frame, slot, grad_encoder, grad_predictor,
        work=2 * hidden.size,
    )  # fmt: skip
