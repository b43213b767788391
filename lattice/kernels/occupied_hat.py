"""What a backward pass visits of HAT's lattices (hat.py): rows of logits of some cells, and the blanks alone of others.

The row of a cell counts if its label arc does. Where only blanks pass, the gradient has one entry, that of the blank's
logit: at most blank posterior * sigmoid(-b).
"""

import math

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .block import block_sum
from .cells import CLOSED, NEGLIGIBLE
from .launch import WARP, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .occupied import list_cells
from .rows import gather
from .state import BOUND, WANTED, ArcPosteriors, Visited, is_computed


@register_jitable
def blank_share(blank_posterior, maximum, rest):
    """What the gradient at the blank's logit is at most."""
    # Of a computed cell the score is gone. Of any other, `maximum` is the blank's score, and 1 - p is formed from it.
    return blank_posterior if is_computed(rest) else -blank_posterior * math.expm1(maximum)


@register_jitable
def leave_rows(c, high, stride, blank_posterior, label_posterior, maximum, rest, log_z, floor):
    """Mark what is left out: `WANTED` where the blank alone is kept, `BOUND` where nothing is. Return its posterior."""
    left = 0.0
    while c < high:
        label = label_posterior[c]
        # Not `>= floor`: a NaN is kept, so that it is seen.
        if log_z == CLOSED:
            rest[c] = BOUND
        elif label < floor:
            share = blank_share(blank_posterior[c], maximum[c], rest[c])
            alone = not share < floor
            left += label if alone else label + share
            rest[c] = WANTED if alone else BOUND
        c += stride
    return left


@cpu_sweep
def leave_rows_cpu(begin, end, starts, offset, log_z, floor, blank_posterior, label_posterior, maximum, rest, skipped):
    for n in range(begin, end):
        low, high = offset[starts[n]], offset[starts[n + 1]]
        skipped[n] += leave_rows(low, high, 1, blank_posterior, label_posterior, maximum, rest, log_z[n], floor)


@cuda_kernel
def leave_rows_cuda(starts, offset, log_z, floor, blank_posterior, label_posterior, maximum, rest, skipped):
    partial = cuda.shared.array(WARP, np.float64)
    n, stride = cuda.blockIdx.x, cuda.blockDim.x
    low, high, state = offset[starts[n]] + cuda.threadIdx.x, offset[starts[n + 1]], (maximum, rest)
    left = leave_rows(low, high, stride, blank_posterior, label_posterior, *state, log_z[n], floor)
    left = block_sum(left, partial)
    if cuda.threadIdx.x == 0:
        skipped[n] += left


@cpu_sweep
def pack_cpu(cells, first, second):
    for i in range(cells.shape[0]):
        # Cells ascend, so cells[i] is at least i: what is written over has been moved before.
        first[i], second[i] = first[cells[i]], second[cells[i]]


def compact_hat(
    frames, log_z, floor, posteriors: ArcPosteriors, maximum, rest, cells, first_cell, skipped, counts=None, spare=None
) -> tuple[Visited, Visited]:
    """`occupied.compact` for HAT: the cells that are visited by their rows, and behind them those by their blanks.

    Parameters
    ----------
    frames, ..., spare
        As in `compact`. `floor` is for label posteriors, and for what a blank's gradient is at most.

    Returns
    -------
    rows, blanks : Visited
        In the memory of the arguments. Of `blanks`, maximum and rest mean nothing. On a GPU this waits twice.
    """
    floor = max(floor, NEGLIGIBLE)
    arguments = (frames.starts, frames.offset, log_z, floor, *posteriors, maximum, rest, skipped)
    if on_host(cells):
        sweep(leave_rows_cpu, len(skipped), *arguments, work=len(rest))
    else:
        launch(leave_rows_cuda, len(skipped), policy.SCAN_THREADS, *arguments)
    # No cell is in both lists, so both have room in the memory of one. The second call writes `first_cell` anew.
    first = np.array(list_cells(frames, rest, cells, first_cell, counts, wanted=False))
    n = int(first[-1])
    second = np.array(list_cells(frames, rest, cells[n:], first_cell, counts, wanted=True))
    rows, blanks = cells[:n], cells[n : n + int(second[-1])]
    behind = slice(n, n + len(blanks))

    def moved(array, which, target):
        # `gather` moves rows: here rows of one number.
        gather(array.reshape(-1, 1), which, target.reshape(-1, 1))
        return target

    if on_host(cells):
        # Behind the packed maximum and rest there is room for the blanks' posteriors.
        pack_cpu(rows, maximum, rest)
        alone = moved(posteriors.blank, blanks, maximum[behind]), moved(posteriors.label, blanks, rest[behind])
        pack_cpu(rows, *posteriors)
        known = posteriors.blank[:n], posteriors.label[:n], maximum[:n], rest[:n]
    else:
        # What has been read is where the next array goes.
        kept = moved(maximum, rows, spare[:n]), moved(rest, rows, maximum[:n])
        alone = moved(posteriors.blank, blanks, spare[behind]), moved(posteriors.label, blanks, maximum[behind])
        known = moved(posteriors.blank, rows, rest[:n]), moved(posteriors.label, rows, posteriors.blank[:n]), *kept
    return Visited(first, rows, *known), Visited(second, blanks, *alone, *alone)
