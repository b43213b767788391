"""Walks over the state of cells: upper bounds put in the place of scores, cells counted and marked.

A walk goes from cell `c` to before `high` by `stride`. One thread of a CPU takes every cell; threads of a block take
turns.
"""

from numba.extending import register_jitable

from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .state import WANTED, CellState, is_bounded, is_computed, is_wanted, label_bound_of


@register_jitable
def open_bounds(c, high, stride, blank_score, label_score, maximum, rest):
    """Put the upper bounds of cells that are not computed in the place of their scores."""
    while c < high:
        if not is_computed(rest[c]):
            blank_score[c] = maximum[c]
            label_score[c] = label_bound_of(rest[c])
        c += stride


@cpu_sweep
def open_cpu(begin, end, blank_score, label_score, maximum, rest):
    open_bounds(begin, end, 1, blank_score, label_score, maximum, rest)


@cuda_kernel
def open_cuda(example, offset, blank_score, label_score, maximum, rest):
    f = cuda.grid(1) // WARP
    if f < example.shape[0]:
        open_bounds(offset[f] + cuda.threadIdx.x % WARP, offset[f + 1], WARP, blank_score, label_score, maximum, rest)


def open_all(frames, state: CellState):
    """Put the upper bounds of a group's cells in the place of their scores, to stay. No cell is computed yet."""
    if on_host(state.rest):
        sweep(open_cpu, len(state.rest), *state, work=len(state.rest))
    else:
        by_warp(open_cuda, len(frames.example), frames.example, frames.offset, *state)


@register_jitable
def joins(rest, visit, threshold):
    """Is a cell to be computed? `visit` is its alpha + beta in nats."""
    # Not `visit >= threshold`: a NaN joins, so that it is seen.
    return is_wanted(rest) or (is_bounded(rest) and not visit < threshold)


@register_jitable
def count_joining(c, high, stride, rest, visits, threshold):
    found = 0
    while c < high:
        if joins(rest[c], visits[c], threshold):
            found += 1
        c += stride
    return found


@register_jitable
def claim(c, high, stride, rest, visits, threshold, everything):
    """Mark the cells that are to be computed."""
    while c < high:
        if not is_computed(rest[c]) and (everything or joins(rest[c], visits[c], threshold)):
            rest[c] = WANTED
        c += stride
