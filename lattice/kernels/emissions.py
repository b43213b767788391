"""A row of logits -> its maximum and rest, the blank score and the label score. The V axis ends here.

The maximum and the rest are the two parts of the row's normaliser (normaliser.py). A row that is -inf throughout has no
distribution, so its arcs are closed. NaN and +inf anywhere in a row make its scores NaN.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, exp, score, typed
from .hat import hat_scores
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
def scores_of(hat, blank_logit, label_logit, maximum, rest):
    """`emit_scores`, or with `hat`, a constant at each call on a GPU, `hat_scores`."""
    if hat:
        return hat_scores(blank_logit, label_logit, maximum, rest)
    return emit_scores(blank_logit, label_logit, maximum, rest)


@register_jitable
def emit_row(row, bias, blank_id, label_id, hat, scratch):
    """Add the bias to a row (V,) in place and reduce it: (blank score, label score, maximum, rest).

    `scratch` (V,) is apart from the row, so the loop that fills it vectorises.
    """
    if bias.shape[0]:
        for v in range(row.shape[0]):
            row[v] += bias[v]
    if hat:
        # The blank is no part of the softmax. A row of given logits is not to be written to.
        scratch[:] = row
        scratch[blank_id] = typed(CLOSED, row[0])
        maximum = maximum_of(scratch)
        for v in range(row.shape[0]):
            scratch[v] = exp(scratch[v] - maximum)
    else:
        maximum = maximum_of(row)
        for v in range(row.shape[0]):
            scratch[v] = exp(row[v] - maximum)
    rest = rest_of(scratch)
    label_logit = row[label_id] if label_id >= 0 else typed(CLOSED, maximum)
    blank_score, label_score = scores_of(hat, row[blank_id], label_logit, maximum, rest)
    return blank_score, label_score, maximum, rest


@register_jitable
def kept(known, found):
    """A blank's score that was `known` before, or the one that was `found` if that is NaN, so that it is seen."""
    return found if found != found else known


@cpu_sweep
def emit_cpu(
    begin, end, logits, bias, row, place, label_id, blank_id, hat, blank_known, blank_score, label_score, maximum, rest
):  # fmt: skip
    scratch = np.empty(logits.shape[1], logits.dtype)  # (V,)
    for i in range(begin, end):
        p = place[i] if place.shape[0] else i
        found, label_score[p], maximum[p], rest[p] = emit_row(logits[row[i]], bias, blank_id, label_id[i], hat, scratch)
        blank_score[p] = kept(blank_score[p], found) if blank_known else found


@register_jitable
def emit_first(own, bias, label_id, blank_id, hat, highest, others):
    """The scores of a cell, as one lane of its warp makes them."""
    biased = bias.shape[0] > 0
    label_logit = entry(own, bias, biased, label_id) if label_id >= 0 else typed(CLOSED, highest)
    return scores_of(hat, entry(own, bias, biased, blank_id), label_logit, highest, others)


@cuda_kernel
def emit_cuda(logits, bias, row, place, label_id, blank_id, blank_score, label_score, maximum, rest):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, own = cuda.threadIdx.x % WARP, logits[row[i]]
    p = place[i] if place.shape[0] else i
    highest, others = normaliser(own, bias, lane, rest[p])  # rest[p] lends its dtype, nothing else
    if lane == 0:
        blank_score[p], label_score[p] = emit_first(own, bias, label_id[i], blank_id, False, highest, others)
        maximum[p], rest[p] = highest, others


@cuda_kernel
def emit_hat_cuda(logits, bias, row, place, label_id, blank_id, blank_known, blank_score, label_score, maximum, rest):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, own = cuda.threadIdx.x % WARP, logits[row[i]]
    p = place[i] if place.shape[0] else i
    highest, others = normaliser(own, bias, lane, rest[p], blank_id)
    if lane == 0:
        found, label_score[p] = emit_first(own, bias, label_id[i], blank_id, True, highest, others)
        blank_score[p] = kept(blank_score[p], found) if blank_known else found
        maximum[p], rest[p] = highest, others


def emit(
    logits, bias, row, place, label_id, blank_id, blank_score, label_score, maximum, rest, *, hat=False,
    blank_known=False,
):  # fmt: skip
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
    hat : bool
        The blank has a head of its own (hat.py), and is no part of the normaliser.
    blank_known : bool
        With `hat`: the blanks' scores are there already, and stay.
    """
    cells, state = (logits, bias, row, place, label_id, blank_id), (blank_score, label_score, maximum, rest)
    if on_host(logits):
        sweep(emit_cpu, len(row), *cells, hat, blank_known, *state, work=len(row) * logits.shape[1])
    elif hat:
        by_warp(emit_hat_cuda, len(row), *cells, blank_known, *state)
    else:
        by_warp(emit_cuda, len(row), *cells, *state)
