"""A row of logits -> the two parts of its normaliser, on both targets: the row's maximum, and the rest.

The rest is the sum of exp(logit - maximum) over all entries but one that is the maximum. A float32 `logit - log_norm`
would lose the loss when all logits carry a large offset. A float32 `1 + rest` would lose the digits of a row that is
certain, where log p is -log1p(rest) and 1 - p is rest / (1 + rest).

On a GPU `math.exp` has an instruction; the polynomial of cells.py exists to vectorise on a CPU.
"""

import math

import numba
import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .cells import CLOSED, typed
from .lanes import FOUR, first_behind, first_of, half_rounds, last_four, load_eight, whole_rounds, without
from .launch import cuda


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
def ordered(one, other):
    """The larger of two numbers, then the other one. A NaN is kept: it comes out as one of the two."""
    above = one > other
    return one if above else other, other if above else one


@register_jitable
def join(one, one_rest, other, other_rest):
    """Maximum and rest of two parts of a row, from the maximum and rest of each.

    A NaN may pass the comparison by, but it stays in the rest. A part without entries is (-inf, 0).
    """
    above = one > other
    high, low = ordered(one, other)
    high_rest, low_rest = one_rest if above else other_rest, other_rest if above else one_rest
    # A part of nothing but -inf: its maximum is no term of the sum, and high may be -inf too.
    if low == typed(CLOSED, low):
        return high, high_rest + low_rest
    return high, high_rest + (typed(1, low) + low_rest) * math.exp(low - high)


@register_jitable
def largest_first(four):
    a, b, c, d = four
    a, b = ordered(a, b)
    c, d = ordered(c, d)
    a, c = ordered(a, c)
    return a, b, c, d


@register_jitable
def base_of(maximum, largest):
    """What is taken off the logits: the larger of two, or 0 where all are -inf, because -inf - -inf would be NaN."""
    high, _ = ordered(maximum, largest)
    return high if high != typed(CLOSED, high) else typed(0, high)


@register_jitable
def sum_of_three(a, b, c, base):
    return (math.exp(a - base) + math.exp(b - base)) + math.exp(c - base)


@register_jitable
def advance(maximum, rest, largest, others, base):
    """Take the largest of some logits into a running maximum and rest; `others` is the sum of their exponentials."""
    stays = maximum > largest
    high, low = ordered(maximum, largest)
    # The smaller of the two is a term now, and the rest goes with the old maximum.
    term = math.exp(low - base)
    return high, term + rest * (typed(1, term) if stays else term) + others


@register_jitable
def fold_four(maximum, rest, four):
    """Take four more logits into a running maximum and rest: one exponential each, and none for the maximum."""
    a, b, c, d = largest_first(four)
    base = base_of(maximum, a)
    return advance(maximum, rest, a, sum_of_three(b, c, d, base), base)


@register_jitable
def fold_eight(maximum, rest, first, second):
    """`fold_four` of twice four logits, for one change of the maximum."""
    a, b, c, d = largest_first(first)
    e, f, g, h = largest_first(second)
    a, e = ordered(a, e)
    base = base_of(maximum, a)
    others = sum_of_three(b, c, d, base) + (sum_of_three(f, g, h, base) + math.exp(e - base))
    return advance(maximum, rest, a, others, base)


@register_jitable
def reduce_row(row, bias, biased, lane, like, out):
    """Maximum and rest of a lane's part of a row (V,), in the dtype of the scalar `like`; `out` as in `without`."""
    highest, rest = typed(CLOSED, like), typed(0, like)
    for k in range(whole_rounds(row)):
        v = first_of(k, lane)
        first, second = load_eight(row, bias, biased, v)
        highest, rest = fold_eight(highest, rest, without(first, v, out), without(second, v + FOUR, out))
    for k in range(half_rounds(row)):
        v = first_behind(row, k, lane)
        highest, rest = fold_four(highest, rest, without(last_four(row, bias, biased, v), v, out))
    return highest, rest


@register_jitable
def normaliser(row, bias, lane, like, out=None):
    """Maximum and rest of a row, in every lane of the warp that reads it; both are NaN where the row holds NaN or +inf.

    Entry `out` is no part of the row, if it is given.

    All lanes must come here together. Each joins the parts in an order of its own, so their rests may differ in the
    last digit.
    """
    if bias.shape[0]:
        highest, rest = reduce_row(row, bias, True, lane, like, out)
    else:
        highest, rest = reduce_row(row, bias, False, lane, like, out)
    for distance in (16, 8, 4, 2, 1):
        other = cuda.shfl_xor_sync(0xFFFFFFFF, highest, distance)
        highest, rest = join(highest, rest, other, cuda.shfl_xor_sync(0xFFFFFFFF, rest, distance))
    # +inf in one entry: the rest may be finite yet, and becomes NaN here.
    if highest == -typed(CLOSED, like):
        rest = highest - highest
    # A NaN may have passed the comparisons of a maximum by, but it stands in the rest.
    return highest + (rest - rest), rest
