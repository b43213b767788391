"""alpha, beta, log_z and arc posteriors over two score arrays. Knows nothing of vocabularies, targets or logits.

The sums are float64 whatever the scores are: float32 near -7000 has steps of 5e-4, and that is the gradient error of
implementations that keep alpha in float32 on long audio. The topology is one flag: a label arc stays on its frame ("rnnt") or
moves to the next ("monotonic"). A cell that does not exist has no outgoing arcs, so a band of cells is the same recursion.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, log_add, posterior
from .launch import cpu_sweep, sweep


@register_jitable
def leaving(scores, sums, f, u, first, offset):
    """alpha + score of the arc that leaves cell (f, u), -inf where that cell does not exist."""
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
def forward(begin, end, labels, first, offset, monotonic, blank, label, alpha):
    """Fill alpha for the frames of one example and return log_z."""
    for f in range(begin, end):
        low = first[f]
        for c in range(offset[f], offset[f + 1]):
            u = low + c - offset[f]
            if f > begin:
                stay = leaving(blank, alpha, f - 1, u, first, offset)
            else:
                stay = 0.0 if u == 0 else CLOSED
            step = CLOSED
            if not monotonic:
                if u > low:
                    step = alpha[c - 1] + label[c - 1]
            elif f > begin:
                step = leaving(label, alpha, f - 1, u - 1, first, offset)
            alpha[c] = log_add(stay, step)
    log_z = leaving(blank, alpha, end - 1, labels, first, offset)
    if monotonic:
        log_z = log_add(log_z, leaving(label, alpha, end - 1, labels - 1, first, offset))
    return log_z


@register_jitable
def backward(begin, end, labels, first, offset, monotonic, blank, label, alpha, log_z, lowest):
    """Sweep beta back over one example; the scores are overwritten by the posteriors of their arcs."""
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
            arrive = alpha[c] - log_z
            blank[c] = posterior(arrive + stay, lowest)
            label[c] = posterior(arrive + step, lowest)
        here, after = after, here
        after_low, after_count = low, count


@cpu_sweep
def forward_backward_cpu(begin, end, starts, labels, first, offset, monotonic, blank, label, alpha, log_z, posteriors, lowest):
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        log_z[n] = forward(a, b, labels[n], first, offset, monotonic, blank, label, alpha)
        if posteriors:
            if log_z[n] == CLOSED:
                blank[offset[a] : offset[b]] = 0
                label[offset[a] : offset[b]] = 0
            else:
                backward(a, b, labels[n], first, offset, monotonic, blank, label, alpha, log_z[n], lowest)


def forward_backward(frames, monotonic, blank, label, alpha, log_z, *, posteriors):
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
    posteriors : bool
    """
    lowest = math.log(float(np.finfo(blank.dtype).tiny))
    sweep(
        forward_backward_cpu, len(log_z), frames.starts, frames.labels, frames.first, frames.offset, monotonic, blank, label,
        alpha, log_z, posteriors, lowest, work=64 * len(alpha), pieces=8,
    )  # fmt: skip
