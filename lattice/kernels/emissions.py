"""A row of logits -> its maximum and rest, the blank score and the label score. The V axis ends here.

The normaliser is kept in two parts: the row's maximum, and the rest, which is the sum of exp(logit - maximum) over all
entries but one that is the maximum. A float32 `logit - log_norm` would lose the loss when all logits carry a large
offset. A float32 `1 + rest` would lose the digits of a row that is certain, where log p is -log1p(rest) and 1 - p is
rest / (1 + rest). A row that is -inf throughout has no distribution, so its arcs are closed. NaN and +inf anywhere in a
row make its scores NaN.

The CUDA kernel takes `math.exp`, for which a GPU has an instruction; the polynomial of cells.py exists to vectorise on
a CPU.
"""

import math

import numba
import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .cells import CLOSED, exp, score, typed, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep

FOUR_WARPS = 4 * WARP
# Distances of the entries that a lane loads at once from the first of them; unsigned, as `load_four` wants them.
ONE, TWO, THREE = np.uint64(WARP), np.uint64(2 * WARP), np.uint64(3 * WARP)


def _order(logit):
    """Map a float to an integer that sorts alike, NaN beyond +inf: an integer maximum vectorises and keeps a NaN."""


@overload(_order)
def _order_overload(logit):
    if logit == types.float32:
        return lambda logit: _fold32(np.float32(logit).view(np.int32))
    return lambda logit: _fold64(np.float64(logit).view(np.int64))


@register_jitable
def _fold32(bits):
    # Floats are sign and magnitude: below 0 all other bits are turned over. Folding twice gives the bits back.
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
    """The largest entry of a row (V,); NaN above +inf, and where all other entries are -inf."""
    highest = _order(row[0])
    for v in range(1, row.shape[0]):
        highest = max(highest, _order(row[v]))
    maximum = _unorder(highest)
    if maximum == typed(CLOSED, maximum):
        # A NaN whose sign bit is set sorts below -inf. Beside a finite maximum the sum of the row shows it.
        # Here nothing would.
        for v in range(row.shape[0]):
            if row[v] != row[v]:
                return row[v]
    return maximum


# The two sums are compiled apart: their additions may change order, so that they vectorise. `exp` must keep its order.
@numba.njit(nogil=True, fastmath={"reassoc", "nsz"}, error_model="numpy")
def sum_of(row):
    total = row[0]
    for v in range(1, row.shape[0]):
        total += row[v]
    return total


@numba.njit(nogil=True, fastmath={"reassoc", "nsz"}, error_model="numpy")
def sum_below_one(row):
    total = typed(0, row[0])
    for v in range(row.shape[0]):
        total += row[v] if row[v] < 1 else typed(0, row[v])
    return total


@register_jitable
def rest_of(exponentials):
    """The sum of a row's exp(logit - maximum), (V,), without the term of one maximum, which is 1."""
    rest = sum_of(exponentials) - typed(1, exponentials[0])
    # Beside a rest below 1 the 1 has cost digits, and there is no second 1. A NaN is not below 1 and stays.
    return sum_below_one(exponentials) if rest < 1 else rest


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


@register_jitable
def join(one, one_rest, other, other_rest):
    """Maximum and rest of two parts of a row, from the maximum and rest of each.

    A NaN may pass the comparison by, but it stays in the rest. A part without entries is (-inf, 0).
    """
    above = one > other
    high, low = one if above else other, other if above else one
    high_rest, low_rest = one_rest if above else other_rest, other_rest if above else one_rest
    # A part of nothing but -inf: its maximum is no term of the sum, and high may be -inf too.
    if low == typed(CLOSED, low):
        return high, high_rest + low_rest
    return high, high_rest + (typed(1, low) + low_rest) * math.exp(low - high)


@register_jitable
def fold(maximum, rest, a, b, c, d):
    """Take four more logits into a running maximum and rest."""
    none = typed(0, maximum)  # the rest of a single entry
    # Two and two, so that the first exponentials do not wait for one another.
    first, first_rest = join(a, none, b, none)
    second, second_rest = join(c, none, d, none)
    four, four_rest = join(first, first_rest, second, second_rest)
    return join(maximum, rest, four, four_rest)


@register_jitable
def load_four(rows, bias, biased, r, v):
    """rows[r, v] and the next three entries at distances of a warp, with the bias.

    Nothing stands between the loads, so all four are under way at once. `v` is unsigned, because a signed index may be
    negative and asks for more instructions.
    """
    a, b = widen(rows[r, v]), widen(rows[r, v + ONE])
    c, d = widen(rows[r, v + TWO]), widen(rows[r, v + THREE])
    if biased:
        return a + bias[v], b + bias[v + ONE], c + bias[v + TWO], d + bias[v + THREE]
    return a, b, c, d


@register_jitable
def entry(rows, bias, biased, r, v):
    """rows[r, v] with the bias, -inf beyond the row; a GPU adds the bias as it reads and leaves the row as it is."""
    if v >= rows.shape[1]:
        return typed(CLOSED, widen(rows[r, 0]))
    return widen(rows[r, v]) + bias[v] if biased else widen(rows[r, v])


@register_jitable
def reduce_row(logits, bias, biased, r, lane, like):
    """Maximum and rest of a lane's part of row r, in the dtype of the scalar `like`.

    `biased` is a constant at each call, so that the loops hold no test of it.
    """
    highest, rest = typed(CLOSED, like), typed(0, like)
    whole = logits.shape[1] - logits.shape[1] % FOUR_WARPS
    for begin in range(0, whole, FOUR_WARPS):
        a, b, c, d = load_four(logits, bias, biased, r, np.uint64(begin + lane))
        highest, rest = fold(highest, rest, a, b, c, d)
    if whole < logits.shape[1]:
        v = whole + lane
        a, b = entry(logits, bias, biased, r, v), entry(logits, bias, biased, r, v + WARP)
        c, d = entry(logits, bias, biased, r, v + 2 * WARP), entry(logits, bias, biased, r, v + 3 * WARP)
        highest, rest = fold(highest, rest, a, b, c, d)
    return highest, rest


@register_jitable
def normaliser(logits, bias, r, lane, like):
    """Maximum and rest of a row, in every lane of the warp that reads it; both are NaN where the row holds NaN or +inf.

    All lanes must come here together. Each joins the parts in an order of its own, so their rests may differ in the
    last digit.
    """
    if bias.shape[0]:
        highest, rest = reduce_row(logits, bias, True, r, lane, like)
    else:
        highest, rest = reduce_row(logits, bias, False, r, lane, like)
    for distance in (16, 8, 4, 2, 1):
        other = cuda.shfl_xor_sync(0xFFFFFFFF, highest, distance)
        highest, rest = join(highest, rest, other, cuda.shfl_xor_sync(0xFFFFFFFF, rest, distance))
    # +inf in one entry: the rest may be finite yet, and becomes NaN here.
    if highest == -typed(CLOSED, like):
        rest = highest - highest
    # A NaN may have passed the comparisons of a maximum by, but it stands in the rest.
    return highest + (rest - rest), rest


@cuda_kernel
def emit_cuda(logits, bias, row, place, label_id, blank_id, blank_score, label_score, maximum, rest):
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, r, biased = cuda.threadIdx.x % WARP, row[i], bias.shape[0] > 0
    p = place[i] if place.shape[0] else i
    highest, others = normaliser(logits, bias, r, lane, rest[p])  # rest[p] lends its dtype, nothing else
    if lane == 0:
        label_logit = entry(logits, bias, biased, r, label_id[i]) if label_id[i] >= 0 else typed(CLOSED, highest)
        blank_score[p], label_score[p] = emit_scores(
            entry(logits, bias, biased, r, blank_id), label_logit, highest, others
        )
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
