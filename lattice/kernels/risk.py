"""The expected risk of N-best lists and its gradient with respect to their scores. Knows nothing of what was scored.

The maximum is taken off the scores before they are scaled, and the risk of the best hypothesis off the risks before
they are averaged. What is left in the gradient is the difference between a risk and their mean: no offset of either
costs digits of it. NaN and +inf in a list make all of its results NaN. Everything is float64: a list is short, and its
scores are large.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .best import before
from .cells import CLOSED, NEGLIGIBLE, flush, posterior, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@register_jitable
def highest_of(scores, b, n, stride, count):
    """Highest score of a thread's part of list b, and its place; -inf and place 0 where none is above -inf."""
    highest, place = CLOSED, np.int64(0)  # place 0 is real, for a list has at least one hypothesis
    # A thread takes hypotheses n, n + stride, ...: the first of equal scores stays, and a NaN is passed by.
    while n < count:
        score = np.float64(widen(scores[b, n]))
        if score > highest:
            highest, place = score, np.int64(n)
        n += stride
    return highest, place


@register_jitable
def share(score, highest, scale, lowest):
    """A hypothesis's probability before it is divided by the sum."""
    # With nothing but -inf the sum is 0. A NaN, which passes the comparisons of a maximum by, still shows in the sum.
    return posterior(scale * (np.float64(widen(score)) - (0.0 if highest == CLOSED else highest)), lowest)


@register_jitable
def weigh(scores, risks, b, n, stride, count, highest, centre, scale, lowest):
    """A thread's part of two sums: of the shares, and of the shares times (risk - centre)."""
    total, excess = 0.0, 0.0
    while n < count:
        weight = share(scores[b, n], highest, scale, lowest)
        total += weight
        excess += weight * (risks[b, n] - centre)
        n += stride
    return total, excess


@register_jitable
def mean_risk(total, excess, centre):
    """The expected risk; inf where no hypothesis is possible."""
    return math.inf if total == 0.0 else centre + excess / total


@register_jitable
def spread(scores, risks, b, n, stride, count, highest, centre, scale, lowest, total, excess, tiny, grad):
    """Write a thread's part of the gradient: scale * probability * (risk - expected risk), 0 beyond the list."""
    # n runs on through both loops, so each entry is written once. With a total of 0 the first loop does not start.
    while n < count and total != 0.0:
        probability = share(scores[b, n], highest, scale, lowest) / total
        grad[b, n] = flush(scale * probability * ((risks[b, n] - centre) - excess / total), tiny)
        n += stride
    while n < grad.shape[1]:
        grad[b, n] = 0
        n += stride


@cpu_sweep
def expected_risk_cpu(begin, end, scores, risks, lengths, scale, lowest, tiny, risk, grad):
    for b in range(begin, end):
        count = lengths[b]
        highest, place = highest_of(scores, b, 0, 1, count)
        centre = risks[b, place]
        total, excess = weigh(scores, risks, b, 0, 1, count, highest, centre, scale, lowest)
        risk[b] = mean_risk(total, excess, centre)
        spread(scores, risks, b, 0, 1, count, highest, centre, scale, lowest, total, excess, tiny, grad)


@cuda_kernel
def expected_risk_cuda(scores, risks, lengths, scale, lowest, tiny, risk, grad):
    b = cuda.grid(1) // WARP
    if b >= lengths.shape[0]:
        return
    lane, count = cuda.threadIdx.x % WARP, lengths[b]
    highest, place = highest_of(scores, b, lane, WARP, count)
    for distance in (16, 8, 4, 2, 1):
        other, n = cuda.shfl_xor_sync(0xFFFFFFFF, highest, distance), cuda.shfl_xor_sync(0xFFFFFFFF, place, distance)
        # Of equal scores the lower place, in every lane, as on a CPU: `centre` decides how all that follows rounds.
        if before(other, n, highest, place):
            highest, place = other, n
    centre = risks[b, place]
    total, excess = weigh(scores, risks, b, lane, WARP, count, highest, centre, scale, lowest)
    for distance in (16, 8, 4, 2, 1):
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, distance)
        excess += cuda.shfl_xor_sync(0xFFFFFFFF, excess, distance)
    if lane == 0:
        risk[b] = mean_risk(total, excess, centre)
    spread(scores, risks, b, lane, WARP, count, highest, centre, scale, lowest, total, excess, tiny, grad)


def expected_risk(scores, risks, lengths, scale, risk, grad):
    """Expected risk of every list, and its gradient with respect to the scores.

    Parameters
    ----------
    scores : (B, N) float32 or float64, on a GPU float16 and bfloat16 too
        Log-scores in nats.
    risks : (B, N) float64
        In any unit; `risk` has it too.
    lengths : (B,) int64
        Hypotheses of each list, at least 1. What lies beyond is not read.
    scale : float
        What the scores are multiplied by before the softmax.
    risk : (B,) float32 or float64
        Filled here; inf where all scores are -inf.
    grad : (B, N), as `risk`
        Filled here: 0 beyond a list. Entries below 2**-100 become 0.
    """
    # Probabilities are float64 in here, whatever the gradient's dtype.
    lowest = math.log(float(np.finfo(np.float64).tiny))
    arguments = (scores, risks, lengths, scale, lowest, NEGLIGIBLE, risk, grad)
    if on_host(scores):
        sweep(expected_risk_cpu, len(lengths), *arguments, work=16 * scores.size)
    else:
        by_warp(expected_risk_cuda, len(lengths), *arguments)
