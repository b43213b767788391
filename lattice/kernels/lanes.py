"""A row of logits or of a hidden vector as the lanes of a warp take it: entry v by lane v % 32, eight entries at once.

A round is eight entries of each lane. Behind the whole rounds come at most two half ones, whose entries may lie beyond
the row. No count of rounds passes 32 bits, and places in a row are unsigned, because a signed index may be negative and
asks for more instructions. A GPU adds the bias as it reads, and leaves the row as it is.
"""

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, put, typed, widen
from .launch import WARP

FOUR_WARPS, EIGHT_WARPS = 4 * WARP, 8 * WARP
# Distances of the entries that a lane takes at once from the first of them.
ONE, TWO, THREE, FOUR, EIGHT = (np.uint64(k * WARP) for k in (1, 2, 3, 4, 8))


@register_jitable
def whole_rounds(row):
    return np.int32(row.shape[0] // EIGHT_WARPS)


@register_jitable
def half_rounds(row):
    return np.int32((row.shape[0] % EIGHT_WARPS + FOUR_WARPS - 1) // FOUR_WARPS)


@register_jitable
def first_of(k, lane):
    """The first entry of a lane in round k."""
    return np.uint64(k) * EIGHT + np.uint64(lane)


@register_jitable
def first_behind(row, k, lane):
    """The first entry of a lane in half round k behind the whole rounds."""
    return first_of(whole_rounds(row), lane) + np.uint64(k) * FOUR


@register_jitable
def load_four(row, bias, biased, v):
    """row[v] and the next three entries of a lane, with the bias."""
    a, b, c, d = widen(row[v]), widen(row[v + ONE]), widen(row[v + TWO]), widen(row[v + THREE])
    if biased:
        return a + bias[v], b + bias[v + ONE], c + bias[v + TWO], d + bias[v + THREE]
    return a, b, c, d


@register_jitable
def without(four, v, out):
    """`four` from entry v on, with -inf for entry `out`; as they are where that is None, at no instruction."""
    if out is None:
        return four
    a, b, c, d = four
    closed, at = typed(CLOSED, a), np.uint64(out)
    a, b = closed if v == at else a, closed if v + ONE == at else b
    return a, b, closed if v + TWO == at else c, closed if v + THREE == at else d


@register_jitable
def load_eight(row, bias, biased, v):
    """Twice four entries of a lane. Nothing stands between the loads, so all are under way at once.

    `biased` is a constant at each call, so that no loop tests it.
    """
    return load_four(row, bias, biased, v), load_four(row, bias, biased, v + FOUR)


@register_jitable
def entry(row, bias, biased, v):
    """row[v] with the bias, -inf beyond the row."""
    at = np.uint64(v)
    if at >= np.uint64(row.shape[0]):
        return typed(CLOSED, widen(row[0]))
    return widen(row[at]) + bias[at] if biased else widen(row[at])


@register_jitable
def last_four(row, bias, biased, v):
    """`load_four` where the row may end before."""
    a, b = entry(row, bias, biased, v), entry(row, bias, biased, v + ONE)
    return a, b, entry(row, bias, biased, v + TWO), entry(row, bias, biased, v + THREE)


@register_jitable
def put_four(row, v, four):
    """Set row[v] and the next three entries of a lane."""
    a, b, c, d = four
    put(row, v, a)
    put(row, v + ONE, b)
    put(row, v + TWO, c)
    put(row, v + THREE, d)


@register_jitable
def put_eight(row, v, first, second):
    put_four(row, v, first)
    put_four(row, v + FOUR, second)


@register_jitable
def put_last_four(row, v, four):
    """`put_four` where the row may end before."""
    a, b, c, d = four
    count = np.uint64(row.shape[0])
    if v < count:
        put(row, v, a)
    if v + ONE < count:
        put(row, v + ONE, b)
    if v + TWO < count:
        put(row, v + TWO, c)
    if v + THREE < count:
        put(row, v + THREE, d)
