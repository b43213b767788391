"""Which cells the best alignment may visit, while some scores are known and of the others upper bounds.

With the bounds in place, the best alignment through a cell scores at most alpha + beta of the recursions over the largest. If the
best of all consists of computed cells alone it is exact, and every other alignment is below it: it is the best one. Until that is
so, cells that come near it are computed, which lowers it.
"""

import math

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .block import block_sum
from .cells import CLOSED
from .certify import ROUNDING, claim, count_joining, open_bounds, open_cuda
from .forward_backward import departing, forward, larger, sums
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep

WINDOW = 4.0
"""Nats below the best bound within which cells are computed in a round: fewer cells with less, fewer rounds with more."""
DENSE = 0.5
"""Share of an example's cells from which on the others are computed too: nothing would be saved by proving more."""


@register_jitable
def best_through(begin, end, labels, first, offset, monotonic, blank, label, alpha, beta):
    """Fill alpha with the best score of an alignment through each cell of an example, and return that of all."""
    best = forward(begin, end, labels, first, offset, monotonic, True, blank, label, alpha)
    for f in range(end - 1, begin - 1, -1):
        for c in range(offset[f + 1] - 1, offset[f] - 1, -1):
            u = first[f] + c - offset[f]
            stay, step = departing(f, end, u, c, labels, first, offset, monotonic, blank, label, beta)
            beta[c] = larger(stay, step)
            alpha[c] += beta[c]
    return best


@register_jitable
def slack_of(best):
    """What rounding may lose of a sum along an alignment."""
    return abs(best) * ROUNDING


@register_jitable
def reach(best, margin):
    """What the best alignment through a cell must score for the cell to count; nothing does where there is no alignment."""
    return math.inf if best == CLOSED else best - margin


@cpu_sweep
def open_cpu(begin, end, blank, label, maximum, rest):
    open_bounds(begin, end, 1, blank, label, maximum, rest)


def open_all(frames, blank, label, maximum, rest):
    """Put the bounds of a group's cells, none of which is computed yet, in the place of their scores."""
    if on_host(blank):
        sweep(open_cpu, len(blank), blank, label, maximum, rest, work=len(blank))
    else:
        by_warp(open_cuda, len(frames.example), frames.example, frames.offset, blank, label, maximum, rest)


@cpu_sweep
def narrow_cpu(begin, end, starts, labels, first, offset, monotonic, blank, label, rest, alpha, beta, computed, last):
    for n in range(begin, end):
        low, high = offset[starts[n]], offset[starts[n + 1]]
        if computed[n] < 0:
            continue
        best = best_through(starts[n], starts[n + 1], labels[n], first, offset, monotonic, blank, label, alpha, beta)
        if count_joining(low, high, 1, rest, alpha, reach(best, slack_of(best))) == 0:
            computed[n] = -1
            continue
        threshold = reach(best, WINDOW)
        computed[n] += count_joining(low, high, 1, rest, alpha, threshold)
        claim(low, high, 1, rest, alpha, threshold, last or computed[n] > DENSE * (high - low))


@cuda_kernel
def narrow_cuda(starts, offset, rest, alpha, beta, best, computed, last):
    # One block an example; what it decides by is the same in all of its threads.
    sums = cuda.shared.array(WARP, np.float64)
    n, me, stride = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    low, high, known = offset[starts[n]], offset[starts[n + 1]], computed[n]
    if known < 0:
        return
    for c in range(low + me, high, stride):
        alpha[c] += beta[c]
    if int(block_sum(count_joining(low + me, high, stride, rest, alpha, reach(best[n], slack_of(best[n]))), sums)) == 0:
        known = -1
    else:
        threshold = reach(best[n], WINDOW)
        known += int(block_sum(count_joining(low + me, high, stride, rest, alpha, threshold), sums))
        claim(low + me, high, stride, rest, alpha, threshold, last or known > DENSE * (high - low))
    if me == 0:
        computed[n] = known


def narrow(frames, monotonic, blank, label, rest, alpha, beta, best, computed, *, last):
    """Mark the cells that have to be computed before the best alignment of an example can be known.

    Parameters
    ----------
    frames : lattice.layout.Frames
    monotonic : bool
    blank, label, rest : (cells,) float32 or float64
        As `emit` fills them where a cell is computed; bounds and as `bound` does where it is not. Totals of cells found here
        become WANTED.
    alpha, beta : (cells,) float64
        Scratch.
    best : (examples,) float64
        Scratch, on a GPU.
    computed : (examples,) int64
        0 before the first call; then the number of cells computed, or -1 where the best alignment needs no more.
    last : bool
        Mark all cells of an example that is not done.
    """
    if on_host(blank):
        sweep(narrow_cpu, len(computed), frames.starts, frames.labels, frames.first, frames.offset, monotonic, blank, label,
              rest, alpha, beta, computed, last, work=64 * len(alpha), pieces=8)  # fmt: skip
        return
    sums(frames, monotonic, blank, label, alpha, best, beta, largest=True)
    launch(narrow_cuda, len(computed), policy.SCAN_THREADS, frames.starts, frames.offset, rest, alpha, beta, best, computed,
           last)  # fmt: skip
