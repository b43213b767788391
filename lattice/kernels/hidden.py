"""activation(encoder + predictor) for a tile of cells. On a GPU a warp takes a cell."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .activations import ACTIVATIONS, Activation, entry_of, named
from .cells import store, widen
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep


class Kernels(NamedTuple):
    """What is compiled for an activation."""

    hidden_cpu: Callable
    hidden_cuda: Callable


def compile_kernels(activation: Activation) -> Kernels:
    """The kernels of one activation. Nothing is compiled before the first call of each."""
    # To numba these are constants, so the loops hold no choice of an activation.
    value, value_on_gpu = activation.value, activation.value_on_gpu

    @cpu_sweep
    @named(f"hidden_{activation.name}_cpu")
    def hidden_cpu(begin, end, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
        for i in range(begin, end):
            # (H,) each; `own` is memory apart from the other two.
            e, p, own = encoder[encoder_row[frame[i]]], predictor[predictor_row[slot[i]]], hidden[i]
            for h in range(own.shape[0]):
                own[h] = value(e[h] + p[h])

    @cuda_kernel
    @named(f"hidden_{activation.name}_cuda")
    def hidden_cuda(encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
        i = cuda.grid(1) // WARP
        if i >= hidden.shape[0]:
            return
        lane, e, p = cuda.threadIdx.x % WARP, encoder_row[frame[i]], predictor_row[slot[i]]
        for begin in range(0, hidden.shape[1] - lane, WARP):
            # Unsigned, because a signed index may be negative and asks for more instructions.
            h = np.uint64(begin + lane)
            store(hidden, i, h, value_on_gpu(widen(encoder[e, h]) + widen(predictor[p, h])))

    return Kernels(hidden_cpu, hidden_cuda)


KERNELS = {activation: compile_kernels(activation) for activation in ACTIVATIONS.values()}


def compute_hidden(activation, encoder, predictor, encoder_row, predictor_row, frame, slot, hidden):
    """Fill the hidden vectors of a tile.

    Parameters
    ----------
    activation : Activation
        An entry of `ACTIVATIONS`.
    encoder, predictor : (rows, H) float32 or float64, on a GPU float16 and bfloat16 too
    encoder_row, predictor_row : (frames,) int64, (slots,) int64
        The rows of the group's frames and of its label positions.
    frame, slot : (n,) int64
        Frame and label position of each cell.
    hidden : (n, H)
        Filled here, rounded to its dtype.
    """
    kernels = entry_of(KERNELS, activation)
    arguments = (encoder, predictor, encoder_row, predictor_row, frame, slot, hidden)
    if on_host(hidden):
        sweep(kernels.hidden_cpu, len(hidden), *arguments, work=4 * hidden.size)
    else:
        by_warp(kernels.hidden_cuda, len(hidden), *arguments)
