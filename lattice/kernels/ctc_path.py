"""The best CTC alignment over the states and arcs of ctc_sums.py: the largest takes the place of the sum.

`moves` keeps how many states the best alignment moved on by to enter each state: 0, 1 or 2.
"""

from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED
from .ctc_sums import arrivals, endings, kept_at
from .launch import cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps


@register_jitable
def choose(stay, step, skip):
    """The largest score and its move, 0, 1 or 2; of equal scores the smallest move."""
    # A frame with NaN makes all three NaN. No comparison is true then, and `stay` hands the NaN on.
    if step > stay:
        return (skip, 2) if skip > step else (step, 1)
    return (skip, 2) if skip > stay else (stay, 0)


@register_jitable
def trace(n, begin, end, s, offset, moves, last, frames):
    """Follow the moves back from state s of the last frame, and note the `last` or else the first frame of each label.

    Frames are counted from `begin`, the first frame of example n.
    """
    left = True  # is the frame after this one spent in another state?
    for f in range(end - 1, begin - 1, -1):
        move = moves[2 * offset[f] + f + s]
        # The run of a label ends where the state is left next, and begins where a move led into it.
        if s % 2 == 1 and (left if last else move > 0):
            frames[n, s // 2] = f - begin
        left = move > 0
        s -= move


@cpu_sweep
def ctc_path_cpu(
    begin, end, starts, offset, targets, blank_score, label_score, width, alpha, moves, last, score, frames
):
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        U = offset[a + 1] - offset[a]
        for f in range(a, b):
            # alpha keeps two frames, the moves keep all.
            here, states = kept_at(n, f, offset, width), 2 * offset[f] + f
            for s in range(2 * U + 1):
                stay, step, skip = arrivals(n, f, a, s, offset, targets, blank_score, label_score, width, alpha)
                alpha[here + s], moves[states + s] = choose(stay, step, skip)
        last_blank, last_label = endings(n, b, U, offset, blank_score, label_score, width, alpha)
        score[n], back = choose(last_blank, last_label, CLOSED)
        # -inf or NaN: no alignment to follow, and `frames` is left as it is.
        if score[n] > CLOSED:
            trace(n, a, b, 2 * U - back, offset, moves, last, frames)


@cuda_kernel
def ctc_path_cuda(starts, offset, targets, blank_score, label_score, width, alpha, moves, last, score, frames):
    n = cuda.blockIdx.x
    begin, end = starts[n], starts[n + 1]
    U = offset[begin + 1] - offset[begin]
    for f in range(begin, end):
        here, states = kept_at(n, f, offset, width), 2 * offset[f] + f
        s = cuda.threadIdx.x
        while s <= 2 * U:
            stay, step, skip = arrivals(n, f, begin, s, offset, targets, blank_score, label_score, width, alpha)
            alpha[here + s], moves[states + s] = choose(stay, step, skip)
            s += cuda.blockDim.x
        # The next frame reads alpha of this one, and `trace` reads the moves of all threads.
        cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        last_blank, last_label = endings(n, end, U, offset, blank_score, label_score, width, alpha)
        score[n], back = choose(last_blank, last_label, CLOSED)
        if score[n] > CLOSED:
            trace(n, begin, end, 2 * U - back, offset, moves, last, frames)


def ctc_path(starts, offset, targets, widest, blank_score, label_score, alpha, moves, last, score, frames):
    """The best alignment of every example.

    Parameters
    ----------
    starts, offset, targets, widest, blank_score, label_score
        As in `ctc_sums.ctc_sums`; the scores are left as they are.
    alpha : (2 * B * (2 * widest + 1),) float64
        Overwritten.
    moves : (sum of T_b * (2 U_b + 1),) uint8
        A place for each state of each frame, overwritten with the move into it.
    last : bool
        Keep the last frame of each label's run; else the first.
    score : (B,) float64
        Filled with the log-probability of the best alignment in nats, -inf where there is none.
    frames : (B, U) int32
        Set to that frame of each label, counted within the example, where there is an alignment. The caller fills in
        the rest.
    """
    arguments = (starts, offset, targets, blank_score, label_score, 2 * widest + 1, alpha, moves, last, score, frames)
    if on_host(blank_score):
        sweep(ctc_path_cpu, len(score), *arguments, work=16 * len(moves), pieces=8)
    else:
        launch(ctc_path_cuda, len(score), whole_warps(2 * widest + 1, policy.LATTICE_THREADS), *arguments)
