"""The activations of the joint, a line of one table each. Kernels are compiled for every entry, without a branch.

The backward pass keeps no preactivation. Where the slope of an activation is a function of its value, the pass makes
the value again, and goes from the value to the gradient. gelu and silu take one value at two places. After the products
that take their values, the pass fills the same memory a second time, with their slopes: an entry of `SLOPES`.

An activation that is a function of exp(rate (x + y)) is *separable*. Its exponential is a product of two factors, of
which one belongs to the frame and the other to the label position. tanh and sigmoid are separable.
"""

from collections.abc import Callable
from typing import NamedTuple

from . import activation_functions as functions


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
        takes the slope from the activation's VALUE and never sees the preactivation. It is linear in `grad_value`. Of
        an activation that has a `slope`, `through(slope, grad_value)` is the product of the two.
    rate : float, optional
        What an input is multiplied by in the exponent of its factor, exp(rate x). None: the activation is not
        separable. There is no other kind of factor, as exponentials alone turn a sum into a product.
    joined, joined_on_gpu : callable, optional
        `joined(exp(rate x), exp(rate y))` is the activation of x + y, on a CPU and on a GPU. The product of the two
        factors is neither infinite nor subnormal.
    slope : Activation, optional
        What takes the place of the value in `through`, for an activation whose slope does not follow from its value.

    Notes
    -----
    With bfloat16 weights a GPU rounds hidden values to bfloat16 before it multiplies them, and a CPU does not. So cases
    of both devices, as `_bounds` in `tests/certificate_cases.py`, have preactivations at which bfloat16 holds the value
    exactly. For tanh these are multiples of 80, where it is -1, 0 or 1.
    """

    name: str
    value: Callable
    value_on_gpu: Callable
    through: Callable
    rate: float | None = None
    joined: Callable | None = None
    joined_on_gpu: Callable | None = None
    slope: "Activation | None" = None


GELU_SLOPE = Activation(
    "gelu_slope", functions.gelu_slope_by_polynomial, functions.gelu_slope_by_instruction, functions.through_slope
)
SILU_SLOPE = Activation(
    "silu_slope", functions.silu_slope_by_polynomial, functions.silu_slope_by_instruction, functions.through_slope
)
SLOPES = (GELU_SLOPE, SILU_SLOPE)
"""What only the backward pass fills in."""
ACTIVATIONS = {
    entry.name: entry
    for entry in (
        Activation(
            "tanh",
            functions.tanh_by_polynomial,
            functions.tanh_by_instruction,
            functions.through_tanh,
            rate=2.0,
            joined=functions.tanh_of_factors,
            joined_on_gpu=functions.tanh_of_factors_on_gpu,
        ),
        Activation("relu", functions.rectify, functions.rectify, functions.through_relu),
        Activation("identity", functions.same, functions.same, functions.through_identity),
        Activation(
            "sigmoid",
            functions.sigmoid_by_polynomial,
            functions.sigmoid_by_instruction,
            functions.through_sigmoid,
            rate=1.0,
            joined=functions.sigmoid_of_factors,
            joined_on_gpu=functions.sigmoid_of_factors_on_gpu,
        ),
        Activation("leaky_relu", functions.leak, functions.leak, functions.through_leaky_relu),
        Activation(
            "gelu",
            functions.gelu_by_polynomial,
            functions.gelu_by_instruction,
            functions.through_slope,
            slope=GELU_SLOPE,
        ),
        Activation(
            "silu",
            functions.silu_by_polynomial,
            functions.silu_by_instruction,
            functions.through_slope,
            slope=SILU_SLOPE,
        ),
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
