"""The sweeps of one thread of a CPU over the lattice of one example: alpha, and beta with what is made of it.

A sweep takes a run of frames at a time. It copies their scores into rows of scratch memory and splits them there. Then
it sums frame after frame. Then it takes the logarithms of the run. First and last vectorise, however few cells a frame
has. Of a frame only the cells take part that an alignment may visit: from the first open cell to the last, and the
cells that arcs of the frame before lead to. Alpha or beta of all others is 0.

`state` is (blank_score, label_score, maximum, rest). With `bounds`, a constant at each call, upper bounds stand for the
scores of cells that are not computed. Without, maximum and rest are not read.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED
from .scaled import EMPTY, added, aligned, log_of, normalised, probability_of, split
from .state import scores_at

RUN = 512
"""Cells of a run, and frames at most; more cells only where one frame has more. Rows of them stay in a cache."""
PIECE = np.uint64(512)
"""Cells summed along a frame before their values are normalised: each of them may make a value e times as large."""
# Places in rows are unsigned. Of a signed one Numba asks whether it counts from the end, and the loop does not
# vectorise.
_NONE, _ONE, _FAR = np.uint64(0), np.uint64(1), np.uint64(2**40)


class Scratch(NamedTuple):
    """Memory of a sweep.

    Attributes
    ----------
    blank, blank_power, label, label_power, value, power, weight : (cells + 1,) float64
        Scaled numbers of the cells of a run, one behind the other. Place 0 is before the first.
    stay, stay_power, move, move_power : (U + 2,) float64
        What the last frame hands on to each label position: forward by its blank and its label arcs, back its beta.
    begin, end : (frames,) uint64
        Label positions of a frame that take part.
    """

    blank: np.ndarray
    blank_power: np.ndarray
    label: np.ndarray
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


@register_jitable
def is_open(c, bounds, state):
    blank, label = scores_at(c, bounds, state)
    return not (blank == CLOSED and label == CLOSED)


@register_jitable
def read_run(f, last, back, open_begin, open_end, first, offset, bounds, state, scratch):
    """Copy the scores of a run of frames from `f` on towards `last`, which is not in it.

    Parameters
    ----------
    open_begin, open_end : uint64
        The label positions that arcs of the frame before may lead to, but for the one behind them. Unused if `back`.

    Returns
    -------
    stop, count, open_begin, open_end
        The frame behind the run, the place behind its last cell, and what the next run is to be told.
    """
    blank, label = scratch.blank, scratch.label
    count, frames = _ONE, 0
    while f != last and frames < RUN:
        low, c, high = np.uint64(first[f]), np.uint64(offset[f]), np.uint64(offset[f + 1])
        if frames and count + high - c >= np.uint64(blank.shape[0]):
            break
        shift, a, b = c - low, c, high  # from a label position to the number of its cell; the open cells are a to b
        while a < b and not is_open(a, bounds, state):
            a += _ONE
        while a < b and not is_open(b - _ONE, bounds, state):
            b -= _ONE
        own_begin, own_end = (a - shift, b - shift) if a < b else (_FAR, _NONE)
        if not back:
            # Where nothing is open the range is empty, so the hull of two ranges is one of them.
            a = min(max(min(open_begin, own_begin), low) + shift, high)
            b = max(min(max(open_end, own_end) + _ONE + shift, high), a)
            open_begin, open_end = own_begin, own_end
        scratch.begin[frames], scratch.end[frames] = a - shift, b - shift
        for j in range(b - a):
            blank[count + j], label[count + j] = scores_at(a + j, bounds, state)
        count += b - a
        frames += 1
        f += -1 if back else 1
    return f, count, open_begin, open_end


@register_jitable
def split_row(row, power, end):
    """Logarithms to scaled numbers, in place, from place 1 to before `end`."""
    for j in range(_ONE, end):
        row[j], power[j] = split(row[j])


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
    blank, blank_power, label, label_power, value, power, weight, stay, stay_power, move, move_power, _, _ = scratch
    before = _NONE if back else _ONE  # from a cell to the one whose label arc joins it with its neighbour
    i = _ONE
    for k in range(frames):
        lo, hi = scratch.begin[k], scratch.end[k]
        n, shift = hi - lo, lo - i  # from a place to its label position
        # Zeros where the frame before has nothing. What was handed to u by a label arc lies at u.
        for u in range(lo, min(hi + _ONE, covered)):
            stay[u], stay_power[u] = 0.0, EMPTY
        for u in range(max(lo, behind), hi + _ONE):
            stay[u], stay_power[u] = 0.0, EMPTY
        if back:
            for c in range(i, i + n):
                blank[c], blank_power[c] = blank[c] * stay[c + shift], blank_power[c] + stay_power[c + shift]
        if monotonic:
            if back:
                for c in range(i, i + n):
                    u = c + shift + _ONE
                    label[c], label_power[c] = label[c] * stay[u], label_power[c] + stay_power[u]
                    value[c], power[c] = added(blank[c], blank_power[c], label[c], label_power[c])
            else:
                for u in range(lo, min(hi, covered + _ONE)):
                    move[u], move_power[u] = 0.0, EMPTY
                for u in range(max(lo, behind + _ONE), hi):
                    move[u], move_power[u] = 0.0, EMPTY
                for c in range(i, i + n):
                    u = c + shift
                    value[c], power[c] = added(stay[u], stay_power[u], move[u], move_power[u])
                for c in range(i, i + n):
                    u = c + shift + _ONE
                    move[u], move_power[u] = value[c] * label[c], power[c] + label_power[c]
        else:
            last, last_power = 0.0, EMPTY
            for done in range(_NONE, n, PIECE):
                size = min(PIECE, n - done)
                begin = i + n - done - size if back else i + done
                end = begin + size
                # The powers go ahead: that of a cell is the larger of those of its two terms. With them known, the
                # values follow one another by a product and a sum.
                for j in range(size):
                    c = end - _ONE - j if back else begin + j
                    staying = blank_power[c] if back else stay_power[c + shift]
                    moving = last_power + label_power[c - before]
                    last_power = moving if moving > staying else staying
                    weight[c], power[c] = moving, last_power
                for c in range(begin, end):
                    weight[c] = aligned(label[c - before], weight[c], power[c])
                    if back:
                        value[c] = aligned(blank[c], blank_power[c], power[c])
                    else:
                        value[c] = aligned(stay[c + shift], stay_power[c + shift], power[c])
                if not back and done == _NONE:
                    # No arc leads to the first cell. What lies before it may be the NaN of another frame.
                    weight[i] = 0.0
                for j in range(size):
                    c = end - _ONE - j if back else begin + j
                    last = last * weight[c] + value[c]
                    value[c] = last
                for c in range(begin, end):
                    value[c], power[c] = normalised(value[c], power[c])
                c = begin if back else end - _ONE
                last, last_power = value[c], power[c]
            if back and n > _NONE:
                for c in range(i, i + n - _ONE):
                    label[c] *= value[c + _ONE]
                    label_power[c] += power[c + _ONE]
                label[i + n - _ONE], label_power[i + n - _ONE] = 0.0 * label[i + n - _ONE], EMPTY
        for c in range(i, i + n):
            if back:
                stay[c + shift], stay_power[c + shift] = value[c], power[c]
            else:
                stay[c + shift], stay_power[c + shift] = value[c] * blank[c], power[c] + blank_power[c]
        covered, behind = lo, hi
        i += n
    return covered, behind


@register_jitable
def write_run(f, stop, back, first, offset, scratch, row, outside, target):
    """Write `row`, the cells of a run, to where they are numbered, and `outside` to the cells that take no part."""
    i, k = _ONE, 0
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
def forward(begin, end, labels, first, offset, monotonic, bounds, kept, state, alpha):
    """Return log_z of one example, and fill alpha of its frames if it is `kept`, a constant at each call."""
    scratch = scratch_for(labels)
    value, power, stay, stay_power = scratch.value, scratch.power, scratch.stay, scratch.stay_power
    # Alignments begin in cell (0, 0): as if a frame before the first had that cell alone.
    stay[0], stay_power[0] = 1.0, 0.0
    scratch.move[1], scratch.move_power[1] = 0.0, EMPTY
    covered, behind = _NONE, _ONE
    open_begin, open_end = _NONE, _NONE
    f = begin
    while f < end:
        stop, count, open_begin, open_end = read_run(
            f, end, False, open_begin, open_end, first, offset, bounds, state, scratch
        )
        split_row(scratch.blank, scratch.blank_power, count)
        split_row(scratch.label, scratch.label_power, count)
        covered, behind = sum_run(stop - f, False, monotonic, covered, behind, scratch)
        if kept:
            for j in range(_ONE, count):
                value[j] = log_of(value[j], power[j])
            write_run(f, stop, False, first, offset, scratch, value, CLOSED, alpha)
        f = stop
    # Behind the last frame there is one cell, (T, U). Sums over one frame more, of that cell alone, would be these.
    u = np.uint64(labels)
    last, last_power = (stay[u], stay_power[u]) if covered <= u < behind else (0.0, EMPTY)
    if monotonic and covered < u <= behind:
        last, last_power = added(last, last_power, scratch.move[u], scratch.move_power[u])
    last, last_power = normalised(last, last_power)
    return log_of(last, last_power)


@register_jitable
def backward(begin, end, labels, first, offset, monotonic, bounds, posteriors, state, alpha, log_z, tiny):
    """Sweep beta back over one example, for `to_posteriors` or `to_visits`; `posteriors` is a constant at each call."""
    scratch = scratch_for(labels)
    blank, label, value, power = scratch.blank, scratch.label, scratch.value, scratch.power
    blank_power, label_power, known = scratch.blank_power, scratch.label_power, scratch.weight
    # Behind the last frame there is one cell, (T, U), whose beta is 1.
    scratch.stay[labels], scratch.stay_power[labels] = 1.0, 0.0
    covered, behind = np.uint64(labels), np.uint64(labels) + _ONE
    f = end - 1
    while f >= begin:
        stop, count, _, _ = read_run(f, begin - 1, True, _NONE, _NONE, first, offset, bounds, state, scratch)
        split_row(blank, blank_power, count)
        split_row(label, label_power, count)
        covered, behind = sum_run(f - stop, True, monotonic, covered, behind, scratch)
        read_alpha(f, stop, first, offset, scratch, alpha, log_z)
        if posteriors:
            split_row(known, value, count)
            for j in range(_ONE, count):
                blank[j] = probability_of(blank[j] * known[j], blank_power[j] + value[j], tiny)
                label[j] = probability_of(label[j] * known[j], label_power[j] + value[j], tiny)
            # The scores of a cell are read at this cell only, so posteriors can take their place. A NaN is kept.
            write_run(f, stop, True, first, offset, scratch, blank, log_z - log_z, state[0])
            write_run(f, stop, True, first, offset, scratch, label, log_z - log_z, state[1])
        else:
            for j in range(_ONE, count):
                value[j] = known[j] + log_of(value[j], power[j])
            write_run(f, stop, True, first, offset, scratch, value, CLOSED, alpha)
        f = stop


@register_jitable
def read_alpha(f, stop, first, offset, scratch, alpha, log_z):
    """Fill `weight` with alpha - log_z of a run's cells, which goes back from `f`."""
    i, k, known = _ONE, 0, scratch.weight
    while f != stop:
        begin = np.uint64(offset[f]) + scratch.begin[k] - np.uint64(first[f])
        for j in range(scratch.end[k] - scratch.begin[k]):
            known[i + j] = alpha[begin + j] - log_z
        i += scratch.end[k] - scratch.begin[k]
        k += 1
        f -= 1


@register_jitable
def to_posteriors(begin, end, labels, first, offset, monotonic, state, alpha, log_z, tiny):
    """Overwrite the scores of one example by the posteriors of their arcs."""
    # Without an alignment alpha - log_z would be NaN.
    if log_z == CLOSED:
        state[0][offset[begin] : offset[end]] = 0
        state[1][offset[begin] : offset[end]] = 0
    else:
        backward(begin, end, labels, first, offset, monotonic, False, True, state, alpha, log_z, tiny)


@register_jitable
def to_visits(begin, end, labels, first, offset, monotonic, bounds, state, alpha):
    """Overwrite alpha by alpha + beta, the log-sum of the alignments through a cell; the scores stay."""
    backward(begin, end, labels, first, offset, monotonic, bounds, False, state, alpha, 0.0, 0.0)
