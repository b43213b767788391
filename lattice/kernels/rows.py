"""Whole rows moved: gathered by index, scattered back, unpacked into padded arrays, cast, cleared; rounded on the way.

Each entry is written by one thread, and sums go in the order of the examples: no result depends on how work is split.
"""

import numpy as np

from .cells import store, typed, widen
from .launch import WARP, by_thread, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@cpu_sweep
def gather_cpu(begin, end, source, ids, target):
    for i in range(begin, end):
        target[i] = source[ids[i]]


@cuda_kernel
def gather_cuda(source, ids, target):
    # A thread an entry: neighbours read one row, whatever the ids are.
    i, h = cuda.grid(1) // target.shape[1], cuda.grid(1) % target.shape[1]
    if i < target.shape[0]:
        target[i, h] = source[ids[i], h]


def gather(source, ids, target):
    """target[i] = source[ids[i]], (V, H) to (S, H) of one dtype; `ids` (S,) int64."""
    if on_host(source):
        sweep(gather_cpu, len(ids), source, ids, target, work=target.size)
    else:
        by_thread(gather_cuda, target.size, source, ids, target)


@cpu_sweep
def scatter_cpu(begin, end, source, ids, target):
    # Ranges of rows share no target, because the ids are distinct: no lock.
    for i in range(begin, end):
        for h in range(source.shape[1]):
            target[ids[i], h] += source[i, h]


@cuda_kernel
def scatter_cuda(source, ids, target):
    i, h = cuda.grid(1) // source.shape[1], cuda.grid(1) % source.shape[1]
    if i < source.shape[0]:
        target[ids[i], h] += source[i, h]


def scatter(source, ids, target):
    """target[ids[i]] += source[i], (S, H) to (V, H); no id stands twice in `ids` (S,) int64."""
    if on_host(source):
        sweep(scatter_cpu, len(ids), source, ids, target, work=source.size)
    else:
        by_thread(scatter_cuda, source.size, source, ids, target)


@cpu_sweep
def clear_rows_cpu(begin, end, visited, rows):
    for i in range(begin, end):
        if not visited[i]:
            rows[i, :] = 0


@cuda_kernel
def clear_rows_cuda(visited, rows):
    i = cuda.grid(1) // WARP
    if i < rows.shape[0] and not visited[i]:
        for h in range(cuda.threadIdx.x % WARP, rows.shape[1], WARP):
            rows[i, h] = 0


def clear_rows(visited, rows):
    """Zero the rows (R, V) that are not marked in `visited` (R,) uint8: padding, and cells no alignment can visit.

    Half precision may come as uint16, because the bits of 0.0 are 0.
    """
    if on_host(rows):
        sweep(clear_rows_cpu, len(rows), visited, rows, work=rows.size)
    else:
        by_warp(clear_rows_cuda, len(rows), visited, rows)


@cuda_kernel
def mark_cuda(row, visited):
    i = cuda.grid(1)
    if i < row.shape[0]:
        visited[row[i]] = 1


def mark(row, visited):
    """visited[row] = 1; `row` (n,) int64, `visited` (R,) uint8."""
    if on_host(row):
        visited[row] = 1
    else:
        by_thread(mark_cuda, len(row), row, visited)


@cuda_kernel
def cast_cuda(source, target):
    i = cuda.grid(1)
    if i < target.shape[1]:
        store(target, 0, i, widen(source[0, i]))


def cast(source, target):
    """target = source, of one shape and any two real dtypes, widened or rounded.

    CuPy would compile such an assignment for every pair of dtypes. For bfloat16 it needs headers of a CUDA toolkit that
    may be missing.
    """
    if on_host(source):
        target[...] = source
    else:
        by_thread(cast_cuda, source.size, source.reshape(1, source.size), target.reshape(1, source.size))


@cuda_kernel
def unpack_cuda(source, starts, examples, depth, target):
    i = cuda.grid(1) // WARP
    if i >= examples.shape[0] * depth:
        return
    n, t = i // depth, i % depth
    begin, count = starts[n], starts[n + 1] - starts[n]
    r = examples[n] * depth + t  # row of the target as (B * depth, H)
    for h in range(cuda.threadIdx.x % WARP, source.shape[1], WARP):
        store(target, r, h, source[begin + t, h] if t < count else typed(0, source[0, h]))


def unpack(source, starts, examples, target):
    """Round packed rows into the examples of a padded array, zeros behind the last row of each.

    Parameters
    ----------
    source : (rows, H) float32 or float64
    starts : (n + 1,) int64
        First row of each example.
    examples : (n,) int64
        Their places in `target`; none stands twice.
    target : (B, depth, H) any real dtype
        C-contiguous. Other examples are left as they are.
    """
    if not on_host(source):
        depth = target.shape[1]
        rows = target.reshape(-1, target.shape[2])  # (B * depth, H), a view
        by_warp(unpack_cuda, len(examples) * depth, source, starts, examples, depth, rows)
        return
    for i, n in enumerate(examples):
        rows = source[starts[i] : starts[i + 1]]  # (T_n, H)
        target[n, : len(rows)] = rows
        target[n, len(rows) :] = 0


@cuda_kernel
def share_cuda(source, starts, examples, opens, total, target):
    depth, width = total.shape
    i = cuda.grid(1)
    if i >= depth * width:
        return
    t, h = i // width, i % width
    summed = total[t, h]
    for n in range(examples.shape[0]):
        if opens[n]:
            summed = typed(0, summed)
        if t < starts[n + 1] - starts[n]:
            summed += source[starts[n] + t, h]
        # Each example of a run writes over the one before: the last leaves the whole sum, rounded once.
        store(target, examples[n] * depth + t, h, summed)
    total[t, h] = summed


def share(source, starts, examples, opens, total, target):
    """Sum packed rows over examples that share a place in a padded array. Each place gets the sum so far, rounded.

    Parameters
    ----------
    source, starts, target
        As in `unpack`.
    examples : (n,) int64
        Places in `target`. Examples with the same place follow one another: they are a run.
    opens : (n,) uint8
        Whether a run starts here.
    total : (depth, H) like `source`
        The sum under way, for a run that goes on in the next call.
    """
    if not on_host(source):
        rows = target.reshape(-1, target.shape[2])  # (B * depth, H), a view
        by_thread(share_cuda, total.size, source, starts, examples, opens, total, rows)
        return
    for i, row in enumerate(examples):
        if opens[i]:
            total[:] = 0
        # In the dtype of the source: a sum in the target's would be rounded once an example.
        total[: starts[i + 1] - starts[i]] += source[starts[i] : starts[i + 1]]
        target[row] = total


NO_IDS = np.zeros(0, np.int64)
"""(0,) int64. Stands for a run without holes where `locate` takes a list of cells."""
