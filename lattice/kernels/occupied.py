"""Which cells a pass visits, listed in order: those that must be computed, and those whose posterior reaches the floor.

A cell that the backward pass skips would have added at most twice its posterior, in l1, to the gradient of the logits.
"""

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .block import block_sum
from .cells import CLOSED
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .rows import gather
from .upper_bounds import BOUND

COMPUTED = 0.0
"""Stands for the rest of any computed cell where cells of one kind are asked for."""


@register_jitable
def occupied(blank_posterior, label_posterior, log_z, floor):
    """Is a cell kept? One with NaN is, so that it is seen; none of an example without an alignment is."""
    return log_z != CLOSED and not (blank_posterior + label_posterior < floor)


@register_jitable
def leave_out(c, high, stride, blank, label, kinds, log_z, floor):
    """Mark the cells that are not kept, and return their posterior."""
    left = 0.0
    while c < high:
        if not occupied(blank[c], label[c], log_z, floor):
            left += blank[c] + label[c]
            kinds[c] = BOUND
        c += stride
    return left


@cpu_sweep
def leave_out_cpu(begin, end, starts, offset, log_z, floor, blank, label, kinds, skipped):
    for n in range(begin, end):
        skipped[n] += leave_out(offset[starts[n]], offset[starts[n + 1]], 1, blank, label, kinds, log_z[n], floor)


@cuda_kernel
def leave_out_cuda(starts, offset, log_z, floor, blank, label, kinds, skipped):
    sums = cuda.shared.array(WARP, np.float64)
    n = cuda.blockIdx.x
    low, high = offset[starts[n]] + cuda.threadIdx.x, offset[starts[n + 1]]
    left = block_sum(leave_out(low, high, cuda.blockDim.x, blank, label, kinds, log_z[n], floor), sums)
    if cuda.threadIdx.x == 0:
        skipped[n] += left


@register_jitable
def listed(rest, kind):
    """Is a cell with this rest of that kind?"""
    return rest == kind if kind < 0 else not (rest < 0)


@cpu_sweep
def list_cpu(frames, kinds, kind, cells, edges):
    kept = 0
    for n in range(edges.shape[0] - 1):
        edges[n] = kept
        for c in range(frames.offset[frames.starts[n]], frames.offset[frames.starts[n + 1]]):
            if listed(kinds[c], kind):
                cells[kept] = c
                kept += 1
    edges[edges.shape[0] - 1] = kept


@cpu_sweep
def move_cpu(cells, blank, label, maximum, rest):
    for i in range(cells.shape[0]):
        c = cells[i]
        blank[i], label[i], maximum[i], rest[i] = blank[c], label[c], maximum[c], rest[c]


@register_jitable
def keeps(f, c, offset, kinds, kind):
    """`listed` for a lane of the warp that walks frame f; lanes behind its last cell keep nothing."""
    return c < offset[f + 1] and listed(kinds[c], kind)


@cuda_kernel
def count_cuda(example, offset, kinds, kind, counts):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    lane, kept = cuda.threadIdx.x % WARP, 0
    for c in range(offset[f], offset[f + 1], WARP):
        kept += cuda.popc(cuda.ballot_sync(0xFFFFFFFF, keeps(f, c + lane, offset, kinds, kind)))
    if lane == 0:
        counts[f + 1] = kept


@cuda_kernel
def add_up_cuda(counts, starts, edges):
    # One block turns the counts of the frames into the place of each frame's first cell, and notes it for each example.
    sums = cuda.shared.array(WARP, np.int64)
    lane, warp, warps = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP, cuda.blockDim.x // WARP
    before = 0
    if cuda.threadIdx.x == 0:
        counts[0] = 0
    for begin in range(1, counts.shape[0], cuda.blockDim.x):
        f = begin + cuda.threadIdx.x
        here = counts[f] if f < counts.shape[0] else 0
        for distance in (1, 2, 4, 8, 16):
            other = cuda.shfl_up_sync(0xFFFFFFFF, here, distance)
            if lane >= distance:
                here += other
        if lane == WARP - 1:
            sums[warp] = here
        cuda.syncthreads()
        if f < counts.shape[0]:
            for w in range(warp):
                here += sums[w]
            counts[f] = before + here
        for w in range(warps):
            before += sums[w]
        cuda.syncthreads()
    for n in range(cuda.threadIdx.x, edges.shape[0], cuda.blockDim.x):
        edges[n] = counts[starts[n]]


@cuda_kernel
def list_cuda(example, offset, kinds, kind, counts, cells):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    lane, kept = cuda.threadIdx.x % WARP, counts[f]
    for c in range(offset[f], offset[f + 1], WARP):
        mine = keeps(f, c + lane, offset, kinds, kind)
        votes = cuda.ballot_sync(0xFFFFFFFF, mine)
        if mine:
            cells[kept + cuda.popc(votes & ((1 << lane) - 1))] = c + lane
        kept += cuda.popc(votes)


def list_cells(frames, kinds, kind, cells, edges, counts=None):
    """The numbers of the cells of one kind, in order.

    Parameters
    ----------
    frames : lattice.layout.Frames
    kinds : (cells,) float32 or float64
        The rests of the cells, or what stands in their place.
    kind : float
        BOUND, WANTED, or COMPUTED for any rest.
    cells : (cells,) int64
        Filled with the numbers of those that are kept.
    edges : (examples + 1,) int64
        Filled with the place of each example's first cell, and the number of cells that are kept.
    counts : (frames + 1,) int64
        Scratch, on a GPU.

    Returns
    -------
    edges : (examples + 1,) int64, on the host
        On a GPU this waits for the device, once.
    """
    kind = kinds.dtype.type(kind)
    if on_host(cells):
        list_cpu(frames, kinds, kind, cells, edges)
        return edges
    arguments = (frames.example, frames.offset, kinds, kind, counts)
    by_warp(count_cuda, len(frames.example), *arguments)
    launch(add_up_cuda, 1, policy.SCAN_THREADS, counts, frames.starts, edges)
    by_warp(list_cuda, len(frames.example), *arguments, cells)
    return edges.get()


def compact(frames, log_z, floor, state, cells, edges, skipped, counts=None, spare=None):
    """Move the occupied cells to the front, in order.

    Parameters
    ----------
    frames : lattice.layout.Frames
    log_z : (examples,) float64
        Examples without an alignment are left out.
    floor : float
        Cells with a smaller posterior are skipped; 0 keeps every cell that was computed.
    state : tuple of four (cells,) arrays
        Posteriors of the two arcs, maximum and rest; their memory is used for what is returned.
    cells, edges, counts
        As in `list_cells`.
    skipped : (examples,) float64
        The posterior that is left out here is added to it.
    spare : (cells,) like those of `state`
        Scratch, on a GPU: there nothing can be moved within its own memory.

    Returns
    -------
    edges : (examples + 1,) int64, on the host
        On a GPU this waits for the device, once.
    state : tuple of four arrays
    """
    blank, label, _, kinds = state
    arguments = (frames.starts, frames.offset, log_z, floor, blank, label, kinds, skipped)
    if on_host(cells):
        sweep(leave_out_cpu, len(skipped), *arguments, work=len(kinds))
    else:
        launch(leave_out_cuda, len(skipped), policy.SCAN_THREADS, *arguments)
    edges = list_cells(frames, kinds, COMPUTED, cells, edges, counts)
    kept = cells[: edges[-1]]
    if on_host(cells):
        move_cpu(kept, *state)
        return edges, tuple(array[: edges[-1]] for array in state)
    moved = []
    for array in state:
        target = spare[: edges[-1]]
        gather(array[:, None], kept, target[:, None])
        moved.append(target)
        spare = array
    return edges, tuple(moved)
