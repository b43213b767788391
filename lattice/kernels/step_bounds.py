"""Upper bounds on the scores of arcs that take several frames (steps.py), from a few logits of a cell's row.

"tdt": the durations are a small head, so all of its logits are made, and the bound on a duration's score is the score
itself, but for rounding. The tokens are bounded by the pair {blank, label}, as in upper_bounds.py.

"multiblank": one softmax holds all arcs. It is bounded by the ids that arcs take, {label, all blanks}.

Either way a softmax over D entries is scored, one for each row of `step_score`. Its logits lie there until the bounds
take their places.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .activations import ACTIVATIONS, Activation, entry_of, named
from .cells import CLOSED, exp, typed
from .dropout import by_type
from .hidden import fill_of, lanes_of
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .layer import put_products, two_products
from .state import WANTED, bounded
from .upper_bounds import TOGETHER, bound_cell, finite_below, logit_of, never_below, slacks_of, summed

HEADS = 64
"""Cells whose steps the CPU bounds at once: as many as let its loops vectorise well."""


@register_jitable
def bound_entry(logit, highest, total, log_total, slack, few, spare):
    """Upper bound on the score of one entry of a softmax. Rounding may move each gap between two by up to `slack`.

    `total` is the sum of exp(logit - highest) over all entries, and `log_total` its logarithm.
    """
    if logit == typed(CLOSED, logit):
        return logit
    # The score is concave in its gaps to the other entries. It is at most its tangent, which rises by the probability
    # of each of the others.
    others = (total - exp(logit - highest)) / total
    score = (logit - highest) - log_total + slack * others
    # What is left of 1 has lost digits, and may be lost altogether.
    return never_below(score, few, spare + spare * slack)


@register_jitable
def size_below(logit, most, like):
    """Magnitude of a logit, for its part in what a sum of it may be off by. -inf is exact."""
    return abs(logit) if abs(logit) < most else typed(0, like)


@register_jitable
def bound_head(step_score, c, spread, most, few, spare):
    """Turn the logits in column c of `step_score` into upper bounds on the scores of a softmax over them, in nats.

    `spread` is how far rounding may move a dot product.
    """
    zero, two = typed(0, spread), typed(2, spread)
    highest, size, total = typed(CLOSED, spread), zero, zero
    for n in range(step_score.shape[0]):
        highest, size = max(highest, step_score[n, c]), max(size, size_below(step_score[n, c], most, spread))
    if highest == typed(CLOSED, spread):
        return
    for n in range(step_score.shape[0]):
        total += exp(step_score[n, c] - highest)
    slack, log_total = two * (spread + few * size), math.log(total)
    for n in range(step_score.shape[0]):
        step_score[n, c] = bound_entry(step_score[n, c], highest, total, log_total, slack, few, spare)


@register_jitable
def bound_heads(step_score, c, count, spread, most, few, spare, scratch):
    """`bound_head` of `count` columns from c on, a row at a time, so that a CPU takes several columns at once.

    `spread` is (count,), `scratch` is (4, count).
    """
    # Unsigned, because a place that may be negative is looked at before it is used, and such loops do not vectorise.
    c, count = np.uint64(c), np.uint64(count)
    zero, two, closed = typed(0, few), typed(2, few), typed(CLOSED, few)
    highest, size, total, log_total = scratch[0], scratch[1], scratch[2], scratch[3]
    for j in range(count):
        highest[j], size[j], total[j] = closed, zero, zero
    for n in range(step_score.shape[0]):
        for j in range(count):
            logit = step_score[n, c + j]
            highest[j], size[j] = max(highest[j], logit), max(size[j], size_below(logit, most, few))
    for j in range(count):
        # Where all are closed, any other number in the place of the highest: -inf - -inf would be NaN.
        highest[j] = zero if highest[j] == closed else highest[j]
    for n in range(step_score.shape[0]):
        for j in range(count):
            total[j] += exp(step_score[n, c + j] - highest[j])
    for j in range(count):
        # From here on `size` holds the slack.
        size[j], log_total[j] = two * (spread[j] + few * size[j]), math.log(total[j])
    for n in range(step_score.shape[0]):
        for j in range(count):
            step_score[n, c + j] = bound_entry(
                step_score[n, c + j], highest[j], total[j], log_total[j], size[j], few, spare
            )


@register_jitable
def bound_step_cell(
    blank_logit, label_logit, tail, reach, lengths, steep, high, most, rounding, few, spare, sigma, step_score, c
):
    """Maximum and rest of a cell that is not computed, and its column c of `step_score`, bounds on a softmax before.

    The others are as in `bound_cell`.
    """
    zero, finite = typed(0, reach), finite_below(reach, steep, high, most)
    if not finite:
        # Of a wanted cell 0 is a bound, too.
        for n in range(step_score.shape[0]):
            step_score[n, c] = zero
    if tail:
        maximum, rest = bound_cell(blank_logit, label_logit, reach, lengths, steep, high, most, rounding, few, spare)
    else:
        maximum, rest = zero, bounded(step_score[0, c]) if finite else typed(WANTED, reach)
        # The label's step is all its own.
        step_score[0, c] = zero
    # Rounding keeps the order of two numbers of which the same is taken off.
    for n in range(step_score.shape[0]):
        step_score[n, c] -= sigma
    return maximum, rest


@register_jitable
def row_of(n, at, blank_ids, tail, size):
    """The row of the weight for row n of `step_score`, below 0 the blank's; `at` is the label's, and `size` is S."""
    if tail:
        return size - tail + n if n >= 0 else blank_ids[0]
    return blank_ids[n - 1] if n else at


@register_jitable
def longest_of(norm, steps, blank_ids, tail):
    """Length of the longest of the rows that all cells share."""
    longest = typed(0, norm[0])
    for n in range(0 if tail else 1, steps):
        longest = max(longest, norm[row_of(n, 0, blank_ids, tail, norm.shape[0])])
    return longest


class Kernels(NamedTuple):
    """What is compiled for an activation."""

    bound_cpu: Callable
    bound_cuda: Callable


def compile_kernels(activation: Activation) -> Kernels:
    """The kernels of one activation. Nothing is compiled before the first call of each."""
    fill, products = fill_of(activation), lanes_of(activation, summed)

    @cpu_sweep
    @named(f"bound_steps_{activation.name}_cpu")
    def bound_steps_cpu(
        begin, end, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id, blank_ids,
        tail, start, weight, bias, norm, ceiling, rounding, few, spare, spare_steps, sigma, blank_score, label_score,
        maximum, rest, step_score,
    ):  # fmt: skip
        # Of a few cells at a time. Rows that no cell has filled are multiplied, too.
        hidden, dots = np.zeros((TOGETHER, weight.shape[1]), weight.dtype), np.empty((2, TOGETHER), weight.dtype)
        scratch = np.empty((7, HEADS), rest.dtype)
        reach, lengths, spread = scratch[4], scratch[5], scratch[6]
        closed, steep, high, most = typed(CLOSED, spare), ceiling[0], ceiling[1], ceiling[2]
        steps, size, blank_id = step_score.shape[0], weight.shape[0], blank_ids[0]
        shared = longest_of(norm, steps, blank_ids, tail)
        # The rows that all cells share: with "tdt" the blank and the durations, else the blanks.
        shared_begin = -1 if tail else 1
        for batch in range(begin, end, HEADS):
            behind = min(batch + HEADS, end)
            for first in range(batch, behind, TOGETHER):
                last = min(first + TOGETHER, behind)
                fill(first, last, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden)
                for n in range(shared_begin, steps, 2):
                    m = min(n + 1, steps - 1)
                    v, w = row_of(n, 0, blank_ids, tail, size), row_of(m, 0, blank_ids, tail, size)
                    for j in range(0, last - first, 4):
                        put_products(hidden, j, weight, v, w, dots)
                    for i in range(first, last):
                        if n < 0:
                            maximum[i] = logit_of(dots[0, i - first], bias, v)
                        else:
                            step_score[n, start + i] = logit_of(dots[0, i - first], bias, v)
                        step_score[m, start + i] = logit_of(dots[1, i - first], bias, w)
                for i in range(first, last):
                    # Where no label is left the blank's row stands in for the label's, and its product is dropped.
                    at, j = label_id[i] if label_id[i] >= 0 else blank_id, i - batch
                    label_dot, square = two_products(hidden, i - first, weight, at)
                    rest[i] = logit_of(label_dot, bias, at) if label_id[i] >= 0 else closed
                    if not tail:
                        step_score[0, start + i] = rest[i]
                    reach[j], lengths[j] = math.sqrt(square), norm[blank_id] + norm[at]
                    spread[j] = rounding * reach[j] * (shared if tail else max(shared, norm[at]))
            bound_heads(step_score, start + batch, behind - batch, spread, most, few, spare_steps, scratch)
            for i in range(batch, behind):
                # Until here `maximum` and `rest` hold the pair's logits.
                maximum[i], rest[i] = bound_step_cell(
                    maximum[i], rest[i], tail, reach[i - batch], lengths[i - batch], steep, high, most, rounding, few,
                    spare, sigma, step_score, start + i,
                )  # fmt: skip
                blank_score[i], label_score[i] = closed, closed

    @cuda_kernel
    @named(f"bound_steps_{activation.name}_cuda")
    def bound_steps_cuda(
        encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id, blank_ids, tail, start,
        weight, bias, norm, ceiling, rounding, few, spare, spare_steps, sigma, blank_score, label_score, maximum, rest,
        step_score,
    ):  # fmt: skip
        i = cuda.grid(1) // WARP
        if i >= label_id.shape[0]:
            return
        lane, own, blank_id = cuda.threadIdx.x % WARP, label_id[i], blank_ids[0]
        at, steps, size = own if own >= 0 else blank_id, step_score.shape[0], weight.shape[0]
        closed, square = typed(CLOSED, rounding), typed(0, rounding)
        blank_logit, label_logit = closed, closed
        # Two rows at a time: with "tdt" those of the pair first.
        for n in range(-2 if tail else 0, steps, 2):
            u = row_of(n, at, blank_ids, tail, size)
            v = at if n < 0 else row_of(min(n + 1, steps - 1), at, blank_ids, tail, size)
            layer = weight, weight[u], weight[v], rounding
            first_dot, second_dot, square = products(
                encoder, predictor, factors, dropout, encoder_row, predictor_row, frame[i], slot[i], lane, *layer
            )
            for distance in (16, 8, 4, 2, 1):
                first_dot += cuda.shfl_xor_sync(0xFFFFFFFF, first_dot, distance)
                second_dot += cuda.shfl_xor_sync(0xFFFFFFFF, second_dot, distance)
                square += cuda.shfl_xor_sync(0xFFFFFFFF, square, distance)
            if lane == 0:
                first_logit, second_logit = logit_of(first_dot, bias, u), logit_of(second_dot, bias, v)
                if n < 0:
                    blank_logit, label_logit = first_logit, second_logit if own >= 0 else closed
                else:
                    step_score[n, start + i] = closed if n == 0 and tail == 0 and own < 0 else first_logit
                    if n + 1 < steps:
                        step_score[n + 1, start + i] = second_logit
        if lane == 0:
            steep, high, most = ceiling[0], ceiling[1], ceiling[2]
            shared, lengths = longest_of(norm, steps, blank_ids, tail), norm[blank_id] + norm[at]
            reach = math.sqrt(square)
            if finite_below(reach, steep, high, most):
                spread = rounding * reach * (shared if tail else max(shared, norm[at]))
                bound_head(step_score, start + i, spread, most, few, spare_steps)
            maximum[i], rest[i] = bound_step_cell(
                blank_logit, label_logit, tail, reach, lengths, steep, high, most, rounding, few, spare, sigma,
                step_score, start + i,
            )  # fmt: skip
            blank_score[i], label_score[i] = closed, closed

    return Kernels(bound_steps_cpu, bound_steps_cuda)


KERNELS = {activation: compile_kernels(activation) for activation in ACTIVATIONS.values()}


def bound_steps(
    activation, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id, blank_ids,
    tail, start, weight, bias, norm, ceiling, rounding, sigma, blank_score, label_score, maximum, rest, step_score,
):  # fmt: skip
    """Find upper bounds on the scores of a run of cells whose arcs take several frames.

    Parameters
    ----------
    activation, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, label_id
        As in `upper_bounds.bound`.
    blank_ids : (K,) int64
        Positions of the blanks in the output layer: with "tdt" one, and with "multiblank" D - 1, of which blank k takes
        step k + 1.
    tail : int
        With "tdt" D, and the last D rows of the output layer are durations. With "multiblank" 0.
    start : int
        Column of `step_score` that the first cell has.
    weight, bias, norm, ceiling, rounding
        As in `upper_bounds.bound`.
    sigma : float
        Nats taken off the score of every step.
    blank_score, label_score, maximum, rest : (n,) float32 or float64
        Filled as in `upper_bounds.bound`. With "multiblank" the upper bound on a blank score is 0.
    step_score : (D, cells), in the dtype of `rest`
        Columns `start` to `start + n` are filled with upper bounds on the scores of steps in nats, at most -sigma.
    """
    own = entry_of(KERNELS, activation)
    dtype, width = rest.dtype, weight.shape[1]
    few, spare = slacks_of(len(weight) - tail, dtype)
    _, spare_steps = slacks_of(len(step_score), dtype)
    numbers = dtype.type(rounding), few, spare, spare_steps, dtype.type(sigma)
    inputs = encoder, predictor, factors, by_type(dropout), encoder_row, predictor_row
    cells = *inputs, frame, slot, label_id, blank_ids, tail, start
    arguments = *cells, weight, bias, norm, ceiling, *numbers, blank_score, label_score, maximum, rest, step_score
    if on_host(rest):
        work = len(label_id) * width * (4 + len(step_score))
        sweep(own.bound_cpu, len(label_id), *arguments, work=work)
    else:
        by_warp(own.bound_cuda, len(label_id), *arguments)
