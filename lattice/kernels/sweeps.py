"""The sweeps of one thread of a CPU over the lattice of one example: alpha, and beta with what is made of it.

A sweep takes a run of frames at a time: scores are read and split, frame after frame is summed, and logarithms or
posteriors are taken of the whole run. `state` and `bounds` are those of `runs`.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, at_most_one
from .runs import NONE, ONE, pair_run, read_alpha, read_run, scratch_for, split_row, sum_run, write_run
from .scaled import EMPTY, added, log_of, normalised, probability_of


@register_jitable
def forward(begin, end, labels, first, offset, moves, bounds, kept, state, alpha):
    """Return log_z of one example, and fill alpha of its frames if it is `kept`, a constant at each call.

    A NaN for a blank score makes log_z NaN, also where no alignment visits the cell, but not where there is none.
    """
    scratch = scratch_for(labels)
    value, power, stay, stay_power = scratch.value, scratch.power, scratch.stay, scratch.stay_power
    # Alignments begin in cell (0, 0): as if a frame before the first had that cell alone.
    stay[0], stay_power[0] = 1.0, 0.0
    scratch.move[1], scratch.move_power[1] = 0.0, EMPTY
    covered, behind = NONE, ONE
    open_begin, open_end, lost = NONE, NONE, NONE
    f = begin
    while f < end:
        stop, count, open_begin, open_end, found = read_run(
            f, end, False, open_begin, open_end, first, offset, bounds, state, scratch
        )
        lost += found
        split_row(scratch.blank_value, scratch.blank_power, count)
        split_row(scratch.label_value, scratch.label_power, count)
        if moves.paired:
            pair_run(stop - f, scratch)
        covered, behind = sum_run(stop - f, False, moves.monotonic, covered, behind, scratch)
        if kept:
            for j in range(ONE, count):
                value[j] = log_of(value[j], power[j])
            write_run(f, stop, False, first, offset, scratch, value, CLOSED, alpha)
        f = stop
    # Behind the last frame there is one cell, (T, U). Sums over one frame more, of that cell alone, would be these.
    u = np.uint64(labels)
    last, last_power = (stay[u], stay_power[u]) if covered <= u < behind else (0.0, EMPTY)
    if moves.monotonic and covered < u <= behind:
        last, last_power = added(last, last_power, scratch.move[u], scratch.move_power[u])
    last, last_power = normalised(last, last_power)
    return math.nan if lost and last != 0.0 else log_of(last, last_power)


@register_jitable
def backward(begin, end, labels, first, offset, moves, bounds, posteriors, by_label, state, alpha, log_z, tiny):
    """Sweep beta back over one example, for `to_posteriors` or `to_visits`; `posteriors` is a constant at each call.

    The row of a cell is used by the cell's own arcs, and by the blank at the end of a pair from the cell before it in
    its frame. No alignment does both.
    """
    scratch = scratch_for(labels)
    blank_value, label_value, value, power = scratch.blank_value, scratch.label_value, scratch.value, scratch.power
    blank_power, label_power, known = scratch.blank_power, scratch.label_power, scratch.weight
    # Behind the last frame there is one cell, (T, U), whose beta is 1.
    scratch.stay[labels], scratch.stay_power[labels] = 1.0, 0.0
    covered, behind = np.uint64(labels), np.uint64(labels) + ONE
    f = end - 1
    while f >= begin:
        stop, count, _, _, _ = read_run(f, begin - 1, True, NONE, NONE, first, offset, bounds, state, scratch)
        split_row(blank_value, blank_power, count)
        split_row(label_value, label_power, count)
        if moves.paired:
            pair_run(f - stop, scratch)
        covered, behind = sum_run(f - stop, True, moves.monotonic, covered, behind, scratch)
        read_alpha(f, stop, first, offset, scratch, alpha, log_z)
        if posteriors:
            split_row(known, value, count)
            for j in range(ONE, count):
                blank_value[j] = probability_of(blank_value[j] * known[j], blank_power[j] + value[j], tiny)
                label_value[j] = probability_of(label_value[j] * known[j], label_power[j] + value[j], tiny)
            if moves.paired:
                # The last cell of a frame has no pair, so nothing comes from another frame. Place 0 holds 0.
                for j in range(ONE, count):
                    blank_value[j] = at_most_one(blank_value[j] + label_value[j - ONE])
            # The scores of a cell are read at this cell only, so posteriors can take their place. A NaN is kept.
            write_run(f, stop, True, first, offset, scratch, blank_value, log_z - log_z, state.blank_score)
            write_run(f, stop, True, first, offset, scratch, label_value, log_z - log_z, state.label_score)
        else:
            if by_label:
                for j in range(ONE, count):
                    value[j], power[j] = normalised(label_value[j], label_power[j])
            elif moves.paired:
                split_row(known, blank_value, count)
                for j in range(ONE, count):
                    label_value[j], label_power[j] = label_value[j] * known[j], label_power[j] + blank_value[j]
                for j in range(ONE, count):
                    value[j], power[j] = added(
                        value[j] * known[j], power[j] + blank_value[j], label_value[j - ONE], label_power[j - ONE]
                    )
                    known[j] = 0.0
            for j in range(ONE, count):
                value[j] = known[j] + log_of(value[j], power[j])
            write_run(f, stop, True, first, offset, scratch, value, CLOSED, alpha)
        f = stop


@register_jitable
def to_posteriors(begin, end, labels, first, offset, moves, state, alpha, log_z, tiny):
    """Overwrite the scores of one example by the posteriors of their arcs."""
    # Without an alignment alpha - log_z would be NaN.
    if log_z == CLOSED:
        state.blank_score[offset[begin] : offset[end]] = 0
        state.label_score[offset[begin] : offset[end]] = 0
    else:
        backward(begin, end, labels, first, offset, moves, False, True, False, state, alpha, log_z, tiny)


@register_jitable
def to_visits(begin, end, labels, first, offset, moves, bounds, by_label, state, alpha):
    """Overwrite alpha by the log-sum of the alignments that use the row of a cell; the scores stay.

    That is alpha + beta, and with pairs the blanks at their ends besides. With `by_label` only those count that leave
    the cell by its label arc.
    """
    backward(begin, end, labels, first, offset, moves, bounds, False, by_label, state, alpha, 0.0, 0.0)
