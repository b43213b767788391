"""Losses and gradient rows of the cells on a given path: a smoothed, focally weighted cross-entropy of each cell's arc.

With p the softmax of a row, y its arc's id and q the smoothed target (1 - e at y, e / (V - 1) at all others), a row's
loss is factor * (1 - p[y])**focal * sum_v -q[v] log p[v]. The power and the sum are both differentiated; docs/math.md
has the gradient.
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


@register_jitable
def arc_of(label_id, emits, blank_id, label_factor):
    """The id of the arc that a cell takes, and its factor in the loss; `emits` tells whether the arc is the label's."""
    return (label_id, label_factor) if emits else (blank_id, typed(1, label_factor))


@register_jitable
def weigh(own, e, rest, others, count, smoothing, focal, tiny):
    """(loss, scale, slope, inverse, uniform, taken): what `path_entry` takes, and minus the gradient at the arc's id.

    `own` is the arc's logit and `others` the mean of the `count` other logits, both less the row's maximum. e is
    exp(own), and `rest` the sum of the other exponentials (in normaliser.py the maximum's term is left out, here the
    arc's). 1 - p is formed from `rest`, because the p of a certain row holds no digits of it.
    """
    one, total = typed(1, own), e + rest
    log_total, wrong = math.log(total), rest / total  # log of the sum of exp(logit - maximum); 1 - p[y]
    # -log p[y]. Where p[y] is above 1/2, log_total and own may agree in most digits, so they are not subtracted.
    loss, uniform = math.log1p(rest / e) if rest < e else log_total - own, typed(0, own)
    if smoothing > 0:
        # The mean of -log p over the others is log_total less the mean of their logits.
        loss = (one - smoothing) * loss + smoothing * (log_total - others)
        uniform = smoothing / count
    factor, slope = one, typed(0, own)
    # An infinite cross-entropy stays infinite, whatever it is multiplied by.
    if focal > 0 and loss < -typed(CLOSED, own):
        factor = wrong**focal
        slope = focal * factor * loss * (e / total)
    # docs/math.md's G p[v] is slope * e[v] / rest, so nothing is divided by 1 - p[y], which may be 0. With a rest of 0
    # every e[v] is 0, and so is its quotient by tiny.
    inverse = one / max(rest, tiny)
    return factor * loss, factor / total, slope, inverse, factor * uniform, factor * (wrong - smoothing) + slope


@register_jitable
def path_entry(e, scale, slope, inverse, uniform):
    """The gradient at an id v other than the arc's, from its e: F p[v] + G p[v] - F q[v] of docs/math.md."""
    # In this order: e is a term of the rest, so e * inverse is at most 1, where inverse * slope might overflow.
    return flush(e * scale + (e * inverse) * slope - uniform, typed(NEGLIGIBLE, e))


@register_jitable
def path_row(source, bias, target, own, factor, smoothing, focal, grad_loss, tiny, scratch):
    """Write the gradient's row and return the loss in nats; rows are (V,), and source may be target.

    A row of nothing but -inf has an infinite loss and a gradient of 0.
    """
    count = typed(source.shape[0] - 1, tiny)
    if bias.shape[0]:
        for v in range(source.shape[0]):
            scratch[v] = source[v] + bias[v]
    else:
        scratch[:] = source
    maximum = maximum_of(scratch)
    if maximum == typed(CLOSED, maximum):
        target[:] = 0
        return -maximum
    for v in range(source.shape[0]):
        scratch[v] -= maximum
    at, others = scratch[own], typed(0, maximum)
    if smoothing > 0:
        scratch[own] = 0  # no term of the others' mean
        others = sum_of(scratch) / count
    scratch[own] = typed(CLOSED, maximum)  # exp of it is 0, no term of the others' sum
    for v in range(source.shape[0]):
        scratch[v] = exp(scratch[v])
    loss, scale, slope, inverse, uniform, taken = weigh(
        at, exp(at), sum_of(scratch), others, count, smoothing, focal, tiny
    )
    weight = factor * grad_loss
    scale, slope, uniform = weight * scale, weight * slope, weight * uniform
    for v in range(target.shape[0]):
        target[v] = path_entry(scratch[v], scale, slope, inverse, uniform)
    target[own] = flush(-weight * taken, typed(NEGLIGIBLE, weight))
    return factor * loss


@cpu_sweep
def path_rows_cpu(
    begin, end, source, target, bias, label_id, emits, owner, blank_id, label_factor, smoothing, focal, grad_loss, tiny,
    loss,
):  # fmt: skip
    scratch = np.empty(source.shape[1], source.dtype)  # (V,)
    for i in range(begin, end):
        own, factor = arc_of(label_id[i], emits[i], blank_id, label_factor)
        loss[i] = path_row(
            source[i], bias, target[i], own, factor, smoothing, focal, grad_loss[owner[i]], tiny, scratch
        )


@register_jitable
def sums_of_others(source, bias, r, lane, own, highest):
    """Sums of logit - highest and of their exponentials, both without the arc's, in every lane of the warp."""
    logits, exponentials = typed(0, highest), typed(0, highest)
    for v in range(lane, source.shape[1], WARP):
        if v != own:
            x = entry(source[r], bias, bias.shape[0] > 0, v) - highest
            logits += x
            exponentials += math.exp(x)
    for distance in (16, 8, 4, 2, 1):
        logits += cuda.shfl_xor_sync(0xFFFFFFFF, logits, distance)
        exponentials += cuda.shfl_xor_sync(0xFFFFFFFF, exponentials, distance)
    return logits, exponentials


@cuda_kernel
def path_rows_cuda(
    source, target, bias, label_id, emits, owner, blank_id, label_factor, smoothing, focal, grad_loss, tiny, loss
):  # fmt: skip
    r = cuda.grid(1) // WARP
    if r >= label_id.shape[0]:
        return
    lane, biased, V = cuda.threadIdx.x % WARP, bias.shape[0] > 0, source.shape[1]
    own, factor = arc_of(label_id[r], emits[r], blank_id, label_factor)
    # Only the maximum is used: the rest that `weigh` wants leaves out the arc's term, not the maximum's.
    highest, _ = normaliser(source[r], bias, lane, tiny)
    weight, closed = factor * grad_loss[owner[r]], highest == typed(CLOSED, tiny)
    count, at = typed(V - 1, tiny), entry(source[r], bias, biased, own) - highest
    others, rest = sums_of_others(source, bias, r, lane, own, highest)
    # All lanes have read the arc's logit before one of them writes over it.
    cuda.syncwarp()
    found, scale, slope, inverse, uniform, taken = weigh(
        at, math.exp(at), rest, others / count, count, smoothing, focal, tiny
    )
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
        store(target, r, v, flush(-weight * taken, typed(NEGLIGIBLE, weight)) if v == own else x)


def path_rows(source, target, bias, label_id, emits, owner, blank_id, label_scale, smoothing, focal, grad_loss, loss):
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
    """
    real, ids = loss.dtype.type, source.shape[1]
    smoothing = smoothing if ids > 1 else 0.0  # with one id there are no others to share it
    # Typed: a Python float would turn the arithmetic of a float32 kernel into float64.
    options = (real(1 + label_scale), real(smoothing), real(focal))
    arcs = (label_id, emits, owner, blank_id)
    arguments = (source, target, bias, *arcs, *options, grad_loss, np.finfo(real).tiny, loss)
    if on_host(source):
        sweep(path_rows_cpu, len(label_id), *arguments, work=2 * source.size)
    else:
        by_warp(path_rows_cuda, len(label_id), *arguments)


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
