"""Means: of the softmax over the real frames of each example, and of distributions over the examples of a batch."""

import math

import numpy as np
from numba.extending import register_jitable

from lattice.kernels.cells import exp, typed, widen
from lattice.kernels.launch import by_thread, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@register_jitable
def frame_weight(rest, frames):
    """The factor of one frame's exp(logit - maximum) in the mean: 1 / (the frame's sum * number of frames)."""
    # Typed: the quotient of an integer and a float32 would be float64.
    return typed(1, rest) / ((typed(1, rest) + rest) * typed(frames, rest))


@cpu_sweep
def mean_cpu(begin, end, logits, row, first, frames, maximum, rest, mean):
    for b in range(begin, end):
        mean[b] = 0
        for i in range(first[b], first[b] + frames[b]):
            logit, highest, weight = logits[row[i]], maximum[i], frame_weight(rest[i], frames[b])  # logit is (V,)
            for v in range(mean.shape[1]):
                mean[b, v] += exp(logit[v] - highest) * weight


@cuda_kernel
def mean_cuda(logits, row, first, frames, maximum, rest, mean):
    i = cuda.grid(1)
    if i >= mean.shape[0] * mean.shape[1]:
        return
    b = i // mean.shape[1]
    v = i - b * mean.shape[1]
    # The order of the CPU: frames from first to last.
    summed = typed(0, rest[0])
    for f in range(first[b], first[b] + frames[b]):
        summed += math.exp(widen(logits[row[f], v]) - maximum[f]) * frame_weight(rest[f], frames[b])
    mean[b, v] = summed


def mean_softmax(logits, row, first, frames, maximum, rest, mean):
    """Average the softmax over the frames of each example.

    Parameters
    ----------
    logits : (rows, V) float32 or float64, on a GPU float16 and bfloat16 too
    row : (n,) int64
        The row of each frame.
    first, frames : (B,) int64
        First frame of each example, and how many there are.
    maximum, rest : (n,) float32 or float64
        The two parts of the normaliser of each frame, as `lattice.kernels.emissions.emit` fills them.
    mean : (B, V) like `rest`
        Filled here. NaN throughout where a frame of the example has no finite normaliser.
    """
    arguments = (logits, row, first, frames, maximum, rest, mean)
    if on_host(mean):
        sweep(mean_cpu, len(mean), *arguments, work=len(row) * mean.shape[1])
    else:
        by_thread(mean_cuda, mean.size, *arguments)


@register_jitable
def checked(p):
    """p, or NaN where it is no probability: one such entry shows in the sum."""
    # Asked of each entry, because a sum hides a -1 beside a 2. A NaN is in no range and stays a NaN.
    return p if 0.0 <= p < math.inf else math.nan


@cpu_sweep
def pool_cpu(begin, end, probabilities, pooled):
    # A range is of ids, not of rows: each sum is one thread's.
    for v in range(begin, end):
        pooled[v] = 0
        for b in range(probabilities.shape[0]):
            pooled[v] += checked(np.float64(probabilities[b, v]))


@cuda_kernel
def pool_cuda(probabilities, pooled):
    v = cuda.grid(1)
    if v < pooled.shape[0]:
        summed = 0.0
        for b in range(probabilities.shape[0]):
            summed += checked(np.float64(widen(probabilities[b, v])))
        pooled[v] = summed


def pool_rows(probabilities, pooled):
    """Sum the rows of `probabilities` (B, V) into `pooled` (V,) float64.

    Each sum goes from row to row in float64, so every device gives the same bits, and with them the same draws.
    """
    if on_host(pooled):
        sweep(pool_cpu, len(pooled), probabilities, pooled, work=probabilities.size)
    else:
        by_thread(pool_cuda, len(pooled), probabilities, pooled)
