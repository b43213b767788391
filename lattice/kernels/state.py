"""What is known of each cell of some lattices: its scores, the parts of its normaliser, and whether it was computed.

A cell whose row of logits was computed has its two scores, and a rest of at least 0. Any other cell has two upper
bounds instead, in memory that a computed cell needs anyway. So the state of a cell takes four numbers and no more.
`rest` tells which cell is which, and only the functions of this module read that out of it.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .cells import typed

# Both are exact in float32 and float64, so a rest can be compared with them.
WANTED = -0.5
"""The rest of a cell that is to be computed next. No bound can be mistaken for it: those are at most `BOUND`."""
BOUND = -1.0
"""Added to the upper bound on a label score, it is the rest of a cell that is not computed."""


class CellState(NamedTuple):
    """The state of cells, four arrays (cells,) float32 or float64.

    ==============  ===============================  =========================================  ====================
    cell            blank_score, label_score         maximum                                    rest
    ==============  ===============================  =========================================  ====================
    computed        log-probabilities in nats        largest logit of the row                   0 and above, or NaN
    wanted          -inf: both arcs are closed       upper bound on the blank score             `WANTED`
    not computed    -inf: both arcs are closed       upper bound on the blank score             `BOUND` + upper bound
                                                                                                on the label score
    ==============  ===============================  =========================================  ====================

    With HAT (hat_bounds.py) blank_score is the blank's score from the start, in all three, and where a cell is not
    computed its maximum is the same number.

    Premise: a score, and with it an upper bound on one, is at most 0. A score above 0 (a bonus on an arc, for example)
    would make a rest that reads as `WANTED` or as computed, and `label_bound_of` would cut the bound. The table is
    explained in `docs/certified.md`.
    """

    blank_score: np.ndarray
    label_score: np.ndarray
    maximum: np.ndarray
    rest: np.ndarray

    @classmethod
    def take(cls, take, count: int, dtype) -> "CellState":
        """Uninitialised arrays for `count` cells, from `take(shape, dtype)`."""
        return cls(*(take(count, dtype) for _ in cls._fields))

    @property
    def scores(self):
        """(blank_score, label_score), as the sums take them."""
        return self.blank_score, self.label_score

    def at(self, cells) -> "CellState":
        """The state of some cells: views for a slice."""
        return CellState(*(array[cells] for array in self))


class ArcPosteriors(NamedTuple):
    """Probabilities that an alignment uses the arcs of each cell, (cells,) each, in the memory of the arcs' scores."""

    blank: np.ndarray
    label: np.ndarray


class Visited(NamedTuple):
    """Cells that the backward pass visits, in order: the posteriors of their arcs and the parts of their normalisers.

    The cells of example n of a group are those from `first_cell[n]` to `first_cell[n + 1]`.

    Attributes
    ----------
    first_cell : (examples + 1,) int64, on the host
    cells : (n,) int64
        Their numbers in the group, ascending.
    blank_posterior, label_posterior, maximum, rest : (n,) float32 or float64
    step_posterior : (D, n), or None
        Where arcs take several frames (steps.py): of all arcs of the cell that take each step.
    """

    first_cell: np.ndarray
    cells: np.ndarray
    blank_posterior: np.ndarray
    label_posterior: np.ndarray
    maximum: np.ndarray
    rest: np.ndarray
    step_posterior: np.ndarray | None = None

    @property
    def arrays(self) -> list[np.ndarray]:
        """Those that are there."""
        return [array for array in self if array is not None]


@register_jitable
def is_computed(rest):
    """Does the state hold the scores of the cell? A NaN says yes, so that it is seen."""
    # Not `rest >= 0`, which is false of a NaN.
    return not rest < 0


@register_jitable
def is_wanted(rest):
    return rest == WANTED


@register_jitable
def is_bounded(rest):
    """Does the state hold upper bounds, and nobody has asked for the scores?"""
    # The rest is -inf where the label arc cannot be taken: its bound is -inf.
    return rest <= BOUND


@register_jitable
def bounded(label_bound):
    """The rest of a cell that is not computed."""
    # The sum rounds, which is one of the roundings that `upper_bounds.bound` leaves room for.
    return typed(BOUND, label_bound) + label_bound


@register_jitable
def label_bound_of(rest):
    """The upper bound on the label score of a cell that is not computed."""
    # Of a wanted cell the difference is 0.5. The bound is 0 there, because no score is above 0.
    return min(typed(0, rest), rest - typed(BOUND, rest))


@register_jitable
def chosen(blank_score, label_score, maximum, rest):
    """The scores of a cell, or the upper bounds on them if it is not computed."""
    if is_computed(rest):
        return blank_score, label_score
    return maximum, label_bound_of(rest)


@register_jitable
def scores_at(c, bounds, state):
    """The scores of cell c, with `bounds` as `chosen`."""
    if bounds:
        return chosen(state.blank_score[c], state.label_score[c], state.maximum[c], state.rest[c])
    return state.blank_score[c], state.label_score[c]
