"""activation(encoder + predictor) for a tile of cells, and its transpose.

The transpose is split over columns: each thread walks all cells of the tile in order, so the sums over cells come out the same
whatever the number of threads, without atomics.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import exp, store, typed, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .locate import frame_of

ACTIVATIONS = {"tanh": 0, "relu": 1, "identity": 2}
SEARCHED = 512
"""Frames searched at once for the cell of one label position."""
MOST_BLOCKS, MOST_THREADS = 4096, 512


@register_jitable
def tanh(x):
    """tanh by the exponential of cells.py, so that the loop over H vectorises; absolute error about 1 ulp of 1."""
    one = typed(1, x)
    e = exp(-abs(x + x))
    return math.copysign((one - e) / (one + e), x)


@register_jitable
def activate(activation, x):
    if activation == 0:
        return tanh(x)
    if activation == 1:
        return typed(0, x) if x < 0 else x
    return x


@register_jitable
def activate_row(activation, encoder, predictor, hidden):
    for h in range(hidden.shape[0]):
        hidden[h] = activate(activation, encoder[h] + predictor[h])


@cpu_sweep
def hidden_cpu(begin, end, activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    # A constant activation leaves loops without a branch, which vectorise.
    for i in range(begin, end):
        e, p = encoder[encoder_row[frame[i]]], predictor[predictor_row[slot[i]]]
        if activation == 0:
            activate_row(0, e, p, hidden[i])
        elif activation == 1:
            activate_row(1, e, p, hidden[i])
        else:
            activate_row(2, e, p, hidden[i])


@cuda_kernel
def hidden_cuda(activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    i = (cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x) // WARP
    if i >= hidden.shape[0]:
        return
    e, p = encoder_row[frame[i]], predictor_row[slot[i]]
    for h in range(cuda.threadIdx.x % WARP, hidden.shape[1], WARP):
        store(hidden, i, h, activate(activation, widen(encoder[e, h]) + widen(predictor[p, h])))


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


@cuda_kernel
def to_frames_cuda(activation, hidden, grad_hidden, frame, grad_encoder):
    # The cells of a frame follow one another: the block that meets the first of them adds them up, in order.
    count, width = hidden.shape
    for i in range(cuda.blockIdx.x, count, cuda.gridDim.x):
        f = frame[i]
        if i > 0 and frame[i - 1] == f:
            continue
        for h in range(cuda.threadIdx.x, width, cuda.blockDim.x):
            summed = grad_encoder[f, h]
            k = i
            while k < count and frame[k] == f:
                summed += through(activation, widen(hidden[k, h]), grad_hidden[k, h])
                k += 1
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
            for k in range(cuda.threadIdx.x, min(SEARCHED, until - f), cuda.blockDim.x):
                step = u - first[f + k]
                inside = 0 <= step < offset[f + k + 1] - offset[f + k]
                found[k] = place_of(offset[f + k] + step, cells) if inside else -1
            cuda.syncthreads()
            for h in range(cuda.threadIdx.x, width, cuda.blockDim.x):
                summed = grad_predictor[slot, h]
                for k in range(min(SEARCHED, until - f)):
                    if found[k] >= 0:
                        summed += through(activation, widen(hidden[found[k], h]), grad_hidden[found[k], h])
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
    threads = min(MOST_THREADS, -(-hidden.shape[1] // WARP) * WARP)
    launch(to_frames_cuda, min(MOST_BLOCKS, len(cells)), threads, activation, hidden, grad_hidden, frame, grad_encoder)
    launch(to_slots_cuda, min(MOST_BLOCKS, len(grad_predictor)), threads, activation, hidden, grad_hidden, frame, cells,
           frames.starts, frames.example, frames.first, frames.offset, label_base, grad_predictor)  # fmt: skip
