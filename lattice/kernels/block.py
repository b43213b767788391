"""Sums over the threads of one block, in a fixed order."""

import numpy as np
from numba.extending import register_jitable

from .launch import WARP, cuda


@register_jitable
def block_sum(value, partial):
    """The sum of `value` over all threads of a block, which all call this and all get the same float64.

    `partial` is shared memory, float64, a place for each warp.
    """
    value = np.float64(value)
    # A butterfly: each step adds the same two numbers in both lanes, so all lanes end with the same bits.
    for distance in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, distance)
    # A slow thread may still read what an earlier call left in `partial`.
    cuda.syncthreads()
    if cuda.threadIdx.x % WARP == 0:
        partial[cuda.threadIdx.x // WARP] = value
    cuda.syncthreads()
    value = 0.0
    # Each thread adds the few numbers by itself, in one order, because each needs the sum.
    for w in range(cuda.blockDim.x // WARP):
        value += partial[w]
    return value
