"""alpha, beta and log_z of every example on a GPU, or best scores in their place: a block walks through one lattice."""

import numpy as np

from . import launch as policy
from .launch import cuda, cuda_kernel, launch, whole_warps
from .state import CellState
from .walk import PLACES, Sums, Walk, walk_through


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
    # `paired` and `largest` are constants in each kernel, so none holds the arithmetic of another.
    walk = Walk(
        starts[n], starts[n + 1], labels[n], back, monotonic, False, False, bounds and not below, below, first, offset
    )  # fmt: skip
    walk_through(
        walk, CellState(blank_score, label_score, maximum, rest), Sums(alpha, beta, lower, log_z), handed
    )  # fmt: skip


@cuda_kernel
def sums_paired_cuda(
    starts, labels, first, offset, bounds, bracket, blank_score, label_score, maximum, rest, alpha, beta, lower, log_z
):  # fmt: skip
    handed = cuda.shared.array((2, PLACES, 2), np.float64)
    n, role = cuda.blockIdx.x, cuda.blockIdx.y
    below, back = bracket and role == 0, role == (2 if bracket else 1)
    walk = Walk(
        starts[n], starts[n + 1], labels[n], back, True, True, False, bounds and not below, below, first, offset
    )  # fmt: skip
    walk_through(
        walk, CellState(blank_score, label_score, maximum, rest), Sums(alpha, beta, lower, log_z), handed
    )  # fmt: skip


@cuda_kernel
def bests_cuda(starts, labels, first, offset, monotonic, blank_score, label_score, alpha, beta, best):
    # By block: an example, and alpha or beta.
    handed = cuda.shared.array((2, PLACES, 2), np.float64)
    n, back = cuda.blockIdx.x, cuda.blockIdx.y == 1
    walk = Walk(starts[n], starts[n + 1], labels[n], back, monotonic, False, True, False, False, first, offset)
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    walk_through(walk, state, Sums(alpha, beta, best, best), handed)


@cuda_kernel
def bests_paired_cuda(starts, labels, first, offset, blank_score, label_score, alpha, beta, best):
    handed = cuda.shared.array((2, PLACES, 2), np.float64)
    n, back = cuda.blockIdx.x, cuda.blockIdx.y == 1
    walk = Walk(starts[n], starts[n + 1], labels[n], back, True, True, True, False, False, first, offset)
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    walk_through(walk, state, Sums(alpha, beta, best, best), handed)


def sums(frames, moves, blank_score, label_score, alpha, log_z, beta=None):
    """alpha and log_z of every example on a GPU, and beta if it is given."""
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    _launch(frames, moves, state, alpha, beta, log_z, log_z, bounds=False, bracket=False)


def bests(frames, moves, blank_score, label_score, alpha, best, beta):
    """`sums`, with the larger of two scores in the place of their sum."""
    kernel, lattices = (bests_paired_cuda if moves.paired else bests_cuda), _lattices(frames, moves)
    arguments = blank_score, label_score, alpha, beta, best
    launch(kernel, (len(best), 2), _threads(frames), *lattices, *arguments)


def bracketing_sums(frames, moves, state: CellState, alpha, beta, lower, upper) -> None:
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
        sums(frames, moves, *state.scores, alpha, lower)
        lower = None
    bracket = lower is not None
    _launch(frames, moves, state, alpha, beta, lower if bracket else upper, upper, bounds=True, bracket=bracket)


def _launch(frames, moves, state, alpha, beta, lower, log_z, *, bounds, bracket):
    blocks = len(log_z), 1 + bracket + (beta is not None)
    kernel, how = (sums_paired_cuda if moves.paired else sums_cuda), (*_lattices(frames, moves), bounds, bracket)
    # Without blocks for beta nothing is written there: alpha only fills the place of the argument.
    launch(kernel, blocks, _threads(frames), *how, *state, alpha, alpha if beta is None else beta, lower, log_z)


def _lattices(frames, moves):
    """What a kernel is told of the lattices. One for pairs has no other topology."""
    flags = () if moves.paired else (moves.monotonic,)
    return frames.starts, frames.labels, frames.first, frames.offset, *flags


def _threads(frames):
    return whole_warps(frames.widest + 1, policy.LATTICE_THREADS)
