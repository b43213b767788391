"""Rows of logits of CTC: the scores of the blank and of the example's labels, and the gradient. The V axis ends here.

Frames f are counted over the batch, and `offset[f]` counts the label scores of all frames before frame f, as in
ctc_sums.py. `start` is the first frame of a run: its rows lie at row[0], row[1] and so on. `no_bias` (0,) is for
functions that take a bias.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, NEGLIGIBLE, exp, score, store, typed
from .gradient import gradient_row, spread_row
from .gradient_entries import arc_entry, beside
from .lanes import entry
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .normaliser import maximum_of, normaliser, rest_of


@register_jitable
def taken_off(maximum, rest):
    """(maximum, log(1 + rest)), which `score` takes off a logit; (0, 0) for a row of nothing but -inf."""
    if maximum == typed(CLOSED, maximum):
        return typed(0, maximum), typed(0, maximum)
    return maximum, math.log1p(rest)


@cpu_sweep
def ctc_emit_cpu(
    begin, end, start, logits, no_bias, row, example, offset, targets, blank_id, blank_score, label_score, maximum, rest
):  # fmt: skip
    scratch = np.empty(logits.shape[1], logits.dtype)  # (V,)
    for i in range(begin, end):
        f, logit = start + i, logits[row[i]]
        highest = maximum_of(logit)
        for v in range(logit.shape[0]):
            scratch[v] = exp(logit[v] - highest)
        maximum[f], rest[f] = highest, rest_of(scratch)
        base, log_total = taken_off(maximum[f], rest[f])
        blank_score[f] = score(logit[blank_id], base, log_total)
        for u in range(offset[f + 1] - offset[f]):
            label_score[offset[f] + u] = score(logit[targets[example[f], u]], base, log_total)


@cuda_kernel
def ctc_emit_cuda(
    start, logits, no_bias, row, example, offset, targets, blank_id, blank_score, label_score, maximum, rest
):  # fmt: skip
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, r, f = cuda.threadIdx.x % WARP, row[i], start + i
    n, cell, U = example[f], offset[f], offset[f + 1] - offset[f]
    highest, others = normaliser(logits[r], no_bias, lane, rest[f])
    # The rests of the lanes may differ in the last digit, and all scores of a row are to be normalised alike.
    others = cuda.shfl_sync(0xFFFFFFFF, others, 0)
    base, log_total = taken_off(highest, others)
    for u in range(lane, U, WARP):
        label_score[cell + u] = score(entry(logits[r], no_bias, False, targets[n, u]), base, log_total)
    if lane == 0:
        blank_score[f] = score(entry(logits[r], no_bias, False, blank_id), base, log_total)
        maximum[f], rest[f] = highest, others


@register_jitable
def summed_posterior(u, stride, U, cell, label_posterior, like):
    """A thread's part of the posterior of all labels at a frame, labels u, u + stride, ...; in the dtype of `like`."""
    found = typed(0, like)
    while u < U:
        found += label_posterior[cell + u]
        u += stride
    return found


@cpu_sweep
def ctc_gradient_cpu(
    begin, end, start, source, target, no_bias, row, example, offset, distinct, blank_id,
    blank_posterior, label_posterior, maximum, rest, grad_loss, tiny,
):  # fmt: skip
    scratch = np.empty(source.shape[1], source.dtype)  # (V,)
    for i in range(begin, end):
        f = start + i
        n, cell, U = example[f], offset[f], offset[f + 1] - offset[f]
        blank_weight = blank_posterior[f] * grad_loss[n]
        labels_weight = summed_posterior(0, 1, U, cell, label_posterior, tiny) * grad_loss[n]
        logits, grad = source[row[i]], target[row[i]]  # (V,) each, maybe the same memory
        # With label -1 the labels get their softmax only. Behind it `scratch` holds exp(logit - maximum), but not where
        # the weight is below tiny.
        norms = maximum[f], rest[f]
        gradient_row(
            logits, no_bias, grad, blank_id, -1, blank_weight, labels_weight, *norms, False, False, tiny, scratch
        )
        weight, total = blank_weight + labels_weight, typed(1, tiny) + rest[f]
        if abs(weight) < tiny:
            continue
        for u in range(U):
            v = distinct[n, u]
            if v >= 0:
                own_weight = label_posterior[cell + u] * grad_loss[n]
                other_weight = blank_weight + (labels_weight - own_weight)  # blank and all other labels
                e = scratch[v]
                target[row[i], v] = arc_entry(e, beside(e, rest[f]), total, own_weight, other_weight, tiny)


@cuda_kernel
def ctc_gradient_cuda(
    start, source, target, no_bias, row, example, offset, distinct, blank_id,
    blank_posterior, label_posterior, maximum, rest, grad_loss, tiny,
):  # fmt: skip
    i = cuda.grid(1) // WARP
    if i >= row.shape[0]:
        return
    lane, r, f = cuda.threadIdx.x % WARP, row[i], start + i
    n, cell, U = example[f], offset[f], offset[f + 1] - offset[f]
    highest, upstream = maximum[f], grad_loss[n]
    labels = summed_posterior(lane, WARP, U, cell, label_posterior, upstream)
    for distance in (16, 8, 4, 2, 1):
        labels += cuda.shfl_xor_sync(0xFFFFFFFF, labels, distance)
    blank_weight, labels_weight = blank_posterior[f] * upstream, labels * upstream
    weight = blank_weight + labels_weight
    # The butterfly left the same sum in all lanes, so the warp leaves as a whole.
    if abs(weight) < tiny:
        for v in range(lane, source.shape[1], WARP):
            store(target, r, v, typed(0, weight))
        return
    total = typed(1, weight) + rest[f]
    scale = weight / total
    # The target may be the source, so the entries of blank and labels are made before the row is written. They wait
    # where the posteriors were, which nobody needs any more, and are set behind the row.
    for u in range(lane, U, WARP):
        if distinct[n, u] >= 0:
            e = math.exp(entry(source[r], no_bias, False, distinct[n, u]) - highest)
            own_weight = label_posterior[cell + u] * upstream
            other_weight = blank_weight + (labels_weight - own_weight)
            label_posterior[cell + u] = arc_entry(e, beside(e, rest[f]), total, own_weight, other_weight, tiny)
    e = math.exp(entry(source[r], no_bias, False, blank_id) - highest)
    at_blank = arc_entry(e, beside(e, rest[f]), total, blank_weight, labels_weight, tiny)
    # Before: all lanes have read what they need of the row. Behind: no lane's softmax may land on an entry that is set.
    cuda.syncwarp()
    spread_row(source[r], no_bias, False, target[r], lane, highest, scale, tiny / abs(scale))
    cuda.syncwarp()
    for u in range(lane, U, WARP):
        if distinct[n, u] >= 0:
            store(target, r, distinct[n, u], label_posterior[cell + u])
    if lane == 0:
        store(target, r, blank_id, at_blank)


def ctc_emit(start, logits, no_bias, row, example, offset, targets, blank_id, blank_score, label_score, maximum, rest):
    """Reduce rows of logits to the scores of the blank and of the labels of their examples.

    Parameters
    ----------
    start : int
        The frame that the first row belongs to.
    logits : (rows, V) float32 or float64, on a GPU float16 and bfloat16 too
    no_bias : (0,) float32 or float64
    row : (n,) int64
        The row of each frame from `start` on.
    example, offset : (frames,) int32, (frames + 1,) int64
        Example of each frame, first label score of each frame.
    targets : (B, U) int32
        Label ids, 0 to V - 1.
    blank_id : int
    blank_score, label_score, maximum, rest : (frames,), (sum of T_b * U_b,), (frames,), (frames,)
        Filled here, float32, or float64 for float64 logits: log-probabilities in nats, and the two parts of the
        normaliser.
    """
    numbers = (blank_score, label_score, maximum, rest)
    arguments = (start, logits, no_bias, row, example, offset, targets, blank_id, *numbers)
    if on_host(logits):
        sweep(ctc_emit_cpu, len(row), *arguments, work=len(row) * logits.shape[1])
    else:
        by_warp(ctc_emit_cuda, len(row), *arguments)


def ctc_gradient(
    start, source, target, no_bias, row, example, offset, distinct, blank_id,
    blank_posterior, label_posterior, maximum, rest, grad_loss,
):  # fmt: skip
    """Write the gradient rows of a run of frames.

    Parameters
    ----------
    start, no_bias, row, example, offset, blank_id, maximum, rest
        As in `ctc_emit`.
    source, target : (rows, V) float32 or float64, on a GPU float16 and bfloat16 too
        Logits, and where the gradients go, which may be the same array. Entries below 2**-100 become 0.
    distinct : (B, U) int32
        The label at its first position and -1 at all others.
    blank_posterior, label_posterior : (frames,), (sum of T_b * U_b,)
        Probabilities of the blank and, at its first position, of each label. The latter are overwritten on a GPU.
    grad_loss : (B,)
        Upstream gradients, in the dtype of `rest`.
    """
    tiny = rest.dtype.type(NEGLIGIBLE)
    posteriors, normalisers = (blank_posterior, label_posterior), (maximum, rest)
    ids = (distinct, blank_id)
    arguments = (start, source, target, no_bias, row, example, offset, *ids, *posteriors, *normalisers, grad_loss, tiny)
    if on_host(source):
        sweep(ctc_gradient_cpu, len(row), *arguments, work=len(row) * source.shape[1])
    else:
        by_warp(ctc_gradient_cuda, len(row), *arguments)
