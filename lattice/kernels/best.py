"""A row of logits -> log-probability of the blank, and the highest other entries with theirs. What a search reads of a row.

Equal logits go by their position, the lower one first. Entries of -inf are not listed: -1 stands for a label that is not there.
NaN and +inf anywhere in a row make its scores NaN, as in emissions.py.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, typed
from .emissions import emit_row, emit_scores, entry, normaliser
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@register_jitable
def before(value, v, other, w):
    """Whether entry v of a row is listed before entry w; never, if one of them is NaN."""
    return value > other or (value == other and v < w)


@register_jitable
def list_row(row, blank, label, value):
    """Fill in positions and logits of the highest entries but the blank."""
    last = label.shape[0] - 1
    label[:] = -1
    value[:] = typed(CLOSED, row[0])
    for v in range(row.shape[0]):
        # What comes later has the higher position, so it must be greater.
        if v == blank or not row[v] > value[last]:
            continue
        j = last
        while j > 0 and row[v] > value[j - 1]:
            value[j], label[j] = value[j - 1], label[j - 1]
            j -= 1
        value[j], label[j] = row[v], v


@cpu_sweep
def best_cpu(begin, end, logits, bias, row, owner, blank, score, label):
    scratch, value = np.empty(logits.shape[1], logits.dtype), np.empty(label.shape[1], logits.dtype)
    for i in range(begin, end):
        own, at = logits[row[i]], blank[owner[i]]
        score[i, 0], _, maximum, rest = emit_row(own, bias[owner[i]], at, -1, scratch)
        list_row(own, at, label[i], value)
        for j in range(label.shape[1]):
            score[i, j + 1] = emit_scores(own[at], value[j], maximum, rest)[1]


@register_jitable
def next_of_row(logits, bias, r, lane, blank, value, at):
    """The entry that is listed after entry `at`, whose logit is `value`, in every lane of the warp that reads the row."""
    biased = bias.shape[0] > 0
    highest, place = typed(CLOSED, value), np.int64(-1)
    for v in range(lane, logits.shape[1], WARP):
        x = entry(logits, bias, biased, r, v)
        if v != blank and x > highest and before(value, at, x, v):
            highest, place = x, np.int64(v)
    for distance in (16, 8, 4, 2, 1):
        other, v = cuda.shfl_xor_sync(0xFFFFFFFF, highest, distance), cuda.shfl_xor_sync(0xFFFFFFFF, place, distance)
        if v >= 0 and before(other, v, highest, place):
            highest, place = other, v
    return highest, place


@cuda_kernel
def best_cuda(logits, bias, row, owner, blank, score, label):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, r, own, at = cuda.threadIdx.x % WARP, row[i], bias[owner[i]], blank[owner[i]]
    maximum, rest = normaliser(logits, own, r, lane, score[i, 0])
    blank_logit = entry(logits, own, own.shape[0] > 0, r, at)
    value, place = typed(math.inf, maximum), np.int64(-1)
    for j in range(label.shape[1]):
        value, place = next_of_row(logits, own, r, lane, at, value, place)
        if lane == 0:
            label[i, j] = place
            score[i, 0], score[i, j + 1] = emit_scores(blank_logit, value, maximum, rest)


def best(logits, bias, row, owner, blank, score, label):
    """Reduce rows of logits to what a search needs.

    Parameters
    ----------
    logits : (rows, V) float32 or float64
        Where a bias is given the CPU adds it to them in place.
    bias : (examples, V) or (examples, 0)
    row, owner : (n,) int64
        The rows to read, and the example of each, for `bias` and `blank`.
    blank : (examples,) int64
        Position of the blank.
    score : (n, k + 1)
        Filled here: log-probability of the blank, then of the k best others, best first, in nats; -inf where there are fewer.
    label : (n, k) int32
        Filled here: positions of the k best others, -1 where there are fewer; k is at least 1.
    """
    arguments = (logits, bias, row, owner, blank, score, label)
    if on_host(logits):
        sweep(best_cpu, len(row), *arguments, work=len(row) * logits.shape[1])
    else:
        by_warp(best_cuda, len(row), *arguments)
