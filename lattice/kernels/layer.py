"""What upper bounds need to know of an output layer: lengths of its rows, and what no logit passes."""

import math

import numba
import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED, typed, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep


@numba.njit(nogil=True, fastmath={"reassoc", "nsz", "contract"}, error_model="numpy")
def three_products(hidden, i, weight, u, v):
    """(hidden[i] @ weight[u], hidden[i] @ weight[v], hidden[i] @ hidden[i]) of rows of one dtype."""
    # Sums may be reassociated here, so that they vectorise: `rounding_of` allows for any order.
    zero = hidden.dtype.type(0)
    first, second, square = zero, zero, zero
    for h in range(hidden.shape[1]):
        first += hidden[i, h] * weight[u, h]
        second += hidden[i, h] * weight[v, h]
        square += hidden[i, h] * hidden[i, h]
    return first, second, square


@numba.njit(nogil=True, fastmath={"reassoc", "nsz", "contract"}, error_model="numpy")
def two_products(hidden, i, weight, v):
    """(hidden[i] @ weight[v], hidden[i] @ hidden[i]) of rows of one dtype, summed as in `three_products`."""
    zero = hidden.dtype.type(0)
    product, square = zero, zero
    for h in range(hidden.shape[1]):
        product += hidden[i, h] * weight[v, h]
        square += hidden[i, h] * hidden[i, h]
    return product, square


@numba.njit(nogil=True, fastmath={"reassoc", "nsz", "contract"}, error_model="numpy")
def put_products(hidden, i, weight, v, w, dots):
    """hidden[i] @ weight[v] into dots[0, i], the same of w into dots[1, i], and of the next three hidden vectors."""
    zero = hidden.dtype.type(0)
    first, second, third, fourth = zero, zero, zero, zero
    fifth, sixth, seventh, eighth = zero, zero, zero, zero
    for h in range(hidden.shape[1]):
        first += hidden[i, h] * weight[v, h]
        second += hidden[i + 1, h] * weight[v, h]
        third += hidden[i + 2, h] * weight[v, h]
        fourth += hidden[i + 3, h] * weight[v, h]
        fifth += hidden[i, h] * weight[w, h]
        sixth += hidden[i + 1, h] * weight[w, h]
        seventh += hidden[i + 2, h] * weight[w, h]
        eighth += hidden[i + 3, h] * weight[w, h]
    dots[0, i], dots[0, i + 1], dots[0, i + 2], dots[0, i + 3] = first, second, third, fourth
    dots[1, i], dots[1, i + 1], dots[1, i + 2], dots[1, i + 3] = fifth, sixth, seventh, eighth


@cpu_sweep
def measure_cpu(begin, end, weight, norm):
    for v in range(begin, end):
        _, _, square = three_products(weight, v, weight, v, v)
        norm[v] = math.sqrt(square)


@register_jitable
def add_row(square, size, length, bias, v):
    """Take a row into the sums that no logit passes. A bias of -inf closes an id, which is not an overflow."""
    # A NaN differs from -inf and stays in the sum. An overflow of the squares stays as infinity.
    if bias.shape[0] and bias[v] != typed(CLOSED, size):
        size += abs(bias[v])
    return square + length * length, size


@cpu_sweep
def ceiling_cpu(norm, bias, ceiling, most):
    square, size = typed(0, most), typed(0, most)
    for v in range(norm.shape[0]):
        square, size = add_row(square, size, norm[v], bias, v)
    ceiling[0], ceiling[1], ceiling[2] = math.sqrt(square), size, most


@cuda_kernel
def measure_cuda(weight, norm):
    v = cuda.grid(1) // WARP
    if v >= weight.shape[0]:
        return
    square = typed(0, norm[v])
    for h in range(cuda.threadIdx.x % WARP, weight.shape[1], WARP):
        square += widen(weight[v, h]) * widen(weight[v, h])
    for distance in (16, 8, 4, 2, 1):
        square += cuda.shfl_xor_sync(0xFFFFFFFF, square, distance)
    if cuda.threadIdx.x % WARP == 0:
        norm[v] = math.sqrt(square)


@cuda_kernel
def ceiling_cuda(norm, bias, ceiling, most):
    # One warp: V numbers are little beside V rows.
    square, size = typed(0, most), typed(0, most)
    for v in range(cuda.threadIdx.x, norm.shape[0], WARP):
        square, size = add_row(square, size, norm[v], bias, v)
    for distance in (16, 8, 4, 2, 1):
        square += cuda.shfl_xor_sync(0xFFFFFFFF, square, distance)
        size += cuda.shfl_xor_sync(0xFFFFFFFF, size, distance)
    if cuda.threadIdx.x == 0:
        ceiling[0], ceiling[1], ceiling[2] = math.sqrt(square), size, most


def measure(weight, bias, norm, ceiling):
    """Measure the rows of an output layer, and find what tells a cell whose logits may overflow.

    Parameters
    ----------
    weight, bias : (S, H), (S,) or (0,)
    norm : (S,)
        Filled with the rows' lengths.
    ceiling : (3,)
        Filled with a, b, c. No logit passes a |hidden| + b, and while a |hidden| + b is below c nothing overflows. With
        NaN or infinity in the output layer, a or b is such that it is never below c.
    """
    # a is the length of all rows taken as one, and no row is longer. b is the sum of all magnitudes in the bias.
    most = norm.dtype.type(np.finfo(norm.dtype).max / 16)
    if on_host(norm):
        sweep(measure_cpu, len(weight), weight, norm, work=weight.size)
        ceiling_cpu(norm, bias, ceiling, most)
    else:
        by_warp(measure_cuda, len(weight), weight, norm)
        launch(ceiling_cuda, 1, policy.WARP, norm, bias, ceiling, most)
