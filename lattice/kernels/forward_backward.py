"""alpha, beta, log_z and arc posteriors over two score arrays. Knows nothing of vocabularies, targets or logits.

The sums are float64 whatever the scores are: float32 near -7000 has steps of 5e-4, and that is the gradient error of
implementations that keep alpha in float32 on long audio. The topology is one flag: a label arc stays on its frame ("rnnt") or
moves to the next ("monotonic"). A cell that does not exist has no outgoing arcs, so a band of cells is the same recursion.
"""

import math

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED, log_add, posterior
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps


@register_jitable
def leaving(scores, sums, f, u, first, offset):
    """alpha + score of the arc that leaves cell (f, u), -inf where that cell does not exist."""
    # `cell_at` written out: through it the CPU's compiler inlines this no more, and the forward sweep takes five times as long.
    k = u - first[f]
    if k < 0 or k >= offset[f + 1] - offset[f]:
        return CLOSED
    c = offset[f] + k
    return sums[c] + scores[c]


@register_jitable
def inside(values, low, count, u):
    """values[u - low], -inf outside the `count` cells of a frame."""
    k = u - low
    return values[k] if 0 <= k < count else CLOSED


@register_jitable
def by_blank(f, begin, u, first, offset, blank, alpha):
    """What arrives in cell (f, u) by a blank arc."""
    if f > begin:
        return leaving(blank, alpha, f - 1, u, first, offset)
    return 0.0 if u == 0 else CLOSED


@register_jitable
def by_label(f, begin, low, u, c, first, offset, monotonic, label, alpha):
    """What arrives in cell c = (f, u) by a label arc; `low` is u of the first cell of the frame."""
    if monotonic:
        return leaving(label, alpha, f - 1, u - 1, first, offset) if f > begin else CLOSED
    return alpha[c - 1] + label[c - 1] if u > low else CLOSED


@register_jitable
def larger(a, b):
    return b if b > a else a


@register_jitable
def joined(a, b, largest):
    """What two arcs hand on: the log-sum, or where the best alignment is looked for the larger."""
    return larger(a, b) if largest else log_add(a, b)


@register_jitable
def total(end, labels, first, offset, monotonic, largest, blank, label, alpha):
    """log_z, or the largest score, from the cells of the last frame."""
    log_z = leaving(blank, alpha, end - 1, labels, first, offset)
    if monotonic:
        log_z = joined(log_z, leaving(label, alpha, end - 1, labels - 1, first, offset), largest)
    return log_z


@register_jitable
def forward(begin, end, labels, first, offset, monotonic, largest, blank, label, alpha):
    """Fill alpha for the frames of one example and return what `total` does; `largest` is a constant at each call."""
    for f in range(begin, end):
        low = first[f]
        for c in range(offset[f], offset[f + 1]):
            u = low + c - offset[f]
            stay = by_blank(f, begin, u, first, offset, blank, alpha)
            alpha[c] = joined(stay, by_label(f, begin, low, u, c, first, offset, monotonic, label, alpha), largest)
    return total(end, labels, first, offset, monotonic, largest, blank, label, alpha)


@register_jitable
def backward(begin, end, labels, first, offset, monotonic, blank, label, alpha, log_z, lowest, posteriors):
    """Sweep beta back over one example. The scores are overwritten by the posteriors of their arcs, or alpha by alpha + beta."""
    here = np.empty(labels + 1)
    after = np.empty(labels + 1)
    after[0] = 0.0
    after_low, after_count = labels, 1
    for f in range(end - 1, begin - 1, -1):
        low = first[f]
        count = offset[f + 1] - offset[f]
        for k in range(count - 1, -1, -1):
            c = offset[f] + k
            u = low + k
            stay = blank[c] + inside(after, after_low, after_count, u)
            if monotonic:
                step = label[c] + inside(after, after_low, after_count, u + 1)
            else:
                step = label[c] + inside(here, low, count, u + 1)
            here[k] = log_add(stay, step)
            if posteriors:
                arrive = alpha[c] - log_z
                blank[c] = posterior(arrive + stay, lowest)
                label[c] = posterior(arrive + step, lowest)
            else:
                alpha[c] += here[k]
        here, after = after, here
        after_low, after_count = low, count


@cpu_sweep
def forward_backward_cpu(begin, end, starts, labels, first, offset, monotonic, blank, label, alpha, log_z, posteriors, lowest):
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        log_z[n] = forward(a, b, labels[n], first, offset, monotonic, False, blank, label, alpha)
        if posteriors:
            if log_z[n] == CLOSED:
                blank[offset[a] : offset[b]] = 0
                label[offset[a] : offset[b]] = 0
            else:
                backward(a, b, labels[n], first, offset, monotonic, blank, label, alpha, log_z[n], lowest, True)


@register_jitable
def cell_at(f, u, first, offset):
    """The number of cell (f, u), -1 where it does not exist."""
    k = u - first[f]
    return offset[f] + k if 0 <= k < offset[f + 1] - offset[f] else -1


@register_jitable
def held(values, f, u, first, offset):
    """values of cell (f, u), -inf where it does not exist."""
    c = cell_at(f, u, first, offset)
    return values[c] if c >= 0 else CLOSED


@register_jitable
def departing(f, end, u, c, labels, first, offset, monotonic, blank, label, beta):
    """Score of each arc of cell c = (f, u), with beta of the cell it leads to."""
    blank_score, label_score = blank[c], label[c]
    if f + 1 < end:
        stay = held(beta, f + 1, u, first, offset)
    else:
        stay = 0.0 if u == labels else CLOSED
    if not monotonic:
        step = held(beta, f, u + 1, first, offset)
    elif f + 1 < end:
        step = held(beta, f + 1, u + 1, first, offset)
    else:
        step = 0.0 if u + 1 == labels else CLOSED
    return blank_score + stay, label_score + step


@cuda_kernel
def sums_cuda(starts, labels, first, offset, monotonic, largest, blank, label, alpha, beta, log_z):
    # One block an example for alpha and, beside it, one for beta. Cells that do not depend on one another are filled at
    # once: those of an anti-diagonal, or where every arc moves on by a frame, those of a frame.
    n = cuda.blockIdx.x
    begin, end, U = starts[n], starts[n + 1], labels[n]
    back = cuda.blockIdx.y
    T = end - begin
    steps = T if monotonic else T + U
    for step in range(steps):
        wave = steps - 1 - step if back else step
        high = U if monotonic else min(U, wave)
        u = cuda.threadIdx.x + (0 if monotonic else max(0, wave - T + 1))
        # A range with a stride that is not a constant would divide, which takes as long as the rest.
        while u <= high:
            f = begin + (wave if monotonic else wave - u)
            c = cell_at(f, u, first, offset)
            if c >= 0:
                if back:
                    stay, move = departing(f, end, u, c, U, first, offset, monotonic, blank, label, beta)
                    beta[c] = joined(stay, move, largest)
                else:
                    stay = by_blank(f, begin, u, first, offset, blank, alpha)
                    move = by_label(f, begin, first[f], u, c, first, offset, monotonic, label, alpha)
                    alpha[c] = joined(stay, move, largest)
            u += cuda.blockDim.x
        cuda.syncthreads()
    if cuda.threadIdx.x == 0 and not back:
        log_z[n] = total(end, U, first, offset, monotonic, largest, blank, label, alpha)


@cuda_kernel
def posteriors_cuda(starts, labels, example, first, offset, monotonic, blank, label, alpha, beta, log_z, lowest):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    n = example[f]
    for c in range(offset[f] + cuda.threadIdx.x % WARP, offset[f + 1], WARP):
        if log_z[n] == CLOSED:
            blank[c], label[c] = 0, 0
        else:
            u = first[f] + c - offset[f]
            stay, step = departing(f, starts[n + 1], u, c, labels[n], first, offset, monotonic, blank, label, beta)
            arrive = alpha[c] - log_z[n]
            blank[c], label[c] = posterior(arrive + stay, lowest), posterior(arrive + step, lowest)


def sums(frames, monotonic, blank, label, alpha, log_z, beta=None, *, largest=False):
    """alpha and log_z of every example on a GPU, and beta where there is room; with `largest` best scores in place of sums."""
    threads = whole_warps(frames.widest + 1, policy.LATTICE_THREADS)
    launch(sums_cuda, (len(log_z), 1 if beta is None else 2), threads, frames.starts, frames.labels, frames.first, frames.offset,
           monotonic, largest, blank, label, alpha, alpha if beta is None else beta, log_z)  # fmt: skip


def forward_backward(frames, monotonic, blank, label, alpha, log_z, beta=None, *, posteriors):
    """Sum over all alignments of every example.

    Parameters
    ----------
    frames : lattice.layout.Frames
    monotonic : bool
    blank, label : (cells,) float32 or float64
        Scores of the arcs in nats; with `posteriors` overwritten by the posteriors of the arcs, all 0 where no alignment exists.
    alpha : (cells,) float64
        Filled with the forward sums.
    log_z : (examples,) float64
        Filled with the totals in nats, -inf where no alignment exists.
    beta : (cells,) float64, optional
        On a GPU, where `posteriors` are wanted: filled with the backward sums.
    posteriors : bool
    """
    lowest = math.log(float(np.finfo(blank.dtype).tiny))
    if not on_host(blank):
        sums(frames, monotonic, blank, label, alpha, log_z, beta if posteriors else None)
        if posteriors:
            by_warp(posteriors_cuda, len(frames.example), frames.starts, frames.labels, frames.example, frames.first,
                    frames.offset, monotonic, blank, label, alpha, beta, log_z, lowest)  # fmt: skip
        return
    sweep(
        forward_backward_cpu, len(log_z), frames.starts, frames.labels, frames.first, frames.offset, monotonic, blank, label,
        alpha, log_z, posteriors, lowest, work=64 * len(alpha), pieces=8,
    )  # fmt: skip
