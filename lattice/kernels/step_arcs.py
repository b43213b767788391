"""Arcs that take several frames (steps.py), arc by arc: what arrives by one, and what departs.

A GPU joins the arcs of a cell by lanes (step_sums.py), and a CPU those of a frame (step_sweeps.py).
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
