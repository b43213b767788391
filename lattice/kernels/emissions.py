"""A row of logits -> its maximum and rest, the blank score and the label score. The V axis ends here.

The maximum and the rest are the two parts of the row's normaliser (normaliser.py). A row that is -inf throughout has no
distribution, so its arcs are closed. NaN and +inf anywhere in a row make its scores NaN.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, exp, score, typed
from .lanes import entry
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .normaliser import maximum_of, normaliser, rest_of


@register_jitable
def emit_scores(blank_logit, label_logit, maximum, rest):
    """Scores in nats of the two arcs of a cell; `label_logit` is -inf where no label is left."""
    # In a row of nothing but -inf, logit - maximum would be NaN.
    if maximum == typed(CLOSED, maximum):
        return maximum, maximum
    log_total = math.log1p(rest)
    return score(blank_logit, maximum, log_total), score(label_logit, maximum, log_total)


@register_jitable
def emit_row(row, bias, blank_id, label_id, scratch):
    """Add the bias to a row (V,) in place and reduce it: (blank score, label score, maximum, rest).

    `scratch` (V,) is apart from the row, so the loop that fills it vectorises.
    """
    if bias.shape[0]:
        for v in range(row.shape[0]):
            row[v] += bias[v]
    maximum = maximum_of(row)
    for v in range(row.shape[0]):
        scratch[v] = exp(row[v] - maximum)
    rest = rest_of(scratch)
    blank_score, label_score = emit_scores(
        row[blank_id], row[label_id] if label_id >= 0 else typed(CLOSED, maximum), maximum, rest
    )
    return blank_score, label_score, maximum, rest


@cpu_sweep
def emit_cpu(begin, end, logits, bias, row, place, label_id, blank_id, blank_score, label_score, maximum, rest):
    scratch = np.empty(logits.shape[1], logits.dtype)  # (V,)
    for i in range(begin, end):
        p = place[i] if place.shape[0] else i
        blank_score[p], label_score[p], maximum[p], rest[p] = emit_row(
            logits[row[i]], bias, blank_id, label_id[i], scratch
        )


@cuda_kernel
def emit_cuda(logits, bias, row, place, label_id, blank_id, blank_score, label_score, maximum, rest):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, own, biased = cuda.threadIdx.x % WARP, logits[row[i]], bias.shape[0] > 0
    p = place[i] if place.shape[0] else i
    highest, others = normaliser(own, bias, lane, rest[p])  # rest[p] lends its dtype, nothing else
    if lane == 0:
        label_logit = entry(own, bias, biased, label_id[i]) if label_id[i] >= 0 else typed(CLOSED, highest)
        blank_score[p], label_score[p] = emit_scores(entry(own, bias, biased, blank_id), label_logit, highest, others)
        maximum[p], rest[p] = highest, others


def emit(logits, bias, row, place, label_id, blank_id, blank_score, label_score, maximum, rest):
    """Reduce rows of logits to the scores of their arcs.

    Parameters
    ----------
    logits : (rows, V) float32 or float64, on a GPU float16 and bfloat16 too
        Logits; where a bias is given the CPU adds it to them in place.
    bias : (V,) or (0,)
    row, label_id : (n,) int64, (n,) int32
        The row of each cell, and the position of its label in the row or -1. No row stands twice where a bias is given.
    place : (n,) or (0,) int64
        Where each cell's numbers go in the outputs. With no places, cell i goes to place i.
    blank_id : int
        Position of the blank in the row.
    blank_score, label_score, maximum, rest : (n,) float32, or float64 for float64 logits
        Filled here: log-probabilities in nats, and the two parts of the normaliser.
    """
    arguments = (logits, bias, row, place, label_id, blank_id, blank_score, label_score, maximum, rest)
    if on_host(logits):
        sweep(emit_cpu, len(row), *arguments, work=len(row) * logits.shape[1])
    else:
        by_warp(emit_cuda, len(row), *arguments)
