"""The activations of the joint, a line of one table each. Kernels are compiled for every entry, without a branch.

The backward pass keeps no preactivation. It makes the activation's value again, and goes from the value to the
gradient. So an entry fits if its slope is a function of its value. tanh, relu, sigmoid and leaky relu fit. gelu and
silu do not, because they take one value at two places: a kernel for them would have to make the preactivation again.

An activation that is a function of exp(rate (x + y)) is *separable*. Its exponential is a product of two factors, of
which one belongs to the frame and the other to the label position. tanh is separable, and sigmoid would be.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from numba import types
from numba.extending import overload, register_jitable

from .cells import exp, typed
from .on_gpu import reciprocal


class Activation(NamedTuple):
    """What the kernels take of an activation. All callables are module-level functions that both targets can compile.

    Attributes
    ----------
    name : str
        What the doors call it.
    value : callable
        The activation of a preactivation, by arithmetic that vectorises on a CPU. NaN stays NaN.
    value_on_gpu : callable
        The same by the instructions of a GPU; equal to it to rounding.
    through : callable
        `through(value, grad_value)`, the gradient before the activation, from its value and the gradient behind it. It
        takes the slope from the activation's VALUE and never sees the preactivation.
    rate : float, optional
        What an input is multiplied by in the exponent of its factor, exp(rate x). None: the activation is not
        separable. There is no other kind of factor, as exponentials alone turn a sum into a product.
    joined, joined_on_gpu : callable, optional
        `joined(exp(rate x), exp(rate y))` is the activation of x + y, on a CPU and on a GPU. The product of the two
        factors is neither infinite nor subnormal.

    Notes
    -----
    A new entry gets cases of `upper_bounds.bound` from `_bounds` in `tests/certificate_cases.py`. With bfloat16 weights
    a GPU rounds hidden values to bfloat16 before it multiplies them, and a CPU does not. The two agree only at values
    that bfloat16 holds exactly, so `_bounds` must pick preactivations at which the value is one of these. For tanh they
    are multiples of 80, where it is -1, 0 or 1.
    """

    name: str
    value: Callable
    value_on_gpu: Callable
    through: Callable
    rate: float | None = None
    joined: Callable | None = None
    joined_on_gpu: Callable | None = None


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


ACTIVATIONS = {
    entry.name: entry
    for entry in (
        Activation(
            "tanh",
            tanh_by_polynomial,
            tanh_by_instruction,
            through_tanh,
            rate=2.0,
            joined=tanh_of_factors,
            joined_on_gpu=tanh_of_factors_on_gpu,
        ),
        Activation("relu", rectify, rectify, through_relu),
        Activation("identity", same, same, through_identity),
    )
}


def named(name: str):
    """Decorator: a kernel of a factory under a name of its own, by which compiled code is kept and faults are told."""

    def rename(function):
        function.__name__ = function.__qualname__ = name
        return function

    return rename


def entry_of(kernels: dict, activation: Activation):
    """What was compiled for an activation.

    Raises
    ------
    ValueError
        There is no such entry.
    """
    if activation not in kernels:
        raise ValueError(f"activation is {activation!r}, expected an entry of ACTIVATIONS: {', '.join(ACTIVATIONS)}")
    return kernels[activation]
