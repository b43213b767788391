"""d loss / d logits, row by row, from the posteriors of the two arcs and the parts of the normaliser.

The gradient of a row is weight * softmax, less each arc's weight at that arc's entry. The weight of an arc is its
posterior times the upstream gradient, and `weight` is the sum of the two: a row adds up to 0. With `hat` the blank has
a head of its own (hat.py). The softmax is then that of the other entries, and its weight is the label arc's.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, NEGLIGIBLE, exp, flushed_product, product_on_gpu, put, typed
from .gradient_entries import arc_entry, arc_weights, beside, beside_label, softmax_weight
from .hat import blank_entry
from .lanes import (
    entry,
    first_behind,
    first_of,
    half_rounds,
    last_four,
    load_eight,
    put_eight,
    put_last_four,
    whole_rounds,
)
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .normaliser import maximum_of, rest_of


@register_jitable
def weigh_row(source, bias, target, out, weight, maximum, rest, anew, tiny, scratch):
    """target[v] = weight * softmax[v], without entry `out` if that is at least 0; returns the row's rest.

    Entries below `tiny` are dropped before they are made. All three rows are (V,), and source may be target. `scratch`
    is apart from the other two, so the loops vectorise; behind them it holds exp(logit - maximum).
    """
    if bias.shape[0]:
        for v in range(source.shape[0]):
            scratch[v] = source[v] + bias[v]
    else:
        scratch[:] = source
    if out >= 0:
        scratch[out] = typed(CLOSED, tiny)
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
        target[v] = flushed_product(scratch[v], scale, smallest)
    return rest


@register_jitable
def gradient_row(
    source, bias, target, blank_id, label_id, blank_weight, label_weight, maximum, rest, hat, anew, tiny, scratch
):
    """target[v] = weight * softmax[v] - blank_weight [v is blank] - label_weight [v is label]; rows as in `weigh_row`.

    Behind a row that is not all 0, `scratch` holds exp(logit - maximum).
    """
    weight, blank_logit = softmax_weight(hat, blank_weight, label_weight), source[blank_id]
    if bias.shape[0]:
        blank_logit += bias[blank_id]
    # A NaN is not below tiny: it fills the row.
    if abs(weight) < tiny:
        target[:] = 0
        if hat:
            target[blank_id] = blank_entry(blank_logit, blank_weight, label_weight, tiny)
        return
    rest = weigh_row(source, bias, target, blank_id if hat else -1, weight, maximum, rest, anew, tiny, scratch)
    total = typed(1, rest) + rest
    # From the scratch row, for the source may be gone.
    if hat:
        target[blank_id] = blank_entry(blank_logit, blank_weight, label_weight, tiny)
    else:
        e = scratch[blank_id]
        target[blank_id] = arc_entry(e, beside(e, rest), total, blank_weight, label_weight, tiny)
    if label_id >= 0:
        e = scratch[label_id]
        target[label_id] = arc_entry(e, beside(e, rest), total, label_weight, beside_label(hat, blank_weight), tiny)


@cpu_sweep
def gradient_cpu(
    begin, end, source, target, row, bias, label_id, owner, blank_id, blank_posterior, label_posterior, maximum,
    rest, hat, anew, label_factor, grad_loss, tiny,
):  # fmt: skip
    scratch = np.empty(source.shape[1], source.dtype)  # (V,)
    for i in range(begin, end):
        logits, grad, own = source[row[i]], target[row[i]], label_id[i]  # rows (V,), maybe of the same memory
        blank_weight, label_weight = arc_weights(
            blank_posterior[i], label_posterior[i], label_factor, grad_loss[owner[i]]
        )
        gradient_row(
            logits, bias, grad, blank_id, own, blank_weight, label_weight, maximum[i], rest[i], hat, anew, tiny, scratch
        )


@register_jitable
def share_of(logit, maximum, scale, smallest):
    """A logit -> weight * softmax, by the exponential of a GPU."""
    return product_on_gpu(math.exp(logit - maximum), scale, smallest)


@register_jitable
def shares_of(four, maximum, scale, smallest):
    """`share_of` of four logits."""
    a, b, c, d = four
    a, b = share_of(a, maximum, scale, smallest), share_of(b, maximum, scale, smallest)
    return a, b, share_of(c, maximum, scale, smallest), share_of(d, maximum, scale, smallest)


@register_jitable
def spread_row(source, bias, biased, target, lane, maximum, scale, smallest):
    """Write a lane's part of weight * softmax to a row (V,); `biased` as in `load_eight`.

    Entry v is read and written by the lane v % 32, so source and target may be one row without a barrier.
    """
    for k in range(whole_rounds(source)):
        # All loads stand before the stores: the target may be the source, so the compiler must keep their order.
        v = first_of(k, lane)
        first, second = load_eight(source, bias, biased, v)
        first, second = shares_of(first, maximum, scale, smallest), shares_of(second, maximum, scale, smallest)
        put_eight(target, v, first, second)
    for k in range(half_rounds(source)):
        v = first_behind(source, k, lane)
        put_last_four(target, v, shares_of(last_four(source, bias, biased, v), maximum, scale, smallest))


@register_jitable
def sum_of_four(four, base):
    a, b, c, d = four
    return (math.exp(a - base) + math.exp(b - base)) + (math.exp(c - base) + math.exp(d - base))


@register_jitable
def sum_row(row, bias, biased, lane, base):
    """The sum of exp(logit - base) over a lane's part of a row (V,)."""
    total = typed(0, base)
    for k in range(whole_rounds(row)):
        first, second = load_eight(row, bias, biased, first_of(k, lane))
        total += sum_of_four(first, base) + sum_of_four(second, base)
    for k in range(half_rounds(row)):
        total += sum_of_four(last_four(row, bias, biased, first_behind(row, k, lane)), base)
    return total


@register_jitable
def sum_in_all_lanes(row, bias, lane, base):
    """The sum of exp(logit - base) over a row (V,), the same in all lanes; they must come here together."""
    total = sum_row(row, bias, True, lane, base) if bias.shape[0] else sum_row(row, bias, False, lane, base)
    for distance in (16, 8, 4, 2, 1):
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, distance)
    return total


@register_jitable
def gradient_by_warp(
    hat, logits, grad, bias, own, blank_id, blank_weight, label_weight, highest, others, anew, tiny
):  # fmt: skip
    """`gradient_row` of the warp that reads the row; `hat` is a constant at each call."""
    lane, biased = cuda.threadIdx.x % WARP, bias.shape[0] > 0
    weight, sets_blank = softmax_weight(hat, blank_weight, label_weight), lane == blank_id % WARP
    if abs(weight) < tiny:
        at_blank = typed(0, weight)
        # One lane reads the blank's logit and writes over it.
        if hat and sets_blank:
            blank_logit = entry(logits, bias, biased, blank_id)
            at_blank = blank_entry(blank_logit, blank_weight, label_weight, tiny)
        for v in range(lane, grad.shape[0], WARP):
            put(grad, v, at_blank if v == blank_id else typed(0, weight))
        return  # the whole warp, for the weight is the same in all lanes: none waits in the shuffles below
    blank_logit = entry(logits, bias, biased, blank_id)
    # exp(logit - highest) of the two arcs, made before the row is written, for the source may be the target.
    blank_e = typed(0, weight) if hat else math.exp(blank_logit - highest)
    label_e = math.exp(entry(logits, bias, biased, own) - highest) if own >= 0 else typed(0, weight)
    # The lanes that read and write these two entries in `spread_row` set them too, so no lane waits for another.
    sets_label = own >= 0 and lane == own % WARP
    # All lanes have read the two entries before one of them writes over them.
    cuda.syncwarp()
    if anew:
        # The arcs' own terms are kept apart: beside them the sum of the others would lose its digits in a certain row.
        if sets_blank:
            put(logits, blank_id, typed(CLOSED, weight))
        if sets_label:
            put(logits, own, typed(CLOSED, weight))
        others = sum_in_all_lanes(logits, bias, lane, highest)
        around_blank, around_label = others + label_e, others + blank_e
        total = others + (blank_e + label_e)
        total += total - total  # NaN where a logit is +inf, which `highest` may not tell
    else:
        around_blank, around_label = beside(blank_e, others), beside(label_e, others)
        total = typed(1, weight) + others
    scale = weight / total
    smallest = tiny / abs(scale)
    if biased:
        spread_row(logits, bias, True, grad, lane, highest, scale, smallest)
    else:
        spread_row(logits, bias, False, grad, lane, highest, scale, smallest)
    if sets_blank:
        if hat:
            put(grad, blank_id, blank_entry(blank_logit, blank_weight, label_weight, tiny))
        else:
            put(grad, blank_id, arc_entry(blank_e, around_blank, total, blank_weight, label_weight, tiny))
    if sets_label:
        put(grad, own, arc_entry(label_e, around_label, total, label_weight, beside_label(hat, blank_weight), tiny))


@register_jitable
def gradient_of_cell(
    hat, source, target, row, bias, label_id, owner, blank_id, blank_posterior, label_posterior, maximum, rest, anew,
    label_factor, grad_loss, tiny,
):  # fmt: skip
    i = cuda.grid(1) // WARP
    if i < row.shape[0]:
        weights = arc_weights(blank_posterior[i], label_posterior[i], label_factor, grad_loss[owner[i]])
        # In locals, because a store may change what an array holds, for all the compiler knows.
        highest, own, others = maximum[i], label_id[i], rest[i]
        gradient_by_warp(
            hat, source[row[i]], target[row[i]], bias, own, blank_id, *weights, highest, others, anew, tiny
        )


@cuda_kernel
def gradient_cuda(
    source, target, row, bias, label_id, owner, blank_id, blank_posterior, label_posterior, maximum, rest, anew,
    label_factor, grad_loss, tiny,
):  # fmt: skip
    posteriors = blank_posterior, label_posterior
    gradient_of_cell(
        False, source, target, row, bias, label_id, owner, blank_id, *posteriors, maximum, rest, anew, label_factor,
        grad_loss, tiny,
    )  # fmt: skip


@cuda_kernel
def gradient_hat_cuda(
    source, target, row, bias, label_id, owner, blank_id, blank_posterior, label_posterior, maximum, rest, anew,
    label_factor, grad_loss, tiny,
):  # fmt: skip
    posteriors = blank_posterior, label_posterior
    gradient_of_cell(
        True, source, target, row, bias, label_id, owner, blank_id, *posteriors, maximum, rest, anew, label_factor,
        grad_loss, tiny,
    )  # fmt: skip


def gradient(
    source, target, row, bias, label_id, owner, blank_id, blank_posterior, label_posterior, maximum, rest,
    fastemit_lambda, grad_loss, *, anew, hat=False,
):  # fmt: skip
    """Write the gradient rows of a run of cells.

    Parameters
    ----------
    source, target : (rows, V) float32 or float64, on a GPU float16 and bfloat16 too
        Logits, and where the gradients go, which may be the same array. Entries below 2**-100 become 0. Where `anew`, a
        GPU writes over the two arcs' logits.
    row : (n,) int64
        The row of each cell, in both; no row stands twice.
    bias : (V,) or (0,)
        Added to the logits as they are read.
    label_id, owner : (n,) int32
        Position of the label in the row, or -1; the example, for `grad_loss`.
    blank_id : int
        Position of the blank in the row.
    blank_posterior, label_posterior, maximum, rest : (n,)
        Posteriors of the two arcs, and the parts of the normaliser as `emit` fills them; where `anew`, of these logits
        but for rounding.
    fastemit_lambda : float
        The label arc counts 1 + fastemit_lambda times in the gradient (Yu et al. 2021).
    grad_loss : (examples,)
        Upstream gradients, in the dtype of the logits.
    anew : bool
        The logits come from another matrix product than `rest`: each row is normalised by its own sum. A product over
        other rows rounds otherwise, and exp(logit - maximum) / (1 + rest) would be off by eps times the logit.
    hat : bool
        As in `emit`.
    """
    real = rest.dtype.type
    # Typed: a Python float would turn the arithmetic of a float32 kernel into float64.
    label_factor, tiny = real(1 + fastemit_lambda), real(NEGLIGIBLE)
    cells = (label_id, owner, blank_id, blank_posterior, label_posterior, maximum, rest)
    rows, factors = (source, target, row, bias), (anew, label_factor, grad_loss, tiny)
    if on_host(source):
        sweep(gradient_cpu, len(label_id), *rows, *cells, hat, *factors, work=len(label_id) * source.shape[1])
    else:
        by_warp(gradient_hat_cuda if hat else gradient_cuda, len(label_id), *rows, *cells, *factors)
