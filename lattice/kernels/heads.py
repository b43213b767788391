"""A row of logits -> the scores of a cell whose arcs take several frames, and of the cell's steps (steps.py).

"tdt": the last `tail` entries of a row are durations, and have a softmax of their own. The token head before them is
reduced as any row is (emissions.py). "multiblank": one softmax, and each blank takes a step of its own.

A head that is -inf throughout has no distribution, so all arcs of its cell are closed. NaN and +inf anywhere in a row
make the scores of its cell NaN.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, score, typed
from .emissions import emit_first, emit_row
from .lanes import entry
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .normaliser import normaliser


@register_jitable
def head_parts(row, bias, biased, first):
    """Maximum and rest of the entries of a row (S,) from `first` on, which are few; on a GPU each lane finds both.

    The rest is NaN where the maximum is not finite.
    """
    maximum, at = entry(row, bias, biased, first), first
    for v in range(first + 1, row.shape[0]):
        logit = entry(row, bias, biased, v)
        if logit > maximum or logit != logit:
            maximum, at = logit, v
    rest = maximum - maximum
    for v in range(first, row.shape[0]):
        if v != at:
            rest += math.exp(entry(row, bias, biased, v) - maximum)
    return maximum, rest


@register_jitable
def openness(maximum, rest):
    """What a head adds to the scores of its cell: 0, -inf where it is -inf throughout, NaN for NaN and for +inf."""
    return maximum if maximum == typed(CLOSED, maximum) else rest - rest


@register_jitable
def step_of(logit, maximum, log_total, sigma):
    """Score in nats of a step by one entry of a head; `log_total` is the logarithm of 1 + rest."""
    closed = typed(CLOSED, maximum)
    # In a head of nothing but -inf, logit - maximum would be NaN.
    return closed if maximum == closed else score(logit, maximum, log_total) - sigma


@register_jitable
def score_durations(row, bias, biased, first, sigma, lane, lanes, step_score, column):
    """Score the steps of a cell by the entries from `first` on, every `lanes`-th one; returns the head's `openness`."""
    maximum, rest = head_parts(row, bias, biased, first)
    log_total = math.log1p(rest)
    for n in range(lane, row.shape[0] - first, lanes):
        step_score[n, column] = step_of(entry(row, bias, biased, first + n), maximum, log_total, sigma)
    return openness(maximum, rest)


@register_jitable
def score_blanks(row, bias, biased, blank_ids, maximum, rest, sigma, lane, lanes, step_score, column):
    """Score the steps of a cell by its blanks, every `lanes`-th one; returns the head's `openness`."""
    log_total, found = math.log1p(rest), openness(maximum, rest)
    for k in range(lane, blank_ids.shape[0], lanes):
        step_score[k + 1, column] = step_of(entry(row, bias, biased, blank_ids[k]), maximum, log_total, sigma)
    if lane == 0:
        step_score[0, column] = found - sigma
    return found


@register_jitable
def places_of(i, place, start):
    """Where the scores of cell i go, and the column of its steps' scores."""
    if place.shape[0]:
        return place[i], place[i]
    return i, start + i


@cpu_sweep
def emit_steps_cpu(
    begin, end, logits, bias, row, place, start, label_id, blank_ids, tail, sigma, blank_score, label_score, maximum,
    rest, step_score,
):  # fmt: skip
    V = logits.shape[1] - tail
    scratch = np.empty(V, logits.dtype)  # (V,)
    for i in range(begin, end):
        own, (p, column) = logits[row[i]], places_of(i, place, start)
        of_blank, of_label, maximum[p], rest[p] = emit_row(own[:V], bias[:V], blank_ids[0], label_id[i], False, scratch)
        if tail:
            if bias.shape[0]:
                for v in range(V, own.shape[0]):
                    own[v] += bias[v]
            found = score_durations(own, bias, False, V, sigma, 0, 1, step_score, column)
            blank_score[p] = of_blank + found
            label_score[p] = of_label + found
        else:
            given = own, bias, False, blank_ids, maximum[p], rest[p]
            blank_score[p] = score_blanks(*given, sigma, 0, 1, step_score, column)
            label_score[p] = of_label


@cuda_kernel
def emit_tdt_cuda(
    logits, bias, row, place, start, label_id, blank_ids, tail, sigma, blank_score, label_score, maximum, rest,
    step_score,
):  # fmt: skip
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, own, (p, column) = cuda.threadIdx.x % WARP, logits[row[i]], places_of(i, place, start)
    V = own.shape[0] - tail
    highest, others = normaliser(own[:V], bias[:V], lane, rest[p])  # rest[p] lends its dtype, nothing else
    found = score_durations(own, bias, bias.shape[0] > 0, V, sigma, lane, WARP, step_score, column)
    if lane == 0:
        of_blank, of_label = emit_first(own, bias, label_id[i], blank_ids[0], False, highest, others)
        blank_score[p], label_score[p] = of_blank + found, of_label + found
        maximum[p], rest[p] = highest, others


@cuda_kernel
def emit_multiblank_cuda(
    logits, bias, row, place, start, label_id, blank_ids, sigma, blank_score, label_score, maximum, rest, step_score
):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, own, (p, column) = cuda.threadIdx.x % WARP, logits[row[i]], places_of(i, place, start)
    highest, others = normaliser(own, bias, lane, rest[p])
    found = score_blanks(
        own, bias, bias.shape[0] > 0, blank_ids, highest, others, sigma, lane, WARP, step_score, column
    )
    if lane == 0:
        _, label_score[p] = emit_first(own, bias, label_id[i], blank_ids[0], False, highest, others)
        blank_score[p], maximum[p], rest[p] = found, highest, others


def emit_steps(
    logits, bias, row, place, start, label_id, blank_ids, tail, sigma, blank_score, label_score, maximum, rest,
    step_score,
):  # fmt: skip
    """Reduce rows of logits to the scores of their arcs and of the steps that these take.

    Parameters
    ----------
    logits : (rows, V + tail) float32 or float64, on a GPU float16 and bfloat16 too
        Logits; where a bias is given the CPU adds it to them in place.
    bias : (V + tail,) or (0,)
    row, place, label_id, blank_score, label_score, maximum, rest
        As in `emit`; `maximum` and `rest` leave durations out.
    start : int
        Column of the first cell's steps. With `place` a cell's column is its place.
    blank_ids : (K,) int64
        Positions of the blanks in the row. With durations, one. Without, blank k takes step k + 1.
    tail : int
        How many entries of a row are durations, which are the last ones.
    sigma : float
        Nats taken off each step's score.
    step_score : (D, cells), in the dtype of `rest`
        Filled here, as steps.py says.
    """
    sigma = rest.dtype.type(sigma)
    rows, state = (logits, bias, row, place, start, label_id, blank_ids), (blank_score, label_score, maximum, rest)
    if on_host(logits):
        work = len(row) * logits.shape[1]
        sweep(emit_steps_cpu, len(row), *rows, tail, sigma, *state, step_score, work=work)
    elif tail:
        by_warp(emit_tdt_cuda, len(row), *rows, tail, sigma, *state, step_score)
    else:
        by_warp(emit_multiblank_cuda, len(row), *rows, sigma, *state, step_score)
