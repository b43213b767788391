"""The best alignment over two score arrays: the largest takes the place of the sum, a bit tells how a cell was entered.

The sweep goes on from run to run of whole frames, so the scores of an example need not exist at once. `left` (examples,
2, 2, widest + 1) keeps what the arcs of a frame's cells carry on: axis 1 is the last bit of the frame's number, axis 2
blank or label arc, axis 3 the label position. A frame takes the place of the last frame but one. The bits of frame f
begin at byte `offset[f] // 8 + f`. No two frames share a byte, so no two threads write the same one.
"""

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .arcs import cell_at, ending
from .cells import CLOSED
from .launch import WARP, by_thread, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps


@register_jitable
def carried(n, f, u, arc, first, offset, left):
    """The best score of an alignment that leaves cell (f, u) by an arc (0 blank, 1 label); -inf without such a cell."""
    return left[n, f % 2, arc, u] if cell_at(f, u, first, offset) >= 0 else CLOSED


@register_jitable
def enter(n, f, begin, u, first, offset, monotonic, left):
    """(best score of an alignment up to cell (f, u), whether it comes by a label). Of equal scores the blank's wins.

    `begin` is the first frame of the example. NaN stays NaN.
    """
    stay = 0.0 if u == 0 else CLOSED  # an alignment starts in the first frame, with no label
    if f > begin:
        stay = carried(n, f - 1, u, 0, first, offset, left)
    source, step = f - 1 if monotonic else f, CLOSED
    if u > 0 and source >= begin:
        step = carried(n, source, u - 1, 1, first, offset, left)
    # A NaN differs from itself: the label's NaN is taken here. The blank's is below nothing, and stays.
    if step > stay or step != step:
        return step, True
    return stay, False


@register_jitable
def pass_on(n, f, begin, u, c, behind, first, offset, monotonic, paired, blank_score, label_score, left):
    """Extend alignments by cell (f, u), the run's cell c; returns whether the best one comes by a label.

    `behind` is the run's cell behind the last one of the frame.
    """
    best, by_label = enter(n, f, begin, u, first, offset, monotonic, left)
    # Beside a bare 0.0 the simulator would add scores in float32.
    best = np.float64(best)
    left[n, f % 2, 0, u] = best + blank_score[c]
    moved = best + label_score[c]
    if paired:
        # Arc by arc, so that equal alignments are equal sums.
        moved += ending(blank_score, c, behind)
    left[n, f % 2, 1, u] = moved
    return by_label


@register_jitable
def bits_at(f, offset):
    """The byte in which the bits of frame f begin. Each frame has a byte to spare, because it may end within one."""
    return offset[f] // 8 + f


@cpu_sweep
def extend_cpu(begin, end, low, high, since, starts, first, offset, moves, blank_score, label_score, left, bits):
    # A range of examples to a thread: scores and bits of an example are the thread's own, so no lock.
    monotonic, paired = moves
    for n in range(since + begin, since + end):
        for f in range(max(low, starts[n]), min(high, starts[n + 1])):
            at, behind = bits_at(f, offset), offset[f + 1] - offset[low]
            for k in range(offset[f + 1] - offset[f]):
                c = offset[f] - offset[low] + k  # the score arrays begin at the run's first cell
                by_label = pass_on(
                    n, f, starts[n], first[f] + k, c, behind, first, offset, monotonic, paired,
                    blank_score, label_score, left,
                )  # fmt: skip
                if by_label:
                    bits[at + k // 8] |= 1 << k % 8


@register_jitable
def extend_frame(n, f, begin, low, first, offset, paired, blank_score, label_score, left, bits):
    """All cells of a frame at once, where every arc moves on by a frame; a warp collects the bits of its cells."""
    lane, k = cuda.threadIdx.x % WARP, cuda.threadIdx.x
    width = offset[f + 1] - offset[f]
    # As long as the warp's first lane has a cell: lanes without one stay for the ballot.
    while k - lane < width:
        by_label = False
        if k < width:
            c = offset[f] - offset[low] + k
            behind, scores = offset[f + 1] - offset[low], (blank_score, label_score)
            by_label = pass_on(n, f, begin, first[f] + k, c, behind, first, offset, True, paired, *scores, left)
        votes = cuda.ballot_sync(0xFFFFFFFF, by_label)
        # k % 8 is lane % 8, so every eighth lane writes one whole byte.
        if lane % 8 == 0 and k < width:
            bits[bits_at(f, offset) + k // 8] = (votes >> lane) & 0xFF
        k += cuda.blockDim.x


@register_jitable
def extend_wave(n, wave, a, b, begin, low, labels, first, offset, blank_score, label_score, left, bits):
    """The cells of frames a to b (exclusive) on an anti-diagonal at once, where a label arc stays on its frame.

    No two cells are of one frame, so each thread changes bits of a byte of its own.
    """
    scores = blank_score, label_score
    u = cuda.threadIdx.x + max(0, wave - (b - a) + 1)
    while u <= min(labels, wave):
        f = a + wave - u
        c = cell_at(f, u, first, offset)
        # No arc is paired, so what lies behind is not asked for.
        if c >= 0 and pass_on(n, f, begin, u, c - offset[low], 0, first, offset, False, False, *scores, left):
            k = u - first[f]
            bits[bits_at(f, offset) + k // 8] |= 1 << k % 8
        u += cuda.blockDim.x


@cuda_kernel
def extend_cuda(low, high, since, starts, labels, first, offset, monotonic, blank_score, label_score, left, bits):
    n = since + cuda.blockIdx.x
    a, b = max(low, starts[n]), min(high, starts[n + 1])
    # A cell reads what earlier waves wrote, and takes the place of frame f - 2, which no later wave reads.
    for wave in range(b - a if monotonic else b - a + labels[n]):
        if monotonic:
            extend_frame(n, a + wave, starts[n], low, first, offset, False, blank_score, label_score, left, bits)
        else:
            extend_wave(n, wave, a, b, starts[n], low, labels[n], first, offset, blank_score, label_score, left, bits)
        cuda.syncthreads()


@cuda_kernel
def extend_paired_cuda(low, high, since, starts, first, offset, blank_score, label_score, left, bits):
    n = since + cuda.blockIdx.x
    for f in range(max(low, starts[n]), min(high, starts[n + 1])):
        extend_frame(n, f, starts[n], low, first, offset, True, blank_score, label_score, left, bits)
        cuda.syncthreads()


def extend(frames, low, high, since, until, moves, blank_score, label_score, left, bits):
    """Extend the best alignments by a run of frames; all earlier ones have been before.

    Parameters
    ----------
    frames : lattice.layout.Frames
    low, high, since, until : int
        First frame of the run and the frame behind its last, first example that has one of them and the example behind
        the last.
    moves : Moves
    blank_score, label_score : (cells of the run,) float32 or float64
        Scores of the arcs in nats.
    left : (examples, 2, 2, widest + 1) float64
        What the last frame hands on, in nats; overwritten. What it holds before the first run is not read.
    bits : (bit_bytes,) uint8
        Zeros before the first run.
    """
    run, cells = (low, high, since, frames.starts), (frames.first, frames.offset)
    arrays = blank_score, label_score, left, bits
    if on_host(blank_score):
        sweep(extend_cpu, until - since, *run, *cells, moves, *arrays, work=16 * len(blank_score), pieces=8)
        return
    # A ballot asks a whole warp.
    threads = max(WARP, whole_warps(frames.widest + 1, policy.LATTICE_THREADS))
    if moves.paired:
        launch(extend_paired_cuda, until - since, threads, *run, *cells, *arrays)
    else:
        launch(extend_cuda, until - since, threads, *run, frames.labels, *cells, moves.monotonic, *arrays)


def bit_bytes(cells, frames):
    """Bytes for the bits of a number of cells in a number of frames: see `bits_at`."""
    return cells // 8 + frames + 1


def path_memory(take, examples, widest, cells, frames):
    """`left` and `bits` of a search, from `take(shape, dtype)`, for a number of examples, cells and frames."""
    left, bits = take((examples, 2, 2, widest + 1), np.float64), take(bit_bytes(cells, frames), np.uint8)
    bits.fill(0)  # a thread sets the bits of labels and leaves the others
    return left, bits


@register_jitable
def trace(n, begin, end, labels, first, offset, monotonic, left, bits, row, frames):
    """Follow the bits back from the end, note the frame of each label in `frames[row]`, and return the score in nats.

    Frames are counted from `begin`, the first frame of the example.
    """
    f, u = end - 1, labels
    score, last = carried(n, f, u, 0, first, offset, left), CLOSED
    if monotonic and u > 0:
        last = carried(n, f, u - 1, 1, first, offset, left)
    by_label = last > score or last != last
    if by_label:
        score = last
    # -inf or NaN: no alignment to follow, and `frames` is left as it is.
    if not score > CLOSED:
        return score
    if by_label:
        u -= 1
        frames[row, u] = f - begin
    while u > 0 and f >= begin:
        k = u - first[f]
        if bits[bits_at(f, offset) + k // 8] >> (k % 8) & 1:
            u -= 1
            if monotonic:
                f -= 1
            frames[row, u] = f - begin
        else:
            f -= 1
    return score


@cpu_sweep
def trace_cpu(begin, end, starts, labels, first, offset, monotonic, left, bits, examples, score, frames):
    for n in range(begin, end):
        score[n] = trace(
            n, starts[n], starts[n + 1], labels[n], first, offset, monotonic, left, bits, examples[n], frames
        )


@cuda_kernel
def trace_cuda(starts, labels, first, offset, monotonic, left, bits, examples, score, frames):
    n = cuda.grid(1)
    if n < score.shape[0]:
        score[n] = trace(
            n, starts[n], starts[n + 1], labels[n], first, offset, monotonic, left, bits, examples[n], frames
        )


def best_path(frames, moves, left, bits, examples, score, best):
    """The best alignments, after `extend` has seen all frames.

    Parameters
    ----------
    frames, moves, left, bits
        As in `extend`.
    examples : (examples,) int64
        Their rows in `best`, none twice.
    score : (examples,) float64
        Filled with the log-probabilities in nats: -inf where no alignment exists, NaN where one meets NaN.
    best : (B, U) int32
        Set to the frame of each label, counted within the example, where there is an alignment. The caller fills in the
        rest.
    """
    arguments = (frames.first, frames.offset, moves.monotonic, left, bits, examples, score, best)
    if on_host(score):
        sweep(trace_cpu, len(score), frames.starts, frames.labels, *arguments, work=8 * len(bits))
    else:
        by_thread(trace_cuda, len(score), frames.starts, frames.labels, *arguments)
