"""Cells and padded arrays (B, T, U+1): scores of arcs read out of them, posteriors of arcs laid out in them.

Kernels see a padded array as rows (B * depth, U+1): one for each frame of each example, `depth` of them an example.
Cells are numbered as `layout.Frames` says.
"""

import math

import numpy as np
from numba.extending import register_jitable

from .cells import NEGLIGIBLE, flush, typed, widen
from .launch import WARP, by_thread, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .locate import frame_of
from .scaled import FARTHEST


@register_jitable
def read_frame(
    f, lane, lanes, starts, labels, example, first, offset, depth, delay_penalty, most, blank_rows, label_rows,
    blank_score, label_score,
):  # fmt: skip
    """Read the scores of every `lanes`-th cell of frame f, from the `lane`-th on."""
    n = example[f]
    t, frames = f - starts[n], starts[n + 1] - starts[n]
    row = n * depth + t
    # From the middle of the example. As in delay.py, it is float64, and a score is rounded once.
    reward = delay_penalty * (0.5 * (frames - 1 - 2 * t))
    for c in range(offset[f] + lane, offset[f + 1], lanes):
        u = first[f] + c - offset[f]
        blank_here = widen(blank_rows[row, u])
        label_here = typed(-math.inf, blank_here)
        # Behind the last label there is no arc, and the array may hold anything.
        if u < labels[n]:
            label_here = typed(widen(label_rows[row, u]) + reward, blank_here)
        # Not `>`, which a NaN would pass. Both scores tell of it, as those of a row of logits with a NaN do.
        if not (blank_here <= most and label_here <= most):
            blank_here, label_here = typed(math.nan, blank_here), typed(math.nan, blank_here)
        blank_score[c], label_score[c] = blank_here, label_here


@cpu_sweep
def read_scores_cpu(
    begin, end, starts, labels, example, first, offset, depth, delay_penalty, most, blank_rows, label_rows,
    blank_score, label_score,
):  # fmt: skip
    cells, padded = (starts, labels, example, first, offset), (blank_rows, label_rows)
    for f in range(begin, end):
        read_frame(f, 0, 1, *cells, depth, delay_penalty, most, *padded, blank_score, label_score)


@cuda_kernel
def read_scores_cuda(
    starts, labels, example, first, offset, depth, delay_penalty, most, blank_rows, label_rows, blank_score, label_score
):
    cells, padded = (starts, labels, example, first, offset), (blank_rows, label_rows)
    f, lane = cuda.grid(1) // WARP, cuda.threadIdx.x % WARP
    if f < example.shape[0]:
        read_frame(f, lane, WARP, *cells, depth, delay_penalty, most, *padded, blank_score, label_score)


def read_scores(frames, blank_scores, label_scores, delay_penalty, blank_score, label_score):
    """Read the scores of all cells of a batch out of padded arrays.

    Parameters
    ----------
    frames : lattice.layout.Frames
        Of all examples, in the order of the batch.
    blank_scores, label_scores : (B, T, U+1) float32 or float64, on a GPU float16 and bfloat16 too
        Of any sign, in nats. NaN, +inf and what no sum can hold become NaN for both arcs of a cell.
    delay_penalty : float
        `delay_penalty * ((T_b - 1) / 2 - t)` is added to the score of a label arc.
    blank_score, label_score : (cells,) float32 or float64
        Filled here. The label score is -inf where no label is left.
    """
    real, (_, depth, width) = blank_score.dtype.type, blank_scores.shape
    # Typed: a Python float would turn the arithmetic of a float32 kernel into float64.
    most = real(min(float(np.finfo(real).max), FARTHEST))
    cells = frames.starts, frames.labels, frames.example, frames.first, frames.offset, depth
    padded = blank_scores.reshape(-1, width), label_scores.reshape(-1, width)  # (B * depth, U+1) each, views
    arguments = *cells, float(delay_penalty), most, *padded, blank_score, label_score
    if on_host(blank_score):
        sweep(read_scores_cpu, len(frames.example), *arguments, work=4 * len(blank_score))
    else:
        by_warp(read_scores_cuda, len(frames.example), *arguments)


@register_jitable
def lay_out_cell(
    i, c, f, starts, labels, example, first, offset, examples, depth, scale, tiny, blank_posterior, label_posterior,
    blank_rows, label_rows,
):  # fmt: skip
    """Write the posteriors at place i, which are those of cell c of frame f."""
    n, u = example[f], first[f] + c - offset[f]
    b = examples[n]
    row, factor = b * depth + f - starts[n], scale[b] if scale.shape[0] else typed(1, tiny)
    blank_rows[row, u] = flush(factor * blank_posterior[i], tiny)
    if u < labels[n]:
        label_rows[row, u] = flush(factor * label_posterior[i], tiny)


@cpu_sweep
def lay_out_cpu(
    begin, end, cells, starts, labels, example, first, offset, examples, depth, scale, tiny, blank_posterior,
    label_posterior, blank_rows, label_rows,
):  # fmt: skip
    places, posteriors = (starts, labels, example, first, offset, examples, depth), (blank_posterior, label_posterior)
    # One search for the range. Cells ascend, so from there on the frame does, too.
    f = frame_of(cells[begin] if cells.shape[0] else begin, offset)
    for i in range(begin, end):
        c = cells[i] if cells.shape[0] else i
        while offset[f + 1] <= c:
            f += 1
        lay_out_cell(i, c, f, *places, scale, tiny, *posteriors, blank_rows, label_rows)


@cuda_kernel
def lay_out_cuda(
    cells, starts, labels, example, first, offset, examples, depth, scale, tiny, blank_posterior, label_posterior,
    blank_rows, label_rows,
):  # fmt: skip
    places, posteriors = (starts, labels, example, first, offset, examples, depth), (blank_posterior, label_posterior)
    i = cuda.grid(1)
    if i < blank_posterior.shape[0]:
        c = cells[i] if cells.shape[0] else i
        lay_out_cell(i, c, frame_of(c, offset), *places, scale, tiny, *posteriors, blank_rows, label_rows)


def lay_out(frames, examples, cells, blank_posterior, label_posterior, scale, blank_target, label_target):
    """Write posteriors of cells into padded arrays, times a factor; other entries stay as they are.

    Parameters
    ----------
    frames : lattice.layout.Frames
    examples : (examples,) int64
        Their places in the padded arrays.
    cells : (n,) or (0,) int64
        The cells whose posteriors are given, ascending; none if these are all cells.
    blank_posterior, label_posterior : (n,) float32 or float64
    scale : (B,) or (0,), as the posteriors
        A factor of any sign for each place, or none for 1. Products below `NEGLIGIBLE` become 0.
    blank_target, label_target : (B, T, U+1), as the posteriors
        No label arc leaves the last position, so there `label_target` stays as it is.
    """
    _, depth, width = blank_target.shape
    lattices = cells, frames.starts, frames.labels, frames.example, frames.first, frames.offset, examples, depth
    numbers = scale, blank_target.dtype.type(NEGLIGIBLE), blank_posterior, label_posterior
    padded = blank_target.reshape(-1, width), label_target.reshape(-1, width)  # (B * depth, U+1) each, views
    count = len(blank_posterior)
    if on_host(blank_target):
        sweep(lay_out_cpu, count, *lattices, *numbers, *padded, work=8 * count)
    else:
        by_thread(lay_out_cuda, count, *lattices, *numbers, *padded)
