"""Which cells the backward pass visits: those whose posterior reaches the floor, gathered in order.

A skipped cell would have added at most twice its posterior, in l1, to the gradient of the logits.
"""

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .cells import CLOSED
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host
from .rows import gather


@register_jitable
def occupied(blank_posterior, label_posterior, log_z, floor):
    """Is a cell kept? One with NaN is, so that it is seen; none of an example without an alignment is."""
    return log_z != CLOSED and not (blank_posterior + label_posterior < floor)


@cpu_sweep
def compact_cpu(frames, log_z, floor, blank, label, maximum, total, cells, edges):
    kept = 0
    for n in range(log_z.shape[0]):
        edges[n] = kept
        for c in range(frames.offset[frames.starts[n]], frames.offset[frames.starts[n + 1]]):
            if occupied(blank[c], label[c], log_z[n], floor):
                cells[kept] = c
                blank[kept] = blank[c]
                label[kept] = label[c]
                maximum[kept] = maximum[c]
                total[kept] = total[c]
                kept += 1
    edges[log_z.shape[0]] = kept


@register_jitable
def keeps(f, c, example, offset, log_z, floor, blank, label):
    """`occupied` for a lane of the warp that walks frame f; lanes behind its last cell keep nothing."""
    return c < offset[f + 1] and occupied(blank[c], label[c], log_z[example[f]], floor)


@cuda_kernel
def count_cuda(example, offset, log_z, floor, blank, label, counts):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    lane, kept = cuda.threadIdx.x % WARP, 0
    for c in range(offset[f], offset[f + 1], WARP):
        kept += cuda.popc(cuda.ballot_sync(0xFFFFFFFF, keeps(f, c + lane, example, offset, log_z, floor, blank, label)))
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
def list_cuda(example, offset, log_z, floor, blank, label, counts, cells):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    lane, kept = cuda.threadIdx.x % WARP, counts[f]
    for c in range(offset[f], offset[f + 1], WARP):
        mine = keeps(f, c + lane, example, offset, log_z, floor, blank, label)
        votes = cuda.ballot_sync(0xFFFFFFFF, mine)
        if mine:
            cells[kept + cuda.popc(votes & ((1 << lane) - 1))] = c + lane
        kept += cuda.popc(votes)


def compact(frames, log_z, floor, state, cells, edges, counts=None, spare=None):
    """Move the occupied cells to the front, in order.

    Parameters
    ----------
    frames : lattice.layout.Frames
    log_z : (examples,) float64
        Examples without an alignment are left out.
    floor : float
        Cells with a smaller posterior are skipped; 0 keeps every cell.
    state : tuple of four (cells,) arrays
        Posteriors of the two arcs, maximum and total; their memory is used for what is returned.
    cells : (cells,) int64
        Filled with the numbers of the cells that are kept.
    edges : (examples + 1,) int64
        Filled with the place of each example's first cell, and the number of cells that are kept.
    counts : (frames + 1,) int64
        Scratch, on a GPU.
    spare : (cells,) like those of `state`
        Scratch, on a GPU: there nothing can be moved within its own memory.

    Returns
    -------
    edges : (examples + 1,) int64, on the host
        On a GPU this waits for the device, once.
    state : tuple of four arrays
    """
    if on_host(cells):
        compact_cpu(frames, log_z, floor, *state, cells, edges)
        return edges, tuple(array[: edges[-1]] for array in state)
    blank, label = state[:2]
    arguments = (frames.example, frames.offset, log_z, floor, blank, label, counts)
    by_warp(count_cuda, len(frames.example), *arguments)
    launch(add_up_cuda, 1, policy.SCAN_THREADS, counts, frames.starts, edges)
    by_warp(list_cuda, len(frames.example), *arguments, cells)
    edges = edges.get()
    moved = []
    for array in state:
        target = spare[: edges[-1]]
        gather(array[:, None], cells[: edges[-1]], target[:, None])
        moved.append(target)
        spare = array
    return edges, tuple(moved)
