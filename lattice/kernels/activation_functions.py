"""Values and slopes of the activations: functions that both targets can compile, named in the table of activations.py.

Where a CPU and a GPU differ, the CPU's takes `exp`, a polynomial that vectorises, and the GPU's takes instructions.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from .cells import exp, typed
from .on_gpu import reciprocal

LEAK = 0.01
"""What leaky_relu multiplies numbers below 0 by."""

_F4 = np.float32
_SQRT_HALF = 0.7071067811865476
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5, _Q6, _Q7, _Q8 = map(
    _F4,
    (
        0.13962121540800282,
        0.13986569510686617,
        0.11980086542887382,
        0.10565269618293321,
        -0.02349772799807758,
        0.1598078970162101,
        -0.2563329486742261,
        0.14430299464469704,
        -0.029220708862366208,
    ),
)


def divided(above, below):
    """above / below on a GPU, for |above| <= below and below from 1 to 2**126. NaN stays NaN."""
    return above / below


@overload(divided)
def _divided_overload(above, below):
    if above != types.float32:
        return lambda above, below: above / below

    def implementation(above, below):
        # A division looks whether its operands are out of range, and calls a function if so. These are not.
        inverse = reciprocal(below)
        quotient = above * inverse
        # One step of Newton, after which the quotient is off by little more than rounding.
        return quotient + (above - below * quotient) * inverse

    return implementation


def inverse(x):
    """1 / x on a GPU, for x from 1 on, as near as the hardware gives it in float32."""
    return 1 / x


@overload(inverse)
def _inverse_overload(x):
    if x != types.float32:
        return lambda x: 1 / x
    return lambda x: reciprocal(x)


@register_jitable
def parts_of_tanh(e):
    """(1 - e, 1 + e), whose quotient is tanh |x| where e = exp(-2 |x|); absolute error about 1 ulp of 1."""
    # e is at most 1, so nothing overflows, and both ends are exact: e = 1 gives 0, e = 0 gives 1.
    one = typed(1, e)
    return one - e, one + e


@register_jitable
def tanh_by_polynomial(x):
    # x + x, because 2 * x with an integer is float64. `exp` takes arguments of at most 0.
    above, below = parts_of_tanh(exp(-abs(x + x)))
    return math.copysign(above / below, x)


@register_jitable
def tanh_by_instruction(x):
    above, below = parts_of_tanh(math.exp(-abs(x + x)))
    return math.copysign(divided(above, below), x)


@register_jitable
def parts_of_product(a, b):
    """(a b - 1, a b + 1), whose quotient is tanh(x + y) where a = exp(2 x) and b = exp(2 y)."""
    # Not 1 - 2 / (1 + a b): that quotient is up to 2, and errs by half as much again.
    one = typed(1, a)
    return a * b - one, a * b + one


@register_jitable
def tanh_of_factors(a, b):
    above, below = parts_of_product(a, b)
    return above / below


@register_jitable
def tanh_of_factors_on_gpu(a, b):
    above, below = parts_of_product(a, b)
    return divided(above, below)


@register_jitable
def through_tanh(value, grad_value):
    # The slope of tanh is 1 - value**2.
    return grad_value - grad_value * value * value


@register_jitable
def rectify(x):
    # Not `x if x > 0 else 0`, which would make 0 of a NaN.
    return typed(0, x) if x < 0 else x


@register_jitable
def through_relu(value, grad_value):
    # A NaN is not at most 0 and lets the gradient pass.
    if value <= 0:
        return typed(0, grad_value)
    return grad_value


@register_jitable
def same(x):
    return x


@register_jitable
def through_identity(value, grad_value):
    return grad_value


@register_jitable
def parts_of_sigmoid(x, e):
    """(sigmoid(x), sigmoid(-x)) times 1 + e, and 1 + e, where e = exp(-|x|)."""
    # Each is made without a difference, so a small one keeps its digits. A NaN is in e, and in the sum.
    one = typed(1, x)
    return (e, one, one + e) if x < 0 else (one, e, one + e)


@register_jitable
def sigmoid_by_polynomial(x):
    above, _, below = parts_of_sigmoid(x, exp(-abs(x)))
    return above / below


@register_jitable
def sigmoid_by_instruction(x):
    above, _, below = parts_of_sigmoid(x, math.exp(-abs(x)))
    return divided(above, below)


@register_jitable
def sigmoid_of_factors(a, b):
    product = a * b
    return product / (typed(1, a) + product)


@register_jitable
def sigmoid_of_factors_on_gpu(a, b):
    product = a * b
    return divided(product, typed(1, a) + product)


@register_jitable
def through_sigmoid(value, grad_value):
    # The slope is value - value**2.
    return grad_value * value * (typed(1, value) - value)


@register_jitable
def leak(x):
    # A NaN is not below 0 and stays.
    return x * typed(LEAK, x) if x < 0 else x


@register_jitable
def through_leaky_relu(value, grad_value):
    # A value of 0 counts as one below 0. A NaN does not.
    return grad_value * typed(LEAK, grad_value) if value <= 0 else grad_value


@register_jitable
def silu_by_polynomial(x):
    return x * sigmoid_by_polynomial(x)


@register_jitable
def silu_by_instruction(x):
    return x * sigmoid_by_instruction(x)


@register_jitable
def slope_of_silu(x, share, other):
    """The slope of x sigmoid(x), where `share` is sigmoid(x) and `other` sigmoid(-x)."""
    return share + x * share * other


@register_jitable
def silu_slope_by_polynomial(x):
    above, other, below = parts_of_sigmoid(x, exp(-abs(x)))
    return slope_of_silu(x, above / below, other / below)


@register_jitable
def silu_slope_by_instruction(x):
    above, other, below = parts_of_sigmoid(x, math.exp(-abs(x)))
    return slope_of_silu(x, divided(above, below), divided(other, below))


def upper_tail(a, bell, t):
    """Probability that a standard normal number is above a >= 0, where `bell` is exp(-a**2 / 2).

    In float32 `t` is 1 / `shift_of(a)`.
    """
    return 0.5 * math.erfc(a * math.sqrt(0.5))


@overload(upper_tail)
def _upper_tail_overload(a, bell, t):
    if a != types.float32:
        return lambda a, bell, t: 0.5 * math.erfc(a * _SQRT_HALF)

    def implementation(a, bell, t):
        # The tail is bell(a) t Q(t). Q is fitted for the least relative error, of 3e-8.
        p = _Q8
        p = p * t + _Q7
        p = p * t + _Q6
        p = p * t + _Q5
        p = p * t + _Q4
        p = p * t + _Q3
        p = p * t + _Q2
        p = p * t + _Q1
        return bell * (t * (p * t + _Q0))

    return implementation


@register_jitable
def shift_of(x):
    return typed(1, x) + typed(0.35, x) * abs(x)


@register_jitable
def normal_share(x, bell, t):
    """Probability that a standard normal number is below x. `bell` is exp(-x**2 / 2), and `t` 1 / `shift_of(x)`."""
    tail = upper_tail(abs(x), bell, t)
    # A NaN is in the tail.
    return tail if x < 0 else typed(1, x) - tail


@register_jitable
def exponent_of_bell(x):
    return -typed(0.5, x) * (x * x)


@register_jitable
def gelu_by_polynomial(x):
    return x * normal_share(x, exp(exponent_of_bell(x)), typed(1, x) / shift_of(x))


@register_jitable
def gelu_by_instruction(x):
    return x * normal_share(x, math.exp(exponent_of_bell(x)), inverse(shift_of(x)))


@register_jitable
def slope_of_gelu(x, bell, t):
    # The density of the normal distribution is bell / sqrt(2 pi).
    return normal_share(x, bell, t) + x * (bell * typed(0.3989422804014327, x))


@register_jitable
def gelu_slope_by_polynomial(x):
    return slope_of_gelu(x, exp(exponent_of_bell(x)), typed(1, x) / shift_of(x))


@register_jitable
def gelu_slope_by_instruction(x):
    return slope_of_gelu(x, math.exp(exponent_of_bell(x)), inverse(shift_of(x)))


@register_jitable
def through_slope(slope, grad_value):
    return grad_value * slope
