"""A walk over the cells that alignments reach, frame by frame: it finds a band, and weighs what leaves one.

The walk holds two sums for each cell of a frame: `in` over the alignments that have kept to a set of cells until there,
and `out` over those that have left the set. A cell of which nothing is known is given upper bounds on its scores on the
way, and forgotten behind the next frame. So the walk takes memory for two frames, however long a lattice is.

What has left may be too little to matter. Then the walk does not follow it, and adds it to what is lost. The arcs of a
cell have probabilities of at most 1 together, so beta is at most 1 everywhere: whatever the cells behind are, the
alignments that were let go weigh no more than what is lost. The proof is in docs/certified.md.
"""

import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, LN2_HIGH
from .scaled import log_of, normalised
from .state import is_computed, scores_at
from .walk import nothing, number_of, sum_of

ROWS = 13
"""Numbers that a walk holds of each label position: `in` and `out` of two frames, and what is noted of a cell. Row
4 (f % 2) is the first of frame f: value and power of `in`, value and power of `out`."""
STAY, MOVE, KIND = 8, 10, 12
"""Rows of what is noted: value and power of the probabilities of both arcs, and one of the following."""
OUTSIDE, INSIDE, KNOWN = 0.0, 1.0, 2.0
"""The cell is not one of the set. It is one. It is one, and the probability of its label arc is exact, too."""
TALLIES = 8
"""Numbers that a walk holds of an example."""
CARRIED, LOST, BEST, COUNT = 0, 4, 6, 7
"""Their places: `in` and `out` on the way to the next cell of the frame, what is lost (value and power), the logarithm
of the largest `out` of a frame, and how many cells have been looked at."""
OUTWARD = 2.0**-30
"""Room for the roundings of the sums along an alignment: each errs by less than 2**-51, and T + U of them follow."""


class Ways(NamedTuple):
    """How a walk goes.

    Attributes
    ----------
    monotonic, paired : bool
        As in `arcs.Moves`.
    by_label : bool
        Blank scores are known in all cells that have a state. Only label arcs wait (HAT).
    largest : bool
        The largest takes the place of the sum.
    penalty : float
        Delay penalty, in nats a frame.
    share : float
        What is lost is to be less than exp(share) of the base, in nats.
    """

    monotonic: bool
    paired: bool
    by_label: bool
    largest: bool
    penalty: float
    share: float


@register_jitable
def is_there(value, power, largest):
    """Is a number anything but `nothing`?"""
    return power != CLOSED if largest else value != 0.0


@register_jitable
def size_of(value, power, largest):
    """The logarithm of a number, rounded down to a power of two."""
    if largest:
        return power
    return CLOSED if value == 0.0 else power * LN2_HIGH


@register_jitable
def arriving(u, low, high, at, largest, rows, tally):
    """What comes to label position u, `in` and `out`: from the frame before, which reached `low` to `high`, and along
    the frame."""
    inner, inner_power = nothing(largest)
    outer, outer_power = nothing(largest)
    if low <= u < high:
        inner, inner_power, outer, outer_power = rows[at, u], rows[at + 1, u], rows[at + 2, u], rows[at + 3, u]
    inner, inner_power = sum_of(inner, inner_power, tally[CARRIED], tally[CARRIED + 1], largest)
    outer, outer_power = sum_of(outer, outer_power, tally[CARRIED + 2], tally[CARRIED + 3], largest)
    return inner, inner_power, outer, outer_power


@register_jitable
def hold(u, at, first_time, numbers, largest, rows):
    """Add what goes to label position u of the next frame, or put it there `first_time`."""
    inner, inner_power, outer, outer_power = numbers
    if not first_time:
        inner, inner_power = sum_of(inner, inner_power, rows[at, u], rows[at + 1, u], largest)
        outer, outer_power = sum_of(outer, outer_power, rows[at + 2, u], rows[at + 3, u], largest)
    rows[at, u], rows[at + 1, u], rows[at + 2, u], rows[at + 3, u] = inner, inner_power, outer, outer_power


@register_jitable
def note(u, blank_score, label_score, kind, ways, rows):
    """Note the scores of the cell at label position u of a frame, float64, or upper bounds on them."""
    rows[STAY, u], rows[STAY + 1, u] = number_of(blank_score, ways.largest)
    rows[MOVE, u], rows[MOVE + 1, u] = number_of(label_score, ways.largest)
    rows[KIND, u] = kind


@register_jitable
def note_held(u, c, behind, ways, state, rows):
    """`note` of cell c, which has a state; `behind` ends its frame."""
    blank_score, label_score = scores_at(c, True, state)
    # As float64, in which a pair is summed.
    blank_score, label_score, computed = np.float64(blank_score), np.float64(label_score), is_computed(state.rest[c])
    known = computed
    if ways.paired:
        if c + 1 < behind:
            label_score += scores_at(c + 1, True, state)[0]
            known = known and (ways.by_label or is_computed(state.rest[c + 1]))
        else:
            # The pair ends with a blank of a cell without a state. No score is above 0.
            known = False
    kind = INSIDE if ways.by_label or computed else OUTSIDE
    note(u, blank_score, label_score, KNOWN if known else kind, ways, rows)


@register_jitable
def enter(f, u, c, low, high, cut, ways, rows, tally):
    """Come to cell (f, u), of number c, which has been noted, or without a state, -1.

    Parameters
    ----------
    low, high : int
        The label positions that the frame before has reached.
    cut : float
        Logarithm of what is let go.

    Returns
    -------
    numbers : tuple
        `in` and `out` of the cell, a value and a power each.
    inside, kept : bool
        Whether the cell is one of the set, and whether what has left is followed from here.
    """
    largest = ways.largest
    inner, inner_power, outer, outer_power = arriving(u, low, high, 4 * (f % 2), largest, rows, tally)
    inside = c >= 0 and rows[KIND, u] != OUTSIDE
    if not inside:
        # What comes here has left.
        outer, outer_power = sum_of(outer, outer_power, inner, inner_power, largest)
        inner, inner_power = nothing(largest)
    size = size_of(outer, outer_power, largest)
    # Not `size >= cut`: a NaN goes on, so that it is seen.
    kept = is_there(outer, outer_power, largest) and not size < cut
    if not kept:
        tally[LOST], tally[LOST + 1] = sum_of(tally[LOST], tally[LOST + 1], outer, outer_power, largest)
        outer, outer_power = nothing(largest)
    elif size > tally[BEST]:
        tally[BEST] = size
    return (inner, inner_power, outer, outer_power), inside, kept


@register_jitable
def leave(f, u, fresh, numbers, ways, rows, tally):
    """Go on from a cell that is inside or kept, and has been noted.

    Parameters
    ----------
    fresh : int
        The first label position of the next frame to which nothing has been handed.
    numbers : tuple
        From `enter`.

    Returns
    -------
    fresh : int
    """
    largest, then = ways.largest, 4 * ((f + 1) % 2)
    inner, inner_power, outer, outer_power = numbers
    stay, stay_power, move, move_power = rows[STAY, u], rows[STAY + 1, u], rows[MOVE, u], rows[MOVE + 1, u]
    moved, moved_power = inner * move, inner_power + move_power
    moved_out, moved_out_power = outer * move, outer_power + move_power
    if rows[KIND, u] != KNOWN:
        # By an arc of which only a bound is known an alignment leaves.
        moved_out, moved_out_power = sum_of(moved_out, moved_out_power, moved, moved_power, largest)
        moved, moved_power = nothing(largest)
    stays = inner * stay, inner_power + stay_power, outer * stay, outer_power + stay_power
    hold(u, then, fresh <= u, stays, largest, rows)
    if ways.monotonic:
        hold(u + 1, then, True, (moved, moved_power, moved_out, moved_out_power), largest, rows)
        return u + 2
    tally[CARRIED], tally[CARRIED + 1], tally[CARRIED + 2], tally[CARRIED + 3] = (
        moved, moved_power, moved_out, moved_out_power,
    )  # fmt: skip
    return max(fresh, u + 1)


@register_jitable
def pass_by(f, u, fresh, ways, rows, tally):
    """Go on from a cell that is neither inside nor kept: it hands nothing on. Returns `fresh`."""
    empty, empty_power = nothing(ways.largest)
    tally[CARRIED], tally[CARRIED + 1], tally[CARRIED + 2], tally[CARRIED + 3] = empty, empty_power, empty, empty_power
    if fresh <= u:
        hold(u, 4 * ((f + 1) % 2), True, (empty, empty_power, empty, empty_power), ways.largest, rows)
    return max(fresh, u + 1)


@register_jitable
def start(f, ways, rows, tally):
    """Begin with the one alignment that is at cell (0, 0), in the first frame f."""
    empty, empty_power = nothing(ways.largest)
    at = 4 * (f % 2)
    rows[at, 0], rows[at + 1, 0], rows[at + 2, 0], rows[at + 3, 0] = 1.0, 0.0, empty, empty_power
    tally[LOST], tally[LOST + 1], tally[BEST], tally[COUNT] = empty, empty_power, 0.0, 0.0


@register_jitable
def carries(largest, tally):
    """Is anything on its way along the frame?"""
    inner, outer = (tally[CARRIED], tally[CARRIED + 1]), (tally[CARRIED + 2], tally[CARRIED + 3])
    return is_there(*inner, largest) or is_there(*outer, largest)


@register_jitable
def comes_to(u, at, largest, rows):
    """Does anything come to a label position from the frame before?"""
    return is_there(rows[at, u], rows[at + 1, u], largest) or is_there(rows[at + 2, u], rows[at + 3, u], largest)


@register_jitable
def trimmed(low, high, at, largest, rows):
    """Label positions `low` to `high` without those at both ends to which nothing comes."""
    while low < high and not comes_to(low, at, largest, rows):
        low += 1
    while low < high and not comes_to(high - 1, at, largest, rows):
        high -= 1
    return low, high


@register_jitable
def weigh(low, high, labels, at, excess, largest, rows, tally):
    """Logarithms of what has kept to the set until the end, and of all that has left it, at most.

    `at` is the row behind the last frame. What was let go may weigh more by `excess` nats: the probabilities of a cell,
    as they are rounded, may pass 1.
    """
    inner, inner_power = nothing(largest)
    outer, outer_power = tally[LOST], tally[LOST + 1]
    if largest:
        outer_power += excess
    else:
        outer *= math.exp(excess)
    if low <= labels < high:
        inner, inner_power = rows[at, labels], rows[at + 1, labels]
        outer, outer_power = sum_of(outer, outer_power, rows[at + 2, labels], rows[at + 3, labels], largest)
    if largest:
        return inner_power, outer_power
    inner, inner_power = normalised(inner, inner_power)
    outer, outer_power = normalised(outer, outer_power)
    return log_of(inner, inner_power), log_of(outer, outer_power) + OUTWARD


@register_jitable
def frame_range(f, low, high, held, lattice, ways, rows):
    """What a walk goes through of a frame.

    Parameters
    ----------
    low, high : int
        The label positions to which the frame before has handed anything.
    held, lattice : tuple
        (first, offset) of the cells that have a state, and of all.

    Returns
    -------
    low, high : int
        Trimmed.
    begin, end, top : int
        The first label position, the one behind those to which the walk must go, and the one behind all.
    """
    low, high = trimmed(low, high, 4 * (f % 2), ways.largest, rows)
    begin, end = held[0][f], held[0][f] + held[1][f + 1] - held[1][f]
    if low < high:
        begin, end = (min(begin, low), max(end, high)) if begin < end else (low, high)
    # Beyond the cells that exist there is no alignment, so what comes there is gone.
    first, behind = lattice[0][f], lattice[0][f] + lattice[1][f + 1] - lattice[1][f]
    return low, high, max(begin, first), min(end, behind), behind


@register_jitable
def open_frame(base, nats, frames, labels, most, ways, tally):
    """Begin a frame, in which nothing is on its way yet; returns the logarithm of what is let go in it.

    That is what is `nats` below the best cell of the frame before, and what is a small share of `base`.
    """
    # What is let go at each of so many arcs adds up, but the largest of all does not.
    arcs = 0.0 if ways.largest else math.log(frames + labels + 1.0)
    cut = max(base + ways.share - arcs, tally[BEST] - nats)
    empty, empty_power = nothing(ways.largest)
    tally[CARRIED], tally[CARRIED + 1], tally[CARRIED + 2], tally[CARRIED + 3] = empty, empty_power, empty, empty_power
    tally[BEST] = CLOSED
    return math.inf if tally[COUNT] >= most else cut
