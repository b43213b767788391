"""alpha, beta and log_z of every example on a GPU, or best scores in their place.

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

from . import launch as policy
from .arcs import cell_at, larger
from .cells import CLOSED
from .launch import LATTICE_THREADS, cuda, cuda_kernel, launch, whole_warps
from .scaled import EMPTY, added, log_of, split
from .state import CellState, chosen, scores_at

PLACES = LATTICE_THREADS + 1
"""What threads take over: the first place is the first thread's, and nobody takes what lies in the last."""


class Walk(NamedTuple):
    """What a block walks through, and how: frames `begin` to `end`, U `labels`.

    `back` is for beta. With `bounds`, upper bounds stand for scores that are not computed. Only log_z is stored if the
    walk is `below`, and that in `lower`.
    """

    begin: int
    end: int
    labels: int
    back: bool
    monotonic: bool
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
    return number_of(results.alpha[c] + scores_at(c, walk.bounds, state)[1], walk.largest)


@register_jitable
def advance(step, now, lag, place, value, power, c, known, walk, state, handed, results):
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
        a, b = cell_of(u, row_of(t, walk)), cell_of(u, row_of(t + 1, walk))
        row_a, row_b = row_of(t + 2, walk), row_of(t + 3, walk)
        known_a, known_b = fetched(a, walk, state), fetched(b, walk, state)
        cuda.syncthreads()
        # One step more than there are frames, where the sum of all alignments arrives.
        steps = T + 1 if walk.monotonic else T + min(threads, U + 1 - panel)
        for step in range(0, steps, 2):
            value, power = advance(step, 0, lag, place, value, power, a, known_a, walk, state, handed, results)
            t = step + 2 - lag
            a = cell_of(u, row_a)
            known_a, row_a = fetched(a, walk, state), row_of(t + 2, walk)
            value, power = advance(step + 1, 1, lag, place, value, power, b, known_b, walk, state, handed, results)
            b = cell_of(u, row_b)
            known_b, row_b = fetched(b, walk, state), row_of(t + 3, walk)
        panel += threads


@cuda_kernel
def sums_cuda(
    starts, labels, first, offset, monotonic, bounds, bracket, blank_score, label_score, maximum, rest,
    alpha, beta, lower, log_z,
):  # fmt: skip
    # By block: an example, and what is summed there: with `bracket` first the scores alone, for `lower`; then alpha;
    # then beta.
    handed = cuda.shared.array((2, PLACES, 2), np.float64)
    n, role = cuda.blockIdx.x, cuda.blockIdx.y
    below, back = bracket and role == 0, role == (2 if bracket else 1)
    # `largest` is a constant here and in `bests_cuda`, so neither kernel holds the other's arithmetic.
    walk = Walk(
        starts[n], starts[n + 1], labels[n], back, monotonic, False, bounds and not below, below, first, offset
    )  # fmt: skip
    walk_through(
        walk, CellState(blank_score, label_score, maximum, rest), Sums(alpha, beta, lower, log_z), handed
    )  # fmt: skip


@cuda_kernel
def bests_cuda(starts, labels, first, offset, monotonic, blank_score, label_score, alpha, beta, best):
    # By block: an example, and alpha or beta.
    handed = cuda.shared.array((2, PLACES, 2), np.float64)
    n, back = cuda.blockIdx.x, cuda.blockIdx.y == 1
    walk = Walk(starts[n], starts[n + 1], labels[n], back, monotonic, True, False, False, first, offset)
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    walk_through(walk, state, Sums(alpha, beta, best, best), handed)


def sums(frames, monotonic, blank_score, label_score, alpha, log_z, beta=None):
    """alpha and log_z of every example on a GPU, and beta if it is given."""
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    _launch(frames, monotonic, state, alpha, beta, log_z, log_z, bounds=False, bracket=False)


def bests(frames, monotonic, blank_score, label_score, alpha, best, beta):
    """`sums`, with the larger of two scores in the place of their sum."""
    lattices = frames.starts, frames.labels, frames.first, frames.offset, monotonic
    arguments = blank_score, label_score, alpha, beta, best
    launch(bests_cuda, (len(best), 2), _threads(frames), *lattices, *arguments)


def bracketing_sums(frames, monotonic, state: CellState, alpha, beta, lower, upper) -> None:
    """log_z of the scores alone, and alpha, beta and log_z with upper bounds where no score is known, on a GPU.

    Parameters
    ----------
    state : CellState
    alpha, beta : (cells,) float64
        Filled with the sums over upper bounds.
    lower, upper : (examples,) float64
        log_z. The first is not filled if it is None.
    """
    if lower is not None and frames.widest >= policy.LATTICE_THREADS:
        # Panels read what is stored, and the sums over scores have no memory of their own.
        sums(frames, monotonic, *state.scores, alpha, lower)
        lower = None
    bracket = lower is not None
    _launch(frames, monotonic, state, alpha, beta, lower if bracket else upper, upper, bounds=True, bracket=bracket)


def _launch(frames, monotonic, state, alpha, beta, lower, log_z, *, bounds, bracket):
    blocks = len(log_z), 1 + bracket + (beta is not None)
    lattices = frames.starts, frames.labels, frames.first, frames.offset, monotonic, bounds, bracket
    # Without blocks for beta nothing is written there: alpha only fills the place of the argument.
    launch(sums_cuda, blocks, _threads(frames), *lattices, *state, alpha, alpha if beta is None else beta, lower, log_z)


def _threads(frames):
    return whole_warps(frames.widest + 1, policy.LATTICE_THREADS)
