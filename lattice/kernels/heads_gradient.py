"""d loss / d logits of arcs that take several frames, row by row, from the posteriors of arcs and steps (heads.py).

"tdt": the gradient of the token head is that of any row (gradient.py). In the duration head, each step has an entry:
the weight of all steps times its softmax, less the weight of the step. "multiblank": one softmax, in which each blank
has the weight of its own step. FastEmit is for labels, so durations do not see it. Each head adds up to 0.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, NEGLIGIBLE, put, typed
from .gradient import gradient_by_warp, gradient_row, spread_row, sum_in_all_lanes, weigh_row
from .gradient_entries import arc_entry, arc_weights, beside
from .heads import head_parts
from .lanes import entry
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep

MOST_BLANKS = WARP - 1
"""Blanks of a row: on a GPU a lane each, and one for the label."""


@register_jitable
def weight_of_steps(step_posterior, column, first, out, grad_loss):
    """Weight of a cell's steps from `first` on in the gradient, without step `out`."""
    # No difference from the sum of all: beside the weight of a sure step, those of the others would lose their digits.
    total = typed(0, grad_loss)
    for n in range(first, step_posterior.shape[0]):
        if n != out:
            total += step_posterior[n, column]
    return total * grad_loss


@register_jitable
def spread_durations(
    source, bias, biased, target, first, maximum, rest, step_posterior, column, token_weight, grad_loss, tiny, lane,
    lanes,
):  # fmt: skip
    """Write every `lanes`-th entry from `first` on; `source` may be `target`, once all lanes have its maximum and rest.

    Where the token head is 0, or would be but for FastEmit, the duration head is, too.
    """
    weight = weight_of_steps(step_posterior, column, 0, -1, grad_loss)
    nothing = abs(token_weight) < tiny or abs(weight) < tiny
    total = typed(1, rest) + rest
    for n in range(lane, source.shape[0] - first, lanes):
        found = typed(0, grad_loss)
        if not nothing:
            e = math.exp(entry(source, bias, biased, first + n) - maximum)
            others = weight_of_steps(step_posterior, column, 0, n, grad_loss)
            found = arc_entry(e, beside(e, rest), total, step_posterior[n, column] * grad_loss, others, tiny)
        put(target, first + n, found)


@register_jitable
def gradient_row_of_blanks(
    source, bias, target, blank_ids, label_id, step_posterior, column, grad_loss, blank_weight, label_weight, maximum,
    rest, anew, tiny, scratch,
):  # fmt: skip
    """`gradient_row` where several entries of the row are blanks."""
    weight = blank_weight + label_weight
    if abs(weight) < tiny:
        target[:] = 0
        return
    rest = weigh_row(source, bias, target, -1, weight, maximum, rest, anew, tiny, scratch)
    total = typed(1, rest) + rest
    for k in range(blank_ids.shape[0]):
        e, others = scratch[blank_ids[k]], weight_of_steps(step_posterior, column, 1, k + 1, grad_loss) + label_weight
        own = step_posterior[k + 1, column] * grad_loss
        target[blank_ids[k]] = arc_entry(e, beside(e, rest), total, own, others, tiny)
    if label_id >= 0:
        e = scratch[label_id]
        target[label_id] = arc_entry(e, beside(e, rest), total, label_weight, blank_weight, tiny)


@cpu_sweep
def gradient_steps_cpu(
    begin, end, source, target, row, bias, label_id, owner, blank_ids, tail, blank_posterior, label_posterior,
    step_posterior, start, maximum, rest, anew, label_factor, grad_loss, tiny,
):  # fmt: skip
    V = source.shape[1] - tail
    scratch = np.empty(V, source.dtype)  # (V,)
    for i in range(begin, end):
        logits, grad, upstream = source[row[i]], target[row[i]], grad_loss[owner[i]]
        weights = arc_weights(blank_posterior[i], label_posterior[i], label_factor, upstream)
        if tail:
            gradient_row(
                logits[:V], bias[:V], grad[:V], blank_ids[0], label_id[i], *weights, maximum[i], rest[i], False, anew,
                tiny, scratch,
            )  # fmt: skip
            highest, others = head_parts(logits, bias, bias.shape[0] > 0, V)
            spread_durations(
                logits, bias, bias.shape[0] > 0, grad, V, highest, others, step_posterior, start + i,
                weights[0] + weights[1], upstream, tiny, 0, 1,
            )  # fmt: skip
        else:
            gradient_row_of_blanks(
                logits, bias, grad, blank_ids, label_id[i], step_posterior, start + i, upstream, *weights, maximum[i],
                rest[i], anew, tiny, scratch,
            )  # fmt: skip


@cuda_kernel
def gradient_tdt_cuda(
    source, target, row, bias, label_id, owner, blank_ids, tail, blank_posterior, label_posterior, step_posterior,
    start, maximum, rest, anew, label_factor, grad_loss, tiny,
):  # fmt: skip
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, logits, grad, upstream = cuda.threadIdx.x % WARP, source[row[i]], target[row[i]], grad_loss[owner[i]]
    weights = arc_weights(blank_posterior[i], label_posterior[i], label_factor, upstream)
    V, biased, highest, others, own = logits.shape[0] - tail, bias.shape[0] > 0, maximum[i], rest[i], label_id[i]
    of_durations = head_parts(logits, bias, biased, V)
    # All lanes have read the durations before one of them writes over its own.
    cuda.syncwarp()
    spread_durations(
        logits, bias, biased, grad, V, *of_durations, step_posterior, start + i, weights[0] + weights[1], upstream,
        tiny, lane, WARP,
    )  # fmt: skip
    gradient_by_warp(False, logits[:V], grad[:V], bias[:V], own, blank_ids[0], *weights, highest, others, anew, tiny)


@register_jitable
def arc_of_lane(lane, blank_ids, label_id, step_posterior, column, grad_loss, label_weight):
    """(entry or -1, weight) of the arc of a lane: each blank has one, and the label; other lanes have no weight."""
    count = blank_ids.shape[0]
    if lane < count:
        return blank_ids[lane], step_posterior[lane + 1, column] * grad_loss
    if lane == count:
        return np.int64(label_id), label_weight
    return np.int64(-1), typed(0, label_weight)


@register_jitable
def sums_over_lanes(x):
    """(the sum of the other lanes' numbers, the sum of all) in each lane of a warp."""
    others, total = typed(0, x), x
    for distance in (1, 2, 4, 8, 16):
        found = cuda.shfl_xor_sync(0xFFFFFFFF, total, distance)
        others, total = others + found, total + found
    return others, total


@cuda_kernel
def gradient_multiblank_cuda(
    source, target, row, bias, label_id, owner, blank_ids, blank_posterior, label_posterior, step_posterior, start,
    maximum, rest, anew, label_factor, grad_loss, tiny,
):  # fmt: skip
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, logits, grad, upstream = cuda.threadIdx.x % WARP, source[row[i]], target[row[i]], grad_loss[owner[i]]
    weights = arc_weights(blank_posterior[i], label_posterior[i], label_factor, upstream)
    weight, biased, highest, others = weights[0] + weights[1], bias.shape[0] > 0, maximum[i], rest[i]
    if abs(weight) < tiny:
        for v in range(lane, grad.shape[0], WARP):
            put(grad, v, typed(0, weight))
        return  # the whole warp
    at, own = arc_of_lane(lane, blank_ids, label_id[i], step_posterior, start + i, upstream, weights[1])
    # Made before the row is written, for the source may be the target.
    e = math.exp(entry(logits, bias, biased, at) - highest)
    if anew and at >= 0:
        # As in `gradient_by_warp`: the arcs' own terms are kept apart.
        put(logits, at, typed(CLOSED, weight))
    cuda.syncwarp()
    if anew:
        others = sum_in_all_lanes(logits, bias, lane, highest)
        of_other_lanes, of_lanes = sums_over_lanes(e)
        around, total = others + of_other_lanes, others + of_lanes
        total += total - total
    else:
        around, total = beside(e, others), typed(1, weight) + others
    scale = weight / total
    smallest = tiny / abs(scale)
    of_arc = arc_entry(e, around, total, own, sums_over_lanes(own)[0], tiny)
    if biased:
        spread_row(logits, bias, True, grad, lane, highest, scale, smallest)
    else:
        spread_row(logits, bias, False, grad, lane, highest, scale, smallest)
    # Other lanes have written to these entries.
    cuda.syncwarp()
    if at >= 0:
        put(grad, at, of_arc)


def gradient_steps(
    source, target, row, bias, label_id, owner, blank_ids, tail, blank_posterior, label_posterior, step_posterior,
    start, maximum, rest, fastemit_lambda, grad_loss, *, anew,
):  # fmt: skip
    """Write the gradient rows of a run of cells whose arcs take several frames.

    Parameters
    ----------
    source, target : (rows, V + tail) float32 or float64, on a GPU float16 and bfloat16 too
        As in `gradient`. Where `anew`, a GPU writes over the logits of all arcs.
    row, bias, label_id, owner, maximum, rest, fastemit_lambda, grad_loss, anew
        As in `gradient`; `maximum` and `rest` leave durations out, whose head is always normalised anew.
    blank_ids, tail
        As in `emit_steps`; at most `MOST_BLANKS`.
    blank_posterior, label_posterior : (n,)
        Posteriors of all blank arcs of a cell, and of all its label arcs.
    step_posterior : (D, cells)
        Posteriors of the arcs that take a step, blanks and labels together; as blanks and labels differ in their steps
        without durations, that of step k + 1 is blank k's.
    start : int
        The first cell's column in `step_posterior`.
    """
    real = rest.dtype.type
    label_factor, tiny = real(1 + fastemit_lambda), real(NEGLIGIBLE)
    rows, state = (source, target, row, bias, label_id, owner, blank_ids), (step_posterior, start, maximum, rest)
    arcs, factors = (blank_posterior, label_posterior), (anew, label_factor, grad_loss, tiny)
    if on_host(source):
        work = len(label_id) * source.shape[1]
        sweep(gradient_steps_cpu, len(label_id), *rows, tail, *arcs, *state, *factors, work=work)
    elif tail:
        by_warp(gradient_tdt_cuda, len(label_id), *rows, tail, *arcs, *state, *factors)
    else:
        by_warp(gradient_multiblank_cuda, len(label_id), *rows, *arcs, *state, *factors)
