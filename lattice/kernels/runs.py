"""Runs of frames, as a sweep of a CPU takes them: scores in rows of scratch memory, summed, and written back.

Copying, splitting and writing vectorise over a run, however few cells a frame has. Of a frame only the cells take part
that an alignment may visit: from the first open cell to the last, and the cells that arcs of the frame before lead to.
Alpha or beta of all others is 0.

`state` is a `CellState`. With `bounds`, a constant at each call, upper bounds stand for the scores of cells that are
not computed. Without, maximum and rest are not read.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED
from .scaled import EMPTY, added, aligned, normalised, split
from .state import scores_at

RUN = 256
"""Cells of a run, and frames at most; more cells only where one frame has more. Rows of them stay in a cache."""
PIECE = np.uint64(512)
"""Cells summed along a frame before their values are normalised: each of them may make a value e times as large."""
# Places in rows are unsigned. Of a signed one Numba asks whether it counts from the end, and the loop does not
# vectorise.
NONE, ONE, FAR = np.uint64(0), np.uint64(1), np.uint64(2**40)


class Scratch(NamedTuple):
    """Memory of a sweep.

    Attributes
    ----------
    blank_value, blank_power, label_value, label_power, value, power, weight : (cells + 1,) float64
        Scaled numbers of the cells of a run, one behind the other. Place 0 is before the first.
    stay, stay_power, move, move_power : (U + 2,) float64
        What the last frame hands on to each label position: forward by its blank and its label arcs, back its beta.
    begin, end : (frames,) uint64
        Label positions of a frame that take part.
    """

    blank_value: np.ndarray
    blank_power: np.ndarray
    label_value: np.ndarray
    label_power: np.ndarray
    value: np.ndarray
    power: np.ndarray
    weight: np.ndarray
    stay: np.ndarray
    stay_power: np.ndarray
    move: np.ndarray
    move_power: np.ndarray
    begin: np.ndarray
    end: np.ndarray


@register_jitable
def scratch_for(labels):
    rows, carried = np.empty((7, max(labels + 1, RUN) + 1)), np.empty((4, labels + 2))
    rows[2, 0], rows[3, 0] = 0.0, EMPTY
    places = np.empty((2, RUN), np.uint64)
    return Scratch(
        rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6],
        carried[0], carried[1], carried[2], carried[3], places[0], places[1],
    )  # fmt: skip


def scratch_bytes(labels):
    """Bytes of the scratch memory for examples of U `labels` (n,)."""
    rows, places = 7 * (np.maximum(labels + 1, RUN) + 1) + 4 * (labels + 2), 2 * RUN
    return 8 * (rows + places)


@register_jitable
def is_open(c, bounds, state):
    blank_score, label_score = scores_at(c, bounds, state)
    return not (blank_score == CLOSED and label_score == CLOSED)


@register_jitable
def read_run(f, last, back, open_begin, open_end, first, offset, bounds, state, scratch):
    """Copy the scores of a run of frames from `f` on towards `last`, which is not in it.

    Parameters
    ----------
    open_begin, open_end : uint64
        The label positions that arcs of the frame before may lead to, but for the one behind them. Unused if `back`.

    Returns
    -------
    stop, count, open_begin, open_end, lost
        The frame behind the run, the place behind its last cell, what the next run is to be told, and of how
        many cells the blank score is NaN.
    """
    blank_value, label_value = scratch.blank_value, scratch.label_value
    count, frames, lost = ONE, 0, NONE
    while f != last and frames < RUN:
        low, c, high = np.uint64(first[f]), np.uint64(offset[f]), np.uint64(offset[f + 1])
        if frames and count + high - c >= np.uint64(blank_value.shape[0]):
            break
        shift, a, b = c - low, c, high  # from a label position to the number of its cell; the open cells are a to b
        while a < b and not is_open(a, bounds, state):
            a += ONE
        while a < b and not is_open(b - ONE, bounds, state):
            b -= ONE
        own_begin, own_end = (a - shift, b - shift) if a < b else (FAR, NONE)
        if not back:
            # Where nothing is open the range is empty, so the hull of two ranges is one of them.
            a = min(max(min(open_begin, own_begin), low) + shift, high)
            b = max(min(max(open_end, own_end) + ONE + shift, high), a)
            open_begin, open_end = own_begin, own_end
        scratch.begin[frames], scratch.end[frames] = a - shift, b - shift
        for j in range(b - a):
            blank_score, label_score = scores_at(a + j, bounds, state)
            blank_value[count + j], label_value[count + j] = blank_score, label_score
            # Counted here, because closed cells all round would keep it from the sum. A row of logits with a NaN has
            # NaN for both scores. That of a label arc alone may be of an arc that leads nowhere.
            lost += np.uint64(blank_score != blank_score)
        count += b - a
        frames += 1
        f += -1 if back else 1
    return f, count, open_begin, open_end, lost


@register_jitable
def split_row(row, power, end):
    """Logarithms to scaled numbers, in place, from place 1 to before `end`."""
    for j in range(ONE, end):
        row[j], power[j] = split(row[j])


@register_jitable
def pair_run(frames, scratch):
    """Multiply the label arc of each cell of a run by the blank arc of the next cell of its frame."""
    i = ONE
    for k in range(frames):
        last = i + scratch.end[k] - scratch.begin[k] - ONE
        for c in range(i, last):
            scratch.label_value[c] *= scratch.blank_value[c + ONE]
            scratch.label_power[c] += scratch.blank_power[c + ONE]
        if i <= last:
            # The cell behind the last one is closed, or there is none.
            scratch.label_value[last], scratch.label_power[last] = 0.0, EMPTY
        i = last + ONE


@register_jitable
def sum_run(frames, back, monotonic, covered, behind, scratch):
    """Sum over a run: `value` and `power` become alpha, or with `back`, a constant at each call, beta.

    With `back`, `blank` and `label` become the arcs times the beta that they lead to.

    Parameters
    ----------
    covered, behind : uint64
        The label positions of the frame before, from the first to behind the last, as they are held in `stay`.

    Returns
    -------
    covered, behind : uint64
        The same of the last frame.
    """
    blank_value, blank_power = scratch.blank_value, scratch.blank_power
    label_value, label_power = scratch.label_value, scratch.label_power
    value, power, weight = scratch.value, scratch.power, scratch.weight
    stay, stay_power, move, move_power = scratch.stay, scratch.stay_power, scratch.move, scratch.move_power
    before = NONE if back else ONE  # from a cell to the one whose label arc joins it with its neighbour
    i = ONE
    for k in range(frames):
        lo, hi = scratch.begin[k], scratch.end[k]
        n, shift = hi - lo, lo - i  # from a place to its label position
        # Zeros where the frame before has nothing. What was handed to u by a label arc lies at u.
        for u in range(lo, min(hi + ONE, covered)):
            stay[u], stay_power[u] = 0.0, EMPTY
        for u in range(max(lo, behind), hi + ONE):
            stay[u], stay_power[u] = 0.0, EMPTY
        if back:
            for c in range(i, i + n):
                blank_value[c], blank_power[c] = (
                    blank_value[c] * stay[c + shift],
                    blank_power[c] + stay_power[c + shift],
                )
        if monotonic:
            if back:
                for c in range(i, i + n):
                    u = c + shift + ONE
                    label_value[c], label_power[c] = label_value[c] * stay[u], label_power[c] + stay_power[u]
                    value[c], power[c] = added(blank_value[c], blank_power[c], label_value[c], label_power[c])
            else:
                for u in range(lo, min(hi, covered + ONE)):
                    move[u], move_power[u] = 0.0, EMPTY
                for u in range(max(lo, behind + ONE), hi):
                    move[u], move_power[u] = 0.0, EMPTY
                for c in range(i, i + n):
                    u = c + shift
                    value[c], power[c] = added(stay[u], stay_power[u], move[u], move_power[u])
                for c in range(i, i + n):
                    u = c + shift + ONE
                    move[u], move_power[u] = value[c] * label_value[c], power[c] + label_power[c]
        else:
            last, last_power = 0.0, EMPTY
            for done in range(NONE, n, PIECE):
                size = min(PIECE, n - done)
                begin = i + n - done - size if back else i + done
                end = begin + size
                # The powers go ahead: that of a cell is the larger of those of its two terms. With them known, the
                # values follow one another by a product and a sum.
                for j in range(size):
                    c = end - ONE - j if back else begin + j
                    staying = blank_power[c] if back else stay_power[c + shift]
                    moving = last_power + label_power[c - before]
                    last_power = moving if moving > staying else staying
                    weight[c], power[c] = moving, last_power
                for c in range(begin, end):
                    weight[c] = aligned(label_value[c - before], weight[c], power[c])
                    if back:
                        value[c] = aligned(blank_value[c], blank_power[c], power[c])
                    else:
                        value[c] = aligned(stay[c + shift], stay_power[c + shift], power[c])
                if not back and done == NONE:
                    # No arc leads to the first cell. What lies before it may be the NaN of another frame.
                    weight[i] = 0.0
                for j in range(size):
                    c = end - ONE - j if back else begin + j
                    last = last * weight[c] + value[c]
                    value[c] = last
                for c in range(begin, end):
                    value[c], power[c] = normalised(value[c], power[c])
                c = begin if back else end - ONE
                last, last_power = value[c], power[c]
            if back and n > NONE:
                for c in range(i, i + n - ONE):
                    label_value[c] *= value[c + ONE]
                    label_power[c] += power[c + ONE]
                label_value[i + n - ONE], label_power[i + n - ONE] = 0.0 * label_value[i + n - ONE], EMPTY
        for c in range(i, i + n):
            if back:
                stay[c + shift], stay_power[c + shift] = value[c], power[c]
            else:
                stay[c + shift], stay_power[c + shift] = value[c] * blank_value[c], power[c] + blank_power[c]
        covered, behind = lo, hi
        i += n
    return covered, behind


@register_jitable
def write_run(f, stop, back, first, offset, scratch, row, outside, target):
    """Write `row`, the cells of a run, to where they are numbered, and `outside` to the cells that take no part."""
    i, k = ONE, 0
    while f != stop:
        c, high = np.uint64(offset[f]), np.uint64(offset[f + 1])
        begin = c + scratch.begin[k] - np.uint64(first[f])
        behind = begin + scratch.end[k] - scratch.begin[k]
        for j in range(c, begin):
            target[j] = outside
        for j in range(begin, behind):
            target[j] = row[i + j - begin]
        for j in range(behind, high):
            target[j] = outside
        i += behind - begin
        k += 1
        f += -1 if back else 1


@register_jitable
def read_alpha(f, stop, first, offset, scratch, alpha, log_z):
    """Fill `weight` with alpha - log_z of a run's cells, which goes back from `f`."""
    i, k, known = ONE, 0, scratch.weight
    while f != stop:
        begin = np.uint64(offset[f]) + scratch.begin[k] - np.uint64(first[f])
        for j in range(scratch.end[k] - scratch.begin[k]):
            known[i + j] = alpha[begin + j] - log_z
        i += scratch.end[k] - scratch.begin[k]
        k += 1
        f -= 1
