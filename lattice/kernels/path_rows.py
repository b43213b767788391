"""Losses and gradient rows of the cells on a given path, and their sums over the path.

path_weights.py has the formula. With `hat` the blank has a head of its own, and the softmax is that of the other ids.
"""

import math

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .block import block_sum
from .cells import CLOSED, NEGLIGIBLE, exp, flush, store, typed
from .lanes import entry
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .normaliser import maximum_of, normaliser, sum_of
from .path_weights import path_entry, weigh, weigh_hat


@register_jitable
def arc_of(label_id, emits, blank_id, label_factor):
    """The id of the arc that a cell takes, and its factor in the loss; `emits` tells whether the arc is the label's."""
    return (label_id, label_factor) if emits else (blank_id, typed(1, label_factor))


@register_jitable
def path_row(source, bias, target, own, blank_id, hat, factor, smoothing, focal, grad_loss, tiny, scratch):
    """Write the gradient's row and return the loss in nats; rows are (V,), and source may be target.

    A row without an id for the arc's softmax has an infinite loss and a gradient of 0.
    """
    count, takes_blank = typed(source.shape[0] - 1, tiny), own == blank_id
    if bias.shape[0]:
        for v in range(source.shape[0]):
            scratch[v] = source[v] + bias[v]
    else:
        scratch[:] = source
    blank_logit = scratch[blank_id]
    if hat:
        scratch[blank_id] = typed(CLOSED, tiny)
    maximum = maximum_of(scratch)
    if maximum == typed(CLOSED, maximum):
        if not (hat and takes_blank):
            target[:] = 0
            return -maximum
        # The sigmoid needs no label. Here logit - maximum would be NaN.
        maximum = typed(0, maximum)
    for v in range(source.shape[0]):
        scratch[v] -= maximum
    at, others = scratch[own], typed(0, maximum)
    if smoothing > 0:
        scratch[own] = 0  # no term of the others' mean
        if hat:
            scratch[blank_id] = 0
        others = sum_of(scratch) / count
    # exp of it is 0, no term of the others' sum.
    scratch[own] = typed(CLOSED, maximum)
    if hat:
        scratch[blank_id] = typed(CLOSED, maximum)
    for v in range(source.shape[0]):
        scratch[v] = exp(scratch[v])
    rest, weight, at_blank = sum_of(scratch), factor * grad_loss, typed(0, maximum)
    numbers = (at, exp(at), rest, others, count, smoothing, focal, tiny)
    if hat:
        loss, scale, slope, inverse, uniform, taken, at_blank = weigh_hat(takes_blank, blank_logit, *numbers)
    else:
        loss, scale, slope, inverse, uniform, taken = weigh(*numbers)
    scale, slope, uniform = weight * scale, weight * slope, weight * uniform
    for v in range(target.shape[0]):
        target[v] = path_entry(scratch[v], scale, slope, inverse, uniform)
    target[own] = flush(-weight * taken, typed(NEGLIGIBLE, weight))
    if hat:
        target[blank_id] = flush(weight * at_blank, typed(NEGLIGIBLE, weight))
    return factor * loss


@cpu_sweep
def path_rows_cpu(
    begin, end, source, target, bias, label_id, emits, owner, blank_id, hat, label_factor, smoothing, focal, grad_loss,
    tiny, loss,
):  # fmt: skip
    scratch = np.empty(source.shape[1], source.dtype)  # (V,)
    for i in range(begin, end):
        own, factor = arc_of(label_id[i], emits[i], blank_id, label_factor)
        upstream = grad_loss[owner[i]]
        loss[i] = path_row(
            source[i], bias, target[i], own, blank_id, hat, factor, smoothing, focal, upstream, tiny, scratch
        )


@register_jitable
def sums_of_others(hat, source, bias, r, lane, own, blank_id, highest):
    """Sums of logit - highest and of their exponentials over the softmax without the arc's, in every lane."""
    logits, exponentials = typed(0, highest), typed(0, highest)
    for v in range(lane, source.shape[1], WARP):
        if v != own and not (hat and v == blank_id):
            x = entry(source[r], bias, bias.shape[0] > 0, v) - highest
            logits += x
            exponentials += math.exp(x)
    for distance in (16, 8, 4, 2, 1):
        logits += cuda.shfl_xor_sync(0xFFFFFFFF, logits, distance)
        exponentials += cuda.shfl_xor_sync(0xFFFFFFFF, exponentials, distance)
    return logits, exponentials


@register_jitable
def path_row_by_warp(
    hat, source, target, bias, label_id, emits, owner, blank_id, label_factor, smoothing, focal, grad_loss, tiny, loss
):  # fmt: skip
    """`path_row` of the warp that takes it; `hat` is a constant at each call."""
    r = cuda.grid(1) // WARP
    if r >= label_id.shape[0]:
        return
    lane, biased, V = cuda.threadIdx.x % WARP, bias.shape[0] > 0, source.shape[1]
    own, factor = arc_of(label_id[r], emits[r], blank_id, label_factor)
    # Only the maximum is used: the rest that `weigh` wants leaves out the arc's term, not the maximum's.
    if hat:
        highest, _ = normaliser(source[r], bias, lane, tiny, blank_id)
    else:
        highest, _ = normaliser(source[r], bias, lane, tiny)
    weight, closed = factor * grad_loss[owner[r]], highest == typed(CLOSED, tiny)
    blank_logit, at_blank = typed(0, tiny), typed(0, tiny)
    if hat:
        blank_logit = entry(source[r], bias, biased, blank_id)
        if closed and own == blank_id:
            # The sigmoid needs no label. Here logit - highest would be NaN.
            highest, closed = typed(0, tiny), False
    count, at = typed(V - 1, tiny), entry(source[r], bias, biased, own) - highest
    others, rest = sums_of_others(hat, source, bias, r, lane, own, blank_id, highest)
    # All lanes have read the arc's logit before one of them writes over it.
    cuda.syncwarp()
    numbers = (at, math.exp(at), rest, others / count, count, smoothing, focal, tiny)
    if hat:
        found, scale, slope, inverse, uniform, taken, at_blank = weigh_hat(own == blank_id, blank_logit, *numbers)
    else:
        found, scale, slope, inverse, uniform, taken = weigh(*numbers)
    if lane == 0:
        loss[r] = -highest if closed else factor * found
    # The same in all lanes, so the warp leaves as a whole.
    if closed:
        for v in range(lane, V, WARP):
            store(target, r, v, typed(0, tiny))
        return
    scale, slope, uniform = weight * scale, weight * slope, weight * uniform
    for v in range(lane, V, WARP):
        e = math.exp(entry(source[r], bias, biased, v) - highest)
        x = path_entry(e, scale, slope, inverse, uniform)
        if hat and v == blank_id:
            x = flush(weight * at_blank, typed(NEGLIGIBLE, weight))
        elif v == own:
            x = flush(-weight * taken, typed(NEGLIGIBLE, weight))
        store(target, r, v, x)


@cuda_kernel
def path_rows_cuda(
    source, target, bias, label_id, emits, owner, blank_id, label_factor, smoothing, focal, grad_loss, tiny, loss
):  # fmt: skip
    options = label_factor, smoothing, focal, grad_loss, tiny, loss
    path_row_by_warp(False, source, target, bias, label_id, emits, owner, blank_id, *options)


@cuda_kernel
def path_rows_hat_cuda(
    source, target, bias, label_id, emits, owner, blank_id, label_factor, smoothing, focal, grad_loss, tiny, loss
):  # fmt: skip
    options = label_factor, smoothing, focal, grad_loss, tiny, loss
    path_row_by_warp(True, source, target, bias, label_id, emits, owner, blank_id, *options)


def path_rows(
    source, target, bias, label_id, emits, owner, blank_id, label_scale, smoothing, focal, grad_loss, loss, *,
    hat=False,
):  # fmt: skip
    """Write losses and gradient rows of a run of cells.

    Parameters
    ----------
    source, target : (n, V) float32 or float64, on a GPU `target` bfloat16 too
        Logits, a row for each cell, and where the gradients go, which may be the same array. Entries of the gradient
        below 2**-100 become 0.
    bias : (V,) or (0,)
        Added to the logits as they are read.
    label_id, owner : (n,) int32
        Position of the label in the row, or anything where the path takes the blank; and the example.
    emits : (n,) uint8
        Whether the path leaves the cell by its label; else it leaves by the blank.
    blank_id : int
    label_scale, smoothing, focal : float
        Rows that take a label count 1 + label_scale times; the part of the target that all other ids share; the power
        of 1 - p.
    grad_loss : (examples,) like the logits
        Upstream gradients. Rows of an example with 0 are exactly 0, except rows that hold NaN or +inf.
    loss : (n,) like the logits
        Filled, in nats; inf where the arc has no probability, NaN where the row holds NaN or +inf.
    hat : bool
        As in `emit`.
    """
    real, ids = loss.dtype.type, source.shape[1]
    smoothing = smoothing if ids > 1 else 0.0  # with one id there are no others to share it
    # Typed: a Python float would turn the arithmetic of a float32 kernel into float64.
    options = (real(1 + label_scale), real(smoothing), real(focal))
    rows = (source, target, bias, label_id, emits, owner, blank_id)
    options = (*options, grad_loss, np.finfo(real).tiny, loss)
    if on_host(source):
        sweep(path_rows_cpu, len(label_id), *rows, hat, *options, work=2 * source.size)
    else:
        by_warp(path_rows_hat_cuda if hat else path_rows_cuda, len(label_id), *rows, *options)


@register_jitable
def sum_strided(c, high, stride, values):
    """The float64 sum of values[c : high : stride]."""
    total = np.float64(0)
    while c < high:
        total += values[c]
        c += stride
    return total


@cpu_sweep
def sum_rows_cpu(begin, end, first_cell, loss, log_z):
    for n in range(begin, end):
        log_z[n] = -sum_strided(first_cell[n], first_cell[n + 1], 1, loss)


@cuda_kernel
def sum_rows_cuda(first_cell, loss, log_z):
    partial = cuda.shared.array(WARP, np.float64)
    n = cuda.blockIdx.x
    total = block_sum(sum_strided(first_cell[n] + cuda.threadIdx.x, first_cell[n + 1], cuda.blockDim.x, loss), partial)
    if cuda.threadIdx.x == 0:
        log_z[n] = -total


def sum_rows(first_cell, loss, log_z):
    """log_z[n] = minus the sum of loss[first_cell[n] : first_cell[n + 1]], in float64.

    Parameters
    ----------
    first_cell : (examples + 1,) int64
    loss : (cells,) float32 or float64
        In nats.
    log_z : (examples,) float64
        Filled here. On a GPU the sum of an example goes in another order than on a CPU.
    """
    if on_host(loss):
        sweep(sum_rows_cpu, len(log_z), first_cell, loss, log_z, work=len(loss))
    else:
        launch(sum_rows_cuda, len(log_z), policy.THREADS, first_cell, loss, log_z)
