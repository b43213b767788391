"""Which cells a pass visits, listed in order: cells to be computed, or cells whose posterior reaches the floor.

A cell that the backward pass skips would have added at most twice its posterior, in l1, to the gradient of the logits.
For HAT, occupied_hat.py lists more.
"""

import numpy as np
from numba.extending import register_jitable

from . import launch as policy
from .block import block_sum
from .cells import CLOSED, NEGLIGIBLE
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep
from .rows import cast, gather
from .state import BOUND, ArcPosteriors, Visited, is_computed, is_wanted


@register_jitable
def occupied(blank_posterior, label_posterior, log_z, floor):
    """Is a cell kept? Of an example without an alignment, no cell is."""
    # Not `>= floor`: a NaN is kept, so that it is seen.
    return log_z != CLOSED and not (blank_posterior + label_posterior < floor)


@register_jitable
def leave_out(c, high, stride, blank_posterior, label_posterior, rest, log_z, floor):
    """Mark the cells that are not kept, and return the sum of their posteriors."""
    left = 0.0
    while c < high:
        if not occupied(blank_posterior[c], label_posterior[c], log_z, floor):
            left += blank_posterior[c] + label_posterior[c]
            # As if it had never been computed, so the list passes it by.
            rest[c] = BOUND
        c += stride
    return left


@cpu_sweep
def leave_out_cpu(begin, end, starts, offset, log_z, floor, blank_posterior, label_posterior, rest, skipped):
    for n in range(begin, end):
        low, high = offset[starts[n]], offset[starts[n + 1]]
        skipped[n] += leave_out(low, high, 1, blank_posterior, label_posterior, rest, log_z[n], floor)


@cuda_kernel
def leave_out_cuda(starts, offset, log_z, floor, blank_posterior, label_posterior, rest, skipped):
    partial = cuda.shared.array(WARP, np.float64)
    n, stride = cuda.blockIdx.x, cuda.blockDim.x
    low, high = offset[starts[n]] + cuda.threadIdx.x, offset[starts[n + 1]]
    left = block_sum(leave_out(low, high, stride, blank_posterior, label_posterior, rest, log_z[n], floor), partial)
    if cuda.threadIdx.x == 0:
        skipped[n] += left


@register_jitable
def listed(rest, wanted):
    """Is a cell of the kind that is asked for: to be computed next if `wanted`, else computed?"""
    return is_wanted(rest) if wanted else is_computed(rest)


@cpu_sweep
def list_cpu(frames, rest, wanted, cells, first_cell):
    # On one thread: the place of a cell depends on all cells before it.
    kept = 0
    for n in range(first_cell.shape[0] - 1):
        first_cell[n] = kept
        for c in range(frames.offset[frames.starts[n]], frames.offset[frames.starts[n + 1]]):
            if listed(rest[c], wanted):
                cells[kept] = c
                kept += 1
    first_cell[first_cell.shape[0] - 1] = kept


@cpu_sweep
def move_cpu(cells, blank_posterior, label_posterior, maximum, rest):
    for i in range(cells.shape[0]):
        # Cells ascend, so c is at least i: what is written over has been moved before.
        c = cells[i]
        blank_posterior[i], label_posterior[i] = blank_posterior[c], label_posterior[c]
        maximum[i], rest[i] = maximum[c], rest[c]


@cpu_sweep
def move_rows_cpu(cells, rows, packed):
    # Row n goes to where rows 0 to n have been read, so `packed` may be the memory of `rows`.
    for n in range(rows.shape[0]):
        for i in range(cells.shape[0]):
            packed[n * cells.shape[0] + i] = rows[n, cells[i]]


@register_jitable
def keeps(f, c, offset, rest, wanted):
    """`listed` for a lane of the warp that walks frame f; lanes behind its last cell keep nothing."""
    return c < offset[f + 1] and listed(rest[c], wanted)


@cuda_kernel
def count_cuda(example, offset, rest, wanted, counts):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    lane, kept = cuda.threadIdx.x % WARP, 0
    # The loop is the same for all lanes, so each ballot has the whole warp; a cell behind the frame votes no.
    for c in range(offset[f], offset[f + 1], WARP):
        kept += cuda.popc(cuda.ballot_sync(0xFFFFFFFF, keeps(f, c + lane, offset, rest, wanted)))
    if lane == 0:
        counts[f + 1] = kept


@cuda_kernel
def add_up_cuda(counts, starts, first_cell):
    # One block turns the counts of the frames into the place of each frame's first cell, and notes it for each example.
    partial = cuda.shared.array(WARP, np.int64)  # the sum of each warp's counts
    lane, warp, warps = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP, cuda.blockDim.x // WARP
    before = 0  # cells of all frames of earlier rounds, the same in all threads
    if cuda.threadIdx.x == 0:
        counts[0] = 0
    for begin in range(1, counts.shape[0], cuda.blockDim.x):
        f = begin + cuda.threadIdx.x
        here = counts[f] if f < counts.shape[0] else 0
        # The sum over this lane and all lanes below it.
        for distance in (1, 2, 4, 8, 16):
            other = cuda.shfl_up_sync(0xFFFFFFFF, here, distance)
            if lane >= distance:
                here += other
        if lane == WARP - 1:
            partial[warp] = here
        cuda.syncthreads()
        if f < counts.shape[0]:
            for w in range(warp):
                here += partial[w]
            counts[f] = before + here
        for w in range(warps):
            before += partial[w]
        # The next round writes `partial` again.
        cuda.syncthreads()
    for n in range(cuda.threadIdx.x, first_cell.shape[0], cuda.blockDim.x):
        first_cell[n] = counts[starts[n]]


@cuda_kernel
def list_cuda(example, offset, rest, wanted, counts, cells):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    lane, kept = cuda.threadIdx.x % WARP, counts[f]  # the place of the next cell
    for c in range(offset[f], offset[f + 1], WARP):
        mine = keeps(f, c + lane, offset, rest, wanted)
        votes = cuda.ballot_sync(0xFFFFFFFF, mine)
        if mine:
            cells[kept + cuda.popc(votes & ((1 << lane) - 1))] = c + lane
        kept += cuda.popc(votes)


def list_cells(frames, rest, cells, first_cell, counts=None, *, wanted):
    """List the numbers of the cells of one kind, in order.

    Parameters
    ----------
    frames : lattice.layout.Frames
    rest : (cells,) float32 or float64
        As in `CellState`.
    cells : (cells,) int64
        Filled with the numbers of the cells that are listed.
    first_cell : (examples + 1,) int64
        Filled with the place in the list of each example's first cell, and the length of the list.
    counts : (frames + 1,) int64
        Scratch, on a GPU.
    wanted : bool
        List the cells that are to be computed next; else the cells that are computed.

    Returns
    -------
    first_cell : (examples + 1,) int64, on the host
        On a GPU this waits for the device, once.
    """
    if on_host(cells):
        list_cpu(frames, rest, wanted, cells, first_cell)
        return first_cell
    arguments = (frames.example, frames.offset, rest, wanted, counts)
    # The cells of each frame, then the place of its first cell, then the list: nothing is added up atomically.
    by_warp(count_cuda, len(frames.example), *arguments)
    launch(add_up_cuda, 1, policy.SCAN_THREADS, counts, frames.starts, first_cell)
    by_warp(list_cuda, len(frames.example), *arguments, cells)
    return first_cell.get()


def compact(
    frames, log_z, floor, posteriors: ArcPosteriors, maximum, rest, cells, first_cell, skipped, counts=None, spare=None,
    steps=None,
):  # fmt: skip
    """Move the occupied cells to the front, in order.

    Parameters
    ----------
    frames : lattice.layout.Frames
    log_z : (examples,) float64
        Examples without an alignment are left out.
    floor : float
        Cells with a smaller posterior are skipped, and cells with one below `NEGLIGIBLE` anyway: their rows of the
        gradient are 0.
    posteriors : ArcPosteriors
    maximum, rest : (cells,) float32 or float64
        As in `CellState`. What is returned lies in their memory and in the memory of the posteriors.
    cells, first_cell, counts
        As in `list_cells`.
    skipped : (examples,) float64
        The sum of the posteriors that are left out here is added to it.
    spare : (cells,) like `rest`
        Scratch, on a GPU, where threads run in any order and an array cannot be moved within its own memory.
    steps : (D, cells) like `rest`, optional
        Posteriors of steps, moved within their own memory.

    Returns
    -------
    visited : Visited
        Its `first_cell` is on the host. On a GPU this waits for the device, once.
    """
    floor = max(floor, NEGLIGIBLE)
    arguments = (frames.starts, frames.offset, log_z, floor, *posteriors, rest, skipped)
    if on_host(cells):
        sweep(leave_out_cpu, len(skipped), *arguments, work=len(rest))
    else:
        launch(leave_out_cuda, len(skipped), policy.SCAN_THREADS, *arguments)
    first_cell = list_cells(frames, rest, cells, first_cell, counts, wanted=False)
    count, numbers = first_cell[-1], (*posteriors, maximum, rest)
    kept = cells[:count]  # (count,) ascending
    if steps is not None:
        steps = _packed(kept, steps, spare)
    if on_host(cells):
        move_cpu(kept, *numbers)
        return Visited(first_cell, kept, *(array[:count] for array in numbers), steps)
    moved = []
    for array in numbers:
        target = spare[:count]
        # `gather` moves rows: here rows of one number.
        gather(array.reshape(-1, 1), kept, target.reshape(-1, 1))
        moved.append(target)
        # What has been read is where the next array goes.
        spare = array
    return Visited(first_cell, kept, *moved, steps)


def _packed(kept, steps, spare):
    """The columns `kept` (n,) of `steps` (D, cells), as (D, n) at the front of its memory."""
    count, packed = len(kept), steps.reshape(-1)[: len(steps) * len(kept)]
    if on_host(kept):
        move_rows_cpu(kept, steps, packed)
    else:
        for n in range(len(steps)):
            gather(steps[n : n + 1].reshape(-1, 1), kept, spare[:count].reshape(-1, 1))
            cast(spare[:count], packed[n * count : (n + 1) * count])
    return packed.reshape(len(steps), count)
