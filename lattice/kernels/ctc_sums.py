"""The sums over CTC alignments and the posteriors of blank and labels, over two score arrays. Knows nothing of logits.

A target of U labels has 2U + 1 states: state 2u is the blank before label u, state 2u + 1 is label u (Graves et al.
2006). Each frame is spent in one state, and the next frame in the same state or in the one after it. From a label the
next frame may also skip the blank to the next label, if the two labels differ. alpha of a state is the log-sum over
what arrives in it, without the score of its own frame. beta is the log-sum over what leaves it, with that score. Both
are float64, as in forward_backward.py.

Frames f are counted over the batch, example by example. `offset[f]` counts the label scores of all frames before frame
f, so the states of frame f begin at 2 * offset[f] + f.
"""

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED, log_add, lowest_of, posterior
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps
from .state import ArcPosteriors


@register_jitable
def kept_at(n, f, offset, width):
    """The place in alpha of the first state of frame f.

    With width 0 the frames follow one another. Else an example n keeps two frames of `width` states, which take turns.
    """
    return (2 * n + f % 2) * width if width else 2 * offset[f] + f


@register_jitable
def score_of(f, s, offset, blank_score, label_score):
    """The score of state s at frame f, in nats: odd states are labels."""
    return label_score[offset[f] + s // 2] if s % 2 else blank_score[f]


@register_jitable
def skips(n, s, targets):
    """Can state s be entered from the label before? A blank must part equal labels, and only those."""
    return s % 2 == 1 and s > 1 and targets[n, s // 2] != targets[n, s // 2 - 1]


@register_jitable
def arrivals(n, f, begin, s, offset, targets, blank_score, label_score, width, alpha):
    """What arrives in state s at frame f: from the same state, from the state before, and from the label before."""
    # The first frame is spent in the first blank or in the first label.
    if f == begin:
        return 0.0 if s == 0 else CLOSED, 0.0 if s == 1 else CLOSED, CLOSED
    c = kept_at(n, f - 1, offset, width) + s
    stay = alpha[c] + score_of(f - 1, s, offset, blank_score, label_score)
    step = alpha[c - 1] + score_of(f - 1, s - 1, offset, blank_score, label_score) if s > 0 else CLOSED
    skip = alpha[c - 2] + score_of(f - 1, s - 2, offset, blank_score, label_score) if skips(n, s, targets) else CLOSED
    return stay, step, skip


@register_jitable
def endings(n, end, U, offset, blank_score, label_score, width, alpha):
    """What arrives behind the last frame `end - 1`: from the last blank, and from the last label if there is one."""
    f = end - 1
    c = kept_at(n, f, offset, width) + 2 * U
    return alpha[c] + blank_score[f], alpha[c - 1] + label_score[offset[f] + U - 1] if U > 0 else CLOSED


@register_jitable
def departing(n, f, end, s, U, offset, targets, blank_score, label_score, beta, after):
    """beta of state s at frame f; the states of the next frame begin at `beta[after]`."""
    if f + 1 == end:
        # Alignments end in the last label or the blank behind it; without labels, in the only state.
        onward = 0.0 if s >= 2 * U - 1 else CLOSED
    else:
        onward = log_add(beta[after + s], beta[after + s + 1] if s < 2 * U else CLOSED)
        # The bound comes first: `skips` would read a label behind the target.
        if s + 2 <= 2 * U and skips(n, s + 2, targets):
            onward = log_add(onward, beta[after + s + 2])
    return score_of(f, s, offset, blank_score, label_score) + onward


@register_jitable
def blank_share(u, stride, U, states, visits, log_z, lowest):
    """A thread's part of the blank's posterior at a frame; `visits` has the frame's alpha + beta from `states` on."""
    found = 0.0
    while u <= U:
        found += posterior(visits[states + 2 * u] - log_z, lowest)
        u += stride
    return found


@register_jitable
def label_shares(n, u, stride, U, states, cell, distinct, following, visits, log_z, lowest, label_score):
    """Set a thread's part of the label posteriors at a frame, over the scores from `cell` on.

    Equal labels are added up, first to last, at the first one. The others are set to 0.
    """
    while u < U:
        # A label that stood before is -1 in `distinct`: the first one has its posterior, so none is counted twice.
        found, same = 0.0, u if distinct[n, u] >= 0 else -1
        while same >= 0:
            found += posterior(visits[states + 2 * same + 1] - log_z, lowest)
            same = following[n, same]
        label_score[cell + u] = found
        u += stride


@register_jitable
def forward(n, begin, end, U, offset, targets, blank_score, label_score, width, alpha):
    """Fill alpha for the frames `begin` to `end` of example n and return log_z in nats."""
    for f in range(begin, end):
        here = kept_at(n, f, offset, width)
        for s in range(2 * U + 1):
            stay, step, skip = arrivals(n, f, begin, s, offset, targets, blank_score, label_score, width, alpha)
            alpha[here + s] = log_add(log_add(stay, step), skip)
    last_blank, last_label = endings(n, end, U, offset, blank_score, label_score, width, alpha)
    return log_add(last_blank, last_label)


@register_jitable
def backward(n, begin, end, U, offset, targets, distinct, following, blank_score, label_score, alpha, log_z, lowest):
    """Sweep beta back over one example: alpha becomes alpha + beta, and the scores become posteriors.

    alpha is kept for all frames, so its width is 0.
    """
    here, after = np.empty(2 * U + 1), np.empty(2 * U + 1)  # beta of a frame and of the next one, float64
    for f in range(end - 1, begin - 1, -1):
        states = 2 * offset[f] + f
        for s in range(2 * U + 1):
            here[s] = departing(n, f, end, s, U, offset, targets, blank_score, label_score, after, 0)
            alpha[states + s] += here[s]
        # The frame's scores have been read for the last time: posteriors take their place.
        blank_score[f] = blank_share(0, 1, U, states, alpha, log_z, lowest)
        label_shares(n, 0, 1, U, states, offset[f], distinct, following, alpha, log_z, lowest, label_score)
        here, after = after, here


@cpu_sweep
def ctc_sums_cpu(
    begin, end, starts, offset, targets, distinct, following, blank_score, label_score, width, alpha, log_z, posteriors,
    lowest,
):  # fmt: skip
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        U = offset[a + 1] - offset[a]
        log_z[n] = forward(n, a, b, U, offset, targets, blank_score, label_score, width, alpha)
        # Without an alignment, alpha + beta - log_z would be -inf - -inf. A NaN goes on and fills the posteriors.
        if posteriors and log_z[n] == CLOSED:
            blank_score[a:b] = 0
            label_score[offset[a] : offset[b]] = 0
        elif posteriors:
            backward(
                n, a, b, U, offset, targets, distinct, following, blank_score, label_score, alpha, log_z[n], lowest
            )


@cuda_kernel
def ctc_sums_cuda(starts, offset, targets, blank_score, label_score, width, alpha, beta, log_z):
    # One block an example for alpha and, beside it, one for beta: all states of a frame at once.
    n = cuda.blockIdx.x
    begin, end = starts[n], starts[n + 1]
    U = offset[begin + 1] - offset[begin]
    back = cuda.blockIdx.y
    for step in range(end - begin):
        f = end - 1 - step if back else begin + step
        here = kept_at(n, f, offset, width)
        s = cuda.threadIdx.x
        # A range with a stride that is not a constant would divide.
        while s <= 2 * U:
            if back:
                # Where there is a beta, all frames are kept: the next frame's states follow this frame's.
                after = here + 2 * U + 1
                beta[here + s] = departing(n, f, end, s, U, offset, targets, blank_score, label_score, beta, after)
            else:
                stay, move, skip = arrivals(n, f, begin, s, offset, targets, blank_score, label_score, width, alpha)
                alpha[here + s] = log_add(log_add(stay, move), skip)
            s += cuda.blockDim.x
        # The next frame reads what other threads wrote in this one; no two blocks share a place.
        cuda.syncthreads()
    if cuda.threadIdx.x == 0 and not back:
        last_blank, last_label = endings(n, end, U, offset, blank_score, label_score, width, alpha)
        log_z[n] = log_add(last_blank, last_label)


@cuda_kernel
def ctc_posteriors_cuda(example, offset, distinct, following, blank_score, label_score, alpha, beta, log_z, lowest):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    n, lane = example[f], cuda.threadIdx.x % WARP
    states, cell, U, total = 2 * offset[f] + f, offset[f], offset[f + 1] - offset[f], log_z[n]
    if total == CLOSED:
        for u in range(lane, U, WARP):
            label_score[cell + u] = 0
        if lane == 0:
            blank_score[f] = 0
        return
    for s in range(lane, 2 * U + 1, WARP):
        alpha[states + s] += beta[states + s]
    # Lanes read states that other lanes added up: equal labels may lie anywhere in the target.
    cuda.syncwarp()
    found = blank_share(lane, WARP, U, states, alpha, total, lowest)
    for distance in (16, 8, 4, 2, 1):
        found += cuda.shfl_xor_sync(0xFFFFFFFF, found, distance)
    if lane == 0:
        blank_score[f] = found
    label_shares(n, lane, WARP, U, states, cell, distinct, following, alpha, total, lowest, label_score)


def ctc_sums(starts, offset, targets, widest, blank_score, label_score, alpha, log_z):
    """Sum over all alignments of every example; the scores stay.

    Parameters
    ----------
    starts, offset : (B + 1,) int64, (frames + 1,) int64
        First frame of each example, first label score of each frame.
    targets : (B, U) int32
    widest : int
        Largest U_b.
    blank_score, label_score : (frames,), (sum of T_b * U_b,) float32 or float64
        Scores in nats of the blank and of each label at each frame.
    alpha : (2 * B * (2 * widest + 1),) float64
        Scratch: of a frame nothing is kept but what the next one needs.
    log_z : (B,) float64
        Filled with the log-sums over all alignments in nats, -inf where no alignment exists.
    """
    width, scores = 2 * widest + 1, (blank_score, label_score)
    if on_host(blank_score):
        # `distinct` and `following` are read for posteriors only: the targets stand in their place.
        lowest = lowest_of(blank_score)
        arguments = (starts, offset, targets, targets, targets, *scores, width, alpha, log_z, False, lowest)
        sweep(ctc_sums_cpu, len(log_z), *arguments, work=_work(*scores), pieces=8)
        return
    threads = whole_warps(width, policy.LATTICE_THREADS)
    # One block an example, so nobody reads beta: alpha stands in its place.
    launch(ctc_sums_cuda, (len(log_z), 1), threads, starts, offset, targets, *scores, width, alpha, alpha, log_z)


def ctc_forward_backward(
    starts, example, offset, targets, distinct, following, widest, blank_score, label_score, alpha, log_z, beta=None
) -> ArcPosteriors:  # fmt: skip
    """Sum over all alignments of every example, and turn scores into posteriors.

    Parameters
    ----------
    starts, offset, targets, widest, log_z
        As in `ctc_sums`.
    example : (frames,) int32
        Example of each frame.
    distinct, following : (B, U) int32
        The label at its first position and -1 at all others; the next position with the same label, or -1.
    blank_score, label_score
        As in `ctc_sums`. What is returned lies in their memory, so they are gone.
    alpha : (sum of T_b * (2 U_b + 1),) float64
        A place for each state of each frame. Overwritten.
    beta : float64, optional
        On a GPU, as large as alpha; overwritten.

    Returns
    -------
    posteriors : ArcPosteriors
        The probabilities that an alignment spends a frame in the blank (frames,), and in each label (sum of T_b *
        U_b,). Equal labels are summed at the first of them. All 0 where no alignment exists.
    """
    lowest, scores, repeats = lowest_of(blank_score), (blank_score, label_score), (distinct, following)
    if on_host(blank_score):
        # Width 0: all frames of alpha are kept. The CPU holds two frames of beta by itself.
        arguments = (starts, offset, targets, *repeats, *scores, 0, alpha, log_z, True, lowest)
        sweep(ctc_sums_cpu, len(log_z), *arguments, work=_work(*scores), pieces=8)
        return ArcPosteriors(*scores)
    threads = whole_warps(2 * widest + 1, policy.LATTICE_THREADS)
    launch(ctc_sums_cuda, (len(log_z), 2), threads, starts, offset, targets, *scores, 0, alpha, beta, log_z)
    by_warp(ctc_posteriors_cuda, len(example), example, offset, *repeats, *scores, alpha, beta, log_z, lowest)
    return ArcPosteriors(*scores)


def _work(blank_score, label_score) -> int:
    """Work of a sweep as `launch.sweep` counts it: 64 elements for each state of each frame."""
    return 64 * (2 * len(label_score) + len(blank_score))
