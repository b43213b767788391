"""HAT (hat.py): the blank's score of a cell, and an upper bound on its label's, from one logit of its row.

The blank's score takes the blank's logit alone, so it is known without the row. A label has at most what the blank
leaves: its score is at most log sigmoid(-b). In these lattices a blank's score is what this kernel makes of the row,
whether the row of logits is made later or not. So all blank arcs are open from the start, and only label arcs wait.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .activations import ACTIVATIONS, Activation, named
from .cells import CLOSED, typed
from .hat import two_way
from .hidden import fill_of, lanes_of
from .launch import WARP, cpu_sweep, cuda, cuda_kernel
from .layer import two_products
from .state import WANTED, bounded
from .upper_bounds import TOGETHER, Kernels, bound, finite_below, logit_of, never_below, summed


@register_jitable
def bound_hat_cell(blank_logit, labelled, square, length, steep, high, most, rounding, few, spare):
    """Blank score, maximum and rest of a cell whose row of logits is not made.

    `labelled` tells whether a label is left; `length` is that of the blank's row. The others are as in `bound_cell`.
    """
    reach, blank_score = math.sqrt(square), two_way(blank_logit)[0]
    if not finite_below(reach, steep, high, most):
        return blank_score, typed(0, reach), typed(WANTED, reach)
    slack = rounding * reach * length + few * (abs(blank_logit) if abs(blank_logit) < most else typed(0, reach))
    # The row that is made later has the blank's logit of a matrix product, which may be lower.
    label_bound = never_below(two_way(blank_logit - slack)[1], few, spare) if labelled else typed(CLOSED, reach)
    return blank_score, blank_score, bounded(label_bound)


def compile_kernels(activation: Activation) -> Kernels:
    """The kernels of one activation. Nothing is compiled before the first call of each."""
    fill, products = fill_of(activation), lanes_of(activation, summed)

    @cpu_sweep
    @named(f"bound_hat_{activation.name}_cpu")
    def bound_hat_cpu(
        begin, end, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id, blank_id,
        weight, bias, norm, ceiling, rounding, few, spare, blank_score, label_score, maximum, rest,
    ):  # fmt: skip
        hidden = np.empty((TOGETHER, weight.shape[1]), weight.dtype)  # of a few cells at a time
        steep, high, most = ceiling[0], ceiling[1], ceiling[2]
        for first in range(begin, end, TOGETHER):
            last = min(first + TOGETHER, end)
            fill(first, last, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden)
            for i in range(first, last):
                product, square = two_products(hidden, i - first, weight, blank_id)
                blank_logit = logit_of(product, bias, blank_id)
                blank_score[i], maximum[i], rest[i] = bound_hat_cell(
                    blank_logit, label_id[i] >= 0, square, norm[blank_id], steep, high, most, rounding, few, spare
                )
                label_score[i] = typed(CLOSED, spare)

    @cuda_kernel
    @named(f"bound_hat_{activation.name}_cuda")
    def bound_hat_cuda(
        encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id, blank_id, weight, bias,
        norm, ceiling, rounding, few, spare, blank_score, label_score, maximum, rest,
    ):  # fmt: skip
        i = cuda.grid(1) // WARP
        if i >= label_id.shape[0]:
            return
        lane = cuda.threadIdx.x % WARP
        # One row stands for the two of `summed`, so two of its sums are one.
        layer = weight, weight[blank_id], weight[blank_id], rounding
        product, _, square = products(
            encoder, predictor, factors, dropout, encoder_row, predictor_row, frame[i], slot[i], lane, *layer
        )
        for distance in (16, 8, 4, 2, 1):
            product += cuda.shfl_xor_sync(0xFFFFFFFF, product, distance)
            square += cuda.shfl_xor_sync(0xFFFFFFFF, square, distance)
        if lane == 0:
            blank_logit = logit_of(product, bias, blank_id)
            steep, high, most = ceiling[0], ceiling[1], ceiling[2]
            blank_score[i], maximum[i], rest[i] = bound_hat_cell(
                blank_logit, label_id[i] >= 0, square, norm[blank_id], steep, high, most, rounding, few, spare
            )
            label_score[i] = typed(CLOSED, square)

    return Kernels(bound_hat_cpu, bound_hat_cuda)


KERNELS = {activation: compile_kernels(activation) for activation in ACTIVATIONS.values()}


def bound_hat(*arguments):
    """Score the blanks of a run of cells, and find upper bounds on the scores of their labels: `bound` with HAT.

    What is filled is the state of cells that are not computed, of which the blank's score is known: see `CellState`.
    """
    bound(*arguments, kernels=KERNELS)
