"""Factors of a separable activation: exponentials of the rows that hidden vectors are made of, made once a group.

A cell then takes a product where it would take an exponential. There are T + U rows of an example and T U cells, so
the factors are made in float64 and rounded once.

An entry beyond the reach of factors is *far*: the product of its factor with another could overflow where the sum of
the two inputs is small. A network may count frames or labels in one entry, which is then far in most rows. So a row
lists its few far entries, and a CPU makes these alone of the inputs.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import factored, power_of_two, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep

LISTED = 7
"""The most far entries that a row lists, and that a cell makes by themselves."""
ALONE = 16
"""A far entry by itself takes as long as this many in a loop that vectorises. A cell makes far entries by themselves
where they are at most one in `ALONE`."""
TAIL = LISTED + 1
"""Numbers behind the H factors of a row: how many of its entries are far, and the places of the first `LISTED`."""


@register_jitable
def far_entries(factors, f, p, width):
    """How many entries of a cell are far in rows f or p; more than `LISTED` where all are to be made of the inputs."""
    if factors.shape[0] == 0:
        return TAIL
    # Small integers, which every dtype holds exactly.
    far = int(factors[f, width]) + int(factors[p, width])
    return far if far * ALONE <= width else TAIL


@register_jitable
def far_entry(factors, f, p, width, k):
    """The place of the k-th of them, where there are at most `LISTED`. One that is far in both rows comes twice."""
    ahead = int(factors[f, width])
    return int(factors[f, width + 1 + k] if k < ahead else factors[p, width + 1 + k - ahead])


@register_jitable
def exponent_of(x, rate):
    return np.float64(widen(x)) * rate


@register_jitable
def is_far(x, rate, reach):
    # Not `> reach`, which is false of a NaN.
    return not (abs(exponent_of(x, rate)) <= reach)


@register_jitable
def factor_of(x, rate, reach):
    """exp(rate x) in float64; NaN of an entry that is far."""
    if is_far(x, rate, reach):
        return math.nan
    # Not `exp`, which takes arguments of at most 0. Within reach the power is a normal number.
    factor, n = factored(exponent_of(x, rate))
    return factor * power_of_two(n)


@cpu_sweep
def factors_cpu(begin, end, rows, row, rate, reach, factors):
    width = rows.shape[1]
    for i in range(begin, end):
        own, given = factors[i], rows[row[i]]  # (H + TAIL,), (H,)
        far = 0
        for h in range(width):
            own[h] = factor_of(given[h], rate, reach)
            far += is_far(given[h], rate, reach)
        own[width] = far
        if far:
            far = 0
            for h in range(width):
                if far < LISTED and is_far(given[h], rate, reach):
                    far += 1
                    own[width + far] = h


@cuda_kernel
def factors_cuda(rows, row, rate, reach, factors):
    i = cuda.grid(1) // WARP
    if i >= factors.shape[0]:
        return
    lane, r, width, far = cuda.threadIdx.x % WARP, row[i], rows.shape[1], 0
    # The loop is the same for all lanes, so each ballot has the whole warp; an entry behind the row votes no.
    for first in range(0, width, WARP):
        h, mine = first + lane, False
        if h < width:
            mine = is_far(rows[r, h], rate, reach)
            factors[i, h] = factor_of(rows[r, h], rate, reach)
        far += cuda.popc(cuda.ballot_sync(0xFFFFFFFF, mine))
    if lane == 0:
        factors[i, width] = far


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
    factors : (frames + slots, H + TAIL) float32 or float64
        Filled with exp(rate x), and with NaN where |rate x| is beyond `reach_of` the dtype, or NaN. Behind that stands
        how many of these there are, and on the host the places of the first `LISTED`. What follows is left open.
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
