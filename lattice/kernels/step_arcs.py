"""Arcs that take several frames (steps.py), arc by arc: what arrives by one and what departs, and the best of a cell.

A GPU sums the arcs of a cell by lanes (step_sums.py), a CPU frame by frame (step_sweeps.py).
"""

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
def larger(x, high):
    """The larger of two; a NaN stays, whichever of them it is."""
    return x if x > high or x != x else high


@register_jitable
def best_of(back, f, u, c, own, sums):
    """The best score of an alignment up to cell c = (f, u), or with `back` from it on; NaN stays.

    c is read with `back` alone. So the cell behind the last frame, (T, U), may be asked for.
    """
    high = 0.0 if not back and f == own.begin and u == 0 else CLOSED
    for i in range(2 * own.steps.shape[1]):
        high = larger(arc_of(i, back, f, u, c, own, sums), high)
    return high


@register_jitable
def best_up_to(own, alpha):
    """Fill alpha with the best score of an alignment up to each cell; return the best of all."""
    for f in range(own.begin, own.end):
        for c in range(own.offset[f], own.offset[f + 1]):
            alpha[c] = best_of(False, f, own.first[f] + c - own.offset[f], c, own, alpha)
    return best_of(False, own.end, own.labels, 0, own, alpha)  # behind the last frame


@register_jitable
def best_through_steps(own, alpha, beta):
    """Fill alpha with the best score of an alignment through each cell; return the best of all."""
    first, offset, best = own.first, own.offset, best_up_to(own, alpha)
    # Backwards in f and in u: an arc leads to a later frame, or to the next label position of its own.
    for f in range(own.end - 1, own.begin - 1, -1):
        for c in range(offset[f + 1] - 1, offset[f] - 1, -1):
            beta[c] = best_of(True, f, first[f] + c - offset[f], c, own, beta)
            alpha[c] += beta[c]
    return best
