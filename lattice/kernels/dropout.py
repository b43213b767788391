"""Dropout of hidden vectors, by a mask that is a function of (seed, n, t, u, h): no array holds it.

The entries of a hidden vector are drawn wherever the vector is made, in bounds, forward and backward pass alike, and
come out the same in each, on every device. What is dropped is stored as -0.0. What is kept is divided by the share that
is kept on average, and is never -0.0. So the gradient of a hidden vector tells by the vector alone what was dropped.

A block of Philox has 128 bits, 16 for each of eight entries: those of a lane in a round of lanes.py, which are 32
entries apart. So a CPU draws 32 neighbours at once, too.
"""

import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .cells import typed
from .launch import WARP
from .philox import HALF, LOW, philox

LEVELS = 1 << 16
"""What an entry draws from: it is dropped where it draws one of the first `rate` times as many."""
HEAD = 2
"""Numbers ahead of the places in `dropout` of `compute_hidden`."""
ROUND = 8 * WARP
"""Entries that 32 blocks draw."""
_OWN = np.uint64(1 << 31)
"""A bit of the counter that no id of a vocabulary has: a seed may serve samplers and dropout."""
_DRAWN, _BITS = np.uint64(LEVELS - 1), np.uint64(16)


class Mask(NamedTuple):
    """What the draws of a cell are made of, all uint64 but `on`.

    Attributes
    ----------
    on : bool
        Whether there is dropout at all.
    threshold
        Draws below it drop an entry.
    seed
    place
        n * 2**32 + t: the example's place in the batch, and the frame in the example.
    u
    """

    on: bool
    threshold: np.uint64
    seed: np.uint64
    place: np.uint64
    u: np.uint64


@register_jitable
def mask_of(dropout, frames, f, s):
    """The mask of the cell of frame f and label position s of a group with so many frames."""
    if dropout.shape[0] == 0:
        none = np.uint64(0)
        return Mask(False, none, none, none, none)
    threshold, seed = np.uint64(dropout[1]), np.uint64(dropout[0])
    return Mask(True, threshold, seed, np.uint64(dropout[HEAD + f]), np.uint64(dropout[HEAD + frames + s]))


@register_jitable(forceinline=True)
def words_of(mask, block):
    """Four words, of which each holds the draws of two entries, the lower half first."""
    n, t, low, high = mask.place >> HALF, mask.place & LOW, mask.seed & LOW, mask.seed >> HALF
    return philox(np.uint64(block) | _OWN, mask.u, t, n, low, high)


@register_jitable
def scale_of(mask, like):
    """What kept entries are multiplied by."""
    levels = typed(LEVELS, like)
    return levels / (levels - typed(mask.threshold, like))


@register_jitable
def drop(x, dropped, scale):
    """An entry of a hidden vector, or -0.0 where it is dropped; NaN and infinity do not get lost."""
    zero = typed(0, x)
    product = x * (zero if dropped else scale)
    # Of -0.0 and 0.0 the sum is 0.0.
    return -abs(product) if dropped else product + zero


@register_jitable
def is_dropped(value):
    """Whether an entry of a hidden vector was dropped, where there is dropout."""
    return value == 0 and math.copysign(typed(1, value), value) < 0


@register_jitable
def drop_rows(begin, end, dropout, frames, frame, slot, hidden):
    """Drop entries of `hidden` (end - begin, H), the hidden vectors of cells `begin` to `end`."""
    words, width = np.empty((4, WARP), np.uint32), hidden.shape[1]
    for i in range(begin, end):
        mask = mask_of(dropout, frames, frame[i], slot[i])
        scale, own, threshold = scale_of(mask, hidden[0, 0]), np.uint64(i - begin), np.uint32(mask.threshold)
        for first in range(0, width, ROUND):
            # Two loops, because the words are 64 bits wide and the entries are 32.
            for lane in range(WARP):
                block = words_of(mask, first // 8 + lane)
                words[0, lane], words[1, lane], words[2, lane], words[3, lane] = block
            for k in range(min(8, (width - first + WARP - 1) // WARP)):
                h, shift = np.uint64(first + k * WARP), np.uint32(16 * (k % 2))
                for lane in range(min(WARP, width - (first + k * WARP))):
                    # Unsigned, because a place that may be negative is looked at before it is used.
                    at = h + np.uint64(lane)
                    drawn = (words[k // 2, np.uint64(lane)] >> shift) & np.uint32(_DRAWN)
                    hidden[own, at] = drop(hidden[own, at], drawn < threshold, scale)


@register_jitable
def draws_of(mask, k, lane):
    """The draws of the first and of the second four entries of a lane in round k, of 16 bits each; 0 where not on."""
    if not mask.on:
        return np.uint64(0), np.uint64(0)
    a, b, c, d = words_of(mask, np.uint64(k) * np.uint64(WARP) + np.uint64(lane))
    return a | b << HALF, c | d << HALF


@register_jitable
def drop_next(x, mask, draws, scale):
    """An entry and the draws of those behind it, from the draws of four."""
    if not mask.on:
        return x, draws
    return drop(x, (draws & _DRAWN) < mask.threshold, scale), draws >> _BITS


@register_jitable
def drop_four(four, mask, draws, scale):
    """Four entries of a lane, from their draws."""
    if not mask.on:
        return four
    a, draws = drop_next(four[0], mask, draws, scale)
    b, draws = drop_next(four[1], mask, draws, scale)
    c, draws = drop_next(four[2], mask, draws, scale)
    d, draws = drop_next(four[3], mask, draws, scale)
    return a, b, c, d
