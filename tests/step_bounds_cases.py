"""Cases of `tests/kernel_cases.py` for upper bounds on the scores of arcs that take several frames.

Hidden vectors and weights are as in `tests/certificate_cases.py`: their products come out the same in any order.
"""

import itertools

import ml_dtypes
import numpy as np

from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.step_bounds import bound_steps
from tests.certificate_cases import fraction_layer
from tests.kernel_compare import NARROW, UNROLLED, Case

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
STORED = ((F4, F4), (F8, F8), (F4, F2), (F4, BF))
"""What is computed in, and what is stored."""
KINDS = {"tdt": ((8,), 4), "tdt-odd": ((0,), 3), "multiblank": ((8, 7, 6), 0), "multiblank-odd": ((8, 1), 0)}
"""Blanks and durations. Rows are multiplied two by two, so an odd number of them is one case and an even one another.
The last ids are closed by a bias, if there is one, whether they are a blank or a duration."""
BIASES = "none", "last", "all"
"""The last id closed, or all but one."""
CELLS = 21
"""No multiple of the cells that a block takes."""


def every_case() -> list[Case]:
    """Every activation has kernels of its own, which differ in how they make a hidden vector: most are tried once."""
    cycle = itertools.cycle(BIASES)
    found = list(_bounds(F4, F4, itertools.product(["tanh"], [37], KINDS, BIASES)))
    found += _bounds(F4, F4, zip(["relu"] * 8, [37] * 8, [*KINDS] * 2, cycle))
    found += _bounds(F4, F4, zip(["tanh", "tanh", "relu", "relu"], [120] * 4, KINDS, cycle))
    for types in STORED[1:]:
        found += _bounds(*types, zip(["tanh", "tanh", "relu", "relu"], [37] * 4, KINDS, cycle))
    found += _bounds(F4, F4, itertools.product(NARROW, [37], ["tdt", "multiblank-odd"], ["last"]))
    # bfloat16 encoder and predictor, float32 weight.
    return found + list(_bounds(F4, BF, zip(["tanh", "relu", "relu"], [37] * 3, KINDS, BIASES), layer=F4))


def wide_cases() -> list[Case]:
    """Rows as in `kernel_cases.wide_cases`."""
    kinds = itertools.cycle(("tdt-odd", "multiblank"))
    found = list(_bounds(F4, F4, itertools.product(["tanh"], (129, 250, 513), ("tdt-odd", "multiblank"), ["last"])))
    for types in STORED:
        found += _bounds(*types, zip(("relu", "relu"), (250, 513), kinds, ("last", "none")))
    return found


def _bounds(dtype, stored, which, layer=None):
    """`which` are an activation, a width, a kind and a bias each."""
    rng = np.random.default_rng(60)
    for activation, width, kind, bias in which:
        blanks, tail = KINDS[kind]
        size, steps = 9 + tail, tail or len(blanks) + 1
        weight = fraction_layer(rng, layer or (stored if stored != F2 else F4), size, width)
        scale, parts = (640, 8) if activation == "tanh" else (1, None)
        encoder, predictor = (fraction_layer(rng, stored, rows, width, parts) * stored.type(scale) for rows in (6, 5))
        encoder[3, 5], encoder[4, 0] = np.nan, np.inf
        encoder_row, predictor_row = rng.permutation(6), rng.permutation(5)
        frame, slot = rng.integers(0, 6, CELLS), rng.integers(0, 5, CELLS)
        label = rng.integers(-1, 9, CELLS).astype(np.int32)
        label[np.isin(label, blanks)] = -1
        added = np.zeros(size * (bias != "none"))
        if bias == "last":
            added[:] = np.append(rng.integers(-4, 5, size - 1) / 8, -np.inf)
        elif bias == "all":
            added[:] = np.where(np.arange(size) == 2, 0.5, -np.inf)
        norm, ceiling = (rng.permutation(size) / 8 + 1).astype(dtype), np.array([3, 4, 1e30], dtype)
        rows = (encoder, predictor, np.zeros((0, width), dtype), NO_DROPOUT, encoder_row, predictor_row, frame, slot)
        output = (weight, added.astype(dtype), norm, ceiling, 2.0**-10, 0.0625)
        state = tuple(np.zeros(CELLS, dtype) for _ in range(4))
        step_score = np.full((steps, CELLS + 5), 7, dtype)
        arguments = (ACTIVATIONS[activation], *rows, label, np.array(blanks), tail, 3, *output, *state, step_score)
        case = f"bound-steps-{kind}-{activation}-{width}-bias-{bias}" + "-mixed" * (layer is not None)
        yield Case(case, stored, bound_steps, arguments, {}, unrolled=width >= UNROLLED)
