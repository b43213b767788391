"""Which cells must be computed: a bracket round each example's log_z, and the cells that may still matter.

The arcs of cells that are not computed are closed, so a sum over alignments is a lower bound on log_z. Where upper
bounds stand for their scores, the sum is an upper bound, and alpha + beta bounds the posterior of every cell. Cells
that are proven to lie below the floor are left out, unless the example has all its cells computed.
The proof is in docs/certified.md.
"""

import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .arcs import behind_label, ending_at
from .block import block_sum
from .cells import CLOSED, exp
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .marking import claim, count_joining
from .pairs import pair_visits
from .state import CellState, is_computed, scores_at
from .step_sums import bracketing_step_sums
from .step_sweeps import backward_steps, forward_steps
from .sums import bracketing_sums
from .sweeps import forward, to_visits

PROBE = 12.0
"""Nats below the upper bound within which cells are computed first, to have a lower bound at all."""
DENSE = 0.6
"""Share of an example's cells from which on the others are computed too: nothing would be saved by proving more."""
PROBED_DENSE = 0.45
"""The same after the probe. Certified sets came out up to a third larger than the probed ones."""
TIGHTENINGS = 16
"""How often the floor of an example is lowered before all its cells are computed."""
ROUNDING = 2.0**-46
"""Error of the difference of two sums over alignments, in units of the sums, with room to spare."""


class Brackets(NamedTuple):
    """What is known of each example, all (examples,).

    Attributes
    ----------
    lower, upper : float64
        What log_z is at least and at most, in nats.
    certificate : float64
        Negative until it is found; nothing more is done for an example that has one. It is upper - lower once that is
        small enough, and 0 once all cells are to be computed.
    log_floor : float64
        Logarithm of the posterior below which cells are left alone.
    exact : int64
        Cells computed, or about to be.
    skipped : float64
        At first 0; then the posterior that the cells left alone have together at most.
    cells : int64
        Cells of the whole lattice, of which a band may hold a part. By them it is decided whether to compute all.
    """

    lower: np.ndarray
    upper: np.ndarray
    certificate: np.ndarray
    log_floor: np.ndarray
    exact: np.ndarray
    skipped: np.ndarray
    cells: np.ndarray


# Functions with a `stride` walk cells c, c + stride, ... below `high`: an example's cells on a CPU, a thread's on a
# GPU. They are `while` loops, because a range divides if its stride is not a constant.


@register_jitable
def left_out(c, high, stride, rest, visits, lower):
    """The posterior that cells never computed have at most, together."""
    left = 0.0
    while c < high:
        if not is_computed(rest[c]):
            # `lower` in the place of log_z, which is not below it. Without an alignment there is no posterior.
            left += exp(min(0.0, visits[c] - lower)) if lower > CLOSED else 0.0
        c += stride
    return left


@register_jitable
def threshold_of(probing, lower, upper, log_floor):
    """What alpha + beta must reach, in nats. Where there is no alignment, no cell reaches it."""
    if upper == CLOSED:
        return math.inf
    return upper - PROBE if probing else lower + log_floor


@register_jitable
def lowered(log_floor, gap, tolerance):
    """A floor that leaves out about half of what the certificate may be."""
    # -inf where the gap is infinite: then every cell joins.
    return log_floor + math.log(0.5 * tolerance / gap)


@register_jitable
def too_wide(lower, gap, tolerance):
    """Is the bracket wider than a certificate may be? Sums that are large are not known to the last digits."""
    # A gap of NaN is not too wide. Either both sums are -inf, or they are NaN, and then every cell joins anyway.
    return gap > max(tolerance, abs(lower) * ROUNDING)


@register_jitable
def probed_lower(upper, labels, by_label):
    """What log_z is at least while nothing is computed. `by_label`, arcs of blanks alone are the whole of U = 0."""
    return upper if by_label and labels == 0 else CLOSED


@register_jitable
def gives_up(probing, last, exact, cells):
    """Are all cells of an example to be computed? `exact` counts the computed cells and the found ones."""
    # NaN and a lower bound of -inf need no test. Every cell joins then, so `exact` is the number of all cells.
    return last or exact > (PROBED_DENSE if probing else DENSE) * cells


@register_jitable
def settle(n, low, high, lower, upper, rest, visits, brackets, probing, last, tolerance):
    """Decide about an example with the cells from `low` to before `high`, whose `visits` are known."""
    lowers, uppers, certificate, log_floor, exact, skipped, cells = brackets
    lowers[n], uppers[n] = lower, upper
    gap, attempts = upper - lower, 0
    # The floor falls until a cell joins or the bracket is narrow enough: no round may end with neither.
    while True:
        threshold = threshold_of(probing, lower, upper, log_floor[n])
        found = count_joining(low, high, 1, rest, visits, threshold)
        if found or probing or attempts == TIGHTENINGS or not too_wide(lower, gap, tolerance):
            break
        log_floor[n] = lowered(log_floor[n], gap, tolerance)
        attempts += 1
    if found == 0 and not too_wide(lower, gap, tolerance):
        skipped[n] = left_out(low, high, 1, rest, visits, lower)
        # A gap below 0 is rounding. NaN is an example without an alignment, or one of NaN, computed in whole.
        certificate[n] = gap if gap > 0 else 0.0
    else:
        # Where no cell joins, the bracket is still too wide for a certificate.
        everything = found == 0 or gives_up(probing, last, exact[n] + found, cells[n])
        claim(low, high, 1, rest, visits, threshold, everything)
        exact[n] = high - low if everything else exact[n] + found
        if everything:
            certificate[n] = 0.0


@cpu_sweep
def select_cpu(
    begin, end, starts, labels, first, offset, moves, by_label, blank_score, label_score, maximum, rest, alpha,
    brackets, probing, last, tolerance,
):  # fmt: skip
    state = CellState(blank_score, label_score, maximum, rest)
    for n in range(begin, end):
        if brackets.certificate[n] >= 0:
            continue
        a, b, U = starts[n], starts[n + 1], labels[n]  # frames and labels of the example
        upper = forward(a, b, U, first, offset, moves, True, True, state, alpha)
        # Arcs that are not computed are closed. The probe has computed nothing to sum over.
        if probing:
            lower = probed_lower(upper, U, by_label)
        else:
            lower = forward(a, b, U, first, offset, moves, False, False, state, alpha)
        # From here to the end, alpha holds visits, or what alignments pass by label arcs.
        to_visits(a, b, U, first, offset, moves, True, by_label, state, alpha)
        settle(n, offset[a], offset[b], lower, upper, rest, alpha, brackets, probing, last, tolerance)


@cpu_sweep
def select_steps_cpu(
    begin, end, starts, labels, first, offset, steps, step_score, blank_score, label_score, maximum, rest, alpha,
    brackets, probing, last, tolerance,
):  # fmt: skip
    state = CellState(blank_score, label_score, maximum, rest)
    for n in range(begin, end):
        if brackets.certificate[n] >= 0:
            continue
        a, b, U, lower = starts[n], starts[n + 1], labels[n], CLOSED
        upper = forward_steps(a, b, U, first, offset, steps, True, True, False, state, step_score, alpha)
        if not probing:
            lower = forward_steps(a, b, U, first, offset, steps, False, False, False, state, step_score, alpha)
        # From here to the end, alpha holds visits.
        backward_steps(a, b, U, first, offset, steps, True, False, False, state, step_score, alpha, 0.0, 0.0)
        settle(n, offset[a], offset[b], lower, upper, rest, alpha, brackets, probing, last, tolerance)


@cuda_kernel
def select_cuda(
    starts, labels, offset, rest, alpha, beta, by_label, lowers, uppers, certificate, log_floor, exact, skipped,
    cells, probing, last, tolerance,
):  # fmt: skip
    # One block an example; what it decides by is the same in all of its threads.
    partial = cuda.shared.array(WARP, np.float64)
    n, me, stride = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    low, high = offset[starts[n]], offset[starts[n + 1]]
    lower, upper = lowers[n], uppers[n]
    if probing:
        lower = probed_lower(upper, labels[n], by_label)
    floor, computed, settled = log_floor[n], exact[n], certificate[n]
    if settled >= 0:
        return
    for c in range(low + me, high, stride):
        alpha[c] += beta[c]
    gap, attempts = upper - lower, 0
    while True:
        threshold = threshold_of(probing, lower, upper, floor)
        # Sums over a block are float64, which counts exactly up to 2**53.
        found = int(block_sum(count_joining(low + me, high, stride, rest, alpha, threshold), partial))
        if found or probing or attempts == TIGHTENINGS or not too_wide(lower, gap, tolerance):
            break
        floor = lowered(floor, gap, tolerance)
        attempts += 1
    if found == 0 and not too_wide(lower, gap, tolerance):
        left = block_sum(left_out(low + me, high, stride, rest, alpha, lower), partial)
        if me == 0:
            certificate[n], skipped[n] = gap if gap > 0 else 0.0, left
    else:
        everything = found == 0 or gives_up(probing, last, computed + found, cells[n])
        claim(low + me, high, stride, rest, alpha, threshold, everything)
        if me == 0:
            exact[n] = high - low if everything else computed + found
            certificate[n] = 0.0 if everything else settled
    if me == 0:
        log_floor[n] = floor


@cuda_kernel
def label_visits_cuda(
    starts, labels, example, first, offset, monotonic, paired, blank_score, label_score, maximum, rest, alpha, beta
):  # fmt: skip
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    n, state = example[f], CellState(blank_score, label_score, maximum, rest)
    for c in range(offset[f] + cuda.threadIdx.x % WARP, offset[f + 1], WARP):
        u = first[f] + c - offset[f]
        # Only beta of other cells is read, and nobody writes it.
        step = scores_at(c, True, state)[1] + behind_label(
            f, starts[n + 1], u, labels[n], first, offset, monotonic, beta
        )
        if paired:
            step += ending_at(c, offset[f + 1], True, state)
        alpha[c] += step


def select(
    frames, moves, state: CellState, alpha, beta, brackets, *, probing, last, tolerance, by_label=False, steps=None
):  # fmt: skip
    """Bracket log_z of every example that has no certificate yet, and mark the cells that the example still needs.

    Parameters
    ----------
    frames : lattice.layout.Frames
    moves : Moves
    state : CellState
        As `emit` fills it where a cell is computed and `bound` where it is not. The cells found here become wanted.
    alpha, beta : (cells,) float64
        Scratch; beta only on a GPU.
    brackets : Brackets
        Brought up to date.
    probing : bool
        The first round. Nothing is computed yet, and the cells that are likely by their upper bounds are marked.
    last : bool
        Mark all cells of an example that this round does not settle.
    tolerance : float
        Largest certificate, in nats.
    by_label : bool
        Blank scores are known and open in all cells. What counts of a cell is its label arc alone.
    steps : StepScores, optional
        Where arcs take several frames. Scores, or upper bounds where a cell is not computed.
    """
    decisions, lower = (probing, last, tolerance), None if probing else brackets.lower
    if on_host(state.rest) and steps is not None:
        lattices = frames.starts, frames.labels, frames.first, frames.offset, *steps, *state, alpha
        arguments = *lattices, brackets, *decisions
        sweep(select_steps_cpu, len(brackets.exact), *arguments, work=128 * len(alpha), pieces=8)
        return
    if on_host(state.rest):
        lattices = frames.starts, frames.labels, frames.first, frames.offset, moves, by_label, *state, alpha
        sweep(select_cpu, len(brackets.exact), *lattices, brackets, *decisions, work=64 * len(alpha), pieces=8)
        return
    # Launches follow one another on the stream, and nothing waits.
    if steps is not None:
        bracketing_step_sums(frames, steps, state, alpha, beta, lower, brackets.upper)
    else:
        bracketing_sums(frames, moves, state, alpha, beta, lower, brackets.upper)
    if by_label:
        lattices = frames.starts, frames.labels, frames.example, frames.first, frames.offset, *moves
        by_warp(label_visits_cuda, len(frames.example), *lattices, *state, alpha, beta)
        # Until all frames are done, beta is read by other cells.
        beta.fill(0)
    elif moves.paired:
        pair_visits(frames, state, alpha, beta, bounds=True, largest=False)
    arguments = frames.starts, frames.labels, frames.offset, state.rest, alpha, beta, by_label, *brackets, *decisions
    launch(select_cuda, len(brackets.exact), policy.SCAN_THREADS, *arguments)
