"""Random numbers as a function of (seed, row, id): Philox 4x32-10, the same bits on every target.

A counter-based generator has no state to share: each entry of a batch asks for its own number, in any order, on any
number of threads (Salmon et al. 2011). The logarithm is our own, and it says where a product and a sum are fused.
Compilers differ in what they fuse by themselves, and one bit is enough for another vocabulary.
"""

from fractions import Fraction

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload, register_jitable

from lattice.kernels.philox import HALF, LOW, philox

# Two words to 52 bits: all 32 of the high one, and the upper 20 of the low one.
_HIGH_SHIFT, _LOW_SHIFT = np.uint64(20), np.uint64(12)

# ln 2 in two parts: the high part has so few digits that its product with an exponent is exact.
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SQRT_2 = 1.4142135623730951
_SERIES = (
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
)
"""log((1 + s) / (1 - s)) = 2 s + s * z * P(z) with z = s * s. The coefficients are fdlibm's, highest power first."""
_P6, _P5, _P4, _P3, _P2, _P1, _P0 = _SERIES


@register_jitable
def between(high, low):
    """Two words as a float64 strictly between 0 and 1."""
    # 52 bits and a half: the half keeps both ends out, and with 53 bits it would not fit.
    return (np.float64((high << _HIGH_SHIFT) | (low >> _LOW_SHIFT)) + 0.5) * 2.0**-52


@register_jitable
def uniform_of(key_0, key_1, row, v):
    """A float64 strictly between 0 and 1, from the key and the counter (row, v)."""
    row = np.uint64(row)  # 64 bits in two words of the counter; an id needs one
    high, low, _, _ = philox(np.uint64(v), np.uint64(0), row & LOW, row >> HALF, np.uint64(key_0), np.uint64(key_1))
    return between(high, low)


def fma(a, b, c):
    """a * b + c, rounded once; this body is for plain Python, compiled code takes the instruction."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))


@intrinsic
def _fma(context, a, b, c):
    if (a, b, c) != (types.float64,) * 3:
        raise TypingError(f"fma of {a}, {b}, {c}, expected float64")

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(a, b, c), generate


@overload(fma)
def _fma_overload(a, b, c):
    return lambda a, b, c: _fma(a, b, c)


@register_jitable
def minus_log(u):
    """-log(u) within 1 ulp for a normal u > 0.

    No product feeds a sum but through `fma`, so nothing is left that a compiler could fuse.
    """
    bits = np.float64(u).view(np.int64)
    exponent = (bits >> np.int64(52)) - np.int64(1023)
    # u = mantissa * 2**exponent: first from 1 to 2, then from sqrt(1/2) to sqrt(2), so that f is near 0.
    mantissa = np.int64((bits & np.int64(0xFFFFFFFFFFFFF)) | np.int64(0x3FF0000000000000)).view(np.float64)
    if mantissa > _SQRT_2:
        mantissa, exponent = mantissa * 0.5, exponent + np.int64(1)
    k, f = np.float64(exponent), mantissa - 1.0
    s = f / (2.0 + f)  # (1 + s) / (1 - s) = 1 + f
    z, half = s * s, 0.5 * f
    p = fma(z, fma(z, fma(z, fma(z, fma(z, fma(z, _P6, _P5), _P4), _P3), _P2), _P1), _P0)
    rest = fma(s, fma(z, p, half * f), k * _LN2_LOW)
    return fma(-k, _LN2_HIGH, fma(half, f, -rest) - f)


@register_jitable
def exponential_of(key_0, key_1, row, v):
    """A standard exponential number, from the key and the counter (row, v)."""
    return minus_log(uniform_of(key_0, key_1, row, v))
