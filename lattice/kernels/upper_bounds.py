"""Upper bounds on the scores of a cell's two arcs, from two logits of its row instead of all of them.

For any ids M that hold the blank and the cell's label, `logsumexp over M <= logsumexp over V`, so scores normalised
over M are upper bounds. Here M is the pair itself. A pair takes a hidden vector and two dot products, and no matrix
product. The bounds must hold for the scores that the matrix product *rounds to*, so for each arc the gap between the
two logits is moved in its favour, by what rounding can move it.

A row whose logits may not be finite cannot be bounded. It is marked to be computed, so that NaN is seen as in a dense
lattice.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .activations import ACTIVATIONS, Activation, entry_of, named
from .cells import CLOSED, as_stored, typed, widen
from .dropout import by_type, draws_of, drop_four, drop_next, scale_of
from .hidden import fill_of, lanes_of
from .lanes import FOUR, ONE, THREE, TWO, first_behind, first_of, whole_rounds
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .layer import three_products
from .state import WANTED, bounded

TENSOR_FLOAT = 2.0**-9
"""What a product loses when both operands are rounded to TF32. A GPU may be set to multiply float32 in that way."""

TOGETHER = 8
"""Cells whose hidden vectors the CPU makes at once; few enough to stay in the first cache, or the second."""


@register_jitable
def never_below(score, few, spare):
    """A score, raised by what it may have been rounded down by. At most 0."""
    # A score is at most 0, so taking off a share of it raises it.
    return min(typed(0, score), score - score * few + spare)


@register_jitable
def bound_scores(blank_logit, label_logit, slack, few, spare):
    """Upper bounds on the two scores. Rounding may move the gap by up to `slack`, and a score by up to `spare`."""
    closed, zero, one = typed(CLOSED, slack), typed(0, slack), typed(1, slack)
    # A logit of -inf adds nothing to the sum: the other id, normalised over itself, has log 1 = 0.
    if blank_logit == closed or label_logit == closed:
        return closed if blank_logit == closed else zero, closed if label_logit == closed else zero
    gap = label_logit - blank_logit
    # The likelier arc has -log(1 + e), and the other that less |gap|. A wider gap favours the one, a narrower gap the
    # other. Both scores are concave in the gap, so each is at most its tangent at the gap that was computed, followed
    # for `slack` to where it rises. Its slope is the other arc's probability.
    e = math.exp(-abs(gap))
    ahead, share = -math.log(one + e), one / (one + e)
    ahead, behind = ahead + slack * e * share, ahead - abs(gap) + slack * share
    ahead, behind = never_below(ahead, few, spare), never_below(behind, few, spare)
    return (behind, ahead) if gap > zero else (ahead, behind)


@register_jitable
def logit_of(dot, bias, v):
    return dot + bias[v] if bias.shape[0] else dot


@register_jitable
def finite_below(reach, steep, high, most):
    """Are all logits of a row finite? `reach` is |hidden|, the others are `ceiling` of `measure`."""
    # Not `>=` and its opposite, which a NaN in the row or in the layer would pass by.
    return reach * steep + high < most


@register_jitable
def bound_cell(blank_logit, label_logit, reach, lengths, steep, high, most, rounding, few, spare):
    """Maximum and rest of a cell that is not computed.

    `reach` is |hidden|, `lengths` the sum of the lengths of the two rows; `steep`, `high`, `most` are `ceiling` of
    `measure`.
    """
    zero = typed(0, reach)
    # Of a wanted cell 0 is a bound, too.
    if not finite_below(reach, steep, high, most):
        return zero, typed(WANTED, reach)
    # Cauchy and Schwarz: the magnitudes of a row's products sum to at most |hidden| |row|, and rounding errs by a share
    # of it.
    slack = rounding * reach * lengths
    # -inf is a closed arc, and exact.
    slack += few * (abs(blank_logit) if abs(blank_logit) < most else zero)
    slack += few * (abs(label_logit) if abs(label_logit) < most else zero)
    blank_bound, label_bound = bound_scores(blank_logit, label_logit, slack, few, spare)
    return blank_bound, bounded(label_bound)


class Kernels(NamedTuple):
    """What is compiled for an activation."""

    bound_cpu: Callable
    bound_cuda: Callable


def summed(entry: Callable) -> Callable:
    """`loop` of `lanes_of` that gives a lane's part of the three products, over every 32nd entry of the rows."""

    @register_jitable
    def add(x, h, weight, blank_row, label_row, blank_dot, label_dot, square):
        # Matrix products take hidden vectors in the dtype of the weight, so it is rounded to that first.
        x = as_stored(weight, x)
        return blank_dot + x * widen(blank_row[h]), label_dot + x * widen(label_row[h]), square + x * x

    @register_jitable
    def add_four(left, right, h, mask, draws, scale, layer, sums):
        a, b = entry(left[h], right[h]), entry(left[h + ONE], right[h + ONE])
        four = a, b, entry(left[h + TWO], right[h + TWO]), entry(left[h + THREE], right[h + THREE])
        four = drop_four(four, mask, draws, scale)
        sums = add(four[0], h, *layer, *sums)
        sums = add(four[1], h + ONE, *layer, *sums)
        sums = add(four[2], h + TWO, *layer, *sums)
        return add(four[3], h + THREE, *layer, *sums)

    @register_jitable
    def loop(left, right, lane, mask, weight, blank_row, label_row, like):
        # `like` has the type of the sums.
        sums, layer = (typed(0, like), typed(0, like), typed(0, like)), (weight, blank_row, label_row)
        scale, rounds = scale_of(mask, like), whole_rounds(blank_row)
        for k in range(rounds):
            h, (first, second) = first_of(k, lane), draws_of(mask, k, lane)
            sums = add_four(left, right, h, mask, first, scale, layer, sums)
            sums = add_four(left, right, h + FOUR, mask, second, scale, layer, sums)
        h, width = first_behind(blank_row, 0, lane), np.uint64(blank_row.shape[0])
        draws, second = draws_of(mask, rounds, lane)
        if h + THREE < width:
            sums = add_four(left, right, h, mask, draws, scale, layer, sums)
            h, draws = h + FOUR, second
        while h < width:
            x, draws = drop_next(entry(left[h], right[h]), mask, draws, scale)
            sums = add(x, h, *layer, *sums)
            h += ONE
        return sums

    return loop


def compile_kernels(activation: Activation) -> Kernels:
    """The kernels of one activation. Nothing is compiled before the first call of each."""
    fill, products = fill_of(activation), lanes_of(activation, summed)

    @cpu_sweep
    @named(f"bound_{activation.name}_cpu")
    def bound_cpu(
        begin, end, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id, blank_id,
        weight, bias, norm, ceiling, rounding, few, spare, blank_score, label_score, maximum, rest,
    ):  # fmt: skip
        hidden = np.empty((TOGETHER, weight.shape[1]), weight.dtype)  # of a few cells at a time
        closed, steep, high, most = typed(CLOSED, spare), ceiling[0], ceiling[1], ceiling[2]
        for first in range(begin, end, TOGETHER):
            last = min(first + TOGETHER, end)
            fill(first, last, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden)
            for i in range(first, last):
                # Where no label is left the blank's row stands in for the label's, and its product is dropped.
                at = label_id[i] if label_id[i] >= 0 else blank_id
                blank_dot, label_dot, square = three_products(hidden, i - first, weight, blank_id, at)
                label_logit = logit_of(label_dot, bias, at) if label_id[i] >= 0 else closed
                blank_logit = logit_of(blank_dot, bias, blank_id)
                reach, lengths = math.sqrt(square), norm[blank_id] + norm[at]
                maximum[i], rest[i] = bound_cell(
                    blank_logit, label_logit, reach, lengths, steep, high, most, rounding, few, spare
                )
                blank_score[i], label_score[i] = closed, closed

    @cuda_kernel
    @named(f"bound_{activation.name}_cuda")
    def bound_cuda(
        encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id, blank_id, weight, bias,
        norm, ceiling, rounding, few, spare, blank_score, label_score, maximum, rest,
    ):  # fmt: skip
        i = cuda.grid(1) // WARP
        if i >= label_id.shape[0]:
            return
        lane, own = cuda.threadIdx.x % WARP, label_id[i]
        at = own if own >= 0 else blank_id
        layer = weight, weight[blank_id], weight[at], rounding
        blank_dot, label_dot, square = products(
            encoder, predictor, factors, dropout, encoder_row, predictor_row, frame[i], slot[i], lane, *layer
        )
        # Sums over the warp, in each lane, in one order.
        for distance in (16, 8, 4, 2, 1):
            blank_dot += cuda.shfl_xor_sync(0xFFFFFFFF, blank_dot, distance)
            label_dot += cuda.shfl_xor_sync(0xFFFFFFFF, label_dot, distance)
            square += cuda.shfl_xor_sync(0xFFFFFFFF, square, distance)
        if lane == 0:
            closed = typed(CLOSED, square)
            label_logit = logit_of(label_dot, bias, at) if own >= 0 else closed
            blank_logit = logit_of(blank_dot, bias, blank_id)
            reach, lengths = math.sqrt(square), norm[blank_id] + norm[at]
            steep, high, most = ceiling[0], ceiling[1], ceiling[2]
            maximum[i], rest[i] = bound_cell(
                blank_logit, label_logit, reach, lengths, steep, high, most, rounding, few, spare
            )
            blank_score[i], label_score[i] = closed, closed

    return Kernels(bound_cpu, bound_cuda)


KERNELS = {activation: compile_kernels(activation) for activation in ACTIVATIONS.values()}


def bound(
    activation, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id, blank_id,
    weight, bias, norm, ceiling, rounding, blank_score, label_score, maximum, rest, *, kernels=KERNELS,
):  # fmt: skip
    """Find upper bounds on the scores of a run of cells.

    Parameters
    ----------
    activation, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot
        As in `hidden.compute_hidden`.
    label_id : (n,) int32
        Position of each cell's label in the output layer, or -1.
    blank_id : int
    weight, bias : (S, H), (S,) or (0,)
        The output layer in use, as matrix products take it.
    norm, ceiling : (S,), (3,)
        From `measure`.
    rounding : float
        Error of a dot product in units of both vectors' lengths, from `rounding_of`.
    blank_score, label_score, maximum, rest : (n,) float32 or float64
        Filled here with the state of cells that are not computed: see `CellState`. Scores are in nats. A cell is wanted
        where it may hold NaN or infinity.
    kernels : dict
        `Kernels` by activation. Those of HAT are in hat_bounds.py.
    """
    own = entry_of(kernels, activation)
    inputs = encoder, predictor, factors, by_type(dropout), encoder_row, predictor_row
    cells = *inputs, frame, slot, label_id, blank_id
    # Numbers in the dtype of the arrays: a Python float would be float64 in a kernel.
    layer = weight, bias, norm, ceiling, rest.dtype.type(rounding), *slacks_of(len(weight), rest.dtype)
    arguments = *cells, *layer, blank_score, label_score, maximum, rest
    if on_host(rest):
        sweep(own.bound_cpu, len(label_id), *arguments, work=4 * len(label_id) * weight.shape[1])
    else:
        by_warp(own.bound_cuda, len(label_id), *arguments)


def slacks_of(size: int, dtype):
    """(few, spare): how far a score of a row of S = `size` entries may be rounded down, as a share and in nats."""
    eps = np.finfo(dtype).eps
    # A sum of S exponentials is off by at most S roundings, and a few more are made on the way to a score.
    return dtype.type(16 * eps), dtype.type((size + 16) * eps)


def rounding_of(width: int, dtype, on_gpu: bool) -> float:
    """How far two orders of summing H = `width` products may part, in units of the lengths of both vectors."""
    # Each order errs by up to H eps / 2. The rest is room for the roundings of the lengths. The activation needs none:
    # bounds and products take hidden vectors of the same bits.
    least = 1.25 * (width + 16) * float(np.finfo(dtype).eps)
    return least + TENSOR_FLOAT if on_gpu and dtype == np.float32 else least
