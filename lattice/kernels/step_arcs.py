"""Arcs that take several frames (steps.py), cell by cell: what arrives by them and what departs, summed or the largest.

The walks of a GPU take sums from here, and both targets the largest. A CPU sums frame by frame (step_sweeps.py).
"""

import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .arcs import cell_at
from .cells import CLOSED
from .state import CellState, scores_at
from .steps import BLANK, LABEL


class Lattice(NamedTuple):
    """An example as the functions of this module take it: frames `begin` to `end`, and U `labels`.

    With `bounds`, upper bounds stand for the scores of cells that are not computed.
    """

    begin: int
    end: int
    labels: int
    first: np.ndarray
    offset: np.ndarray
    steps: np.ndarray
    bounds: bool
    state: CellState
    step_score: np.ndarray


@register_jitable
def came_by(n, by_label, f, u, own, alpha):
    """alpha of the cell from which an arc of step n leads to cell (f, u), with the arc; -inf where there is none."""
    g = f - own.steps[0, n]
    # Only blanks lead to the one cell behind the last frame.
    if g < own.begin or (by_label and f == own.end) or not own.steps[1, n] & (LABEL if by_label else BLANK):
        return CLOSED
    c = cell_at(g, u - 1 if by_label else u, own.first, own.offset)
    # What no alignment reaches is in no sum, whatever it holds.
    if c < 0 or alpha[c] == CLOSED:
        return CLOSED
    return alpha[c] + (scores_at(c, own.bounds, own.state)[1 if by_label else 0] + np.float64(own.step_score[n, c]))


@register_jitable
def goes_by(n, by_label, f, u, c, own, beta):
    """beta of the cell to which an arc of step n leads from cell c = (f, u), with the arc; -inf where there is none."""
    g = f + own.steps[0, n]
    if g > own.end or not own.steps[1, n] & (LABEL if by_label else BLANK):
        return CLOSED
    if g == own.end:
        # One cell is behind the last frame, and blanks lead to it.
        ahead = 0.0 if u == own.labels and not by_label else CLOSED
    else:
        there = cell_at(g, u + 1 if by_label else u, own.first, own.offset)
        ahead = beta[there] if there >= 0 else CLOSED
    if ahead == CLOSED:
        return CLOSED
    return ahead + (scores_at(c, own.bounds, own.state)[1 if by_label else 0] + np.float64(own.step_score[n, c]))


@register_jitable
def arc_of(i, back, f, u, c, own, sums):
    """`goes_by` or `came_by` of arc i: the blank's of each step, then the label's of each."""
    count = own.steps.shape[1]
    by_label = i >= count
    n = i - count if by_label else i
    return goes_by(n, by_label, f, u, c, own, sums) if back else came_by(n, by_label, f, u, own, sums)


@register_jitable
def joined(back, largest, f, u, c, own, sums):
    """alpha of cell c = (f, u), or with `back` beta; NaN stays. `sums` holds those of the cells on the other side.

    c is read for beta alone. So alpha may be asked for of the cell behind the last frame, (T, U), whose alpha is log_z.
    """
    high = 0.0 if not back and f == own.begin and u == 0 else CLOSED
    started = high == 0.0
    for i in range(2 * own.steps.shape[1]):
        x = arc_of(i, back, f, u, c, own, sums)
        if x != x:
            return x
        high = x if x > high else high
    if largest or high == CLOSED:
        return high
    total = math.exp(-high) if started else 0.0
    for i in range(2 * own.steps.shape[1]):
        total += math.exp(arc_of(i, back, f, u, c, own, sums) - high)
    return high + math.log(total)


@register_jitable
def behind_all(largest, own, alpha):
    """log_z, or with `largest` the best score: alpha of the cell behind the last frame."""
    return joined(False, largest, own.end, own.labels, 0, own, alpha)


@register_jitable
def best_up_to(own, alpha):
    """Fill alpha with the best score of an alignment up to each cell; return the best of all."""
    for f in range(own.begin, own.end):
        for c in range(own.offset[f], own.offset[f + 1]):
            alpha[c] = joined(False, True, f, own.first[f] + c - own.offset[f], c, own, alpha)
    return behind_all(True, own, alpha)


@register_jitable
def best_through_steps(own, alpha, beta):
    """Fill alpha with the best score of an alignment through each cell; return the best of all."""
    first, offset, best = own.first, own.offset, best_up_to(own, alpha)
    # Backwards in f and in u: an arc leads to a later frame, or to the next label position of its own.
    for f in range(own.end - 1, own.begin - 1, -1):
        for c in range(offset[f + 1] - 1, offset[f] - 1, -1):
            beta[c] = joined(True, True, f, first[f] + c - offset[f], c, own, beta)
            alpha[c] += beta[c]
    return best
