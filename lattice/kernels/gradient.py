"""d loss / d logits, row by row, from the posteriors of the two arcs and the parts of the normaliser."""

import numpy as np
from numba.extending import register_jitable

from .cells import exp, flush, typed
from .launch import cpu_sweep, sweep


@register_jitable
def arc_weights(blank_posterior, label_posterior, label_factor, grad_loss):
    """Weights of a cell's two arcs in the gradient: posterior times upstream gradient, FastEmit on the label arc."""
    return blank_posterior * grad_loss, label_posterior * label_factor * grad_loss


@register_jitable
def gradient_row(source, bias, target, blank, label, blank_weight, label_weight, maximum, total, tiny, scratch):
    """target[v] = weight * softmax[v] - blank_weight [v is blank] - label_weight [v is label]; source may be target.

    Entries that would be subnormal are dropped before they are made. `scratch` is apart from both rows, so the loops vectorise.
    """
    weight = blank_weight + label_weight
    if abs(weight) < tiny:
        target[:] = 0
        return
    if bias.shape[0]:
        for v in range(source.shape[0]):
            scratch[v] = exp(source[v] + bias[v] - maximum)
    else:
        for v in range(source.shape[0]):
            scratch[v] = exp(source[v] - maximum)
    scale = weight / total
    smallest = tiny / abs(scale)
    for v in range(target.shape[0]):
        target[v] = (typed(0, total) if scratch[v] < smallest else scratch[v]) * scale
    target[blank] = flush(scratch[blank] * scale - blank_weight, tiny)
    if label >= 0:
        target[label] = flush(scratch[label] * scale - label_weight, tiny)


@cpu_sweep
def gradient_cpu(
    begin, end, source, target, row, bias, label, owner, blank, blank_posterior, label_posterior, maximum,
    total, label_factor, grad_loss, tiny,
):  # fmt: skip
    scratch = np.empty(source.shape[1], source.dtype)
    for i in range(begin, end):
        blank_weight, label_weight = arc_weights(blank_posterior[i], label_posterior[i], label_factor, grad_loss[owner[i]])
        gradient_row(
            source[row[i]], bias, target[row[i]], blank, label[i], blank_weight, label_weight, maximum[i], total[i],
            tiny, scratch,
        )  # fmt: skip


def gradient(
    source, target, row, bias, label, owner, blank, blank_posterior, label_posterior, maximum, total, fastemit_lambda,
    grad_loss,
):  # fmt: skip
    """Write the gradient rows of a run of cells.

    Parameters
    ----------
    source, target : (rows, V)
        Logits, and where the gradients go, which may be the same array. Entries below the smallest normal number become 0.
    row : (n,) int64
        The row of each cell, in both.
    bias : (V,) or (0,)
        Added to the logits as they are read.
    label, owner : (n,) int32
        Position of the label in the row, or -1; the example, for `grad_loss`.
    blank_posterior, label_posterior, maximum, total : (n,)
    fastemit_lambda : float
        The label arc counts 1 + fastemit_lambda times in the gradient (Yu et al. 2021).
    grad_loss : (examples,)
        Upstream gradients, in the dtype of the logits.
    """
    real = source.dtype.type
    sweep(
        gradient_cpu, len(label), source, target, row, bias, label, owner, blank, blank_posterior,
        label_posterior, maximum, total, real(1 + fastemit_lambda), grad_loss, np.finfo(real).tiny,
        work=len(label) * source.shape[1],
    )  # fmt: skip


@cpu_sweep
def clear_rows_cpu(begin, end, visited, rows):
    for i in range(begin, end):
        if not visited[i]:
            rows[i, :] = 0


def clear_rows(visited, rows):
    """Zero the rows (R, ...) that are not marked in `visited` (R,) uint8: padding, and cells no alignment can visit."""
    sweep(clear_rows_cpu, len(rows), visited, rows, work=rows.size)
