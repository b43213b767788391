"""The best alignment over two score arrays: the largest takes the place of the sum, a bit of each cell tells how it was entered.

The sweep goes on from run to run of whole frames, so the scores of an example need not exist at once: what its cells' arcs carry
into the next frame is kept in `left` (examples, 2, 2, widest + 1), the place of frame f by its last bit, then blank or label arc.
The bits of frame f begin at byte `offset[f] // 8 + f`, apart from those of other frames: threads share no byte.
"""

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED
from .forward_backward import cell_at
from .launch import WARP, by_thread, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps


@register_jitable
def carried(n, f, u, arc, first, offset, left):
    """The best score of an alignment that leaves cell (f, u) by an arc, -inf where that cell does not exist."""
    return left[n, f % 2, arc, u] if cell_at(f, u, first, offset) >= 0 else CLOSED


@register_jitable
def enter(n, f, begin, u, first, offset, monotonic, left):
    """(best score of an alignment up to cell (f, u), whether it comes by a label); of equal ones by a blank. NaN stays NaN."""
    stay = 0.0 if u == 0 else CLOSED
    if f > begin:
        stay = carried(n, f - 1, u, 0, first, offset, left)
    source, step = f - 1 if monotonic else f, CLOSED
    if u > 0 and source >= begin:
        step = carried(n, source, u - 1, 1, first, offset, left)
    if step > stay or step != step:
        return step, True
    return stay, False


@register_jitable
def pass_on(n, f, begin, u, c, first, offset, monotonic, blank, label, left):
    """Extend alignments by cell c = (f, u) of the run; whether the best comes by a label."""
    best, by_label = enter(n, f, begin, u, first, offset, monotonic, left)
    left[n, f % 2, 0, u] = best + blank[c]
    left[n, f % 2, 1, u] = best + label[c]
    return by_label


@register_jitable
def moves_at(f, offset):
    return offset[f] // 8 + f


@cpu_sweep
def extend_cpu(begin, end, low, high, since, starts, first, offset, monotonic, blank, label, left, moves):
    for n in range(since + begin, since + end):
        for f in range(max(low, starts[n]), min(high, starts[n + 1])):
            at = moves_at(f, offset)
            for k in range(offset[f + 1] - offset[f]):
                c = offset[f] - offset[low] + k
                if pass_on(n, f, starts[n], first[f] + k, c, first, offset, monotonic, blank, label, left):
                    moves[at + k // 8] |= 1 << k % 8


@register_jitable
def extend_frame(n, f, begin, low, first, offset, blank, label, left, moves):
    """All cells of a frame at once, where every arc moves on by a frame; a warp collects the bits of its cells."""
    lane, k = cuda.threadIdx.x % WARP, cuda.threadIdx.x
    width = offset[f + 1] - offset[f]
    while k - lane < width:
        by_label = False
        if k < width:
            c = offset[f] - offset[low] + k
            by_label = pass_on(n, f, begin, first[f] + k, c, first, offset, True, blank, label, left)
        votes = cuda.ballot_sync(0xFFFFFFFF, by_label)
        if lane % 8 == 0 and k < width:
            moves[moves_at(f, offset) + k // 8] = (votes >> lane) & 0xFF
        k += cuda.blockDim.x


@register_jitable
def extend_wave(n, wave, a, b, begin, low, labels, first, offset, blank, label, left, moves):
    """The cells of frames a to b on an anti-diagonal at once; no two of them are of one frame."""
    u = cuda.threadIdx.x + max(0, wave - (b - a) + 1)
    while u <= min(labels, wave):
        f = a + wave - u
        c = cell_at(f, u, first, offset)
        if c >= 0 and pass_on(n, f, begin, u, c - offset[low], first, offset, False, blank, label, left):
            k = u - first[f]
            moves[moves_at(f, offset) + k // 8] |= 1 << k % 8
        u += cuda.blockDim.x


@cuda_kernel
def extend_cuda(low, high, since, starts, labels, first, offset, monotonic, blank, label, left, moves):
    n = since + cuda.blockIdx.x
    a, b = max(low, starts[n]), min(high, starts[n + 1])
    for wave in range(b - a if monotonic else b - a + labels[n]):
        if monotonic:
            extend_frame(n, a + wave, starts[n], low, first, offset, blank, label, left, moves)
        else:
            extend_wave(n, wave, a, b, starts[n], low, labels[n], first, offset, blank, label, left, moves)
        cuda.syncthreads()


def extend(frames, low, high, since, until, monotonic, blank, label, left, moves):
    """Extend the best alignments by a run of frames; all earlier ones have been before.

    Parameters
    ----------
    frames : lattice.layout.Frames
    low, high, since, until : int
        First frame of the run and the one behind its last, and the same of the examples that these belong to.
    monotonic : bool
    blank, label : (cells of the run,) float32 or float64
        Scores of the arcs in nats.
    left : (examples, 2, 2, widest + 1) float64
        What the last frame hands on; overwritten.
    moves : (move_bytes,) uint8
        Zeros before the first run.
    """
    if on_host(blank):
        sweep(extend_cpu, until - since, low, high, since, frames.starts, frames.first, frames.offset, monotonic, blank, label,
              left, moves, work=16 * len(blank), pieces=8)  # fmt: skip
    else:
        # Votes are those of a whole warp.
        threads = max(WARP, whole_warps(frames.widest + 1, policy.LATTICE_THREADS))
        launch(extend_cuda, until - since, threads, low, high, since, frames.starts, frames.labels, frames.first, frames.offset,
               monotonic, blank, label, left, moves)  # fmt: skip


def move_bytes(cells, frames):
    """Bytes that the bits of so many cells in so many frames take."""
    return cells // 8 + frames + 1


def keep(take, examples, widest, cells, frames):
    """`left` and `moves` of a search over so many examples, cells and frames, from `take(shape, dtype)`."""
    left, moves = take((examples, 2, 2, widest + 1), np.float64), take(move_bytes(cells, frames), np.uint8)
    moves.fill(0)
    return left, moves


@register_jitable
def trace(n, begin, end, labels, first, offset, monotonic, left, moves, row, frames):
    """Follow the bits back from the end, note the frame of each label, and return the score of the alignment."""
    f, u = end - 1, labels
    score, last = carried(n, f, u, 0, first, offset, left), CLOSED
    if monotonic and u > 0:
        last = carried(n, f, u - 1, 1, first, offset, left)
    by_label = last > score or last != last
    if by_label:
        score = last
    if not score > CLOSED:
        return score
    if by_label:
        u -= 1
        frames[row, u] = f - begin
    while u > 0 and f >= begin:
        k = u - first[f]
        if moves[moves_at(f, offset) + k // 8] >> (k % 8) & 1:
            u -= 1
            if monotonic:
                f -= 1
            frames[row, u] = f - begin
        else:
            f -= 1
    return score


@cpu_sweep
def trace_cpu(begin, end, starts, labels, first, offset, monotonic, left, moves, examples, score, frames):
    for n in range(begin, end):
        score[n] = trace(n, starts[n], starts[n + 1], labels[n], first, offset, monotonic, left, moves, examples[n], frames)


@cuda_kernel
def trace_cuda(starts, labels, first, offset, monotonic, left, moves, examples, score, frames):
    n = cuda.grid(1)
    if n < score.shape[0]:
        score[n] = trace(n, starts[n], starts[n + 1], labels[n], first, offset, monotonic, left, moves, examples[n], frames)


def best_path(frames, monotonic, left, moves, examples, score, best):
    """The best alignments, once all frames have been extended by.

    Parameters
    ----------
    frames, monotonic, left, moves
        As in `extend`.
    examples : (examples,) int64
        Their rows in `best`.
    score : (examples,) float64
        Filled with the log-probabilities in nats: -inf where no alignment exists, NaN where one meets NaN.
    best : (B, U) int32
        Set to the frame of each label, where there is an alignment.
    """
    arguments = (frames.first, frames.offset, monotonic, left, moves, examples, score, best)
    if on_host(score):
        sweep(trace_cpu, len(score), frames.starts, frames.labels, *arguments, work=8 * len(moves))
    else:
        by_thread(trace_cuda, len(score), frames.starts, frames.labels, *arguments)
