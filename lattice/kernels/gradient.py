"""d loss / d logits, row by row, from the posteriors of the two arcs and the parts of the normaliser."""

import numpy as np
from numba.extending import register_jitable

from .cells import exp, flush, store, typed
from .emissions import entry
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@register_jitable
def arc_weights(blank_posterior, label_posterior, label_factor, grad_loss):
    """Weights of a cell's two arcs in the gradient: posterior times upstream gradient, FastEmit on the label arc."""
    return blank_posterior * grad_loss, label_posterior * label_factor * grad_loss


@register_jitable
def softmax_entry(e, scale, smallest):
    """exp(logit - maximum) -> weight * softmax, 0 where that would be subnormal."""
    return (typed(0, e) if e < smallest else e) * scale


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
        target[v] = softmax_entry(scratch[v], scale, smallest)
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


@cuda_kernel
def gradient_cuda(
    source, target, row, bias, label, owner, blank, blank_posterior, label_posterior, maximum, total, label_factor, grad_loss,
    tiny,
):  # fmt: skip
    i = (cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x) // WARP
    if i >= row.shape[0]:
        return
    lane = cuda.threadIdx.x % WARP
    r, V = row[i], source.shape[1]
    blank_weight, label_weight = arc_weights(blank_posterior[i], label_posterior[i], label_factor, grad_loss[owner[i]])
    weight = blank_weight + label_weight
    if abs(weight) < tiny:
        for v in range(lane, V, WARP):
            store(target, r, v, typed(0, weight))
        return
    scale = weight / total[i]
    smallest = tiny / abs(scale)
    for v in range(lane, V, 4 * WARP):
        # All loads stand before the stores: source may be target, so the compiler must keep their order.
        a, b = exp(entry(source, bias, r, v) - maximum[i]), exp(entry(source, bias, r, v + WARP) - maximum[i])
        c, d = exp(entry(source, bias, r, v + 2 * WARP) - maximum[i]), exp(entry(source, bias, r, v + 3 * WARP) - maximum[i])
        put(target, r, v, a, scale, smallest, blank, blank_weight, label[i], label_weight, tiny)
        put(target, r, v + WARP, b, scale, smallest, blank, blank_weight, label[i], label_weight, tiny)
        put(target, r, v + 2 * WARP, c, scale, smallest, blank, blank_weight, label[i], label_weight, tiny)
        put(target, r, v + 3 * WARP, d, scale, smallest, blank, blank_weight, label[i], label_weight, tiny)


@register_jitable
def put(target, r, v, e, scale, smallest, blank, blank_weight, label, label_weight, tiny):
    if v < target.shape[1]:
        if v == blank:
            x = flush(e * scale - blank_weight, tiny)
        elif v == label:
            x = flush(e * scale - label_weight, tiny)
        else:
            x = softmax_entry(e, scale, smallest)
        store(target, r, v, x)


def gradient(
    source, target, row, bias, label, owner, blank, blank_posterior, label_posterior, maximum, total, fastemit_lambda,
    grad_loss,
):  # fmt: skip
    """Write the gradient rows of a run of cells.

    Parameters
    ----------
    source, target : (rows, V) float32 or float64, on a GPU float16 and bfloat16 too
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
    real = total.dtype.type
    arguments = (source, target, row, bias, label, owner, blank, blank_posterior, label_posterior, maximum, total,
                 real(1 + fastemit_lambda), grad_loss, np.finfo(real).tiny)  # fmt: skip
    if on_host(source):
        sweep(gradient_cpu, len(label), *arguments, work=len(label) * source.shape[1])
    else:
        by_warp(gradient_cuda, len(label), *arguments)
