"""A row of logits -> its maximum and total, the blank score and the label score. The V axis ends here.

The normaliser is kept in two parts, the row's maximum and the sum of exp(logit - maximum), because a float32
`logit - log_norm` loses the loss when all logits carry a large offset. A row that is -inf throughout has no distribution: its
arcs are closed. NaN and +inf anywhere in a row make its scores NaN.

The CUDA kernel takes `math.exp`, for which a GPU has an instruction; the polynomial of cells.py exists to vectorise on a CPU.
"""

import math

import numba
import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .cells import CLOSED, exp, score, typed, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep

FOUR_WARPS = 4 * WARP
ONE, TWO, THREE = np.uint64(WARP), np.uint64(2 * WARP), np.uint64(3 * WARP)


def _order(logit):
    """Map a float's bits to an integer that sorts alike, NaN beyond +inf: an integer maximum vectorises and keeps NaN."""


@overload(_order)
def _order_overload(logit):
    if logit == types.float32:
        return lambda logit: _fold32(np.float32(logit).view(np.int32))
    return lambda logit: _fold64(np.float64(logit).view(np.int64))


@register_jitable
def _fold32(bits):
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@register_jitable
def _fold64(bits):
    return np.int64(bits ^ ((bits >> np.int64(63)) & np.int64(0x7FFFFFFFFFFFFFFF)))


def _unorder(key):
    """The float whose `_order` is `key`."""


@overload(_unorder)
def _unorder_overload(key):
    if key == types.int32:
        return lambda key: np.int32(_fold32(key)).view(np.float32)
    return lambda key: np.int64(_fold64(key)).view(np.float64)


@register_jitable
def maximum_of(row):
    highest = _order(row[0])
    for v in range(1, row.shape[0]):
        highest = max(highest, _order(row[v]))
    return _unorder(highest)


@numba.njit(nogil=True, fastmath={"reassoc", "nsz"}, error_model="numpy")
def sum_of(row):
    total = row[0]
    for v in range(1, row.shape[0]):
        total += row[v]
    return total


@register_jitable
def emit_scores(blank_logit, label_logit, maximum, total):
    """Scores of the two arcs of a cell; `label_logit` is -inf where no label is left."""
    if maximum == typed(CLOSED, maximum):
        return maximum, maximum
    log_total = math.log(total)
    return score(blank_logit, maximum, log_total), score(label_logit, maximum, log_total)


@register_jitable
def emit_row(row, bias, blank, label, scratch):
    """Add the bias to a row in place and reduce it: (blank score, label score, maximum, total)."""
    if bias.shape[0]:
        for v in range(row.shape[0]):
            row[v] += bias[v]
    maximum = maximum_of(row)
    for v in range(row.shape[0]):
        scratch[v] = exp(row[v] - maximum)
    total = sum_of(scratch)
    blank_score, label_score = emit_scores(row[blank], row[label] if label >= 0 else typed(CLOSED, maximum), maximum, total)
    return blank_score, label_score, maximum, total


@cpu_sweep
def emit_cpu(begin, end, logits, bias, row, place, label, blank, blank_score, label_score, maximum, total):
    scratch = np.empty(logits.shape[1], logits.dtype)
    for i in range(begin, end):
        p = place[i] if place.shape[0] else i
        blank_score[p], label_score[p], maximum[p], total[p] = emit_row(logits[row[i]], bias, blank, label[i], scratch)


@register_jitable
def fold(maximum, total, a, b, c, d):
    """Take four more logits into a running maximum and the sum of exp(logit - maximum)."""
    highest = max(max(a, b), max(c, d))
    if highest > maximum:
        total = total * math.exp(maximum - highest)
        maximum = highest
    base = typed(0, maximum) if maximum == typed(CLOSED, maximum) else maximum
    return maximum, total + ((math.exp(a - base) + math.exp(b - base)) + (math.exp(c - base) + math.exp(d - base)))


@register_jitable
def merge(maximum, total, other_maximum, other_total):
    """Join two running maxima and sums."""
    highest = max(maximum, other_maximum)
    if highest == typed(CLOSED, highest):
        return highest, total + other_total
    return highest, total * math.exp(maximum - highest) + other_total * math.exp(other_maximum - highest)


@register_jitable
def load_four(rows, bias, biased, r, v):
    """rows[r, v] and the three entries that lie a warp apart, with the bias. Nothing stands between the loads: all are under way.

    `v` is unsigned, because a signed index may be negative and asks for more instructions.
    """
    a, b = widen(rows[r, v]), widen(rows[r, v + ONE])
    c, d = widen(rows[r, v + TWO]), widen(rows[r, v + THREE])
    if biased:
        return a + bias[v], b + bias[v + ONE], c + bias[v + TWO], d + bias[v + THREE]
    return a, b, c, d


@register_jitable
def entry(rows, bias, biased, r, v):
    """rows[r, v] with the bias, -inf beyond the row."""
    if v >= rows.shape[1]:
        return typed(CLOSED, widen(rows[r, 0]))
    return widen(rows[r, v]) + bias[v] if biased else widen(rows[r, v])


@register_jitable
def reduce_row(logits, bias, biased, r, lane, like):
    """Maximum and sum of a lane's part of a row; `biased` is a constant at each call, so that the loops hold no test of it."""
    highest, summed = typed(CLOSED, like), typed(0, like)
    whole = logits.shape[1] - logits.shape[1] % FOUR_WARPS
    for begin in range(0, whole, FOUR_WARPS):
        a, b, c, d = load_four(logits, bias, biased, r, np.uint64(begin + lane))
        highest, summed = fold(highest, summed, a, b, c, d)
    if whole < logits.shape[1]:
        v = whole + lane
        a, b = entry(logits, bias, biased, r, v), entry(logits, bias, biased, r, v + WARP)
        c, d = entry(logits, bias, biased, r, v + 2 * WARP), entry(logits, bias, biased, r, v + 3 * WARP)
        highest, summed = fold(highest, summed, a, b, c, d)
    return highest, summed


@register_jitable
def normaliser(logits, bias, r, lane, like):
    """Maximum and sum of a row, in every lane of the warp that reads it."""
    if bias.shape[0]:
        highest, summed = reduce_row(logits, bias, True, r, lane, like)
    else:
        highest, summed = reduce_row(logits, bias, False, r, lane, like)
    for distance in (16, 8, 4, 2, 1):
        other = cuda.shfl_xor_sync(0xFFFFFFFF, highest, distance)
        highest, summed = merge(highest, summed, other, cuda.shfl_xor_sync(0xFFFFFFFF, summed, distance))
    return highest, summed


@cuda_kernel
def emit_cuda(logits, bias, row, place, label, blank, blank_score, label_score, maximum, total):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, r, biased = cuda.threadIdx.x % WARP, row[i], bias.shape[0] > 0
    p = place[i] if place.shape[0] else i
    highest, summed = normaliser(logits, bias, r, lane, total[p])
    if lane == 0:
        # A NaN passes the comparisons of a maximum by and stands in the sum alone.
        highest += summed - summed
        label_logit = entry(logits, bias, biased, r, label[i]) if label[i] >= 0 else typed(CLOSED, highest)
        blank_score[p], label_score[p] = emit_scores(entry(logits, bias, biased, r, blank), label_logit, highest, summed)
        maximum[p], total[p] = highest, summed


def emit(logits, bias, row, place, label, blank, blank_score, label_score, maximum, total):
    """Reduce rows of logits to the scores of their arcs.

    Parameters
    ----------
    logits : (rows, V) float32 or float64, on a GPU float16 and bfloat16 too
        Logits; where a bias is given the CPU adds it to them in place.
    bias : (V,) or (0,)
    row, label : (n,) int64, (n,) int32
        The row of each cell, and the position of its label in the row or -1.
    place : (n,) or (0,) int64
        Where each cell's numbers go in the outputs; none for cells that follow one another.
    blank : int
    blank_score, label_score, maximum, total : (n,) float32, or float64 for float64 logits
        Filled here: log-probabilities in nats, and the two parts of the normaliser.
    """
    if not on_host(logits):
        by_warp(emit_cuda, len(row), logits, bias, row, place, label, blank, blank_score, label_score, maximum, total)
        return
    work = len(row) * logits.shape[1]
    sweep(emit_cpu, len(row), logits, bias, row, place, label, blank, blank_score, label_score, maximum, total, work=work)
