"""Which cells the best alignment may visit, while some scores are known and upper bounds stand for the others.

alpha and beta are made with the largest in the place of the sum. With the upper bounds in place, the best alignment
through a cell scores at most alpha + beta. If the best alignment of all visits only computed cells, its score is exact
and no other alignment is above it, so it is the best one. Until then, cells that come near its score are computed,
which lowers the score.
"""

import math

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .arcs import by_blank, by_label, departing, ending, held, larger, leaving
from .block import block_sum
from .cells import CLOSED
from .certify import ROUNDING
from .launch import WARP, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .marking import claim, count_joining
from .pairs import pair_visits
from .state import CellState
from .step_sums import step_sums
from .step_sweeps import backward_steps, forward_steps
from .sums import bests

WINDOW = 4.0
"""Nats below the best score within which cells are computed in a round. Less means fewer cells, more fewer rounds."""
DENSE = 0.5
"""Share of an example's cells from which on the others are computed too: nothing would be saved by proving more."""


@register_jitable
def best_through(begin, end, labels, first, offset, moves, blank_score, label_score, alpha, beta):
    """Fill alpha with the best score of an alignment that uses the row of each cell; return the best of all."""
    for f in range(begin, end):
        low = first[f]
        for c in range(offset[f], offset[f + 1]):
            u = low + c - offset[f]
            stay = by_blank(f, begin, u, first, offset, blank_score, alpha)
            step = by_label(f, begin, low, u, c, first, offset, moves.monotonic, label_score, alpha)
            if moves.paired and f > begin:
                step += held(blank_score, f - 1, u, first, offset)
            alpha[c] = larger(stay, step)
    best = leaving(blank_score, alpha, end - 1, labels, first, offset)
    if moves.monotonic:
        step = leaving(label_score, alpha, end - 1, labels - 1, first, offset)
        if moves.paired:
            step += held(blank_score, end - 1, labels, first, offset)
        best = larger(best, step)
    # Backwards in f and in u: an arc leads to a later frame, or to the next label position of its own.
    for f in range(end - 1, begin - 1, -1):
        for c in range(offset[f + 1] - 1, offset[f] - 1, -1):
            u = first[f] + c - offset[f]
            stay, step = departing(f, end, u, c, labels, first, offset, moves.monotonic, blank_score, label_score, beta)
            if moves.paired:
                step += ending(blank_score, c, offset[f + 1])
                if c + 1 < offset[f + 1]:
                    # What is beyond was looked at before: an alignment uses its row by its blank, too.
                    alpha[c + 1] = larger(alpha[c + 1], alpha[c] + step)
            beta[c] = larger(stay, step)
            alpha[c] += beta[c]
    return best


@register_jitable
def slack_of(best):
    """What rounding may lose of a sum along an alignment, in nats."""
    return abs(best) * ROUNDING


@register_jitable
def reach(best, margin):
    """What the best alignment through a cell must score for the cell to count. Without an alignment no cell counts."""
    return math.inf if best == CLOSED else best - margin


@register_jitable
def settle(n, low, high, best, rest, visits, bests, computed, last):
    """Decide about an example with the cells from `low` to before `high`, whose `visits` are known."""
    bests[n] = best
    # Is any cell unknown that an alignment as good as the best may visit?
    if count_joining(low, high, 1, rest, visits, reach(best, slack_of(best))) == 0:
        computed[n] = -1
        return
    # More than these are computed, or each round would find only a few.
    threshold = reach(best, WINDOW)
    computed[n] += count_joining(low, high, 1, rest, visits, threshold)
    claim(low, high, 1, rest, visits, threshold, last or computed[n] > DENSE * (high - low))


@cpu_sweep
def narrow_cpu(
    begin, end, starts, labels, first, offset, moves, blank_score, label_score, rest, alpha, beta, bests, computed, last
):
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        if computed[n] < 0:
            continue
        best = best_through(a, b, labels[n], first, offset, moves, blank_score, label_score, alpha, beta)
        settle(n, offset[a], offset[b], best, rest, alpha, bests, computed, last)


@cpu_sweep
def narrow_steps_cpu(
    begin, end, starts, labels, first, offset, steps, step_score, blank_score, label_score, rest, alpha, bests,
    computed, last,
):  # fmt: skip
    state = CellState(blank_score, label_score, rest, rest)  # the last two are not read
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        if computed[n] < 0:
            continue
        lattice = labels[n], first, offset, steps
        best = forward_steps(a, b, *lattice, False, True, True, state, step_score, alpha)
        backward_steps(a, b, *lattice, False, False, True, state, step_score, alpha, 0.0, 0.0)
        settle(n, offset[a], offset[b], best, rest, alpha, bests, computed, last)


@cuda_kernel
def narrow_cuda(starts, offset, rest, alpha, beta, best, computed, last):
    # One block an example; what it decides by is the same in all of its threads.
    partial = cuda.shared.array(WARP, np.float64)
    n, me, stride = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    low, high, known = offset[starts[n]], offset[starts[n + 1]], computed[n]
    if known < 0:
        return
    # Here and below, a thread looks only at cells that it has summed itself.
    for c in range(low + me, high, stride):
        alpha[c] += beta[c]
    needed = reach(best[n], slack_of(best[n]))
    if int(block_sum(count_joining(low + me, high, stride, rest, alpha, needed), partial)) == 0:
        known = -1
    else:
        threshold = reach(best[n], WINDOW)
        known += int(block_sum(count_joining(low + me, high, stride, rest, alpha, threshold), partial))
        claim(low + me, high, stride, rest, alpha, threshold, last or known > DENSE * (high - low))
    if me == 0:
        computed[n] = known


def narrow(frames, moves, state: CellState, alpha, beta, best, computed, *, last, steps=None):
    """Mark the cells that have to be computed before the best alignment of an example can be known.

    Parameters
    ----------
    frames : lattice.layout.Frames
    moves : Moves
    state : CellState
        As `emit` fills it where a cell is computed, and as `open_all` leaves it elsewhere. The cells found here become
        wanted.
    alpha, beta : (cells,) float64
        Scratch; beta not on a CPU where arcs take several frames.
    best : (examples,) float64
        Filled with what no alignment scores more than, which is the best score where no more cells are needed.
    computed : (examples,) int64
        0 before the first call. Then the number of cells computed, or -1 where the best alignment needs no more cells.
    last : bool
        Mark all cells of an example that is not done.
    steps : StepScores, optional
        Where arcs take several frames. Scores, or upper bounds where a cell is not computed.
    """
    rest = state.rest
    if on_host(rest) and steps is not None:
        lattices = frames.starts, frames.labels, frames.first, frames.offset, *steps, *state.scores, rest
        arguments = *lattices, alpha, best, computed, last
        sweep(narrow_steps_cpu, len(computed), *arguments, work=128 * len(alpha), pieces=8)
        return
    if on_host(rest):
        lattices = frames.starts, frames.labels, frames.first, frames.offset, moves, *state.scores, rest
        sweep(narrow_cpu, len(computed), *lattices, alpha, beta, best, computed, last, work=64 * len(alpha), pieces=8)
        return
    if steps is not None:
        step_sums(frames, steps, state, alpha, best, beta, largest=True)
    else:
        bests(frames, moves, *state.scores, alpha, best, beta)
    if moves.paired:
        pair_visits(frames, state, alpha, beta, bounds=False, largest=True)
    arguments = frames.starts, frames.offset, rest, alpha, beta, best, computed, last
    launch(narrow_cuda, len(computed), policy.SCAN_THREADS, *arguments)
