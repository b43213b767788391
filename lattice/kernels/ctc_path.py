"""The best CTC alignment, over the states and arcs of ctc.py: the largest takes the place of the sum, and the moves are kept."""

from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED
from .ctc_sums import arrivals, endings, kept_at
from .launch import cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps


@register_jitable
def choose(stay, step, skip):
    """The largest and the number of states it moves on by; of equal ones the smallest number. NaN stands in `stay` too."""
    if step > stay:
        return (skip, 2) if skip > step else (step, 1)
    return (skip, 2) if skip > stay else (stay, 0)


@register_jitable
def trace(n, begin, end, s, offset, moves, last, frames):
    """Follow the moves back from state s of the last frame, and note the `last` or else the first frame of each label."""
    left = True
    for f in range(end - 1, begin - 1, -1):
        move = moves[2 * offset[f] + f + s]
        if s % 2 == 1 and (left if last else move > 0):
            frames[n, s // 2] = f - begin
        left = move > 0
        s -= move


@cpu_sweep
def ctc_path_cpu(begin, end, starts, offset, targets, blank, label, width, alpha, moves, last, score, frames):
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        U = offset[a + 1] - offset[a]
        for f in range(a, b):
            here, states = kept_at(n, f, offset, width), 2 * offset[f] + f
            for s in range(2 * U + 1):
                stay, step, skip = arrivals(n, f, a, s, offset, targets, blank, label, width, alpha)
                alpha[here + s], moves[states + s] = choose(stay, step, skip)
        last_blank, last_label = endings(n, b, U, offset, blank, label, width, alpha)
        score[n], back = choose(last_blank, last_label, CLOSED)
        if score[n] > CLOSED:
            trace(n, a, b, 2 * U - back, offset, moves, last, frames)


@cuda_kernel
def ctc_path_cuda(starts, offset, targets, blank, label, width, alpha, moves, last, score, frames):
    n = cuda.blockIdx.x
    begin, end = starts[n], starts[n + 1]
    U = offset[begin + 1] - offset[begin]
    for f in range(begin, end):
        here, states = kept_at(n, f, offset, width), 2 * offset[f] + f
        s = cuda.threadIdx.x
        while s <= 2 * U:
            stay, step, skip = arrivals(n, f, begin, s, offset, targets, blank, label, width, alpha)
            alpha[here + s], moves[states + s] = choose(stay, step, skip)
            s += cuda.blockDim.x
        cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        last_blank, last_label = endings(n, end, U, offset, blank, label, width, alpha)
        score[n], back = choose(last_blank, last_label, CLOSED)
        if score[n] > CLOSED:
            trace(n, begin, end, 2 * U - back, offset, moves, last, frames)


def ctc_path(starts, offset, targets, widest, blank, label, alpha, moves, last, score, frames):
    """The best alignment of every example.

    Parameters
    ----------
    starts, offset, targets, widest, blank, label
        As in `ctc.ctc_sums`; the scores are left as they are.
    alpha : (2 * B * (2 * widest + 1),) float64
        Overwritten.
    moves : uint8
        A place for each state of each frame, overwritten with the number of states moved on by.
    last : bool
        Which frame of a label's run is kept: the last, or else the first.
    score : (B,) float64
        Filled with the log-probability of the best alignment in nats, -inf where there is none.
    frames : (B, U) int32
        Set to that frame of each label, where there is an alignment.
    """
    arguments = (starts, offset, targets, blank, label, 2 * widest + 1, alpha, moves, last, score, frames)
    if on_host(blank):
        sweep(ctc_path_cpu, len(score), *arguments, work=16 * len(moves), pieces=8)
    else:
        launch(ctc_path_cuda, len(score), whole_warps(2 * widest + 1, policy.LATTICE_THREADS), *arguments)
