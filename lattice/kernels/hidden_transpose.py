"""The transpose of `hidden.compute_hidden`: gradients of a tile's hidden vectors, added up for its frames and slots.

On a CPU the columns are split among the threads. Each thread walks all cells of the tile in order, so the sums over
cells come out the same whatever the number of threads, without atomics. On a GPU a block takes a frame, or a label
position, and adds up its cells in the same order.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .activations import ACTIVATIONS, SLOPES, Activation, entry_of, named
from .cells import typed, widen
from .dropout import by_type, kept_of, through_dropout
from .launch import cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps
from .locate import frame_of

SEARCHED = 512
"""Frames searched at once for the cell of one label position, a multiple of four."""
MOST_BLOCKS, MOST_THREADS = 4096, 256
# Unsigned, because a signed index may be negative and asks for more instructions.
ONE, TWO, THREE, FOUR = map(np.uint64, (1, 2, 3, 4))


class Kernels(NamedTuple):
    """What is compiled for an activation."""

    transpose_cpu: Callable
    to_frames_cuda: Callable
    to_slots_cuda: Callable


@register_jitable
def place_of(cell, cells):
    """Place of a cell in an ascending list, or -1. In a list without holes the first guess is right."""
    last = cells.shape[0] - 1
    # Cells ascend by 1 or more, so a cell is no more places away from either end than its number is.
    low, high = max(0, last - (cells[last] - cell)), min(last, cell - cells[0])
    while low < high:
        middle = (low + high) // 2
        if cells[middle] < cell:
            low = middle + 1
        else:
            high = middle
    # Of a cell before the first or behind the last, low is above high.
    return low if low == high and cells[low] == cell else -1


def compile_kernels(activation: Activation) -> Kernels:
    """The kernels of one activation. Nothing is compiled before the first call of each."""
    through = activation.through

    @cpu_sweep
    @named(f"hidden_transpose_{activation.name}_cpu")
    def transpose_cpu(begin, end, hidden, grad_hidden, dropout, frame, slot, grad_encoder, grad_predictor):
        # A range of columns. No other thread adds to them, so there is no lock.
        for i in range(hidden.shape[0]):
            own, grad_own = hidden[i, begin:end], grad_hidden[i, begin:end]
            to_encoder, to_predictor = grad_encoder[frame[i], begin:end], grad_predictor[slot[i], begin:end]
            if dropout.shape[0]:
                kept = kept_of(dropout, grad_own[0])
                for h in range(own.shape[0]):
                    x = through_dropout(through, own[h], grad_own[h], kept)
                    to_encoder[h] += x
                    to_predictor[h] += x
                continue
            for h in range(own.shape[0]):
                x = through(own[h], grad_own[h])
                to_encoder[h] += x
                to_predictor[h] += x

    @register_jitable
    def gradient_at(hidden, grad_hidden, kept, k, h):
        return through_dropout(through, widen(hidden[k, h]), grad_hidden[k, h], kept)

    @register_jitable
    def pulled_back(hidden, grad_hidden, kept, k, h):
        """`gradient_at` for cell k, an int32, or 0 where k is -1.

        Without a branch, the loads of several cells are under way at once.
        """
        at = np.uint32(max(k, 0))  # of 32 bits, so that the product with the width is shorter
        x = gradient_at(hidden, grad_hidden, kept, np.uint64(at), h)
        # Chosen, not multiplied by 0: where k is -1, x belongs to cell 0 and may be NaN.
        return x if k >= 0 else typed(0, x)

    @cuda_kernel
    @named(f"to_frames_{activation.name}_cuda")
    def to_frames_cuda(hidden, grad_hidden, dropout, frame, grad_encoder):
        kept = kept_of(dropout, grad_hidden[0, 0])
        # The cells of a frame follow one another: the block that meets the first of them adds them up, in order.
        count, width = hidden.shape
        for i in range(cuda.blockIdx.x, count, cuda.gridDim.x):
            f = frame[i]
            if i > 0 and frame[i - 1] == f:
                continue
            # frame[last] is f; frame[end] is another one, or beyond the list. `frame` never decreases.
            last, end = i, count
            while end - last > 1:
                middle = (last + end) // 2
                if frame[middle] == f:
                    last = middle
                else:
                    end = middle
            for h in range(cuda.threadIdx.x, width, cuda.blockDim.x):
                summed, column, k, stop = grad_encoder[f, h], np.uint64(h), np.uint64(i), np.uint64(end)
                # Four loads at once; the additions go from left to right, in the order of the cells.
                while k + THREE < stop:
                    a = gradient_at(hidden, grad_hidden, kept, k, column)
                    b = gradient_at(hidden, grad_hidden, kept, k + ONE, column)
                    c = gradient_at(hidden, grad_hidden, kept, k + TWO, column)
                    d = gradient_at(hidden, grad_hidden, kept, k + THREE, column)
                    summed = summed + a + b + c + d
                    k += FOUR
                while k < stop:
                    summed += gradient_at(hidden, grad_hidden, kept, k, column)
                    k += ONE
                grad_encoder[f, h] = summed

    @cuda_kernel
    @named(f"to_slots_{activation.name}_cuda")
    def to_slots_cuda(
        hidden, grad_hidden, dropout, frame, cells, starts, example, first, offset, label_base, grad_predictor
    ):  # fmt: skip
        # A block takes a label position and looks for its cell in each frame, as many frames at once as it has threads;
        # then all threads add up the cells that were found, frame by frame.
        (count, width), kept = hidden.shape, kept_of(dropout, grad_hidden[0, 0])
        found = cuda.shared.array(SEARCHED, np.int32)  # place in the tile of each frame's cell, or -1
        begin, end = frame[0], frame[count - 1] + 1  # frames of the tile
        lowest = label_base[example[begin]]
        highest = label_base[example[end - 1] + 1]
        for slot in range(lowest + cuda.blockIdx.x, highest, cuda.gridDim.x):
            # The search of `frame_of` is used for the example of a slot, among the first slots of the examples.
            n = frame_of(slot, label_base)
            u = slot - label_base[n]
            since, until = max(begin, starts[n]), min(end, starts[n + 1])
            # `slot` and f are the same in all threads of the block, so all of them meet at both barriers.
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
                    # Up to three places behind `until` are read: they hold -1.
                    column, k = np.uint64(h), np.uint64(0)
                    while k < np.uint64(min(SEARCHED, until - f)):
                        a = pulled_back(hidden, grad_hidden, kept, found[k], column)
                        b = pulled_back(hidden, grad_hidden, kept, found[k + ONE], column)
                        c = pulled_back(hidden, grad_hidden, kept, found[k + TWO], column)
                        d = pulled_back(hidden, grad_hidden, kept, found[k + THREE], column)
                        summed = summed + a + b + c + d
                        k += FOUR
                    grad_predictor[slot, h] = summed
                # `found` is written again in the next round.
                cuda.syncthreads()

    return Kernels(transpose_cpu, to_frames_cuda, to_slots_cuda)


KERNELS = {activation: compile_kernels(activation) for activation in ACTIVATIONS.values() if activation.slope is None}
# What multiplies by a slope does not ask which.
KERNELS |= dict.fromkeys(SLOPES, compile_kernels(SLOPES[0]._replace(name="slope")))


def hidden_transpose(
    activation, hidden, grad_hidden, dropout, frame, slot, cells, frames, label_base, grad_encoder, grad_predictor
):
    """Add the gradient of a tile's hidden vectors to the gradients of the rows they are made of.

    Parameters
    ----------
    activation : Activation
        An entry of `ACTIVATIONS` without a slope, or one of `SLOPES`.
    hidden, grad_hidden : (n, H)
        On a GPU `hidden` may be bfloat16; gradients are float32 or float64.
    dropout
        As in `hidden.compute_hidden`.
    frame, slot, cells : (n,) int64
        Frame and label position of each cell, and its number, ascending.
    frames : lattice.layout.Frames
    label_base : (examples + 1,) int64
        First label position of each example.
    grad_encoder, grad_predictor : (frames, H), (slots, H)
        Added to, cell by cell in order.
    """
    kernels, gradients = entry_of(KERNELS, activation), (hidden, grad_hidden, by_type(dropout))
    if on_host(hidden):
        arguments = *gradients, frame, slot, grad_encoder, grad_predictor
        sweep(kernels.transpose_cpu, hidden.shape[1], *arguments, work=2 * hidden.size)
        return
    threads = whole_warps(hidden.shape[1], MOST_THREADS)
    launch(kernels.to_frames_cuda, min(MOST_BLOCKS, len(cells)), threads, *gradients, frame, grad_encoder)
    numbering = frame, cells, frames.starts, frames.example, frames.first, frames.offset, label_base
    blocks = min(MOST_BLOCKS, len(grad_predictor))
    launch(kernels.to_slots_cuda, blocks, threads, *gradients, *numbering, grad_predictor)
