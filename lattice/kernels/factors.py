"""Factors of a separable activation: exponentials of the rows that hidden vectors are made of, made once a group.

A cell then takes a product where it would take an exponential. There are T + U rows of an example and T U cells, so
the factors are made in float64 and rounded once.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import exp, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@register_jitable
def has_factors(factors, f, p):
    """Whether rows f and p hold factors, so that a cell may be made of them."""
    # A row without begins with NaN, and NaN differs from itself.
    return factors.shape[0] > 0 and factors[f, 0] == factors[f, 0] and factors[p, 0] == factors[p, 0]


@register_jitable
def exponent_of(x, rate):
    return np.float64(widen(x)) * rate


@register_jitable
def factor_of(exponent):
    """exp(exponent) in float64."""
    # `exp` takes arguments of at most 0.
    below = exp(-abs(exponent))
    return 1.0 / below if exponent > 0.0 else below


@cpu_sweep
def factors_cpu(begin, end, rows, row, rate, reach, factors):
    for i in range(begin, end):
        own, given = factors[i], rows[row[i]]  # (H,) each
        beyond = 0
        for h in range(own.shape[0]):
            # Not `> reach`, which is false of a NaN.
            beyond += not (abs(exponent_of(given[h], rate)) <= reach)
        if beyond:
            own[0] = math.nan
        else:
            for h in range(own.shape[0]):
                own[h] = factor_of(exponent_of(given[h], rate))


@cuda_kernel
def factors_cuda(rows, row, rate, reach, factors):
    i = cuda.grid(1) // WARP
    if i >= factors.shape[0]:
        return
    lane, r, width, beyond = cuda.threadIdx.x % WARP, row[i], factors.shape[1], False
    for h in range(lane, width, WARP):
        beyond = beyond or not (abs(exponent_of(rows[r, h], rate)) <= reach)
    if cuda.ballot_sync(0xFFFFFFFF, beyond):
        if lane == 0:
            factors[i, 0] = math.nan
    else:
        for h in range(lane, width, WARP):
            factors[i, h] = factor_of(exponent_of(rows[r, h], rate))


def reach_of(dtype) -> float:
    """Largest magnitude of an exponent at which the product of two factors is neither infinite nor subnormal."""
    # The smallest normal number is 2**-126 in float32, so this is 63 ln(2) = 43.7; in float64 it is 354.
    return -math.log(float(np.finfo(dtype).tiny)) / 2


def make_factors(rate: float, encoder, predictor, encoder_row, predictor_row, factors) -> None:
    """Fill in the factors of a group's frames and, behind them, of its label positions.

    Parameters
    ----------
    rate : float
        Of the activation.
    encoder, predictor : (rows, H) float32 or float64, on a GPU float16 and bfloat16 too
    encoder_row, predictor_row : (frames,) int64, (slots,) int64
        The rows of the group's frames and of its label positions.
    factors : (frames + slots, H) float32 or float64
        Filled with exp(rate x). A row in which some |rate x| is beyond `reach_of` the dtype, or NaN, begins with NaN
        instead, and what follows is left open.
    """
    reach, frames = reach_of(factors.dtype), len(encoder_row)
    for rows, row, own in (
        (encoder, encoder_row, factors[:frames]),
        (predictor, predictor_row, factors[frames:]),
    ):
        if on_host(factors):
            sweep(factors_cpu, len(row), rows, row, rate, reach, own, work=4 * own.size)
        else:
            by_warp(factors_cuda, len(row), rows, row, rate, reach, own)
