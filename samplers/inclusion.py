"""How probable it was that a negative is drawn, given the first arrival that was turned away."""

import math

import numpy as np
from numba.extending import register_jitable

from lattice.kernels.cells import widen
from lattice.kernels.launch import by_thread, cpu_sweep, cuda, cuda_kernel, on_host, sweep

from .draw import row_of


@register_jitable
def log_inclusion_of(p, time):
    """log(1 - exp(-p * time)): the logarithm of the probability that an arrival of rate p comes before a given time."""
    p = np.float64(p)
    x = p * time
    # Where x is small, 1 - exp(-x) is x. The product may leave the range of normal numbers, its logarithm does not. A
    # time of inf, where nothing was rejected, gives log(1) = 0.
    return math.log(p) + math.log(time) if x < 1e-300 else math.log(-math.expm1(-x))


@cpu_sweep
def inclusion_cpu(begin, end, probabilities, ids, start, rejected, log_inclusion):
    for r in range(begin, end):
        for i in range(ids.shape[1]):
            if i >= start[r]:
                p = probabilities[row_of(probabilities, r), ids[r, i]]
                log_inclusion[r, i] = log_inclusion_of(p, rejected[r])
            else:
                log_inclusion[r, i] = 0.0


@cuda_kernel
def inclusion_cuda(probabilities, ids, start, rejected, log_inclusion):
    i = cuda.grid(1)
    if i < ids.shape[0] * ids.shape[1]:
        r = i // ids.shape[1]
        place = i - r * ids.shape[1]
        p = widen(probabilities[row_of(probabilities, r), ids[r, place]])
        log_inclusion[r, place] = log_inclusion_of(p, rejected[r]) if place >= start[r] else 0.0


def fill_inclusion(probabilities, ids, start, rejected, log_inclusion):
    """Log-probability of each negative to be chosen, given the first arrival time that was not; 0 before `start`.

    Parameters
    ----------
    probabilities : (R, V) or (1, V) float32 or float64, on a GPU float16 and bfloat16 too
        One row serves all rows of ids.
    ids : (R, S) int32
    start : (R,) int64
        How many ids of each row, from the first, are positives.
    rejected : (R,) float64
        As `draw.choose` fills it.
    log_inclusion : (R, S) float32 or float64
        Filled here.
    """
    arguments = (probabilities, ids, start, rejected, log_inclusion)
    if on_host(ids):
        sweep(inclusion_cpu, len(ids), *arguments, work=16 * ids.size)
    else:
        by_thread(inclusion_cuda, ids.size, *arguments)
