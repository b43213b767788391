"""Rows of a frame's cells, as the sweeps of a CPU take them where arcs take several frames (steps.py).

What the cells of a frame hand to others is kept in a ring of rows, one for each frame that an arc may come from, in
nats. What arrives in a cell is summed by its largest term: one exponential an arc, and one logarithm a cell. Labels
that stay in the frame follow behind that (`chain`). Loops over a frame's cells vectorise.

Place u + 1 of a row belongs to label position u. A range of label positions goes from `lo` to before `hi`.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, exp, larger
from .runs import FAR, NONE, ONE, PIECE, is_open
from .scaled import EMPTY, aligned, log_of, normalised, split
from .state import scores_at
from .steps import BLANK, LABEL


class StepScratch(NamedTuple):
    """Memory of a sweep, rows of U + 3 float64.

    Attributes
    ----------
    stay, move : (R, U + 3)
        What a frame's cells carry on by their blank arcs and by their label arcs, but for the step; back, `stay` is
        beta. Frame f has row f % R.
    begin, end : (R,) uint64
        The label positions that a row holds.
    blank_score, label_score : (U + 3,)
        The scores of the frame in work.
    high, total, power, value, exponent, label_power, weight : (U + 3,)
    """

    stay: np.ndarray
    move: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    blank_score: np.ndarray
    label_score: np.ndarray
    high: np.ndarray
    total: np.ndarray
    power: np.ndarray
    value: np.ndarray
    exponent: np.ndarray
    label_power: np.ndarray
    weight: np.ndarray


@register_jitable
def step_scratch(frames, labels, steps):
    ring = min(frames, steps[0, steps.shape[1] - 1]) + 1
    # Zeros, because `chain` reads the power before the first place.
    rows, own = np.empty((2, ring, labels + 3)), np.zeros((9, labels + 3))
    begin, end = np.full(ring, FAR, np.uint64), np.zeros(ring, np.uint64)
    return StepScratch(
        rows[0], rows[1], begin, end, own[0], own[1], own[2], own[3], own[4], own[5], own[6], own[7], own[8]
    )


def step_scratch_bytes(frames, labels, longest: int):
    """Bytes of the scratch memory for examples of T `frames` (n,) and U `labels` (n,)."""
    ring = np.minimum(frames, longest) + 1
    return 8 * ((2 * ring + 9) * (labels + 3) + 2 * ring)


@register_jitable
def open_range(f, first, offset, bounds, state):
    """The label positions of a frame from the first open cell to behind the last; (FAR, 0) if none is open."""
    # `read_run` has these loops written out: by a call of this, frames of few cells took it an eighth longer.
    low, c, high = np.uint64(first[f]), np.uint64(offset[f]), np.uint64(offset[f + 1])
    shift, a, b = c - low, c, high
    while a < b and not is_open(a, bounds, state):
        a += ONE
    while a < b and not is_open(b - ONE, bounds, state):
        b -= ONE
    return (a - shift, b - shift) if a < b else (FAR, NONE)


@register_jitable
def read_frame(lo, hi, shift, bounds, state, scratch):
    """Copy the scores of the label positions from `lo` to before `hi`."""
    for u in range(lo, hi):
        scratch.blank_score[u + ONE], scratch.label_score[u + ONE] = scores_at(u + shift, bounds, state)


@register_jitable
def raise_high(lo, hi, further, rows, r, step_score, n, shift, high):
    """Take the arcs of step n into the largest score of each cell, which is `further` on from where they leave."""
    # Rows are given by their arrays and places: a row cut out would be counted as in use, by an atomic instruction.
    for u in range(lo, hi):
        x = rows[r, u + ONE] + step_score[n, u + shift]
        j = u + further
        high[j] = larger(x, high[j])


@register_jitable
def add_terms(lo, hi, further, rows, r, step_score, n, shift, high, total):
    """Take the same arcs into the sum of exponentials."""
    for u in range(lo, hi):
        j = u + further
        total[j] += exp(rows[r, u + ONE] + step_score[n, u + shift] - high[j])


@register_jitable
def arrive(f, begin, lo, hi, summing, first, offset, steps, step_score, scratch):
    """What arrives in frame f from earlier frames, at the label positions from `lo` to before `hi`.

    The largest, or with `summing`, a constant at each call, the sum of exponentials above the largest.
    """
    ring, high, total = np.uint64(scratch.stay.shape[0]), scratch.high, scratch.total
    if lo >= hi:
        return
    for n in range(steps.shape[1]):
        d = np.uint64(steps[0, n])
        if d == NONE or d > np.uint64(f - begin):
            continue
        g = np.uint64(f) - d
        r, shift = g % ring, np.uint64(offset[g]) - np.uint64(first[g])
        if steps[1, n] & BLANK:
            a, b = max(scratch.begin[r], lo), min(scratch.end[r], hi)
            if summing:
                add_terms(a, b, ONE, scratch.stay, r, step_score, n, shift, high, total)
            else:
                raise_high(a, b, ONE, scratch.stay, r, step_score, n, shift, high)
        if steps[1, n] & LABEL:
            # A label leads to the next position.
            a, b = max(scratch.begin[r] + ONE, lo) - ONE, min(scratch.end[r] + ONE, hi) - ONE
            if summing:
                add_terms(a, b, ONE + ONE, scratch.move, r, step_score, n, shift, high, total)
            else:
                raise_high(a, b, ONE + ONE, scratch.move, r, step_score, n, shift, high)


@register_jitable
def reached(f, begin, steps, scratch):
    """The label positions to which arcs of earlier frames lead, from the first to behind the last."""
    ring, lo, hi = np.uint64(scratch.stay.shape[0]), FAR, NONE
    for n in range(steps.shape[1]):
        d = np.uint64(steps[0, n])
        if d == NONE or d > np.uint64(f - begin):
            continue
        r = (np.uint64(f) - d) % ring
        if scratch.begin[r] < scratch.end[r]:
            lo = min(lo, scratch.begin[r] + (NONE if steps[1, n] & BLANK else ONE))
            hi = max(hi, scratch.end[r] + (ONE if steps[1, n] & LABEL else NONE))
    return lo, hi


@register_jitable
def close_row(lo, hi, high, total):
    for u in range(lo + ONE, hi + ONE):
        high[u], total[u] = CLOSED, 0.0


@register_jitable
def open_base(lo, hi, high):
    """Where nothing arrives, 0 in the place of the largest: -inf - -inf would be NaN."""
    for u in range(lo + ONE, hi + ONE):
        high[u] = 0.0 if high[u] == CLOSED else high[u]


@register_jitable
def ahead(beta, score, step):
    """beta behind an arc with the arc's two scores; -inf where no alignment leads on, whatever the scores are."""
    return CLOSED if beta == CLOSED else beta + score + step


@register_jitable
def any_term(lo, hi, total):
    """Whether a sum of the row is not 0; NaN is not."""
    found = False
    for u in range(lo, hi):
        found |= total[u + ONE] != 0.0
    return found


@register_jitable
def follow_labels(lo, hi, back, step_score, shift, scratch):
    """Add the label arcs that stay in the frame to a row of sums: scaled numbers in `value` and `exponent`.

    With `back`, a constant at each call, sums go from the last cell to the first, and else from the first to the last.
    """
    total, power, high, label_value = scratch.total, scratch.power, scratch.high, scratch.high
    for j in range(lo + ONE, hi + ONE):
        x, p = split(high[j])
        # Of 0 any other power would be the larger of two, and the other number lost.
        power[j] = EMPTY if total[j] == 0.0 else p
        total[j] *= x
    # The largest terms are in the sums now, and their row is free.
    for j in range(lo + ONE, hi + ONE):
        own = scratch.label_score[j]
        # Where no label is left there is no arc, whatever its step is.
        own = CLOSED if own == CLOSED else own + step_score[0, j - ONE + shift]
        label_value[j], scratch.label_power[j] = split(own)
    chain(lo + ONE, hi + ONE, back, scratch)


@register_jitable
def follow_best(lo, hi, back, step_score, shift, scratch):
    """Take the label arcs that stay in the frame into a row of best scores, `high`; `back` as in `follow_labels`."""
    high, label = scratch.high, scratch.label_score
    for k in range(ONE, hi - lo):
        if back:
            j = hi - k
            high[j] = larger(ahead(high[j + ONE], label[j], step_score[0, j - ONE + shift]), high[j])
        else:
            j = lo + k
            high[j + ONE] = larger(ahead(high[j], label[j], step_score[0, j - ONE + shift]), high[j + ONE])


@register_jitable
def chain(first, end, back, scratch):
    """Add up what comes in (`total`, `power`) along a frame by its labels' arcs (`high`, `label_power`)."""
    # `sum_run` has this loop written out, over cells of a run: by a call its sweeps took an eighth longer.
    total, power, label_value, label_power = scratch.total, scratch.power, scratch.high, scratch.label_power
    value, exponent, weight = scratch.value, scratch.exponent, scratch.weight
    before = NONE if back else ONE  # from a cell to the one whose label arc joins it with its neighbour
    last, last_power = 0.0, EMPTY
    for done in range(first, end, PIECE):
        size = min(PIECE, end - done)
        low = first + end - done - size if back else done
        high = low + size
        # The powers go ahead: that of a cell is the larger of those of its two terms. With them known, the values
        # follow one another by a product and a sum.
        for j in range(size):
            c = high - ONE - j if back else low + j
            moving = last_power + label_power[c - before]
            last_power = moving if moving > power[c] else power[c]
            weight[c], exponent[c] = moving, last_power
        for c in range(low, high):
            weight[c] = aligned(label_value[c - before], weight[c], exponent[c])
            value[c] = aligned(total[c], power[c], exponent[c])
        if not back and done == first:
            # No arc leads to the first cell. What lies before it may be the NaN of another frame.
            weight[first] = 0.0
        for j in range(size):
            c = high - ONE - j if back else low + j
            last = last * weight[c] + value[c]
            value[c] = last
        for c in range(low, high):
            value[c], exponent[c] = normalised(value[c], exponent[c])
        c = low if back else high - ONE
        last, last_power = value[c], exponent[c]


@register_jitable
def to_logs(lo, hi, stays, scratch):
    """Sums -> their logarithms, in `total`; with `stays`, a constant at each call, of scaled numbers."""
    high, total = scratch.high, scratch.total
    for j in range(lo + ONE, hi + ONE):
        if stays:
            total[j] = log_of(scratch.value[j], scratch.exponent[j])
        else:
            value, exponent = normalised(total[j], 0.0)
            total[j] = high[j] + log_of(value, exponent)


@register_jitable
def depart(f, end, lo, hi, summing, steps, step_score, shift, scratch):
    """What departs from frame f to later frames, at the label positions from `lo` to before `hi`, as in `arrive`."""
    ring, high, total, beta = np.uint64(scratch.stay.shape[0]), scratch.high, scratch.total, scratch.stay
    for n in range(steps.shape[1]):
        d = np.uint64(steps[0, n])
        if d == NONE or d > np.uint64(end - f):
            continue
        r = (np.uint64(f) + d) % ring
        if steps[1, n] & BLANK:
            for j in range(max(lo, scratch.begin[r]) + ONE, min(hi, scratch.end[r]) + ONE):
                x = ahead(beta[r, j], scratch.blank_score[j], step_score[n, j - ONE + shift])
                if summing:
                    total[j] += exp(x - high[j])
                else:
                    high[j] = larger(x, high[j])
        if steps[1, n] & LABEL and np.uint64(f) + d < np.uint64(end):
            a = max(lo + ONE, scratch.begin[r])
            for j in range(a, min(hi + ONE, scratch.end[r])):
                x = ahead(beta[r, j + ONE], scratch.label_score[j], step_score[n, j - ONE + shift])
                if summing:
                    total[j] += exp(x - high[j])
                else:
                    high[j] = larger(x, high[j])
