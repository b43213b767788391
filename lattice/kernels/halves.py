"""A float32 matrix as the sum of two, so that three products in TF32 stand for one in float32.

TF32 keeps 10 bits of a fraction. x = high + low, exactly: high is x rounded to TF32, and low has some 13 bits, of which
a tensor core takes the upper ones. What it leaves is 2**-21 of x at most. Of (a + a') (b + b') the product of both low
parts is left out, which is 2**-22 of a b at most.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep

_KEPT, _HALF = np.uint32(0xFFFFE000), np.uint32(0x1000)
"""Bits of a float32 that TF32 holds, and half of the last of them."""


class Halves(NamedTuple):
    """A matrix as products in TF32 take it, in two parts of one layout."""

    high: np.ndarray
    low: np.ndarray

    @property
    def T(self):
        return Halves(self.high.T, self.low.T)


@register_jitable
def halves_of(x):
    """(high, low) of a number. What is NaN or infinite, or rounds to infinity, has a low part that is not finite."""
    # A carry into the exponent is right, and one out of it makes a zero of a NaN. Its low part is NaN still.
    high = np.uint32(np.uint32(np.float32(x).view(np.uint32) + _HALF) & _KEPT).view(np.float32)
    return high, x - high


@cpu_sweep
def split_cpu(begin, end, values, high, low):
    for i in range(begin, end):
        for h in range(values.shape[1]):
            high[i, h], low[i, h] = halves_of(values[i, h])


@cuda_kernel
def split_cuda(values, high, low):
    i = cuda.grid(1) // WARP
    if i >= values.shape[0]:
        return
    source, above, below, width = values[i], high[i], low[i], np.uint64(values.shape[1])
    # Unsigned, because a signed index may be negative and asks for more instructions.
    h = np.uint64(cuda.threadIdx.x % WARP)
    while h < width:
        above[h], below[h] = halves_of(source[h])
        h += np.uint64(WARP)


def split(values, high, low) -> Halves:
    """Split a matrix, and return the halves.

    Parameters
    ----------
    values, high, low : (n, m) float32
        `high` may be `values`.
    """
    if on_host(values):
        sweep(split_cpu, len(values), values, high, low, work=values.size)
    else:
        by_warp(split_cuda, len(values), values, high, low)
    return Halves(high, low)


def terms(a, b) -> list[tuple]:
    """The pairs of matrices whose products add up to a @ b, small ones first; a or b may be exact in TF32 as it is."""
    first = tuple(a) if isinstance(a, Halves) else (a,)
    second = tuple(b) if isinstance(b, Halves) else (b,)
    pairs = [(i, j) for i in range(len(first)) for j in range(len(second)) if i + j < 2]
    return [(first[i], second[j]) for i, j in sorted(pairs, key=sum, reverse=True)]
