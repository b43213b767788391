"""Label arcs that end with a blank, on a GPU: whose row each score of a pair belongs to.

A pair leaves cell (t, u) by its label and ends by the blank of (t, u + 1), so an alignment that takes it uses the rows
of both. A warp walks through a frame, and each lane hands what it finds of its pair to the lane of the next cell.
"""

import numpy as np
from numba.extending import register_jitable

from .arcs import beyond, ending_at, larger
from .cells import CLOSED
from .launch import WARP, by_warp, cuda, cuda_kernel
from .scaled import added, log_of, split
from .state import CellState, scores_at


@register_jitable
def from_lane_below(value, carried):
    """(what the lane below has, or the first lane `carried`; what the last lane has, `carried` of the next cells)."""
    below, last = cuda.shfl_up_sync(0xFFFFFFFF, value, 1), cuda.shfl_sync(0xFFFFFFFF, value, WARP - 1)
    return (below if cuda.threadIdx.x % WARP else carried), last


@register_jitable
def log_sum(a, b):
    """log(exp(a) + exp(b)); NaN stays NaN."""
    return log_of(*added(*split(a), *split(b)))


@cuda_kernel
def pair_visits_cuda(
    starts, labels, example, first, offset, bounds, largest, blank_score, label_score, maximum, rest, alpha, beta
):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    n, state, carried = example[f], CellState(blank_score, label_score, maximum, rest), CLOSED
    # The loop is the same for all lanes, so each shuffle has the whole warp.
    for begin in range(offset[f], offset[f + 1], WARP):
        c = begin + cuda.threadIdx.x % WARP
        own, pair = CLOSED, CLOSED
        if c < offset[f + 1]:
            u = first[f] + c - offset[f]
            _, step = beyond(f, starts[n + 1], u, labels[n], first, offset, True, beta)
            step += scores_at(c, bounds, state)[1] + np.float64(ending_at(c, offset[f + 1], bounds, state))
            own, pair = alpha[c] + beta[c], alpha[c] + step
        before, carried = from_lane_below(pair, carried)
        if c < offset[f + 1]:
            alpha[c] = larger(own, before) if largest else log_sum(own, before)


def pair_visits(frames, state: CellState, alpha, beta, *, bounds: bool, largest: bool) -> None:
    """Sum over the alignments that use the row of each cell, where label arcs are paired, on a GPU.

    Parameters
    ----------
    frames : lattice.layout.Frames
    state : CellState
    alpha, beta : (cells,) float64
        alpha + beta becomes that sum in nats: it is put in the place of alpha, and beta is 0.
    bounds : bool
        Upper bounds stand for scores that are not computed. Else maximum and rest are not read.
    largest : bool
        The largest in the place of the sum.
    """
    lattices = frames.starts, frames.labels, frames.example, frames.first, frames.offset
    by_warp(pair_visits_cuda, len(frames.example), *lattices, bounds, largest, *state, alpha, beta)
    # Until all frames are done, beta is read by the frame before.
    beta.fill(0)
