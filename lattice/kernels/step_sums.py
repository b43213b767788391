"""alpha, beta, log_z and arc posteriors where arcs take several frames (steps.py), as forward_backward.py makes them.

On a GPU a block takes an example, and a thread one of the cells that no other cell of the same wave leads to. Where
labels may stay in a frame a wave is an anti-diagonal, and else a frame. What a wave reads is stored by earlier ones.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .arcs import cell_at
from .cells import CLOSED, arc_posterior, at_most_one, lowest_of, tiny_of
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps
from .state import ArcPosteriors, CellState
from .step_arcs import Lattice, behind_all, goes_by, joined
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
        log_z[n] = forward_steps(a, b, labels[n], first, offset, steps, False, True, state, step_score, alpha)


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
                a, b, labels[n], first, offset, steps, False, True, state, step_score, alpha, log_z[n], tiny
            )  # fmt: skip


@register_jitable
def walk_waves(own, back, largest, sums):
    """Fill `sums`, which is alpha or with `back` beta, of the example that a block takes."""
    stays, T, U = own.steps[0, 0] == 0, own.end - own.begin, own.labels
    for wave in range(T + U if stays else T):
        # Places count label positions, and t frames, from where the walk begins.
        place = cuda.threadIdx.x + (max(0, wave - T + 1) if stays else 0)
        while place <= (min(U, wave) if stays else U):
            t, u = wave - place if stays else wave, U - place if back else place
            f = own.end - 1 - t if back else own.begin + t
            c = cell_at(f, u, own.first, own.offset)
            if c >= 0:
                sums[c] = joined(back, largest, f, u, c, own, sums)
            place += cuda.blockDim.x
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
        if cuda.threadIdx.x == 0:
            log_z[n] = behind_all(largest, own, alpha)


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
    waves = frames.widest + 1
    arguments = *_lattices(frames), steps.steps, bounds, largest, *state, steps.score, alpha
    blocks, threads = (len(log_z), 1 + (beta is not None)), whole_warps(waves, policy.LATTICE_THREADS)
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
