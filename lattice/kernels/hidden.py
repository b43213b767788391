"""activation(encoder + predictor) for a tile of cells. On a GPU a warp takes a cell.

A separable activation is a function of the product of two factors, one of the frame and one of the label position
(`factors.py`). A hidden vector is made of these where no entry of either row is far. Of a few far entries a CPU makes
these alone of the inputs; a GPU makes the whole vector of them. `fill_of` and `lanes_of` are the only places that know
both ways, and dropout (dropout.py). The upper bounds take hidden vectors from the same functions, and so see the bits
that the matrix products see.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .activations import ACTIVATIONS, SLOPES, Activation, entry_of, named
from .cells import put, widen
from .dropout import by_type, draws_of, drop_four, drop_next, drop_rows, mask_of, scale_of
from .factors import LISTED, far_entries, far_entry
from .lanes import FOUR, ONE, THREE, TWO, first_behind, first_of, put_eight, put_four, whole_rounds
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep


class Kernels(NamedTuple):
    """What is compiled for an activation."""

    hidden_cpu: Callable
    hidden_cuda: Callable


@functools.cache
def fill_of(activation: Activation) -> Callable:
    """The CPU's `fill(begin, end, *inputs, frame, slot, hidden)`, with `inputs` from encoder to predictor_row.

    It fills `hidden` (end - begin, H), memory apart from all others, with the hidden vectors of cells `begin` to `end`.
    One call makes those of several cells: a call takes as long as a tenth of the work on a cell.
    """
    # To numba these are constants, so the loops hold no choice of an activation.
    value, joined = activation.value, activation.joined

    # Each inner function has a name of its own. Numba's cache holds compiled functions by their names: of two with one
    # name, from two processes, a third process would take one for both.
    # Rows are given by their arrays and places: a row cut out would be counted as in use and no longer, by an atomic
    # instruction each, for each cell.
    @register_jitable
    @named(f"from_inputs_{activation.name}")
    def from_inputs(encoder, e, predictor, p, hidden, i):
        for h in range(hidden.shape[1]):
            hidden[i, h] = value(encoder[e, h] + predictor[p, h])

    if activation.rate is None:

        @register_jitable
        @named(f"fill_{activation.name}")
        def fill(begin, end, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden):
            for i in range(begin, end):
                from_inputs(encoder, encoder_row[frame[i]], predictor, predictor_row[slot[i]], hidden, i - begin)
            if dropout.shape[0]:
                drop_rows(begin, end, dropout, encoder_row.shape[0], frame, slot, hidden)

        return fill

    @register_jitable
    @named(f"fill_{activation.name}")
    def fill_separably(
        begin, end, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden
    ):  # fmt: skip
        width = hidden.shape[1]
        for i in range(begin, end):
            f, s, own = frame[i], slot[i], i - begin
            r, e, p = encoder_row.shape[0] + s, encoder_row[f], predictor_row[s]
            far = far_entries(factors, f, r, width)
            if far > LISTED:
                from_inputs(encoder, e, predictor, p, hidden, own)
                continue
            for h in range(width):
                hidden[own, h] = joined(factors[f, h], factors[r, h])
            for k in range(far):
                h = far_entry(factors, f, r, width, k)
                hidden[own, h] = value(encoder[e, h] + predictor[p, h])
        if dropout.shape[0]:
            drop_rows(begin, end, dropout, encoder_row.shape[0], frame, slot, hidden)

    return fill_separably


def lanes_of(activation: Activation, loop: Callable) -> Callable:
    """A GPU's `run(encoder, predictor, factors, dropout, encoder_row, predictor_row, f, s, lane, *others)`.

    `loop(entry)` gives a function of two rows (H,), a lane, a `Mask` or None, and the others. There `entry` makes an
    entry of the hidden vector, before dropout, from an entry of each row. What the function returns is returned.
    """
    value = activation.value_on_gpu

    @register_jitable
    def of_inputs(e, p):
        return value(widen(e) + widen(p))

    from_inputs = loop(of_inputs)

    @register_jitable
    def run(encoder, predictor, factors, dropout, encoder_row, predictor_row, f, s, lane, *others):
        mask = mask_of(dropout, encoder_row.shape[0], f, s)
        return from_inputs(encoder[encoder_row[f]], predictor[predictor_row[s]], lane, mask, *others)

    if activation.rate is None:
        return run
    from_factors = loop(activation.joined_on_gpu)

    @register_jitable
    def run_separably(encoder, predictor, factors, dropout, encoder_row, predictor_row, f, s, lane, *others):
        mask, r = mask_of(dropout, encoder_row.shape[0], f, s), encoder_row.shape[0] + s
        # The same for all lanes of a warp.
        if far_entries(factors, f, r, encoder.shape[1]) == 0:
            return from_factors(factors[f], factors[r], lane, mask, *others)
        return from_inputs(encoder[encoder_row[f]], predictor[predictor_row[s]], lane, mask, *others)

    return run_separably


def stored(entry: Callable) -> Callable:
    """`loop` of `lanes_of` that stores the hidden vector in row i of `hidden`."""

    @register_jitable
    def four_of(left, right, h):
        a, b = entry(left[h], right[h]), entry(left[h + ONE], right[h + ONE])
        return a, b, entry(left[h + TWO], right[h + TWO]), entry(left[h + THREE], right[h + THREE])

    @register_jitable
    def loop(left, right, lane, mask, hidden, i):
        own = hidden[i]  # (H,)
        scale, rounds = scale_of(mask, entry(left[0], right[0])), whole_rounds(own)
        for k in range(rounds):
            h, (first, second) = first_of(k, lane), draws_of(mask, k, lane)
            # All loads first: the compiler moves none above a store.
            fours = four_of(left, right, h), four_of(left, right, h + FOUR)
            put_eight(own, h, drop_four(fours[0], mask, first, scale), drop_four(fours[1], mask, second, scale))
        h, width = first_behind(own, 0, lane), np.uint64(own.shape[0])
        draws, second = draws_of(mask, rounds, lane)
        if h + THREE < width:
            put_four(own, h, drop_four(four_of(left, right, h), mask, draws, scale))
            h, draws = h + FOUR, second
        while h < width:
            x, draws = drop_next(entry(left[h], right[h]), mask, draws, scale)
            put(own, h, x)
            h += ONE

    return loop


def compile_kernels(activation: Activation) -> Kernels:
    """The kernels of one activation. Nothing is compiled before the first call of each."""
    fill, run = fill_of(activation), lanes_of(activation, stored)

    @cpu_sweep
    @named(f"hidden_{activation.name}_cpu")
    def hidden_cpu(begin, end, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden):
        own = hidden[begin:end]
        fill(begin, end, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, own)

    @cuda_kernel
    @named(f"hidden_{activation.name}_cuda")
    def hidden_cuda(encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden):
        i = np.uint64(cuda.grid(1) // WARP)
        if i >= np.uint64(hidden.shape[0]):
            return
        lane = cuda.threadIdx.x % WARP
        run(encoder, predictor, factors, dropout, encoder_row, predictor_row, frame[i], slot[i], lane, hidden, i)

    return Kernels(hidden_cpu, hidden_cuda)


KERNELS = {activation: compile_kernels(activation) for activation in (*ACTIVATIONS.values(), *SLOPES)}


def compute_hidden(activation, encoder, predictor, factors, dropout, encoder_row, predictor_row, frame, slot, hidden):
    """Fill the hidden vectors of a tile.

    Parameters
    ----------
    activation : Activation
        An entry of `ACTIVATIONS` or of `SLOPES`.
    encoder, predictor : (rows, H) float32 or float64, on a GPU float16 and bfloat16 too
    factors : (frames + slots, H + TAIL) or (0, any), in the dtype that is computed in
        From `make_factors`, of the group's frames and behind them of its label positions; no rows where the activation
        is not separable, or where factors do not pay.
    dropout : (HEAD + frames + slots,) or (0,) int64
        The bits of the seed, and the number of draws of `LEVELS` that drop an entry. Behind these stand n * 2**32 + t
        of each frame of the group, and u of each of its label positions. Empty without dropout.
    encoder_row, predictor_row : (frames,) int64, (slots,) int64
        The rows of the group's frames and of its label positions.
    frame, slot : (n,) int64
        Frame and label position of each cell.
    hidden : (n, H)
        Filled here, rounded to its dtype.
    """
    kernels = entry_of(KERNELS, activation)
    inputs = encoder, predictor, factors, by_type(dropout), encoder_row, predictor_row
    arguments = *inputs, frame, slot, hidden
    if on_host(hidden):
        sweep(kernels.hidden_cpu, len(hidden), *arguments, work=4 * hidden.size)
    else:
        by_warp(kernels.hidden_cuda, len(hidden), *arguments)
