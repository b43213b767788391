"""Scalar maths of one lattice cell, shared by every kernel and by both targets.

Everything here is plain Python that numba compiles for whichever target calls it. `exp` is a polynomial, because the
inner loop over the vocabulary must vectorise and a call of libm does not. Its constants are typed so that float32 stays
float32.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .on_gpu import architecture, multiply_and_flush, round_to_bfloat16

CLOSED = -math.inf
"""Score of an arc that does not exist."""
NEGLIGIBLE = 2.0**-100
"""Gradient entries of a smaller magnitude are 0, in every dtype.

Subnormal numbers slow matrix products down, on some machines a hundredfold. A product of entries makes them even where
no entry is subnormal. This leaves 26 binary places to the factors that a float32 gradient meets.
"""

_F4 = np.float32
# ln 2 in two parts (Cody and Waite). The high part has so few digits that its product with an exponent is exact.
_LN2_HIGH_F4, _LN2_LOW_F4 = _F4(0.693359375), _F4(-2.12194440e-4)
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# Added to a small number, it leaves the nearest integer in the low bits of the mantissa, negative ones included.
_SHIFT_F4, _SHIFT_F8 = _F4(1.5 * 2**23), 1.5 * 2**52
_LOG2E = 1.4426950408889634
# Between NEGLIGIBLE and the smallest normal number.
_DOWN_F4, _UP_F4 = np.finfo(_F4).tiny / _F4(NEGLIGIBLE), _F4(NEGLIGIBLE) / np.finfo(_F4).tiny


def typed(value, like):
    """`value` in the type of the scalar `like`: a bare constant would turn float32 arithmetic into float64."""
    return type(like)(value)


@overload(typed)
def _typed_overload(value, like):
    if like == types.float32:
        return lambda value, like: np.float32(value)
    return lambda value, like: np.float64(value)


def widen(x):
    """A stored number in the dtype of the arithmetic: float16 as float32, uint16 as the bits of a bfloat16."""
    if isinstance(x, np.uint16):
        return _from_bfloat16(x)
    return np.float32(x) if isinstance(x, np.float16) else x


@overload(widen)
def _widen_overload(x):
    if x == types.uint16:
        return lambda x: _from_bfloat16(x)
    if x == types.float16:
        return lambda x: np.float32(x)
    return lambda x: x


@register_jitable
def _from_bfloat16(bits):
    # A bfloat16 is the upper half of a float32.
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


def put(row, v, x):
    """row[v] = x, rounded to the dtype of `row`; uint16 takes the bits of a bfloat16."""
    row[v] = _to_bfloat16(x) if row.dtype == np.uint16 else x


@overload(put)
def _put_overload(row, v, x):
    if row.dtype == types.uint16:

        def implementation(row, v, x):
            row[v] = _rounded_on_gpu(x)
    else:

        def implementation(row, v, x):
            row[v] = x

    return implementation


@register_jitable
def store(rows, r, v, x):
    """`put` at rows[r, v]."""
    put(rows[r], v, x)


def as_stored(rows, x):
    """x as matrix products take it beside `rows`: rounded beside bfloat16, but not beside float16, which they widen."""
    return _from_bfloat16(_to_bfloat16(x)) if rows.dtype == np.uint16 else x


@overload(as_stored)
def _as_stored_overload(rows, x):
    if rows.dtype == types.uint16:
        return lambda rows, x: _from_bfloat16(_rounded_on_gpu(x))
    return lambda rows, x: x


@register_jitable
def _to_bfloat16(x):
    # A NaN is told apart: rounding could carry it into the sign. One NaN stands for all.
    if x != x:
        return np.uint16(0x7FC0)
    bits = np.float32(x).view(np.uint32)
    nearest_even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + nearest_even) >> np.uint32(16))


@register_jitable
def _rounded_on_gpu(x):
    """`_to_bfloat16` by an instruction where there is one."""
    return round_to_bfloat16(x) if architecture() >= 800 else _to_bfloat16(x)


@register_jitable
def _exp_float32(x):
    shifted = x * _F4(_LOG2E) + _SHIFT_F4  # n in the low bits, ready to be moved into the exponent
    n = shifted - _SHIFT_F4
    r = x - n * _LN2_HIGH_F4
    r = r - n * _LN2_LOW_F4  # exp(x) = 2**n exp(r), |r| <= ln(2) / 2
    # (exp(r) - 1 - r) / r**2, the minimax polynomial of Cephes.
    p = _F4(1.9875691500e-4)
    p = p * r + _F4(1.3981999507e-3)
    p = p * r + _F4(8.3334519073e-3)
    p = p * r + _F4(4.1665795894e-2)
    p = p * r + _F4(1.6666665459e-1)
    p = p * r + _F4(5.0000001201e-1)
    p = p * r * r + r + _F4(1.0)
    power = np.int32((np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
    # The smallest normal number is exp(-87.3). A NaN is not below -87 and goes on as p.
    return _F4(0.0) if x < _F4(-87.0) else p * power


@register_jitable
def power_of_two(n):
    """2**n in float64, for an integer n from -1022 to 1023 that is a float64; 0 for -1023."""
    return np.int64((np.float64(n + _SHIFT_F8).view(np.int64) + np.int64(1023)) << np.int64(52)).view(np.float64)


@register_jitable
def factored(x):
    """exp(x) for a float64 as a factor and an integer power of two, which is a float64 too.

    Their logarithm is within 1 ulp of x, or of 1. The factor is from 0.7 to 1.42, and from 1/e to e if |x| is above
    1e9, where no float64 has the digits of a factor.
    """
    n = (x * _LOG2E + _SHIFT_F8) - _SHIFT_F8
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    # Not `r if abs(r) < 1`: a NaN stays.
    r = 0.0 if abs(r) > 1.0 else r
    # (exp(r) - 1 - r) / r**2, Taylor's series: its first term that is left out is below 1e-17 of the whole.
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    return p * r * r + r + 1.0, n


@register_jitable
def _exp_float64(x):
    factor, n = factored(x)
    return 0.0 if x < -708.0 else factor * power_of_two(n)


def exp(x):
    """exp(x) for x <= 0, within 2 ulp; 0 where it would be subnormal; NaN for NaN and for +inf.

    Parameters
    ----------
    x : float32 or float64
        At most 0, -inf included.
    """
    return _exp_float32(x) if isinstance(x, np.float32) else _exp_float64(x)


@overload(exp)
def _exp_overload(x):
    if x == types.float32:
        return lambda x: _exp_float32(x)
    return lambda x: _exp_float64(x)


@register_jitable
def log_add(a, b):
    """log(exp(a) + exp(b)) in float64; -inf is neutral, NaN stays NaN."""
    # Asked first, because the difference of two -inf would be NaN.
    if a == CLOSED:
        return b
    if b == CLOSED:
        return a
    # max() of the compiled target may drop a NaN; a difference cannot.
    high = a if a > b else b
    gap = abs(a - b)
    # exp(-40) is 4e-18: float64 keeps no such digit beside a score of more than a few hundredths of a nat.
    if gap > 40.0:
        return high
    return high + math.log1p(math.exp(-gap))


@register_jitable
def larger(x, high):
    """The larger of two; a NaN stays, whichever of them it is."""
    return x if x > high or x != x else high


@register_jitable
def posterior(log_probability, lowest):
    """exp of a log-probability, 0 below `lowest`, the logarithm of the smallest normal number of the result's dtype."""
    # A NaN is not below, so it stays.
    if log_probability < lowest:
        return 0.0
    return math.exp(log_probability)


@register_jitable
def at_most_one(x):
    """A sum of posteriors, which rounding may take above 1. NaN is not above 1, so it stays."""
    return 1.0 if x > 1.0 else x


@register_jitable
def arc_posterior(log_probability, lowest):
    """`posterior`, at most 1: of scores like -1e13 the digits behind the point are lost (`probability_of`)."""
    # A NaN is not above 0, so it stays.
    return posterior(0.0 if log_probability > 0.0 else log_probability, lowest)


def lowest_of(scores) -> float:
    """`lowest` of `posterior` for the dtype of an array, in nats."""
    return math.log(float(np.finfo(scores.dtype).tiny))


def tiny_of(scores) -> float:
    """The smallest normal number of the dtype of an array."""
    return float(np.finfo(scores.dtype).tiny)


@register_jitable
def flush(x, tiny):
    """x, or 0 where |x| is below `tiny`, which is `NEGLIGIBLE` in the dtype of x."""
    return typed(0, x) if abs(x) < tiny else x


@register_jitable
def flushed_product(e, scale, smallest):
    """e * scale for e >= 0, and 0 where that is below `NEGLIGIBLE`; `smallest` is NEGLIGIBLE / |scale|."""
    # Asked before the product, because a subnormal number is slow to make. Not `<`: the quotient may be rounded down.
    return (typed(0, e) if e <= smallest else e) * scale


def product_on_gpu(e, scale, smallest):
    """`flushed_product` by the instructions of a GPU, which has one for float32 products without subnormals."""
    return flushed_product(e, scale, smallest)


@overload(product_on_gpu)
def _product_on_gpu_overload(e, scale, smallest):
    if e == types.float32:
        # What is below the smallest normal number here is below NEGLIGIBLE once it is multiplied back.
        return lambda e, scale, smallest: multiply_and_flush(e, scale * _DOWN_F4) * _UP_F4
    return lambda e, scale, smallest: flushed_product(e, scale, smallest)


@register_jitable
def score(logit, maximum, log_total):
    """Log-probability of one entry of a row, in nats; `log_total` is the logarithm of 1 + rest."""
    # The maximum goes first: an offset of the whole row then costs no digits.
    return (logit - maximum) - log_total
