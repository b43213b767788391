"""Upper bounds on the scores of a cell's two arcs, from two logits of its row instead of all of them.

For any ids M that hold the blank and the cell's label, `logsumexp over M <= logsumexp over V`, so scores normalised over M are
upper bounds. Here M is the pair itself: a hidden vector, two dot products, and no matrix product. The bounds must hold for the
scores that the matrix product *rounds to*, so each gap between the two logits is widened by what rounding can move it.

Rows whose logits may not be finite cannot be bounded; they are marked to be computed, so that NaN is seen as in a dense lattice.
"""

import math

import numba
import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED, as_stored, typed, widen
from .hidden import activate, activate_row
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep

WANTED = -0.5
"""In place of the total of a cell that is to be computed."""
BOUND = -1.0
"""In place of the total of any other cell that is not: this, plus the bound on its label arc. Its maximum is the other bound."""
TENSOR_FLOAT = 2.0**-9
"""What two operands rounded to TF32 lose: a GPU may be set to multiply float32 so."""


@register_jitable
def upper_bound(gap, few, spare):
    """-log(1 + exp(gap)), the score of an arc whose rival is ahead by `gap`; at most 0, and not below it by any rounding."""
    zero = typed(0, gap)
    score = -(max(gap, zero) + math.log1p(math.exp(-abs(gap))))
    return min(zero, score - score * few + spare)


@register_jitable
def bound_scores(blank_logit, label_logit, slack, few, spare):
    """Upper bounds on the two scores; `slack` is what rounding may move the gap by, `spare` what it may move a score by."""
    closed = typed(CLOSED, slack)
    if blank_logit == closed or label_logit == closed:
        zero = typed(0, slack)
        return closed if blank_logit == closed else zero, closed if label_logit == closed else zero
    gap = label_logit - blank_logit
    return upper_bound(gap - slack, few, spare), upper_bound(-gap - slack, few, spare)


@register_jitable
def logit_of(dot, bias, v):
    return dot + bias[v] if bias.shape[0] else dot


@register_jitable
def bound_cell(blank_logit, label_logit, reach, lengths, steep, high, most, rounding, few, spare):
    """Maximum and total of a cell that is not computed, from two logits, |hidden|, and the sum of the two rows' lengths."""
    zero = typed(0, reach)
    if not (reach * steep + high < most):
        return zero, typed(WANTED, reach)
    # Cauchy and Schwarz: the products of a row add up to no more than both lengths, and rounding errs by a share of that.
    slack = rounding * reach * lengths
    # -inf is a closed arc, and exact.
    slack += few * (abs(blank_logit) if abs(blank_logit) < most else zero)
    slack += few * (abs(label_logit) if abs(label_logit) < most else zero)
    blank_bound, label_bound = bound_scores(blank_logit, label_logit, slack, few, spare)
    return blank_bound, typed(BOUND, reach) + label_bound


@numba.njit(nogil=True, fastmath={"reassoc", "nsz", "contract"}, error_model="numpy")
def _three_products(hidden, blank_row, label_row):
    blank_dot, label_dot, square = hidden[0] * blank_row[0], hidden[0] * label_row[0], hidden[0] * hidden[0]
    for h in range(1, hidden.shape[0]):
        blank_dot += hidden[h] * blank_row[h]
        label_dot += hidden[h] * label_row[h]
        square += hidden[h] * hidden[h]
    return blank_dot, label_dot, square


@cpu_sweep
def bound_cpu(
    begin, end, activation, encoder, predictor, encoder_row, predictor_row, frame, slot, label, blank, weight, bias, norm,
    ceiling, rounding, few, spare, blank_score, label_score, maximum, total,
):  # fmt: skip
    hidden = np.empty(weight.shape[1], weight.dtype)
    closed, steep, high, most = typed(CLOSED, spare), ceiling[0], ceiling[1], ceiling[2]
    for i in range(begin, end):
        activate_row(activation, encoder[encoder_row[frame[i]]], predictor[predictor_row[slot[i]]], hidden)
        at = label[i] if label[i] >= 0 else blank
        blank_dot, label_dot, square = _three_products(hidden, weight[blank], weight[at])
        label_logit = logit_of(label_dot, bias, at) if label[i] >= 0 else closed
        maximum[i], total[i] = bound_cell(logit_of(blank_dot, bias, blank), label_logit, math.sqrt(square),
                                          norm[blank] + norm[at], steep, high, most, rounding, few, spare)  # fmt: skip
        blank_score[i], label_score[i] = closed, closed


@register_jitable
def lane_products(activation, encoder, e, predictor, p, weight, blank, at, lane, like):
    """A lane's part of the three products; `activation` is a constant at each call, and the index is unsigned."""
    blank_dot, label_dot, square = typed(0, like), typed(0, like), typed(0, like)
    for begin in range(0, weight.shape[1] - lane, WARP):
        h = np.uint64(begin + lane)
        x = as_stored(weight, activate(activation, widen(encoder[e, h]) + widen(predictor[p, h])))
        blank_dot += x * widen(weight[blank, h])
        label_dot += x * widen(weight[at, h])
        square += x * x
    return blank_dot, label_dot, square


@cuda_kernel
def bound_cuda(
    activation, encoder, predictor, encoder_row, predictor_row, frame, slot, label, blank, weight, bias, norm, ceiling, rounding,
    few, spare, blank_score, label_score, maximum, total,
):  # fmt: skip
    i = cuda.grid(1) // WARP
    if i >= label.shape[0]:
        return
    lane, e, p, own = cuda.threadIdx.x % WARP, encoder_row[frame[i]], predictor_row[slot[i]], label[i]
    at = own if own >= 0 else blank
    if activation == 0:
        a, b, c = lane_products(0, encoder, e, predictor, p, weight, blank, at, lane, rounding)
    elif activation == 1:
        a, b, c = lane_products(1, encoder, e, predictor, p, weight, blank, at, lane, rounding)
    else:
        a, b, c = lane_products(2, encoder, e, predictor, p, weight, blank, at, lane, rounding)
    for distance in (16, 8, 4, 2, 1):
        a += cuda.shfl_xor_sync(0xFFFFFFFF, a, distance)
        b += cuda.shfl_xor_sync(0xFFFFFFFF, b, distance)
        c += cuda.shfl_xor_sync(0xFFFFFFFF, c, distance)
    if lane == 0:
        closed = typed(CLOSED, c)
        label_logit = logit_of(b, bias, at) if own >= 0 else closed
        maximum[i], total[i] = bound_cell(logit_of(a, bias, blank), label_logit, math.sqrt(c), norm[blank] + norm[at], ceiling[0],
                                          ceiling[1], ceiling[2], rounding, few, spare)  # fmt: skip
        blank_score[i], label_score[i] = closed, closed


def bound(
    activation, encoder, predictor, encoder_row, predictor_row, frame, slot, label, blank, weight, bias, norm, ceiling, rounding,
    blank_score, label_score, maximum, total,
):  # fmt: skip
    """Bound the scores of a run of cells.

    Parameters
    ----------
    activation, encoder, predictor, encoder_row, predictor_row, frame, slot
        As in `hidden.compute_hidden`.
    label : (n,) int32
        Position of each cell's label in the output layer, or -1.
    blank : int
    weight, bias : (S, H), (S,) or (0,)
        The output layer in use, as matrix products take it.
    norm, ceiling : (S,), (3,)
        From `measure`.
    rounding : float
        Error of a dot product in units of both vectors' lengths, from `rounding_of`.
    blank_score, label_score, maximum, total : (n,) float32 or float64
        Filled here: -inf, for nothing is computed yet; the bound on the blank arc in nats; BOUND plus that on the label arc, or
        WANTED for a cell that must be computed because it may hold NaN or infinity.
    """
    real = total.dtype.type
    # A sum of S exponentials is off by at most S roundings, and a few more are made on the way to a score.
    few, spare = real(16 * np.finfo(real).eps), real((len(weight) + 16) * np.finfo(real).eps)
    arguments = (activation, encoder, predictor, encoder_row, predictor_row, frame, slot, label, blank, weight, bias, norm,
                 ceiling, real(rounding), few, spare, blank_score, label_score, maximum, total)  # fmt: skip
    if on_host(total):
        sweep(bound_cpu, len(label), *arguments, work=4 * len(label) * weight.shape[1])
    else:
        by_warp(bound_cuda, len(label), *arguments)


def rounding_of(width: int, dtype, on_gpu: bool) -> float:
    """Largest error of two dot products of `width` terms, by different orders of summation, in units of the vectors' lengths."""
    # H roundings of each product, with room for those of the lengths and of the activation.
    least = 1.25 * (width + 16) * float(np.finfo(dtype).eps)
    return least + TENSOR_FLOAT if on_gpu and dtype == np.float32 else least


@cpu_sweep
def measure_cpu(begin, end, weight, norm):
    for v in range(begin, end):
        _, _, square = _three_products(weight[v], weight[v], weight[v])
        norm[v] = math.sqrt(square)


@cpu_sweep
def ceiling_cpu(norm, bias, ceiling, most):
    square, size = typed(0, most), typed(0, most)
    for v in range(norm.shape[0]):
        square, size = add_row(square, size, norm[v], bias, v)
    ceiling[0], ceiling[1], ceiling[2] = math.sqrt(square), size, most


@register_jitable
def add_row(square, size, length, bias, v):
    """Take a row into the sums that no logit passes. A bias of -inf closes an id, which is not an overflow."""
    if bias.shape[0] and bias[v] != typed(CLOSED, size):
        size += abs(bias[v])
    return square + length * length, size


@cuda_kernel
def measure_cuda(weight, norm):
    v = cuda.grid(1) // WARP
    if v >= weight.shape[0]:
        return
    square = typed(0, norm[v])
    for h in range(cuda.threadIdx.x % WARP, weight.shape[1], WARP):
        square += widen(weight[v, h]) * widen(weight[v, h])
    for distance in (16, 8, 4, 2, 1):
        square += cuda.shfl_xor_sync(0xFFFFFFFF, square, distance)
    if cuda.threadIdx.x % WARP == 0:
        norm[v] = math.sqrt(square)


@cuda_kernel
def ceiling_cuda(norm, bias, ceiling, most):
    # One warp: V numbers are little beside V rows.
    square, size = typed(0, most), typed(0, most)
    for v in range(cuda.threadIdx.x, norm.shape[0], WARP):
        square, size = add_row(square, size, norm[v], bias, v)
    for distance in (16, 8, 4, 2, 1):
        square += cuda.shfl_xor_sync(0xFFFFFFFF, square, distance)
        size += cuda.shfl_xor_sync(0xFFFFFFFF, size, distance)
    if cuda.threadIdx.x == 0:
        ceiling[0], ceiling[1], ceiling[2] = math.sqrt(square), size, most


def measure(weight, bias, norm, ceiling):
    """Lengths of the rows of an output layer, and what tells a cell whose logits may overflow.

    Parameters
    ----------
    weight, bias : (S, H), (S,) or (0,)
    norm : (S,)
        Filled with the rows' lengths.
    ceiling : (3,)
        Filled with a, b, c: no logit passes a |hidden| + b, and while that is below c nothing overflows. NaN and infinity in
        the output layer make a or b such that it never is.
    """
    most = norm.dtype.type(np.finfo(norm.dtype).max / 16)
    if on_host(norm):
        sweep(measure_cpu, len(weight), weight, norm, work=weight.size)
        ceiling_cpu(norm, bias, ceiling, most)
    else:
        by_warp(measure_cuda, len(weight), weight, norm)
        launch(ceiling_cuda, 1, policy.WARP, norm, bias, ceiling, most)
