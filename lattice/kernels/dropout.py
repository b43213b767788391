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
from numba import types
from numba.extending import overload, register_jitable

from .cells import typed
from .launch import WARP, on_host
from .philox import HALF, LOW, philox

LEVELS = 1 << 16
"""What an entry draws from: it is dropped where it draws one of the first `rate` times as many."""
HEAD = 2
"""Numbers ahead of the places in `dropout` of `compute_hidden`."""
NO_DROPOUT = np.zeros(0, np.int64)
"""Stands for `dropout` where there is none."""
ROUND = 8 * WARP
"""Entries that 32 blocks draw."""
_OWN = np.uint64(1 << 31)
"""A bit of the counter that no id of a vocabulary has: a seed may serve samplers and dropout."""
_DRAWN, _BITS = np.uint64(LEVELS - 1), np.uint64(16)


def by_type(dropout):
    """`dropout` as kernels take it. On a GPU it is uint8 where it is empty, and they are compiled without dropout.

    There a loop that could draw takes registers from one that does not. A CPU asks at run time, because to compile all
    sweeps for both would take twice as long.
    """
    return dropout if on_host(dropout) or len(dropout) else dropout.view(np.uint8)


class Mask(NamedTuple):
    """What the draws of a cell are made of: uint64 numbers.

    Attributes
    ----------
    threshold
        Draws below it drop an entry.
    seed
    place
        n * 2**32 + t: the example's place in the batch, and the frame in the example.
    u
    """

    threshold: np.uint64
    seed: np.uint64
    place: np.uint64
    u: np.uint64


def mask_of(dropout, frames, f, s):
    """The mask of the cell of frame f and label position s of a group with so many frames; None without dropout."""
    return _mask_of(dropout, frames, f, s) if dropout.dtype == np.int64 else None


@overload(mask_of)
def _mask_of_overload(dropout, frames, f, s):
    if dropout.dtype == types.int64:
        return lambda dropout, frames, f, s: _mask_of(dropout, frames, f, s)
    return lambda dropout, frames, f, s: None


@register_jitable
def _mask_of(dropout, frames, f, s):
    place, u = np.uint64(dropout[HEAD + f]), np.uint64(dropout[HEAD + frames + s])
    return Mask(np.uint64(dropout[1]), np.uint64(dropout[0]), place, u)


@register_jitable(forceinline=True)
def words_of(mask, block):
    """Four words, of which each holds the draws of two entries, the lower half first."""
    n, t, low, high = mask.place >> HALF, mask.place & LOW, mask.seed & LOW, mask.seed >> HALF
    return philox(np.uint64(block) | _OWN, mask.u, t, n, low, high)


@register_jitable
def scale_of(mask, like):
    """What kept entries are multiplied by, in the type of `like`."""
    if mask is None:
        return like
    levels = typed(LEVELS, like)
    return levels / (levels - typed(mask.threshold, like))


@register_jitable
def drop(x, dropped, scale):
    """An entry of a hidden vector, or -0.0 where it is dropped; NaN and infinity do not get lost."""
    zero = typed(0, x)
    # The sum makes 0.0 of -0.0.
    kept = x * scale + zero
    return -abs(x * zero) if dropped else kept


@register_jitable
def drop_rows(begin, end, dropout, frames, frame, slot, hidden):
    """Drop entries of `hidden` (end - begin, H), the hidden vectors of cells `begin` to `end`, on a CPU."""
    words, width = np.empty((4, WARP), np.uint32), hidden.shape[1]
    for i in range(begin, end):
        mask, own = _mask_of(dropout, frames, frame[i], slot[i]), np.uint64(i - begin)
        scale, threshold = scale_of(mask, hidden[0, 0]), np.uint32(mask.threshold)
        for first in range(0, width, ROUND):
            # Two loops, because the words are 64 bits wide and the entries are 32.
            for lane in range(WARP):
                words[0, lane], words[1, lane], words[2, lane], words[3, lane] = words_of(mask, first // 8 + lane)
            for k in range(min(8, (width - first + WARP - 1) // WARP)):
                h, shift = np.uint64(first + k * WARP), np.uint32(16 * (k % 2))
                for lane in range(min(WARP, width - (first + k * WARP))):
                    # Unsigned, because a place that may be negative is looked at before it is used.
                    at = h + np.uint64(lane)
                    drawn = (words[k // 2, np.uint64(lane)] >> shift) & np.uint32(_DRAWN)
                    hidden[own, at] = drop(hidden[own, at], drawn < threshold, scale)


@register_jitable
def draws_of(mask, k, lane):
    """The draws of the first and of the second four entries of a lane in round k, of 16 bits each.

    Without a mask these are None, and what the next two functions are given comes back, at no instruction.
    """
    if mask is None:
        return None, None
    # Words of 32 bits, which a GPU multiplies by one instruction each.
    block = np.uint32(k) * np.uint32(WARP) + np.uint32(lane)
    n, t = np.uint32(mask.place >> HALF), np.uint32(mask.place & LOW)
    low, high = np.uint32(mask.seed & LOW), np.uint32(mask.seed >> HALF)
    a, b, c, d = philox(np.uint32(block | _OWN), np.uint32(mask.u), t, n, low, high)
    return np.uint64(a) | np.uint64(b) << HALF, np.uint64(c) | np.uint64(d) << HALF


@register_jitable
def drop_next(x, mask, draws, scale):
    """An entry of a lane, and the draws of those behind it."""
    if mask is None:
        return x, draws
    return drop(x, (draws & _DRAWN) < mask.threshold, scale), draws >> _BITS


@register_jitable
def drop_two(x, y, mask, word, scale):
    """Two entries, of the two draws of a word."""
    threshold = np.uint32(mask.threshold)
    # The upper half of a word is below the threshold where the word is below the threshold with zeros behind it.
    first = np.uint32(word & np.uint32(_DRAWN)) < threshold
    return drop(x, first, scale), drop(y, word < np.uint32(threshold << np.uint32(_BITS)), scale)


@register_jitable
def drop_four(four, mask, draws, scale):
    """Four entries of a lane."""
    if mask is None:
        return four
    a, b = drop_two(four[0], four[1], mask, np.uint32(draws & LOW), scale)
    c, d = drop_two(four[2], four[3], mask, np.uint32(draws >> HALF), scale)
    return a, b, c, d


class Kept(NamedTuple):
    """The share of entries that is kept on average, and its inverse."""

    share: float
    scale: float


def kept_of(dropout, like):
    """`Kept` in the type of `like`, None without dropout."""
    return _kept_of(dropout, like) if dropout.dtype == np.int64 else None


@overload(kept_of)
def _kept_of_overload(dropout, like):
    if dropout.dtype == types.int64:
        return lambda dropout, like: _kept_of(dropout, like)
    return lambda dropout, like: None


@register_jitable
def _kept_of(dropout, like):
    levels = typed(LEVELS, like)
    kept = levels - typed(dropout[1], like)
    return Kept(kept / levels, levels / kept)


@register_jitable
def through_dropout(through, value, grad_value, kept):
    """The gradient of an entry's preactivation; `through` is that of the activation."""
    if kept is None:
        return through(value, grad_value)
    # It is linear in the gradient, which dropout scales.
    x = through(value * kept.share, grad_value * kept.scale)
    dropped = value == 0 and math.copysign(typed(1, value), value) < 0
    return typed(0, x) if dropped else x
