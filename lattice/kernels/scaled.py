"""Sums of probabilities that no float64 could hold: a value in float64 times a power of two.

A chain of such sums takes products, sums and shifts of bits. exp stands only where a score comes in and log where a
logarithm goes out, and neither waits for the sum before it. A product or a sum errs by half an ulp of itself. In the
log domain every sum errs by half an ulp of its logarithm, which of a long utterance is thousands of times more.

A scaled number is (value, power), both float64; the power is an integer. A normalised value is 0, or NaN, or at least 1
and less than 2. Powers are float64 because those do not overflow: the sum of 2**31 scores of -3e38 is a number, and
exact as long as it is less than 2**53. A closed arc has the value 0 and the power `EMPTY`, to which adding other powers
changes nothing. So the larger of two powers is that of a number that is not 0, if there is one.
"""

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, LN2_HIGH, LN2_LOW, factored, power_of_two

EMPTY = -(2.0**600)
"""The power of 0."""
FARTHEST = 2.0**500
"""Scores further from 0 than this are read as infinite."""
_ROOT2 = 1.4142135623730951


@register_jitable
def split(score):
    """exp(score) as a scaled number, its value as `factored` gives it; a score of NaN or +inf has the value NaN."""
    value, power = factored(score)
    near = abs(score) <= FARTHEST
    # One choice after the other, and no branch, so that a loop over scores vectorises. NaN and inf less themselves are
    # NaN.
    other = 0.0 if score < 0.0 else score - score
    return (value if near else other), (power if near else EMPTY)


@register_jitable
def aligned(value, power, top):
    """The value of a scaled number in units of 2**top; `top` is not below `power`."""
    distance = power - top
    return value * power_of_two(distance if distance > -1023.0 else -1023.0)


@register_jitable
def normalised(value, power):
    """The same number with a value of at least 1 and less than 2; 0 and NaN stay as they are."""
    bits = np.float64(value).view(np.int64)
    # The exponent's bits behind the high bits of 2**52 are that many units of a float64 near 2**52.
    exponent = np.int64((bits >> np.int64(52)) | np.int64(0x4330000000000000)).view(np.float64) - (2.0**52 + 1023.0)
    fraction = np.int64((bits & np.int64(0xFFFFFFFFFFFFF)) | np.int64(0x3FF0000000000000)).view(np.float64)
    positive = value > 0.0
    return (fraction if positive else value), (power + exponent if positive else power)


@register_jitable
def added(value, power, other, other_power):
    """The sum of two scaled numbers, normalised."""
    top = power if power > other_power else other_power
    return normalised(aligned(value, power, top) + aligned(other, other_power, top), top)


@register_jitable
def log_of(value, power):
    """The logarithm of a normalised number, within 1 ulp of itself or of 1; 0 of 1, -inf of 0."""
    above = value > _ROOT2
    n = power + 1.0 if above else power
    f = (0.5 * value if above else value) - 1.0
    # 1 / (2 + f) from a line that is off by 1.5 percent at most. Each step cubes that. A division would take longer.
    d = f + 2.0
    y = 0.985061 - 0.239016 * d
    e = 1.0 - d * y
    y = y + y * (e + e * e)
    e = 1.0 - d * y
    y = y + y * (e + e * e)
    # log(1 + f) is 2 artanh(s), whose first term 2 s is f - s f.
    s = f * y
    z = s * s
    p = 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    found = n * LN2_HIGH + (f - (s * (f - p * z) - n * LN2_LOW))
    return CLOSED if value == 0.0 else found


@register_jitable
def probability_of(value, power, tiny):
    """A probability as a float64: at most 1, and 0 below `tiny`, the smallest normal number of the result's dtype.

    Of a score of -1e13 the digits behind the point are lost, and with them what keeps a product of three factors at 1.
    """
    bounded = power if power > -1023.0 else -1023.0
    found = value * power_of_two(bounded if bounded < 1023.0 else 1023.0)
    # A NaN is not below, so it stays.
    found = 1.0 if found > 1.0 else found
    return 0.0 if found < tiny else found
