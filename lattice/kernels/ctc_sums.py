"""The sums over CTC alignments and the posteriors of blank and labels, over two score arrays. Knows nothing of logits.

A target of U labels has 2U + 1 states: state 2u is the blank before label u, state 2u + 1 that label. Each frame is spent in one
state; the next frame is spent in the same state, the one after it, or past a blank in the label after it if that is another label
(Graves et al. 2006). alpha of a state is the log-sum over what arrives in it, beta over what leaves it, its own frame included.
Everything is float64, as in forward_backward.py.

`offset[f]` counts the label scores of all frames before frame f, so its states begin at 2 * offset[f] + f.
"""

import math

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED, log_add, posterior
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps


@register_jitable
def kept_at(n, f, offset, width):
    """Where alpha of frame f begins: behind that of all earlier frames, or with a `width` in one of two places in turn."""
    return (2 * n + f % 2) * width if width else 2 * offset[f] + f


@register_jitable
def score_of(f, s, offset, blank, label):
    return label[offset[f] + s // 2] if s % 2 else blank[f]


@register_jitable
def skips(n, s, targets):
    """Can state s be entered from the label before? A blank must part equal labels, and only those."""
    return s % 2 == 1 and s > 1 and targets[n, s // 2] != targets[n, s // 2 - 1]


@register_jitable
def arrivals(n, f, begin, s, offset, targets, blank, label, width, alpha):
    """What arrives in state s at frame f: from that state, from the one before, and from the label before."""
    if f == begin:
        return 0.0 if s == 0 else CLOSED, 0.0 if s == 1 else CLOSED, CLOSED
    c = kept_at(n, f - 1, offset, width) + s
    stay = alpha[c] + score_of(f - 1, s, offset, blank, label)
    step = alpha[c - 1] + score_of(f - 1, s - 1, offset, blank, label) if s > 0 else CLOSED
    skip = alpha[c - 2] + score_of(f - 1, s - 2, offset, blank, label) if skips(n, s, targets) else CLOSED
    return stay, step, skip


@register_jitable
def endings(n, end, U, offset, blank, label, width, alpha):
    """What arrives at the end: from the last blank, and from the last label."""
    f = end - 1
    c = kept_at(n, f, offset, width) + 2 * U
    return alpha[c] + blank[f], alpha[c - 1] + label[offset[f] + U - 1] if U > 0 else CLOSED


@register_jitable
def departing(n, f, end, s, U, offset, targets, blank, label, beta, after):
    """beta of state s at frame f; that of the next frame begins at `beta[after]`."""
    if f + 1 == end:
        onward = 0.0 if s >= 2 * U - 1 else CLOSED
    else:
        onward = log_add(beta[after + s], beta[after + s + 1] if s < 2 * U else CLOSED)
        if s + 2 <= 2 * U and skips(n, s + 2, targets):
            onward = log_add(onward, beta[after + s + 2])
    return score_of(f, s, offset, blank, label) + onward


@register_jitable
def blank_share(u, stride, U, states, visits, log_z, lowest):
    """A thread's part of the blank's posterior at a frame, from its states 2u; `visits` is alpha + beta."""
    found = 0.0
    while u <= U:
        found += posterior(visits[states + 2 * u] - log_z, lowest)
        u += stride
    return found


@register_jitable
def label_shares(n, u, stride, U, states, cell, distinct, following, visits, log_z, lowest, label):
    """Set a thread's part of the label posteriors at a frame: those of equal labels are added up, first to last, at the first."""
    while u < U:
        found, same = 0.0, u if distinct[n, u] >= 0 else -1
        while same >= 0:
            found += posterior(visits[states + 2 * same + 1] - log_z, lowest)
            same = following[n, same]
        label[cell + u] = found
        u += stride


@register_jitable
def forward(n, begin, end, U, offset, targets, blank, label, width, alpha):
    """Fill alpha for the frames of one example and return log_z."""
    for f in range(begin, end):
        here = kept_at(n, f, offset, width)
        for s in range(2 * U + 1):
            stay, step, skip = arrivals(n, f, begin, s, offset, targets, blank, label, width, alpha)
            alpha[here + s] = log_add(log_add(stay, step), skip)
    last_blank, last_label = endings(n, end, U, offset, blank, label, width, alpha)
    return log_add(last_blank, last_label)


@register_jitable
def backward(n, begin, end, U, offset, targets, distinct, following, blank, label, alpha, log_z, lowest):
    """Sweep beta back over one example: alpha becomes alpha + beta, and the scores become posteriors."""
    here, after = np.empty(2 * U + 1), np.empty(2 * U + 1)
    for f in range(end - 1, begin - 1, -1):
        states = 2 * offset[f] + f
        for s in range(2 * U + 1):
            here[s] = departing(n, f, end, s, U, offset, targets, blank, label, after, 0)
            alpha[states + s] += here[s]
        blank[f] = blank_share(0, 1, U, states, alpha, log_z, lowest)
        label_shares(n, 0, 1, U, states, offset[f], distinct, following, alpha, log_z, lowest, label)
        here, after = after, here


@cpu_sweep
def ctc_sums_cpu(
    begin, end, starts, offset, targets, distinct, following, blank, label, width, alpha, log_z, posteriors, lowest
):  # fmt: skip
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        U = offset[a + 1] - offset[a]
        log_z[n] = forward(n, a, b, U, offset, targets, blank, label, width, alpha)
        if posteriors and log_z[n] == CLOSED:
            blank[a:b] = 0
            label[offset[a] : offset[b]] = 0
        elif posteriors:
            backward(n, a, b, U, offset, targets, distinct, following, blank, label, alpha, log_z[n], lowest)


@cuda_kernel
def ctc_sums_cuda(starts, offset, targets, blank, label, width, alpha, beta, log_z):
    # One block an example for alpha and, beside it, one for beta: all states of a frame at once.
    n = cuda.blockIdx.x
    begin, end = starts[n], starts[n + 1]
    U = offset[begin + 1] - offset[begin]
    back = cuda.blockIdx.y
    for step in range(end - begin):
        f = end - 1 - step if back else begin + step
        here = kept_at(n, f, offset, width)
        s = cuda.threadIdx.x
        while s <= 2 * U:
            if back:
                after = here + 2 * U + 1
                beta[here + s] = departing(n, f, end, s, U, offset, targets, blank, label, beta, after)
            else:
                stay, move, skip = arrivals(n, f, begin, s, offset, targets, blank, label, width, alpha)
                alpha[here + s] = log_add(log_add(stay, move), skip)
            s += cuda.blockDim.x
        cuda.syncthreads()
    if cuda.threadIdx.x == 0 and not back:
        last_blank, last_label = endings(n, end, U, offset, blank, label, width, alpha)
        log_z[n] = log_add(last_blank, last_label)


@cuda_kernel
def ctc_posteriors_cuda(example, offset, distinct, following, blank, label, alpha, beta, log_z, lowest):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    n, lane = example[f], cuda.threadIdx.x % WARP
    states, cell, U, total = 2 * offset[f] + f, offset[f], offset[f + 1] - offset[f], log_z[n]
    if total == CLOSED:
        for u in range(lane, U, WARP):
            label[cell + u] = 0
        if lane == 0:
            blank[f] = 0
        return
    for s in range(lane, 2 * U + 1, WARP):
        alpha[states + s] += beta[states + s]
    cuda.syncwarp()
    found = blank_share(lane, WARP, U, states, alpha, total, lowest)
    for distance in (16, 8, 4, 2, 1):
        found += cuda.shfl_xor_sync(0xFFFFFFFF, found, distance)
    if lane == 0:
        blank[f] = found
    label_shares(n, lane, WARP, U, states, cell, distinct, following, alpha, total, lowest, label)


def ctc_sums(starts, example, offset, targets, distinct, following, widest, blank, label, alpha, log_z, beta=None, *, posteriors):
    """Sum over all alignments of every example.

    Parameters
    ----------
    starts, example, offset : (B + 1,) int64, (frames,) int32, (frames + 1,) int64
        First frame of each example, example of each frame, first label score of each frame.
    targets : (B, U) int32
    distinct, following : (B, U) int32
        The label at its first position and -1 at all others; the next position with the same label, or -1.
    widest : int
        Largest U_b.
    blank, label : (frames,), (sum of T_b * U_b,) float32 or float64
        Scores in nats of the blank and of each label at each frame; with `posteriors` overwritten by the probabilities that
        an alignment spends the frame in them, those of equal labels summed at the first. All 0 where no alignment exists.
    alpha : float64
        A place for each state of each frame with `posteriors`, else 2 * B * (2 * widest + 1) places. Overwritten.
    log_z : (B,) float64
        Filled with the totals in nats, -inf where no alignment exists.
    beta : float64, optional
        On a GPU with `posteriors`, as large as alpha; overwritten.
    posteriors : bool
    """
    lowest, width = math.log(float(np.finfo(blank.dtype).tiny)), 0 if posteriors else 2 * widest + 1
    if on_host(blank):
        sweep(ctc_sums_cpu, len(log_z), starts, offset, targets, distinct, following, blank, label, width, alpha, log_z,
              posteriors, lowest, work=64 * (2 * len(label) + len(blank)), pieces=8)  # fmt: skip
        return
    threads = whole_warps(2 * widest + 1, policy.LATTICE_THREADS)
    launch(ctc_sums_cuda, (len(log_z), 2 if posteriors else 1), threads, starts, offset, targets, blank, label, width, alpha,
           beta if posteriors else alpha, log_z)  # fmt: skip
    if posteriors:
        by_warp(ctc_posteriors_cuda, len(example), example, offset, distinct, following, blank, label, alpha, beta, log_z, lowest)
