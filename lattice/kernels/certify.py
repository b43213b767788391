"""Which cells must be computed: a bracket round each example's log_z, and the cells that may still matter.

At rest the arcs of cells that are not computed are closed, so a sum over alignments is a lower bound on log_z; `open_bounds` puts
their bounds in place, and it is an upper one, whose alpha + beta bounds the share of every cell. What cannot reach the floor is
never computed. The proof is in docs/certified.md.
"""

import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .block import block_sum
from .cells import CLOSED, typed
from .forward_backward import backward, forward, sums
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .upper_bounds import BOUND, WANTED

PROBE = 12.0
"""Nats below the upper bound within which cells are computed first, to have a lower bound at all."""
DENSE = 0.6
"""Share of an example's cells from which on the others are computed too: nothing would be saved by proving more."""
PROBED_DENSE = 0.45
"""The same after the probe: certified sets came out up to a third larger than it."""
TIGHTENINGS = 16
"""How often the floor of an example is lowered before all its cells are computed."""
ROUNDING = 2.0**-46
"""Relative error of a difference of two sums over alignments, with room to spare."""


class Brackets(NamedTuple):
    """What is known of each example, all (examples,).

    Attributes
    ----------
    lower, upper : float64
        Bounds on log_z in nats.
    certificate : float64
        upper - lower once it is small enough, 0 once all cells are to be computed, negative before that: nothing more is found
        for an example that has one.
    log_floor : float64
        Logarithm of the posterior below which cells are left alone.
    exact : int64
        Cells computed, or about to be.
    skipped : float64
        Posterior of the cells that were left alone, at most; at first 0.
    """

    lower: np.ndarray
    upper: np.ndarray
    certificate: np.ndarray
    log_floor: np.ndarray
    exact: np.ndarray
    skipped: np.ndarray


@register_jitable
def open_bounds(c, high, stride, blank, label, maximum, rest):
    """Put the bounds of cells that are not computed in the place of their scores."""
    while c < high:
        if rest[c] < 0:
            blank[c] = maximum[c]
            label[c] = min(typed(0, rest[c]), rest[c] - typed(BOUND, rest[c]))
        c += stride


@register_jitable
def close_again(c, high, stride, blank, label, rest):
    while c < high:
        if rest[c] < 0:
            blank[c] = CLOSED
            label[c] = CLOSED
        c += stride


@register_jitable
def joins(rest, visit, threshold):
    """Is a cell to be computed? `visit` is its alpha + beta. NaN joins, so that it is seen."""
    return rest == WANTED or (rest <= BOUND and not visit < threshold)


@register_jitable
def count_joining(c, high, stride, rest, visits, threshold):
    found = 0
    while c < high:
        if joins(rest[c], visits[c], threshold):
            found += 1
        c += stride
    return found


@register_jitable
def claim(c, high, stride, rest, visits, threshold, everything):
    """Mark the cells that are to be computed."""
    while c < high:
        if rest[c] < 0 and (everything or joins(rest[c], visits[c], threshold)):
            rest[c] = WANTED
        c += stride


@register_jitable
def left_out(c, high, stride, rest, visits, lower):
    """The posterior that cells never computed have at most."""
    left = 0.0
    while c < high:
        if rest[c] < 0:
            left += math.exp(min(0.0, visits[c] - lower)) if lower > CLOSED else 0.0
        c += stride
    return left


@register_jitable
def threshold_of(probing, lower, upper, log_floor):
    """What alpha + beta must reach; nothing does where there is no alignment."""
    if upper == CLOSED:
        return math.inf
    return upper - PROBE if probing else lower + log_floor


@register_jitable
def lowered(log_floor, gap, tolerance):
    """A floor that leaves out about half of what the certificate may be."""
    return log_floor + math.log(0.5 * tolerance / gap)


@register_jitable
def too_wide(probing, lower, gap, tolerance):
    """Is the certificate too large yet? Sums that are themselves large are not known to the last digits."""
    return not probing and gap > max(tolerance, abs(lower) * ROUNDING)


@register_jitable
def gives_up(probing, last, exact, cells):
    """Are all cells of an example to be computed? `exact` counts those that are, and those that have been found.

    That is so, too, if no alignment runs inside the computed cells, or one of them is NaN: then every cell has been found.
    """
    return last or exact > (PROBED_DENSE if probing else DENSE) * cells


@cpu_sweep
def select_cpu(
    begin, end, starts, labels, first, offset, monotonic, blank, label, maximum, rest, alpha, brackets, probing, last, tolerance
):  # fmt: skip
    lowers, uppers, certificate, log_floor, exact, skipped = brackets
    for n in range(begin, end):
        if certificate[n] >= 0:
            continue
        a, b, U = starts[n], starts[n + 1], labels[n]
        low, high = offset[a], offset[b]
        lower = CLOSED if probing else forward(a, b, U, first, offset, monotonic, False, blank, label, alpha)
        open_bounds(low, high, 1, blank, label, maximum, rest)
        upper = forward(a, b, U, first, offset, monotonic, False, blank, label, alpha)
        backward(a, b, U, first, offset, monotonic, blank, label, alpha, upper, 0.0, False)
        close_again(low, high, 1, blank, label, rest)
        lowers[n], uppers[n] = lower, upper
        gap, attempts = upper - lower, 0
        while True:
            threshold = threshold_of(probing, lower, upper, log_floor[n])
            found = count_joining(low, high, 1, rest, alpha, threshold)
            if found or attempts == TIGHTENINGS or not too_wide(probing, lower, gap, tolerance):
                break
            log_floor[n] = lowered(log_floor[n], gap, tolerance)
            attempts += 1
        if found == 0 and not too_wide(probing, lower, gap, tolerance):
            skipped[n] = left_out(low, high, 1, rest, alpha, lower)
            certificate[n] = gap if gap > 0 else 0.0
        else:
            everything = found == 0 or gives_up(probing, last, exact[n] + found, high - low)
            claim(low, high, 1, rest, alpha, threshold, everything)
            exact[n] = high - low if everything else exact[n] + found
            if everything:
                certificate[n] = 0.0


@cuda_kernel
def open_cuda(example, offset, blank, label, maximum, rest):
    f = cuda.grid(1) // WARP
    if f < example.shape[0]:
        open_bounds(offset[f] + cuda.threadIdx.x % WARP, offset[f + 1], WARP, blank, label, maximum, rest)


@cuda_kernel
def select_cuda(
    starts, offset, blank, label, rest, alpha, beta, lowers, uppers, certificate, log_floor, exact, skipped, probing, last,
    tolerance,
):  # fmt: skip
    # One block an example; what it decides by is the same in all of its threads.
    sums = cuda.shared.array(WARP, np.float64)
    n, me, stride = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    low, high = offset[starts[n]], offset[starts[n + 1]]
    lower, upper = CLOSED if probing else lowers[n], uppers[n]
    floor, computed, settled = log_floor[n], exact[n], certificate[n]
    close_again(low + me, high, stride, blank, label, rest)
    cuda.syncthreads()
    if settled >= 0:
        return
    for c in range(low + me, high, stride):
        alpha[c] += beta[c]
    gap, attempts = upper - lower, 0
    while True:
        threshold = threshold_of(probing, lower, upper, floor)
        found = int(block_sum(count_joining(low + me, high, stride, rest, alpha, threshold), sums))
        if found or attempts == TIGHTENINGS or not too_wide(probing, lower, gap, tolerance):
            break
        floor = lowered(floor, gap, tolerance)
        attempts += 1
    if found == 0 and not too_wide(probing, lower, gap, tolerance):
        left = block_sum(left_out(low + me, high, stride, rest, alpha, lower), sums)
        if me == 0:
            certificate[n], skipped[n] = gap if gap > 0 else 0.0, left
    else:
        everything = found == 0 or gives_up(probing, last, computed + found, high - low)
        claim(low + me, high, stride, rest, alpha, threshold, everything)
        if me == 0:
            exact[n] = high - low if everything else computed + found
            certificate[n] = 0.0 if everything else settled
    if me == 0:
        log_floor[n] = floor


def select(frames, monotonic, blank, label, maximum, rest, alpha, beta, brackets, *, probing, last, tolerance):
    """Bracket log_z of every example that has no certificate yet, and mark the cells it still needs.

    Parameters
    ----------
    frames : lattice.layout.Frames
    monotonic : bool
    blank, label, maximum, rest : (cells,) float32 or float64
        As `emit` fills them where a cell is computed and `bound` where it is not; rests of cells found here become WANTED.
    alpha, beta : (cells,) float64
        Scratch; beta on a GPU alone.
    brackets : Brackets
        Brought up to date.
    probing : bool
        The first round: nothing is computed, and the cells that the bounds call likely are marked.
    last : bool
        Mark all cells of an example that this round does not settle.
    tolerance : float
        Largest certificate, in nats.
    """
    decisions = probing, last, tolerance
    if on_host(blank):
        sweep(select_cpu, len(brackets.exact), frames.starts, frames.labels, frames.first, frames.offset, monotonic, blank, label,
              maximum, rest, alpha, tuple(brackets), *decisions, work=64 * len(alpha), pieces=8)  # fmt: skip
        return
    lattices = frames, monotonic, blank, label, alpha
    if not probing:
        sums(*lattices, brackets.lower)
    by_warp(open_cuda, len(frames.example), frames.example, frames.offset, blank, label, maximum, rest)
    sums(*lattices, brackets.upper, beta)
    launch(select_cuda, len(brackets.exact), policy.SCAN_THREADS, frames.starts, frames.offset, blank, label, rest, alpha, beta,
           *brackets, *decisions)  # fmt: skip
