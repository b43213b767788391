"""The arcs of one cell: what arrives by each and what departs by each, where neighbours may not exist.

Cells are numbered as `layout.Frames` says: cell c of frame f has the label position u = first[f] + c - offset[f]. An
example has the frames from `begin` to `end`, and `labels` is its U.
"""

from typing import NamedTuple

from numba.extending import register_jitable

from .cells import CLOSED
from .state import scores_at


class Moves(NamedTuple):
    """Where arcs lead, as kernels are told. A blank arc always leads to the next frame.

    Attributes
    ----------
    monotonic : bool
        A label arc leads to the next frame too; else it stays on its frame.
    paired : bool
        A label arc ends with the blank arc of the cell (t, u + 1), whose score it takes in. Only with `monotonic`.
    """

    monotonic: bool
    paired: bool


@register_jitable
def cell_at(f, u, first, offset):
    """The number of cell (f, u), -1 where it does not exist."""
    k = u - first[f]
    return offset[f] + k if 0 <= k < offset[f + 1] - offset[f] else -1


@register_jitable
def leaving(scores, sums, f, u, first, offset):
    """`sums` (alpha) + score of the arc that leaves cell (f, u), -inf where that cell does not exist."""
    # `cell_at` written out. Through a call of it the CPU's compiler no longer inlines this function, and the forward
    # sweep takes five times as long.
    k = u - first[f]
    if k < 0 or k >= offset[f + 1] - offset[f]:
        return CLOSED
    c = offset[f] + k
    return sums[c] + scores[c]


@register_jitable
def held(values, f, u, first, offset):
    """values of cell (f, u), -inf where it does not exist."""
    c = cell_at(f, u, first, offset)
    return values[c] if c >= 0 else CLOSED


@register_jitable
def by_blank(f, begin, u, first, offset, blank_score, alpha):
    """What arrives in cell (f, u) by a blank arc."""
    if f > begin:
        return leaving(blank_score, alpha, f - 1, u, first, offset)
    # Alignments begin in cell (0, 0), with probability 1.
    return 0.0 if u == 0 else CLOSED


@register_jitable
def by_label(f, begin, low, u, c, first, offset, monotonic, label_score, alpha):
    """What arrives in cell c = (f, u) by a label arc; `low` is u of the first cell of the frame."""
    if monotonic:
        return leaving(label_score, alpha, f - 1, u - 1, first, offset) if f > begin else CLOSED
    return alpha[c - 1] + label_score[c - 1] if u > low else CLOSED


@register_jitable
def larger(a, b):
    # A NaN in `a` stays, a NaN in `b` is passed by. That only decides which cells are computed; the walk along the
    # best alignment keeps every NaN.
    return b if b > a else a


@register_jitable
def behind_label(f, end, u, labels, first, offset, monotonic, beta):
    """beta of the cell that the label arc of cell (f, u) leads to."""
    if not monotonic:
        return held(beta, f, u + 1, first, offset)
    if f + 1 < end:
        return held(beta, f + 1, u + 1, first, offset)
    return 0.0 if u + 1 == labels else CLOSED


@register_jitable
def beyond(f, end, u, labels, first, offset, monotonic, beta):
    """beta of the cells that the two arcs of cell (f, u) lead to."""
    step = behind_label(f, end, u, labels, first, offset, monotonic, beta)
    if f + 1 < end:
        stay = held(beta, f + 1, u, first, offset)
    else:
        # The arc out of the last frame leads to (T, U), whose beta is 0.
        stay = 0.0 if u == labels else CLOSED
    return stay, step


@register_jitable
def departing(f, end, u, c, labels, first, offset, monotonic, blank_score, label_score, beta):
    """Score of each arc of cell c = (f, u), with beta of the cell it leads to."""
    blank_here, label_here = blank_score[c], label_score[c]
    stay, step = beyond(f, end, u, labels, first, offset, monotonic, beta)
    return blank_here + stay, label_here + step


# A pair is made where it is read. The state keeps single scores, of which some are upper bounds.


@register_jitable
def ending(blank_score, c, behind):
    """The blank score at the end of a pair from cell c; `behind` is the cell behind the last one of its frame."""
    return blank_score[c + 1] if c + 1 < behind else CLOSED


@register_jitable
def ending_at(c, behind, bounds, state):
    """`ending` of a state, with `bounds` as `chosen`."""
    return scores_at(c + 1, bounds, state)[0] if c + 1 < behind else CLOSED
