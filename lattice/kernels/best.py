"""A row of logits -> log-probability of the blank, and the highest other entries with their log-probabilities.

Equal logits go by their position, the lower one first. Entries of -inf are not listed: -1 stands for a label that is
not there. NaN and +inf anywhere in a row make its scores NaN, as in emissions.py.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, typed
from .emissions import emit_row, scores_of
from .lanes import entry
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .normaliser import normaliser


@register_jitable
def before(value, v, other, w):
    """Whether entry v with logit `value` is listed before entry w with logit `other`; never, if one of them is NaN."""
    return value > other or (value == other and v < w)


@register_jitable
def list_row(row, low, high, label_id, value):
    """Fill in positions `label_id` (k,) and logits `value` (k,) of the k highest entries of a row.

    Entries `low` to `high` are left out, which are the blanks.
    """
    last = label_id.shape[0] - 1
    label_id[:] = -1
    value[:] = typed(CLOSED, row[0])
    for v in range(row.shape[0]):
        # Of equal logits the lower position comes first, so a later one must be greater. `not >` passes a NaN by.
        if low <= v <= high or not row[v] > value[last]:
            continue
        j = last
        while j > 0 and row[v] > value[j - 1]:
            value[j], label_id[j] = value[j - 1], label_id[j - 1]
            j -= 1
        value[j], label_id[j] = row[v], v


@cpu_sweep
def best_cpu(begin, end, logits, bias, row, owner, blank_id, hat, score, label_id):
    scratch, value = np.empty(logits.shape[1], logits.dtype), np.empty(label_id.shape[1], logits.dtype)  # (V,), (k,)
    for i in range(begin, end):
        own, at = logits[row[i]], blank_id[owner[i]]
        # Adds the bias to the row in place, so what is listed behind it has the bias too.
        score[i, 0], _, maximum, rest = emit_row(own, bias[owner[i]], at, -1, hat, scratch)
        list_row(own, at, at, label_id[i], value)
        for j in range(label_id.shape[1]):
            score[i, j + 1] = scores_of(hat, own[at], value[j], maximum, rest)[1]


@register_jitable
def next_of_row(row, bias, lane, low, high, value, at):
    """Logit and position of the entry that is listed after entry `at` with logit `value`; (-inf, -1) if there is none.

    The same in every lane of the warp that reads the row. Entries `low` to `high` are left out, which are the blanks.
    """
    biased = bias.shape[0] > 0
    highest, place = typed(CLOSED, value), np.int64(-1)
    for v in range(lane, row.shape[0], WARP):
        x = entry(row, bias, biased, v)
        if not low <= v <= high and x > highest and before(value, at, x, v):
            highest, place = x, np.int64(v)
    for distance in (16, 8, 4, 2, 1):
        other, v = cuda.shfl_xor_sync(0xFFFFFFFF, highest, distance), cuda.shfl_xor_sync(0xFFFFFFFF, place, distance)
        if v >= 0 and before(other, v, highest, place):
            highest, place = other, v
    return highest, place


@register_jitable
def best_of_row(i, hat, logits, bias, row, owner, blank_id, score, label_id):
    """List a row by the warp that reads it; `hat` is a constant at each call."""
    lane, r, own, at = cuda.threadIdx.x % WARP, row[i], bias[owner[i]], blank_id[owner[i]]
    if hat:
        maximum, rest = normaliser(logits[r], own, lane, score[i, 0], at)
    else:
        maximum, rest = normaliser(logits[r], own, lane, score[i, 0])
    blank_logit = entry(logits[r], own, own.shape[0] > 0, at)
    # One search of the row for each entry: k is small, and no list needs to be merged over lanes.
    value, place = typed(math.inf, maximum), np.int64(-1)  # before every entry
    for j in range(label_id.shape[1]):
        value, place = next_of_row(logits[r], own, lane, at, at, value, place)
        if lane == 0:
            label_id[i, j] = place
            score[i, 0], score[i, j + 1] = scores_of(hat, blank_logit, value, maximum, rest)


@cuda_kernel
def best_cuda(logits, bias, row, owner, blank_id, score, label_id):
    i = cuda.grid(1) // WARP
    if i < row.shape[0]:
        best_of_row(i, False, logits, bias, row, owner, blank_id, score, label_id)


@cuda_kernel
def best_hat_cuda(logits, bias, row, owner, blank_id, score, label_id):
    i = cuda.grid(1) // WARP
    if i < row.shape[0]:
        best_of_row(i, True, logits, bias, row, owner, blank_id, score, label_id)


def best(logits, bias, row, owner, blank_id, score, label_id, *, hat=False):
    """Reduce rows of logits to what a search needs.

    Parameters
    ----------
    logits : (rows, V) float32 or float64
        Where a bias is given the CPU adds it to them in place.
    bias : (examples, V) or (examples, 0)
    row, owner : (n,) int64
        The rows to read, none twice, and the example of each, for `bias` and `blank_id`.
    blank_id : (examples,) int64
        Position of the blank.
    score : (n, k + 1) float32 or float64, like the logits
        Filled here: log-probability of the blank, then of the k best others, best first, in nats; -inf where there are
        fewer.
    label_id : (n, k) int32
        Filled here: positions of the k best others, -1 where there are fewer; k is at least 1.
    hat : bool
        As in `emit`.
    """
    rows, found = (logits, bias, row, owner, blank_id), (score, label_id)
    if on_host(logits):
        sweep(best_cpu, len(row), *rows, hat, *found, work=len(row) * logits.shape[1])
    else:
        by_warp(best_hat_cuda if hat else best_cuda, len(row), *rows, *found)
