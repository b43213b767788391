"""Sums over the threads of one block, in a fixed order."""

import numpy as np
from numba.extending import register_jitable

from .launch import WARP, cuda


@register_jitable
def block_sum(value, sums):
    """The sum over the threads of a block, in each of them; `sums` is shared memory, float64, a place for each warp."""
    value = np.float64(value)
    for distance in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, distance)
    cuda.syncthreads()
    if cuda.threadIdx.x % WARP == 0:
        sums[cuda.threadIdx.x // WARP] = value
    cuda.syncthreads()
    value = 0.0
    for w in range(cuda.blockDim.x // WARP):
        value += sums[w]
    return value
