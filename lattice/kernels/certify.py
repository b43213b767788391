"""Which cells must be computed: a bracket round each example's log_z, and the cells that may still matter.

Every cell has scores, and a total that says what they are: exact (the total is one, at least 0), a bound from above (BOUND), or
about to be replaced (WANTED). With all other arcs closed the exact cells give a lower bound on log_z; with bounds in their place
an upper one, and alpha + beta of that is a bound on every cell's share. What cannot reach the floor is never computed. The proof
is in docs/certified.md.
"""

import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .block import block_sum
from .bounds import BOUND, WANTED
from .cells import CLOSED
from .forward_backward import backward, forward, total, waves
from .launch import WARP, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps

PROBE = 12.0
"""Nats below the upper bound within which cells are computed first, to have a lower bound at all."""
DENSE = 0.6
"""Share of an example's cells from which on the others are computed too: nothing would be saved by proving more."""
TIGHTENINGS = 4
"""How often the floor of an example is lowered before all its cells are computed."""


class Brackets(NamedTuple):
    """What is known of each example, all (examples,).

    Attributes
    ----------
    lower, upper : float64
        Bounds on log_z in nats; `lower` is what is reported.
    certificate : float64
        upper - lower once it is small enough, negative before that: nothing more is computed for an example that has one.
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
def joins(kind, visit, threshold):
    """Is a cell to be computed? `visit` is its alpha + beta. NaN joins, so that it is seen."""
    return kind == WANTED or (kind == BOUND and not visit < threshold)


@register_jitable
def count_joining(c, high, stride, kinds, visits, threshold):
    found = 0
    while c < high:
        if joins(kinds[c], visits[c], threshold):
            found += 1
        c += stride
    return found


@register_jitable
def claim(c, high, stride, kinds, visits, threshold, everything):
    """Mark the cells that are to be computed."""
    while c < high:
        if kinds[c] == BOUND and (everything or joins(kinds[c], visits[c], threshold)):
            kinds[c] = WANTED
        c += stride


@register_jitable
def shut(c, high, stride, blank, label, kinds, visits, lower):
    """Close the arcs of the cells that were never computed; return the posterior they might have had."""
    left = 0.0
    while c < high:
        if kinds[c] < 0:
            left += math.exp(min(0.0, visits[c] - lower)) if lower > CLOSED else 0.0
            blank[c], label[c], kinds[c] = CLOSED, CLOSED, BOUND
        c += stride
    return left


@register_jitable
def threshold_of(probing, lower, upper, log_floor):
    return upper - PROBE if probing else lower + log_floor


@register_jitable
def lowered(log_floor, gap, tolerance):
    """A floor that leaves out about half of what the certificate may be."""
    return log_floor + math.log(0.5 * tolerance / gap)


@register_jitable
def too_wide(probing, gap, tolerance):
    return not probing and gap > tolerance


@register_jitable
def gives_up(probing, last, lower, exact, cells):
    """Are all cells of an example to be computed? `exact` counts those that are, and those that have been found."""
    return last or exact > DENSE * cells or (not probing and not lower > CLOSED)


@cpu_sweep
def select_cpu(
    begin, end, starts, labels, first, offset, monotonic, blank, label, kinds, alpha, brackets, probing, last, tolerance
):  # fmt: skip
    lowers, uppers, certificate, log_floor, exact, skipped = brackets
    for n in range(begin, end):
        if certificate[n] >= 0:
            continue
        a, b, U = starts[n], starts[n + 1], labels[n]
        low, high = offset[a], offset[b]
        lower = CLOSED
        if not probing:
            lower = forward(a, b, U, first, offset, monotonic, (blank, kinds), (label, kinds), alpha)
        lowers[n] = uppers[n] = lower
        if exact[n] == high - low:
            certificate[n] = 0.0
            continue
        upper = forward(a, b, U, first, offset, monotonic, blank, label, alpha)
        uppers[n] = upper
        if upper == CLOSED:
            shut(low, high, 1, blank, label, kinds, alpha, CLOSED)
            certificate[n], lowers[n] = 0.0, CLOSED
            continue
        backward(a, b, U, first, offset, monotonic, blank, label, alpha, upper, 0.0, False)
        gap, attempts = upper - lower, 0
        while True:
            threshold = threshold_of(probing, lower, upper, log_floor[n])
            found = count_joining(low, high, 1, kinds, alpha, threshold)
            if found or attempts == TIGHTENINGS or not too_wide(probing, gap, tolerance):
                break
            log_floor[n] = lowered(log_floor[n], gap, tolerance)
            attempts += 1
        if found == 0 and not too_wide(probing, gap, tolerance):
            skipped[n] = shut(low, high, 1, blank, label, kinds, alpha, lower)
            certificate[n] = max(0.0, gap)
        else:
            everything = found == 0 or gives_up(probing, last, lower, exact[n] + found, high - low)
            claim(low, high, 1, kinds, alpha, threshold, everything)
            exact[n] = high - low if everything else exact[n] + found


@cuda_kernel
def lower_cuda(starts, labels, first, offset, monotonic, blank, label, kinds, alpha, lower, certificate):
    n = cuda.blockIdx.x
    if certificate[n] < 0:
        waves(n, False, starts, labels, first, offset, monotonic, (blank, kinds), (label, kinds), alpha)
        if cuda.threadIdx.x == 0:
            lower[n] = total(starts[n + 1], labels[n], first, offset, monotonic, (blank, kinds), (label, kinds), alpha)


@cuda_kernel
def upper_cuda(starts, labels, first, offset, monotonic, blank, label, alpha, beta, upper, certificate):
    n = cuda.blockIdx.x
    if certificate[n] < 0 and cuda.blockIdx.y:
        waves(n, True, starts, labels, first, offset, monotonic, blank, label, beta)
    elif certificate[n] < 0:
        waves(n, False, starts, labels, first, offset, monotonic, blank, label, alpha)
        if cuda.threadIdx.x == 0:
            upper[n] = total(starts[n + 1], labels[n], first, offset, monotonic, blank, label, alpha)


@cuda_kernel
def select_cuda(
    starts, offset, blank, label, kinds, alpha, beta, lowers, uppers, certificate, log_floor, exact, skipped, probing, last,
    tolerance,
):  # fmt: skip
    # One block an example; what it decides by is the same in all of its threads.
    sums = cuda.shared.array(WARP, np.float64)
    n, me, stride = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    low, high = offset[starts[n]], offset[starts[n + 1]]
    lower, upper = CLOSED if probing else lowers[n], uppers[n]
    floor, computed, settled = log_floor[n], exact[n], certificate[n]
    cuda.syncthreads()
    if settled >= 0:
        return
    if computed == high - low or upper == CLOSED:
        shut(low + me, high, stride, blank, label, kinds, alpha, CLOSED)
        if me == 0:
            certificate[n], lowers[n] = 0.0, lower if computed == high - low else CLOSED
        return
    for c in range(low + me, high, stride):
        alpha[c] += beta[c]
    gap, attempts = upper - lower, 0
    while True:
        threshold = threshold_of(probing, lower, upper, floor)
        found = int(block_sum(count_joining(low + me, high, stride, kinds, alpha, threshold), sums))
        if found or attempts == TIGHTENINGS or not too_wide(probing, gap, tolerance):
            break
        floor = lowered(floor, gap, tolerance)
        attempts += 1
    if found == 0 and not too_wide(probing, gap, tolerance):
        left = block_sum(shut(low + me, high, stride, blank, label, kinds, alpha, lower), sums)
        if me == 0:
            certificate[n], skipped[n] = max(0.0, gap), left
    else:
        everything = found == 0 or gives_up(probing, last, lower, computed + found, high - low)
        claim(low + me, high, stride, kinds, alpha, threshold, everything)
        if me == 0:
            exact[n] = high - low if everything else computed + found
    if me == 0:
        log_floor[n] = floor


def select(frames, monotonic, blank, label, kinds, alpha, beta, brackets, *, probing, last, tolerance):
    """Bracket log_z of every example that has no certificate yet, and mark the cells it still needs.

    Parameters
    ----------
    frames : lattice.layout.Frames
    monotonic : bool
    blank, label : (cells,) float32 or float64
        Exact scores and bounds in nats. Those of cells that are never computed become -inf when their example is settled.
    kinds : (cells,) like them
        Totals of exact cells, BOUND, or WANTED: those found here.
    alpha, beta : (cells,) float64
        Scratch; beta on a GPU alone.
    brackets : Brackets
        Brought up to date.
    probing : bool
        The first round: nothing is exact, and the cells that the bounds call likely are marked.
    last : bool
        Mark all cells of an example that this round does not settle.
    tolerance : float
        Largest certificate, in nats.
    """
    lattices = frames.starts, frames.labels, frames.first, frames.offset, monotonic, blank, label
    decisions = probing, last, tolerance
    if on_host(blank):
        sweep(select_cpu, len(brackets.exact), *lattices, kinds, alpha, tuple(brackets), *decisions, work=64 * len(alpha),
              pieces=8)  # fmt: skip
        return
    count, threads = len(brackets.exact), whole_warps(frames.widest + 1, policy.LATTICE_THREADS)
    if not probing:
        launch(lower_cuda, count, threads, *lattices, kinds, alpha, brackets.lower, brackets.certificate)
    launch(upper_cuda, (count, 2), threads, *lattices, alpha, beta, brackets.upper, brackets.certificate)
    launch(select_cuda, count, policy.SCAN_THREADS, frames.starts, frames.offset, blank, label, kinds, alpha, beta, *brackets,
           *decisions)  # fmt: skip
