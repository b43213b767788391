"""The cells that alignments reach, and the weight of the alignments that leave a set of cells: drivers of frontier.py.

A thread of a CPU takes an example, and gives a cell its upper bounds when it comes there. A block of a GPU takes one:
its threads note the scores of a frame's cells side by side, where a warp gives a cell its bounds. Its first thread goes
through the cells, which are a chain of sums.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .activations import ACTIVATIONS, Activation, entry_of, named
from .arcs import cell_at
from .cells import CLOSED, typed
from .delay import cost_of
from .dropout import by_type
from .frontier import (
    COUNT,
    OUTSIDE,
    TALLIES,
    Ways,
    carries,
    enter,
    frame_range,
    leave,
    note,
    note_held,
    open_frame,
    pass_by,
    start,
    weigh,
)
from .hat import two_way
from .hat_bounds import bound_hat_cell
from .hidden import fill_of, lanes_of
from .launch import WARP, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .layer import three_products
from .state import CellState, label_bound_of
from .upper_bounds import bound_cell, logit_of, never_below, summed


class Rules(NamedTuple):
    """What an output layer brings to the bounds on a cell: ids, the layer, what `measure` finds, and roundings."""

    blank_id: int
    weight: np.ndarray
    bias: np.ndarray
    norm: np.ndarray
    ceiling: np.ndarray
    rounding: float
    few: float
    spare: float


@register_jitable
def bounds_of(blank_dot, label_dot, square, own, cost, rules, by_label):
    """Upper bounds on the two scores of a cell that has no state, in float64.

    `own` is the row of its label, or -1, and `cost` is taken off the label's score.
    """
    few, spare, blank_id = rules.few, rules.spare, rules.blank_id
    at = own if own >= 0 else blank_id
    blank_logit = logit_of(blank_dot, rules.bias, blank_id)
    reach, length = math.sqrt(square), rules.norm[blank_id]
    limits = rules.ceiling[0], rules.ceiling[1], rules.ceiling[2], rules.rounding, few, spare
    if by_label:
        _, _, rest = bound_hat_cell(blank_logit, own >= 0, square, length, *limits)
        # The kernel that makes a state may have rounded the blank's logit otherwise.
        slack = rules.rounding * reach * length + few * abs(blank_logit)
        blank_score = never_below(two_way(blank_logit + slack)[0], few, spare)
    else:
        label_logit = logit_of(label_dot, rules.bias, at) if own >= 0 else typed(CLOSED, square)
        blank_score, rest = bound_cell(blank_logit, label_logit, reach, length + rules.norm[at], *limits)
    # In float64 the difference needs no room.
    return np.float64(blank_score), np.float64(label_bound_of(rest)) - cost


@register_jitable
def goes_on(u, end, top, ways, tally):
    """Is label position u of the frame to be gone through?"""
    return u < top and (u < end or carries(ways.largest, tally))


@register_jitable
def pass_on(f, u, c, fresh, numbers, inside, kept, ways, rows, tally, low_u, high_u):
    """Go on from a cell that has been entered, and note it if it is kept. Returns `fresh`."""
    if kept and low_u.shape[0]:
        low_u[f], high_u[f] = min(low_u[f], u), max(high_u[f], u)
    if kept and c < 0:
        tally[COUNT] += 1.0
    if kept or inside:
        return leave(f, u, fresh, numbers, ways, rows, tally)
    return pass_by(f, u, fresh, ways, rows, tally)


@register_jitable
def gives_up(most, tally, low_u):
    """Has a band become too large?"""
    # With as many as that, the next frame would get none.
    return low_u.shape[0] > 0 and tally[COUNT] >= most


@register_jitable
def finish(n, frames, labels, low, high, at, most, few, ways, rows, tally, low_u, weighed, looked):
    """Leave what a walk has found of example n; `low` to `high` is what its last frame has handed on."""
    # A quarter of `few` is 4 eps.
    excess = 0.25 * few * (frames + labels)
    weighed[n, 0], weighed[n, 1] = weigh(low, high, labels, at, excess, ways.largest, rows, tally)
    looked[n] = -1 if gives_up(most, tally, low_u) else int(tally[COUNT])


class Kernels(NamedTuple):
    """What is compiled for an activation."""

    reach_cpu: Callable
    reach_cuda: Callable


def compile_kernels(activation: Activation) -> Kernels:
    """The kernels of one activation. Nothing is compiled before the first call of each."""
    fill, products = fill_of(activation), lanes_of(activation, summed)

    @cpu_sweep
    @named(f"reach_{activation.name}_cpu")
    def reach_cpu(
        begin, end, encoder, predictor, factors, dropout, encoder_row, predictor_row, starts, labels, first, offset,
        held_first, held_offset, label_base, label_row, rules, ways, state, base, nats, most, rows, low_u, high_u,
        weighed, looked,
    ):  # fmt: skip
        hidden = np.empty((1, rules.weight.shape[1]), rules.weight.dtype)
        frame, slot = np.empty(1, np.int64), np.empty(1, np.int64)
        lattice, held, tally = (first, offset), (held_first, held_offset), np.empty(TALLIES)
        for n in range(begin, end):
            a, b, U, own_rows = starts[n], starts[n + 1], labels[n], rows[n]
            start(a, ways, own_rows, tally)
            low, high = 0, 1
            for f in range(a, b):
                low, high, u, least, top = frame_range(f, low, high, held, lattice, ways, own_rows)
                begins, fresh = u, u
                cut = open_frame(base[n], nats[n], b - a, U, most[n], ways, tally)
                while goes_on(u, least, top, ways, tally):
                    c = cell_at(f, u, held_first, held_offset)
                    if c >= 0:
                        note_held(u, c, held_offset[f + 1], ways, state, own_rows)
                    numbers, inside, kept = enter(f, u, c, low, high, cut, ways, own_rows, tally)
                    if kept and c < 0:
                        own = label_row[n, u] if u < U else -1
                        frame[0], slot[0], at = f, label_base[n] + u, own if own >= 0 else rules.blank_id
                        fill(
                            0, 1, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden
                        )
                        products_of = three_products(hidden, 0, rules.weight, rules.blank_id, at)
                        cost = cost_of(f, a, b, ways.penalty)
                        bounds = bounds_of(*products_of, own, cost, rules, ways.by_label)
                        note(u, *bounds, OUTSIDE, ways, own_rows)
                    fresh = pass_on(f, u, c, fresh, numbers, inside, kept, ways, own_rows, tally, low_u, high_u)
                    u += 1
                low, high = begins, fresh
                if gives_up(most[n], tally, low_u):
                    break
            finish(
                n, b - a, U, low, high, 4 * (b % 2), most[n], rules.few, ways, own_rows, tally, low_u, weighed, looked
            )

    @cuda_kernel
    @named(f"reach_{activation.name}_cuda")
    def reach_cuda(
        encoder, predictor, factors, dropout, encoder_row, predictor_row, starts, labels, first, offset, held_first,
        held_offset, label_base, label_row, blank_id, weight, bias, norm, ceiling, rounding, few, spare, monotonic,
        paired, by_label, largest, penalty, share, blank_score, label_score, maximum, rest, base, nats, most, rows,
        low_u, high_u, weighed, looked,
    ):  # fmt: skip
        # The label positions that all threads are to note next, from the first to behind the last.
        told = cuda.shared.array(2, np.int64)
        tally = cuda.shared.array(TALLIES, np.float64)
        n, me, lane, warp = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
        warps = cuda.blockDim.x // WARP
        rules = Rules(blank_id, weight, bias, norm, ceiling, rounding, few, spare)
        ways = Ways(monotonic, paired, by_label, largest, penalty, share)
        state, lattice, held = (
            CellState(blank_score, label_score, maximum, rest),
            (first, offset),
            (held_first, held_offset),
        )
        a, b, U, own_rows = starts[n], starts[n + 1], labels[n], rows[n]
        low, high, u, least, top, fresh, begins, cut = 0, 1, 0, 0, 0, 0, 0, 0.0
        # Only the first thread goes through cells. All are told how far to note them. Nothing to note ends a frame.
        if me == 0:
            start(a, ways, own_rows, tally)
        for f in range(a, b):
            if me == 0:
                low, high, u, least, top = frame_range(f, low, high, held, lattice, ways, own_rows)
                begins, fresh = u, u
                cut = open_frame(base[n], nats[n], b - a, U, most[n], ways, tally)
                told[0], told[1] = u, min(max(least, u + warps), top) if goes_on(u, least, top, ways, tally) else u
            cuda.syncthreads()
            known, ready = told[0], told[1]
            while known < ready:
                for v in range(known + me, ready, cuda.blockDim.x):
                    c = cell_at(f, v, held_first, held_offset)
                    if c >= 0:
                        note_held(v, c, held_offset[f + 1], ways, state, own_rows)
                for v in range(known + warp, ready, warps):
                    if cell_at(f, v, held_first, held_offset) < 0:
                        own = label_row[n, v] if v < U else -1
                        at = own if own >= 0 else blank_id
                        layer = weight, weight[blank_id], weight[at], rounding
                        inputs = encoder, predictor, factors, dropout, encoder_row, predictor_row
                        blank_dot, label_dot, square = products(*inputs, f, label_base[n] + v, lane, *layer)
                        for distance in (16, 8, 4, 2, 1):
                            blank_dot += cuda.shfl_xor_sync(0xFFFFFFFF, blank_dot, distance)
                            label_dot += cuda.shfl_xor_sync(0xFFFFFFFF, label_dot, distance)
                            square += cuda.shfl_xor_sync(0xFFFFFFFF, square, distance)
                        if lane == 0:
                            cost = cost_of(f, a, b, penalty)
                            bounds = bounds_of(blank_dot, label_dot, square, own, cost, rules, by_label)
                            note(v, *bounds, OUTSIDE, ways, own_rows)
                cuda.syncthreads()
                if me == 0:
                    while u < ready and goes_on(u, least, top, ways, tally):
                        c = cell_at(f, u, held_first, held_offset)
                        numbers, inside, kept = enter(f, u, c, low, high, cut, ways, own_rows, tally)
                        fresh = pass_on(f, u, c, fresh, numbers, inside, kept, ways, own_rows, tally, low_u, high_u)
                        u += 1
                    told[0], told[1] = ready, min(ready + warps, top) if goes_on(u, least, top, ways, tally) else ready
                cuda.syncthreads()
                known, ready = told[0], told[1]
            low, high = begins, fresh
            # Nobody reads any more what the first thread tells of the next frame.
            cuda.syncthreads()
            if gives_up(most[n], tally, low_u):
                break
        if me == 0:
            finish(
                n, b - a, U, low, high, 4 * (b % 2), most[n], rules.few, ways, own_rows, tally, low_u, weighed, looked
            )

    return Kernels(reach_cpu, reach_cuda)


KERNELS = {activation: compile_kernels(activation) for activation in ACTIVATIONS.values()}


def reach(
    activation, inputs, frames, held, label_base, label_row, rules: Rules, ways: Ways, state: CellState, base, nats,
    most, rows, band, weighed, looked,
):  # fmt: skip
    """Walk through the lattices of some examples along the cells that alignments reach.

    Parameters
    ----------
    activation, inputs
        As in `hidden.compute_hidden`, up to the rows of label positions.
    frames : lattice.layout.Frames
        All cells of the lattices.
    held : lattice.layout.Frames
        The cells that have a state.
    label_base, label_row : (examples + 1,) int64, (examples, U) int32
        The first label position of each example, and the rows of its labels in the weight.
    rules : Rules
    ways : Ways
    state : CellState
        Where a cell is computed it is one of the set. With `ways.by_label` every cell is that has a state.
    base, nats : (examples,) float64
        What `ways.share` is a share of, as a logarithm in nats. How far below the best cell of a frame the walk lets go
        in the next one.
    most : (examples,) int64
        How many cells without a state are looked at. All that comes to others is let go.
    rows : (examples, ROWS, widest + 2) float64
        Scratch.
    band : pair of (frames,) or (0,) int32
        Where one is looked for, the first and the last label position of each frame that are kept. The caller fills the
        first with a large number and the second with -1. A band has fewer than `most` cells.
    weighed : (examples, 2) float64
        Filled with the logarithms of what keeps to the set, and of what leaves it, at most.
    looked : (examples,) int64
        Filled with the number of cells without a state that were looked at, or -1 for a band that is too large.
    """
    own = entry_of(KERNELS, activation)
    inputs = *inputs[:3], by_type(inputs[3]), *inputs[4:]
    cells = *inputs, frames.starts, frames.labels, frames.first, frames.offset, held.first, held.offset
    rest = base, nats, most, rows, *band, weighed, looked
    if on_host(rows):
        work = 64 * len(frames.example) * rules.weight.shape[1]
        sweep(own.reach_cpu, len(base), *cells, label_base, label_row, rules, ways, state, *rest, work=work, pieces=8)
    else:
        launch(
            own.reach_cuda, len(base), policy.REACH_THREADS, *cells, label_base, label_row, *rules, *ways, *state, *rest
        )
