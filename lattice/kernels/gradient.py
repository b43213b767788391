"""d loss / d logits, row by row, from the posteriors of the two arcs and the parts of the normaliser.

The gradient of a row is weight * softmax, less each arc's weight at that arc's entry. The weight of an arc is its
posterior times the upstream gradient, and `weight` is the sum of the two: a row adds up to 0.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import exp, flush, store, typed
from .emissions import FOUR_WARPS, ONE, THREE, TWO, entry, load_four, maximum_of, normaliser, rest_of
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@register_jitable
def arc_weights(blank_posterior, label_posterior, label_factor, grad_loss):
    """Weights of a cell's two arcs in the gradient: posterior times upstream gradient, FastEmit on the label arc."""
    return blank_posterior * grad_loss, label_posterior * label_factor * grad_loss


@register_jitable
def softmax_entry(e, scale, smallest):
    """exp(logit - maximum) -> weight * softmax, 0 where that would be subnormal; `smallest` is tiny / |scale|."""
    # Asked before the product, because a subnormal number is slow to make.
    return (typed(0, e) if e < smallest else e) * scale


@register_jitable
def arc_entry(e, rest, arc_weight, other_weight, tiny):
    """(arc_weight + other_weight) * p - arc_weight for the entry of an arc, p = e / (1 + rest).

    Where p is near 1 the difference would keep no digits, so 1 - p is formed from the rest.
    """
    one = typed(1, e)
    # 1 - e is exact for e from 1/2 to 1, and 1 - p = (rest + (1 - e)) / (1 + rest).
    return flush((other_weight * e - arc_weight * (rest + (one - e))) / (one + rest), tiny)


@register_jitable
def gradient_row(
    source, bias, target, blank_id, label_id, blank_weight, label_weight, maximum, rest, anew, tiny, scratch
):
    """target[v] = weight * softmax[v] - blank_weight [v is blank] - label_weight [v is label]; source may be target.

    Entries that would be subnormal are dropped before they are made. All three rows are (V,). `scratch` is apart from
    the other two, so the loops vectorise; behind a row that is not all 0 it holds exp(logit - maximum).
    """
    weight = blank_weight + label_weight
    # A NaN is not below tiny: it fills the row.
    if abs(weight) < tiny:
        target[:] = 0
        return
    if bias.shape[0]:
        for v in range(source.shape[0]):
            scratch[v] = source[v] + bias[v]
    else:
        scratch[:] = source
    # The caller's maximum and rest belong to other roundings of these logits.
    if anew:
        maximum = maximum_of(scratch)
    for v in range(source.shape[0]):
        scratch[v] = exp(scratch[v] - maximum)
    if anew:
        rest = rest_of(scratch)
    scale = weight / (typed(1, rest) + rest)
    smallest = tiny / abs(scale)
    for v in range(target.shape[0]):
        target[v] = softmax_entry(scratch[v], scale, smallest)
    # From the scratch row, for the source may be gone.
    target[blank_id] = arc_entry(scratch[blank_id], rest, blank_weight, label_weight, tiny)
    if label_id >= 0:
        target[label_id] = arc_entry(scratch[label_id], rest, label_weight, blank_weight, tiny)


@cpu_sweep
def gradient_cpu(
    begin, end, source, target, row, bias, label_id, owner, blank_id, blank_posterior, label_posterior, maximum,
    rest, anew, label_factor, grad_loss, tiny,
):  # fmt: skip
    scratch = np.empty(source.shape[1], source.dtype)  # (V,)
    for i in range(begin, end):
        logits, grad, own = source[row[i]], target[row[i]], label_id[i]  # rows (V,), maybe of the same memory
        blank_weight, label_weight = arc_weights(
            blank_posterior[i], label_posterior[i], label_factor, grad_loss[owner[i]]
        )
        gradient_row(
            logits, bias, grad, blank_id, own, blank_weight, label_weight, maximum[i], rest[i], anew, tiny, scratch
        )


@register_jitable
def share_of(logit, maximum, scale, smallest):
    """A logit -> weight * softmax, by the exponential of a GPU."""
    return softmax_entry(math.exp(logit - maximum), scale, smallest)


@register_jitable
def spread_row(source, bias, biased, target, r, lane, maximum, scale, smallest):
    """Write a lane's part of weight * softmax into row r; `biased` is a constant at each call, so no loop tests it.

    Entry v is read and written by the lane v % 32, so source and target may be one array without a barrier.
    """
    V = source.shape[1]
    whole = V - V % FOUR_WARPS
    for begin in range(0, whole, FOUR_WARPS):
        # All four loads stand before the stores: the target may be the source, so the compiler must keep their order.
        v = np.uint64(begin + lane)
        a, b, c, d = load_four(source, bias, biased, r, v)
        store(target, r, v, share_of(a, maximum, scale, smallest))
        store(target, r, v + ONE, share_of(b, maximum, scale, smallest))
        store(target, r, v + TWO, share_of(c, maximum, scale, smallest))
        store(target, r, v + THREE, share_of(d, maximum, scale, smallest))
    for v in range(whole + lane, V, WARP):
        store(target, r, v, share_of(entry(source, bias, biased, r, v), maximum, scale, smallest))


@cuda_kernel
def gradient_cuda(
    source, target, row, bias, label_id, owner, blank_id, blank_posterior, label_posterior, maximum, rest, anew,
    label_factor, grad_loss, tiny,
):  # fmt: skip
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, r, biased = cuda.threadIdx.x % WARP, row[i], bias.shape[0] > 0
    blank_weight, label_weight = arc_weights(blank_posterior[i], label_posterior[i], label_factor, grad_loss[owner[i]])
    weight = blank_weight + label_weight
    if abs(weight) < tiny:
        for v in range(lane, source.shape[1], WARP):
            store(target, r, v, typed(0, weight))
        return  # the whole warp, for the weight is the same in all lanes: none waits in the shuffles below
    # In locals, because a store may change what an array holds, for all the compiler knows.
    highest, own, others = maximum[i], label_id[i], rest[i]
    if anew:
        highest, others = normaliser(source, bias, r, lane, weight)
    scale = weight / (typed(1, weight) + others)
    smallest = tiny / abs(scale)
    # The lanes that read and write these two entries in `spread_row` set them too, so no lane waits for another.
    sets_blank, sets_label = lane == blank_id % WARP, own >= 0 and lane == own % WARP
    at_blank, at_label = typed(0, weight), typed(0, weight)
    # Made before the row is written, for the source may be the target.
    if sets_blank:
        e = math.exp(entry(source, bias, biased, r, blank_id) - highest)
        at_blank = arc_entry(e, others, blank_weight, label_weight, tiny)
    if sets_label:
        e = math.exp(entry(source, bias, biased, r, own) - highest)
        at_label = arc_entry(e, others, label_weight, blank_weight, tiny)
    if biased:
        spread_row(source, bias, True, target, r, lane, highest, scale, smallest)
    else:
        spread_row(source, bias, False, target, r, lane, highest, scale, smallest)
    if sets_blank:
        store(target, r, blank_id, at_blank)
    if sets_label:
        store(target, r, own, at_label)


def gradient(
    source, target, row, bias, label_id, owner, blank_id, blank_posterior, label_posterior, maximum, rest,
    fastemit_lambda, grad_loss, *, anew,
):  # fmt: skip
    """Write the gradient rows of a run of cells.

    Parameters
    ----------
    source, target : (rows, V) float32 or float64, on a GPU float16 and bfloat16 too
        Logits, and where the gradients go, which may be the same array. Entries that would be subnormal become 0.
    row : (n,) int64
        The row of each cell, in both; no row stands twice.
    bias : (V,) or (0,)
        Added to the logits as they are read.
    label_id, owner : (n,) int32
        Position of the label in the row, or -1; the example, for `grad_loss`.
    blank_id : int
        Position of the blank in the row.
    blank_posterior, label_posterior, maximum, rest : (n,)
        Posteriors of the two arcs, and the parts of the normaliser as `emit` fills them.
    fastemit_lambda : float
        The label arc counts 1 + fastemit_lambda times in the gradient (Yu et al. 2021).
    grad_loss : (examples,)
        Upstream gradients, in the dtype of the logits.
    anew : bool
        The logits come from another matrix product than `rest`: each row is normalised by its own sum. A product over
        other rows rounds otherwise, and exp(logit - maximum) / (1 + rest) would be off by eps times the logit.
    """
    real = rest.dtype.type
    # Typed: a Python float would turn the arithmetic of a float32 kernel into float64.
    label_factor, tiny = real(1 + fastemit_lambda), np.finfo(real).tiny
    cells = (label_id, owner, blank_id, blank_posterior, label_posterior, maximum, rest)
    arguments = (source, target, row, bias, *cells, anew, label_factor, grad_loss, tiny)
    if on_host(source):
        sweep(gradient_cpu, len(label_id), *arguments, work=len(label_id) * source.shape[1])
    else:
        by_warp(gradient_cuda, len(label_id), *arguments)
