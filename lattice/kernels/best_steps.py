"""A row of logits -> what a search needs of a cell whose arcs take several frames: `best`, and the scores of its steps.

Steps are scored as in heads.py. Durations are never listed, nor are blanks.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .best import list_row, next_of_row
from .cells import typed
from .emissions import emit_row, emit_scores
from .heads import score_blanks, score_durations
from .lanes import entry
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .normaliser import normaliser


@cpu_sweep
def best_steps_cpu(begin, end, logits, bias, row, owner, blank_ids, tail, sigma, score, label_id, step_score):
    V = logits.shape[1] - tail
    scratch, value = np.empty(V, logits.dtype), np.empty(label_id.shape[1], logits.dtype)  # (V,), (k,)
    for i in range(begin, end):
        own, added, blanks = logits[row[i]], bias[owner[i]], blank_ids[owner[i]]
        # Adds the bias to the tokens in place, so what is listed behind it has the bias too.
        score[i, 0], _, maximum, rest = emit_row(own[:V], added[:V], blanks[0], -1, False, scratch)
        list_row(own[:V], blanks[-1], blanks[0], label_id[i], value)
        for j in range(label_id.shape[1]):
            score[i, j + 1] = emit_scores(own[blanks[0]], value[j], maximum, rest)[1]
        if tail:
            if added.shape[0]:
                for v in range(V, own.shape[0]):
                    own[v] += added[v]
            score[i] += score_durations(own, added, False, V, sigma, 0, 1, step_score, i)
        else:
            score[i, 0] = score_blanks(own, added, False, blanks, maximum, rest, sigma, 0, 1, step_score, i)


@register_jitable
def list_by_warp(tokens, added, lane, blanks, maximum, rest, found, score, label_id):
    """Fill in a row's best labels, by the warp that reads it; `found` is added to the scores of all."""
    blank_logit = entry(tokens, added, added.shape[0] > 0, blanks[0])
    value, place = typed(math.inf, maximum), np.int64(-1)  # before every entry
    for j in range(label_id.shape[0]):
        value, place = next_of_row(tokens, added, lane, blanks[-1], blanks[0], value, place)
        if lane == 0:
            label_id[j] = place
            of_blank, of_label = emit_scores(blank_logit, value, maximum, rest)
            score[0], score[j + 1] = of_blank + found, of_label + found


@cuda_kernel
def best_tdt_cuda(logits, bias, row, owner, blank_ids, tail, sigma, score, label_id, step_score):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, own, added = cuda.threadIdx.x % WARP, logits[row[i]], bias[owner[i]]
    V = own.shape[0] - tail
    maximum, rest = normaliser(own[:V], added[:V], lane, score[i, 0])
    found = score_durations(own, added, added.shape[0] > 0, V, sigma, lane, WARP, step_score, i)
    list_by_warp(own[:V], added[:V], lane, blank_ids[owner[i]], maximum, rest, found, score[i], label_id[i])


@cuda_kernel
def best_multiblank_cuda(logits, bias, row, owner, blank_ids, sigma, score, label_id, step_score):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, own, added, blanks = cuda.threadIdx.x % WARP, logits[row[i]], bias[owner[i]], blank_ids[owner[i]]
    maximum, rest = normaliser(own, added, lane, score[i, 0])
    given = own, added, added.shape[0] > 0, blanks, maximum, rest
    found = score_blanks(*given, sigma, lane, WARP, step_score, i)
    list_by_warp(own, added, lane, blanks, maximum, rest, found, score[i], label_id[i])
    if lane == 0:
        score[i, 0] = found


def best_steps(logits, bias, row, owner, blank_ids, tail, sigma, score, label_id, step_score):
    """Reduce rows of logits to what a search needs.

    Parameters
    ----------
    logits : (rows, V + tail) float32 or float64
        Where a bias is given the CPU adds it to them in place.
    bias : (examples, V + tail) or (examples, 0)
    row, owner : (n,) int64
        As in `best`.
    blank_ids : (examples, K) int64
        Positions of the blanks, the standard blank first. Each further one is the next position below. With durations K
        is 1. Without, blank k takes step k + 1.
    tail : int
        How many entries of a row are durations, which are the last ones.
    sigma : float
        Nats taken off each step's score.
    score : (n, k + 1) float32 or float64, like the logits
        Filled here: the blank's score of a cell as in steps.py, then log-probabilities of the k best labels, best
        first, in nats; -inf where there are fewer.
    label_id : (n, k) int32
        As in `best`.
    step_score : (D, n), like the logits
        Filled here, as steps.py says.
    """
    sigma = score.dtype.type(sigma)
    rows, found = (logits, bias, row, owner, blank_ids), (score, label_id, step_score)
    if on_host(logits):
        sweep(best_steps_cpu, len(row), *rows, tail, sigma, *found, work=len(row) * logits.shape[1])
    elif tail:
        by_warp(best_tdt_cuda, len(row), *rows, tail, sigma, *found)
    else:
        by_warp(best_multiblank_cuda, len(row), *rows, sigma, *found)
