"""alpha, beta, log_z and arc posteriors where arcs take several frames (steps.py), as forward_backward.py makes them.

On a GPU a block takes an example, and its lanes the arcs of the cells of a wave, of which none leads to another. Where
labels may stay in a frame a wave is an anti-diagonal, and else a frame. What a wave reads is stored by earlier ones.
"""

import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .arcs import cell_at
from .cells import CLOSED, arc_posterior, at_most_one, larger, lowest_of, tiny_of
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps
from .state import ArcPosteriors, CellState
from .step_arcs import Lattice, came_by, goes_by
from .step_sweeps import backward_steps, forward_steps


class StepScores(NamedTuple):
    """The steps of a topology, and their scores in the cells of some lattices.

    Attributes
    ----------
    steps : (2, D) int32
    score : (D, cells) float32 or float64
        In nats. Behind `to_arc_posteriors` the posterior of all arcs of a cell that take the step.
    """

    steps: np.ndarray
    score: np.ndarray


@cpu_sweep
def step_forward_cpu(
    begin, end, starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha, log_z
):
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        log_z[n] = forward_steps(a, b, labels[n], first, offset, steps, False, True, False, state, step_score, alpha)


@cpu_sweep
def step_posteriors_cpu(
    begin, end, starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha, log_z, tiny
):  # fmt: skip
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        # Without an alignment alpha - log_z would be NaN.
        if log_z[n] == CLOSED:
            blank_score[offset[a] : offset[b]] = 0
            label_score[offset[a] : offset[b]] = 0
            step_score[:, offset[a] : offset[b]] = 0
        else:
            backward_steps(
                a, b, labels[n], first, offset, steps, False, True, False, state, step_score, alpha, log_z[n], tiny
            )  # fmt: skip


@register_jitable
def lanes_for(steps):
    """Lanes that take a cell, a step each: a power of two, so that they are of one warp."""
    lanes = 2
    while lanes < steps:
        lanes *= 2
    return lanes


@register_jitable
def joined(back, largest, lane, lanes, inside, f, u, c, own, sums):
    """alpha of cell c = (f, u), or with `back` beta, in each of the lanes that take the cell; NaN stays.

    `sums` holds those of the cells on the other side. c is read for beta alone. So alpha may be asked for of the cell
    behind the last frame, (T, U), whose alpha is log_z. All lanes of a warp come here. Where not `inside` they have no
    cell, and the result is -inf.
    """
    blank, label = CLOSED, CLOSED
    if inside and lane < own.steps.shape[1]:
        if back:
            blank, label = goes_by(lane, False, f, u, c, own, sums), goes_by(lane, True, f, u, c, own, sums)
        else:
            blank, label = came_by(lane, False, f, u, own, sums), came_by(lane, True, f, u, own, sums)
    # Alignments begin in cell (0, 0): a label's arc never leads there.
    if inside and lane == 0 and not back and f == own.begin and u == 0:
        label = 0.0
    high = larger(blank, label)
    distance = lanes // 2
    while distance:
        high = larger(cuda.shfl_xor_sync(0xFFFFFFFF, high, distance), high)
        distance //= 2
    # Not a return, for other lanes of the warp go on. exp(x - x) of -inf would be NaN.
    base = 0.0 if high == CLOSED else high
    total = math.exp(blank - base) + math.exp(label - base)
    distance = lanes // 2
    while distance:
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, distance)
        distance //= 2
    return high if largest or high == CLOSED else high + math.log(total)


@register_jitable
def walk_waves(own, back, largest, sums):
    """Fill `sums`, which is alpha or with `back` beta, of the example that a block takes."""
    stays, T, U, lanes = own.steps[0, 0] == 0, own.end - own.begin, own.labels, lanes_for(own.steps.shape[1])
    lane, at_once = cuda.threadIdx.x % lanes, cuda.blockDim.x // lanes
    for wave in range(T + U if stays else T):
        # Places count label positions, and t frames, from where the walk begins.
        first, last = max(0, wave - T + 1) if stays else 0, min(U, wave) if stays else U
        for done in range(first, last + 1, at_once):
            # The same for the whole block: lanes without a cell come along.
            place = done + cuda.threadIdx.x // lanes
            t, u = wave - place if stays else wave, U - place if back else place
            f = own.end - 1 - t if back else own.begin + t
            c = cell_at(f, u, own.first, own.offset) if place <= last else -1
            found = joined(back, largest, lane, lanes, c >= 0, f, u, c, own, sums)
            if c >= 0 and lane == 0:
                sums[c] = found
        cuda.syncthreads()


@cuda_kernel
def step_sums_cuda(
    starts, labels, first, offset, steps, bounds, largest, blank_score, label_score, maximum, rest, step_score, alpha,
    beta, log_z,
):  # fmt: skip
    # By block: an example, and alpha or beta.
    n, back = cuda.blockIdx.x, cuda.blockIdx.y == 1
    state = CellState(blank_score, label_score, maximum, rest)
    own = Lattice(starts[n], starts[n + 1], labels[n], first, offset, steps, bounds, state, step_score)
    if back:
        walk_waves(own, True, largest, beta)
    else:
        walk_waves(own, False, largest, alpha)
        lanes = lanes_for(steps.shape[1])
        lane = cuda.threadIdx.x % lanes
        behind_all = joined(False, largest, lane, lanes, True, own.end, own.labels, 0, own, alpha)
        if cuda.threadIdx.x == 0:
            log_z[n] = behind_all


@cuda_kernel
def step_posteriors_cuda(
    starts, labels, example, first, offset, steps, step_score, blank_score, label_score, alpha, beta, log_z, lowest
):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    n = example[f]
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    own = Lattice(starts[n], starts[n + 1], labels[n], first, offset, steps, False, state, step_score)
    for c in range(offset[f] + cuda.threadIdx.x % WARP, offset[f + 1], WARP):
        u, arrive = first[f] + c - offset[f], alpha[c] - log_z[n]
        nothing = 0.0 if log_z[n] == CLOSED else log_z[n] - log_z[n]
        by_blank, by_label = nothing, nothing
        for i in range(steps.shape[1]):
            blank, label = nothing, nothing
            # Where no alignment comes or leads on there is no posterior, whatever the rest is.
            if log_z[n] != CLOSED and alpha[c] != CLOSED:
                leaves, moves = goes_by(i, False, f, u, c, own, beta), goes_by(i, True, f, u, c, own, beta)
                blank = nothing if leaves == CLOSED else arc_posterior(arrive + leaves, lowest)
                label = nothing if moves == CLOSED else arc_posterior(arrive + moves, lowest)
            # Scores of a cell are read here alone.
            step_score[i, c] = at_most_one(blank + label)
            by_blank, by_label = by_blank + blank, by_label + label
        blank_score[c], label_score[c] = at_most_one(by_blank), at_most_one(by_label)


def _lattices(frames):
    return frames.starts, frames.labels, frames.first, frames.offset


def step_sums(frames, steps: StepScores, state: CellState, alpha, log_z, beta=None, *, bounds=False, largest=False):
    """alpha and log_z of every example on a GPU, and beta if it is given; with `largest` best scores in their place."""
    arguments = *_lattices(frames), steps.steps, bounds, largest, *state, steps.score, alpha
    lanes = (frames.widest + 1) * lanes_for(len(steps.score))
    blocks, threads = (len(log_z), 1 + (beta is not None)), max(WARP, whole_warps(lanes, policy.LATTICE_THREADS))
    # Without blocks for beta nothing is written there: alpha only fills the place of the argument.
    launch(step_sums_cuda, blocks, threads, *arguments, alpha if beta is None else beta, log_z)


def bracketing_step_sums(frames, steps: StepScores, state: CellState, alpha, beta, lower, upper) -> None:
    """`sums.bracketing_sums` where arcs take several frames."""
    if lower is not None:
        step_sums(frames, steps, state, alpha, lower)
    step_sums(frames, steps, state, alpha, upper, beta, bounds=True)


def forward_step_sums(frames, steps: StepScores, blank_score, label_score, alpha, log_z, beta=None) -> None:
    """`forward_backward.forward_sums` where arcs take several frames."""
    if on_host(blank_score):
        arguments = *_lattices(frames), *steps, blank_score, label_score, alpha, log_z
        sweep(step_forward_cpu, len(log_z), *arguments, work=64 * len(alpha), pieces=8)
    else:
        state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
        step_sums(frames, steps, state, alpha, log_z, beta)


def to_step_posteriors(frames, steps: StepScores, blank_score, label_score, alpha, log_z, beta=None) -> ArcPosteriors:
    """`forward_backward.to_arc_posteriors` where arcs take several frames: `steps.score` holds posteriors too then."""
    known = *steps, blank_score, label_score, alpha
    if on_host(blank_score):
        arguments = *_lattices(frames), *known, log_z, tiny_of(blank_score)
        sweep(step_posteriors_cpu, len(log_z), *arguments, work=64 * len(alpha), pieces=8)
    else:
        lattices = frames.starts, frames.labels, frames.example, frames.first, frames.offset
        arguments = *lattices, *known, beta, log_z, lowest_of(blank_score)
        by_warp(step_posteriors_cuda, len(frames.example), *arguments)
    return ArcPosteriors(blank_score, label_score)
