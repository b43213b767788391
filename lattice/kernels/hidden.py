"""activation(encoder + predictor) for a tile of cells, and its transpose.

The transpose is split over columns: each thread walks all cells of the tile in order, so the sums over cells come out the same
whatever the number of threads, without atomics. On a GPU a block takes a frame, or a label position, and adds up its cells in
the same order.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import exp, store, typed, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps
from .locate import frame_of

ACTIVATIONS = {"tanh": 0, "relu": 1, "identity": 2}
SEARCHED = 512
"""Frames searched at once for the cell of one label position, a multiple of four."""
MOST_BLOCKS, MOST_THREADS = 4096, 256


@register_jitable
def tanh(x, e):
    """tanh from e = exp(-2 |x|); absolute error about 1 ulp of 1."""
    one = typed(1, x)
    return math.copysign((one - e) / (one + e), x)


@register_jitable
def rectify(x):
    return typed(0, x) if x < 0 else x


@register_jitable
def activate_row(activation, encoder, predictor, hidden):
    # A loop for each activation: without a branch, and by the exponential of cells.py, it vectorises.
    if activation == 0:
        for h in range(hidden.shape[0]):
            x = encoder[h] + predictor[h]
            hidden[h] = tanh(x, exp(-abs(x + x)))
    elif activation == 1:
        for h in range(hidden.shape[0]):
            hidden[h] = rectify(encoder[h] + predictor[h])
    else:
        for h in range(hidden.shape[0]):
            hidden[h] = encoder[h] + predictor[h]


@cpu_sweep
def hidden_cpu(begin, end, activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    for i in range(begin, end):
        activate_row(activation, encoder[encoder_row[frame[i]]], predictor[predictor_row[slot[i]]], hidden[i])


@register_jitable
def activate(activation, x):
    """One entry; `activation` is a constant at each call."""
    if activation == 0:
        return tanh(x, math.exp(-abs(x + x)))
    return rectify(x) if activation == 1 else x


@register_jitable
def activate_lane(activation, encoder, e, predictor, p, hidden, i, lane):
    """A lane's part of one hidden vector; `activation` is a constant at each call, and the index is unsigned."""
    for begin in range(0, hidden.shape[1] - lane, WARP):
        h = np.uint64(begin + lane)
        store(hidden, i, h, activate(activation, widen(encoder[e, h]) + widen(predictor[p, h])))


@cuda_kernel
def hidden_cuda(activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    i = cuda.grid(1) // WARP
    if i >= hidden.shape[0]:
        return
    lane, e, p = cuda.threadIdx.x % WARP, encoder_row[frame[i]], predictor_row[slot[i]]
    if activation == 0:
        activate_lane(0, encoder, e, predictor, p, hidden, i, lane)
    elif activation == 1:
        activate_lane(1, encoder, e, predictor, p, hidden, i, lane)
    else:
        activate_lane(2, encoder, e, predictor, p, hidden, i, lane)


def compute_hidden(activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    """Fill the hidden vectors of a tile.

    Parameters
    ----------
    activation : int
        A value of `ACTIVATIONS`.
    encoder, predictor : (rows, H) float32 or float64, on a GPU float16 and bfloat16 too
    encoder_row, predictor_row : (frames,) int64, (slots,) int64
        The rows of the group's frames and of its label positions.
    frame, slot : (n,) int64
        Frame and label position of each cell.
    hidden : (n, H)
        Filled here.
    """
    arguments = (activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden)
    if on_host(hidden):
        sweep(hidden_cpu, len(hidden), *arguments, work=4 * hidden.size)
    else:
        by_warp(hidden_cuda, len(hidden), *arguments)


@register_jitable
def through(activation, hidden, grad_hidden):
    """Gradient before the activation, from the gradient behind it and the activation's value."""
    if activation == 0:
        return grad_hidden - grad_hidden * hidden * hidden
    if activation == 1 and hidden <= 0:
        return typed(0, grad_hidden)
    return grad_hidden


@register_jitable
def spread(activation, hidden, grad_hidden, to_encoder, to_predictor):
    for h in range(hidden.shape[0]):
        x = through(activation, hidden[h], grad_hidden[h])
        to_encoder[h] += x
        to_predictor[h] += x


@cpu_sweep
def hidden_transpose_cpu(begin, end, activation, hidden, grad_hidden, frame, slot, grad_encoder, grad_predictor):
    for i in range(hidden.shape[0]):
        to_encoder = grad_encoder[frame[i], begin:end]
        to_predictor = grad_predictor[slot[i], begin:end]
        if activation == 0:
            spread(0, hidden[i, begin:end], grad_hidden[i, begin:end], to_encoder, to_predictor)
        elif activation == 1:
            spread(1, hidden[i, begin:end], grad_hidden[i, begin:end], to_encoder, to_predictor)
        else:
            spread(2, hidden[i, begin:end], grad_hidden[i, begin:end], to_encoder, to_predictor)


@register_jitable
def place_of(cell, cells):
    """Index of a cell in an ascending list, -1 where it is not there. In a list without holes the first guess is right."""
    last = cells.shape[0] - 1
    low, high = max(0, last - (cells[last] - cell)), min(last, cell - cells[0])
    while low < high:
        middle = (low + high) // 2
        if cells[middle] < cell:
            low = middle + 1
        else:
            high = middle
    return low if low == high and cells[low] == cell else -1


@register_jitable
def pulled_back(activation, hidden, grad_hidden, k, h):
    """`through` for cell k, 0 where k is -1: without a branch, so that the loads of several cells are under way at once."""
    at, column = np.uint64(max(k, 0)), np.uint64(h)
    x = through(activation, widen(hidden[at, column]), grad_hidden[at, column])
    return x if k >= 0 else typed(0, x)


@cuda_kernel
def to_frames_cuda(activation, hidden, grad_hidden, frame, grad_encoder):
    # The cells of a frame follow one another: the block that meets the first of them adds them up, in order.
    count, width = hidden.shape
    for i in range(cuda.blockIdx.x, count, cuda.gridDim.x):
        f = frame[i]
        if i > 0 and frame[i - 1] == f:
            continue
        last, end = i, count
        while end - last > 1:
            middle = (last + end) // 2
            if frame[middle] == f:
                last = middle
            else:
                end = middle
        for h in range(cuda.threadIdx.x, width, cuda.blockDim.x):
            summed = grad_encoder[f, h]
            for k in range(i, end, 4):
                a = pulled_back(activation, hidden, grad_hidden, k, h)
                b = pulled_back(activation, hidden, grad_hidden, k + 1 if k + 1 < end else -1, h)
                c = pulled_back(activation, hidden, grad_hidden, k + 2 if k + 2 < end else -1, h)
                d = pulled_back(activation, hidden, grad_hidden, k + 3 if k + 3 < end else -1, h)
                summed = summed + a + b + c + d
            grad_encoder[f, h] = summed


@cuda_kernel
def to_slots_cuda(
    activation, hidden, grad_hidden, frame, cells, starts, example, first, offset, label_base, grad_predictor
):  # fmt: skip
    # A block takes a label position and looks for its cell in each frame, as many frames at once as it has threads; then all
    # threads add up the cells that were found, frame by frame.
    count, width = hidden.shape
    found = cuda.shared.array(SEARCHED, np.int32)
    begin, end = frame[0], frame[count - 1] + 1
    lowest = label_base[example[begin]]
    highest = label_base[example[end - 1] + 1]
    for slot in range(lowest + cuda.blockIdx.x, highest, cuda.gridDim.x):
        n = frame_of(slot, label_base)
        u = slot - label_base[n]
        since, until = max(begin, starts[n]), min(end, starts[n + 1])
        for f in range(since, until, SEARCHED):
            for k in range(cuda.threadIdx.x, SEARCHED, cuda.blockDim.x):
                found[k] = -1
                if f + k < until:
                    step = u - first[f + k]
                    if 0 <= step < offset[f + k + 1] - offset[f + k]:
                        found[k] = place_of(offset[f + k] + step, cells)
            cuda.syncthreads()
            for h in range(cuda.threadIdx.x, width, cuda.blockDim.x):
                summed = grad_predictor[slot, h]
                for k in range(0, min(SEARCHED, until - f), 4):
                    a = pulled_back(activation, hidden, grad_hidden, found[k], h)
                    b = pulled_back(activation, hidden, grad_hidden, found[k + 1], h)
                    c = pulled_back(activation, hidden, grad_hidden, found[k + 2], h)
                    d = pulled_back(activation, hidden, grad_hidden, found[k + 3], h)
                    summed = summed + a + b + c + d
                grad_predictor[slot, h] = summed
            cuda.syncthreads()


def hidden_transpose(activation, hidden, grad_hidden, frame, slot, cells, frames, label_base, grad_encoder, grad_predictor):
    """Add the gradient of a tile's hidden vectors to the rows they were made of.

    Parameters
    ----------
    activation : int
    hidden, grad_hidden : (n, H)
    frame, slot, cells : (n,) int64
        Frame and label position of each cell, and its number, ascending.
    frames : lattice.layout.Frames
    label_base : (examples + 1,) int64
        First label position of each example.
    grad_encoder, grad_predictor : (frames, H), (slots, H)
        Added to, cell by cell in order.
    """
    if on_host(hidden):
        sweep(hidden_transpose_cpu, hidden.shape[1], activation, hidden, grad_hidden, frame, slot, grad_encoder, grad_predictor,
              work=2 * hidden.size)  # fmt: skip
        return
    threads = whole_warps(hidden.shape[1], MOST_THREADS)
    launch(to_frames_cuda, min(MOST_BLOCKS, len(cells)), threads, activation, hidden, grad_hidden, frame, grad_encoder)
    launch(to_slots_cuda, min(MOST_BLOCKS, len(grad_predictor)), threads, activation, hidden, grad_hidden, frame, cells,
           frames.starts, frames.example, frames.first, frames.offset, label_base, grad_predictor)  # fmt: skip
