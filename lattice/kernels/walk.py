"""The walk of a block of a GPU through one lattice, by which `sums` makes alpha, beta and log_z, or best scores.

A block walks through one lattice. A thread owns a label position and goes from frame to frame, one step behind the
neighbour whose label arc leads to it; where every arc moves on by a frame, in the same step. Its own sum stays in
registers. What the neighbour's arc brings comes through shared memory, of which one half is written while the other is
read, so a step has one barrier. Scores are fetched some steps ahead. Nothing waits for the logarithms that are stored.

Alpha and beta are one walk. Beta's counts frames from the last, and label positions from U: `t` and `place` are such
counts. More label positions than a block has threads are taken in panels, one after the other. There the first thread
reads what the panel before has stored.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .arcs import cell_at, ending_at, larger
from .cells import CLOSED
from .launch import LATTICE_THREADS, cuda
from .scaled import EMPTY, added, log_of, split
from .state import chosen, scores_at

PLACES = LATTICE_THREADS + 1
"""What threads take over: the first place is the first thread's, and nobody takes what lies in the last."""


class Walk(NamedTuple):
    """What a block walks through, and how: frames `begin` to `end`, U `labels`.

    `back` is for beta. With `bounds`, upper bounds stand for scores that are not computed. Only log_z is stored if the
    walk is `below`, and that in `lower`. A kernel has constants for `paired` and `largest`, so that it holds only the
    arithmetic that it needs.
    """

    begin: int
    end: int
    labels: int
    back: bool
    monotonic: bool
    paired: bool
    largest: bool
    bounds: bool
    below: bool
    first: np.ndarray
    offset: np.ndarray


@register_jitable
def number_of(score, largest):
    """A score as a scaled number. Where the largest is looked for, the power is the score itself."""
    return (1.0, np.float64(score)) if largest else split(np.float64(score))


@register_jitable
def nothing(largest):
    return 0.0, CLOSED if largest else EMPTY


@register_jitable
def sum_of(value, power, other, other_power, largest):
    return (1.0, larger(power, other_power)) if largest else added(value, power, other, other_power)


@register_jitable
def row_of(t, walk):
    """(first, offset, offset of the next frame) of frame t, which has no cells if there is no such frame."""
    if t < 0 or t >= walk.end - walk.begin:
        return np.int32(0), np.int64(0), np.int64(0)
    f = walk.end - 1 - t if walk.back else walk.begin + t
    return walk.first[f], walk.offset[f], walk.offset[f + 1]


@register_jitable
def cell_of(u, row):
    """The number of a cell, -1 where it does not exist."""
    k = u - row[0]
    return row[1] + k if 0 <= k < row[2] - row[1] else np.int64(-1)


@register_jitable
def fetched(c, walk, state):
    """The state of a cell as it lies in memory. Nothing is asked of it yet, so nothing waits for it."""
    if c < 0:
        none = state.rest.dtype.type(0)
        return none, none, none, none
    if walk.bounds:
        return state.blank_score[c], state.label_score[c], state.maximum[c], state.rest[c]
    return state.blank_score[c], state.label_score[c], state.blank_score[c], state.label_score[c]


@register_jitable
def fetched_behind(u, row, walk, state):
    """What the blank score at the end of a pair is made of: blank score, maximum and rest of the cell behind (t, u)."""
    none = state.rest.dtype.type(0)
    if not walk.paired:
        return none, none, none
    c = cell_of(u + 1, row)
    if c < 0:
        return state.rest.dtype.type(CLOSED), none, none
    if walk.bounds:
        return state.blank_score[c], state.maximum[c], state.rest[c]
    return state.blank_score[c], none, none


class Sums(NamedTuple):
    """Where sums are stored: (cells,) alpha and beta, (examples,) the others."""

    alpha: np.ndarray
    beta: np.ndarray
    lower: np.ndarray
    log_z: np.ndarray


# An array is chosen where it is read or written. Chosen ahead, it would be one that may lie in any kind of memory.


@register_jitable
def store(c, found, walk, results):
    """Store the sum of cell c, or of the one behind the last frame, which is -1."""
    if c < 0:
        if walk.below:
            results.lower[cuda.blockIdx.x] = found
        else:
            results.log_z[cuda.blockIdx.x] = found
    elif walk.back:
        results.beta[c] = found
    elif not walk.below:
        results.alpha[c] = found


@register_jitable
def stored(t, u, walk, state, results):
    """What an earlier panel hands to cell (t, u): a label arc with alpha, or the beta that one leads to."""
    f, v = (walk.end - 1 - t, u + 1) if walk.back else (walk.begin + t, u - 1)
    if walk.monotonic:
        f += 1 if walk.back else -1
    c = cell_at(f, v, walk.first, walk.offset) if walk.begin <= f < walk.end else np.int64(-1)
    if c < 0:
        return nothing(walk.largest)
    if walk.back:
        return number_of(results.beta[c], walk.largest)
    moved = results.alpha[c] + scores_at(c, walk.bounds, state)[1]
    if walk.paired:
        moved += ending_at(c, walk.offset[f + 1], walk.bounds, state)
    return number_of(moved, walk.largest)


@register_jitable
def advance(step, now, lag, place, value, power, c, known, behind, walk, state, handed, results):
    """One step of a thread: its cell c, if there is one, from what the last step left.

    Returns
    -------
    value, power : float64
        What the cell's own blank arc brings to the next frame, or with `walk.back` beta of the cell.
    """
    largest, me, t, T = walk.largest, cuda.threadIdx.x, step - lag, walk.end - walk.begin
    moved, moved_power = handed[1 - now, me, 0], handed[1 - now, me, 1]
    # Behind the last frame there is one cell, (T, U). A label arc leads to it if it moves on by a frame.
    last = t == T and place == walk.labels and not walk.back
    if c >= 0 or last:
        blank_score, label_score = chosen(*known) if walk.bounds else (known[0], known[1])
        stay, stay_power = number_of(blank_score, largest)
        move, move_power = number_of(label_score, largest)
        if walk.paired:
            last_score = chosen(behind[0], behind[0], behind[1], behind[2])[0] if walk.bounds else behind[0]
            ending, ending_power = number_of(last_score, largest)
            move, move_power = move * ending, move_power + ending_power
        if walk.back:
            value, power = value * stay, power + stay_power
            moved, moved_power = moved * move, moved_power + move_power
        if last and not walk.monotonic:
            moved, moved_power = nothing(largest)
        value, power = sum_of(value, power, moved, moved_power, largest)
        store(c, power if largest else log_of(value, power), walk, results)
        moved, moved_power = value, power
        if not walk.back:
            moved, moved_power = value * move, power + move_power
            value, power = value * stay, power + stay_power
    else:
        moved, moved_power = nothing(largest)
        if 0 <= t < T:
            value, power = moved, moved_power
    handed[now, me + 1, 0], handed[now, me + 1, 1] = moved, moved_power
    if me == 0 and place > 0:
        u = walk.labels - place if walk.back else place
        handed[now, 0, 0], handed[now, 0, 1] = stored(t + 1, u, walk, state, results)
    # The next step reads what all threads have handed on.
    cuda.syncthreads()
    return value, power


@register_jitable
def walk_through(walk, state, results, handed):
    """Fill what the walk of this block sums, panel after panel."""
    me, threads, U, back, largest = cuda.threadIdx.x, cuda.blockDim.x, walk.labels, walk.back, walk.largest
    lag = 0 if walk.monotonic else me
    T, panel = walk.end - walk.begin, 0
    # A range whose stride is not a constant would divide.
    while panel <= U:
        place = panel + me
        u = U - place if back else place
        # Before all frames there is one cell, whose probability is 1.
        value, power = nothing(largest)
        if place == 0:
            value, power = 1.0, 0.0
        handed[1, me + 1, 0], handed[1, me + 1, 1] = (value, power) if back else nothing(largest)
        if me == 0:
            handed[0, 0, 0], handed[0, 0, 1] = nothing(largest)
            handed[1, 0, 0], handed[1, 0, 1] = stored(0, u, walk, state, results) if place > 0 else nothing(largest)
        # Two cells are under way, and the rows of the two behind them. A thread whose place is behind U has no cells.
        t = -lag
        row_a = row_of(t, walk)
        a, behind_a = cell_of(u, row_a), fetched_behind(u, row_a, walk, state)
        row_b = row_of(t + 1, walk)
        b, behind_b = cell_of(u, row_b), fetched_behind(u, row_b, walk, state)
        row_a, row_b = row_of(t + 2, walk), row_of(t + 3, walk)
        known_a, known_b = fetched(a, walk, state), fetched(b, walk, state)
        cuda.syncthreads()
        # One step more than there are frames, where the sum of all alignments arrives.
        steps = T + 1 if walk.monotonic else T + min(threads, U + 1 - panel)
        for step in range(0, steps, 2):
            own = known_a, behind_a
            value, power = advance(step, 0, lag, place, value, power, a, *own, walk, state, handed, results)
            t = step + 2 - lag
            a, behind_a = cell_of(u, row_a), fetched_behind(u, row_a, walk, state)
            known_a, row_a = fetched(a, walk, state), row_of(t + 2, walk)
            own = known_b, behind_b
            value, power = advance(step + 1, 1, lag, place, value, power, b, *own, walk, state, handed, results)
            b, behind_b = cell_of(u, row_b), fetched_behind(u, row_b, walk, state)
            known_b, row_b = fetched(b, walk, state), row_of(t + 3, walk)
        panel += threads
