"""Draws without replacement: every id gets a key, the smallest keys win. Rows are independent, and equal on every target.

A candidate of probability p gets the arrival time E / p with E standard exponential: the order of arrival is that of draws
without replacement in proportion to p (Efraimidis and Spirakis 2006). It is the Gumbel top-k order as well, because the
Gumbel key of the candidate is log p - log E; the time needs one logarithm where that key needs three. Times are not negative, so
their bits sort as they do, and everything after the draw is a matter of integers.
"""

import math

import numpy as np
from numba.extending import register_jitable

from lattice.kernels import launch as policy
from lattice.kernels.block import block_sum
from lattice.kernels.cells import widen
from lattice.kernels.launch import THREADS, WARP, by_thread, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep

from .philox import exponential_of

LAST = np.int64(0x7FF0000000000000)
"""Bits of +inf, the largest key of a candidate."""
CLOSED = np.int64(0x7FFFFFFFFFFFFFFF)
"""Key of an id that cannot be chosen."""
REFUSED = np.int64(-1)
"""Key of an id whose probability is negative or not finite."""
WARPS = THREADS // WARP


@register_jitable
def arrival(p, key_0, key_1, row, v):
    """Bits of the time at which id v of a row arrives; never where its probability is 0."""
    p = np.float64(p)
    if not (0.0 <= p < math.inf):
        return REFUSED
    if p == 0.0:
        return CLOSED
    return np.float64(exponential_of(key_0, key_1, row, v) / p).view(np.int64)


@register_jitable
def precedence(p):
    """A key that is smaller for larger p."""
    p = np.float64(p)
    if not (0.0 <= p < math.inf):
        return REFUSED
    return LAST if p == 0.0 else LAST - np.float64(p).view(np.int64)


@register_jitable
def row_of(probabilities, r):
    """The row of probabilities that row r draws from: its own, or the one that all share."""
    return min(r, probabilities.shape[0] - 1)


@register_jitable
def fill_key(keys, r, v, probabilities, drawn, key_0, key_1, row_offset):
    p = widen(probabilities[row_of(probabilities, r), v])
    keys[r, v] = arrival(p, key_0, key_1, row_offset + r, v) if drawn else precedence(p)


@cpu_sweep
def keys_cpu(begin, end, probabilities, drawn, key_0, key_1, row_offset, keys):
    for r in range(begin, end):
        for v in range(keys.shape[1]):
            fill_key(keys, r, v, probabilities, drawn, key_0, key_1, row_offset)


@cuda_kernel
def keys_cuda(probabilities, drawn, key_0, key_1, row_offset, keys):
    i = cuda.grid(1)
    if i < keys.shape[0] * keys.shape[1]:
        r = i // keys.shape[1]
        fill_key(keys, r, i - r * keys.shape[1], probabilities, drawn, key_0, key_1, row_offset)


def fill_keys(probabilities, keys, *, seed=None, row_offset=0):
    """Keys of all ids of all rows.

    Parameters
    ----------
    probabilities : (R, V) or (1, V) float32 or float64, on a GPU float16 and bfloat16 too
    keys : (R, V) int64
        Filled here: -1 where a probability is negative or not finite.
    seed : int, optional
        0 to 2**64 - 1: the ids arrive at random. Without it they come by falling probability.
    row_offset : int
        The counter of the first row.
    """
    arguments = (probabilities, int(seed is not None), (seed or 0) & 0xFFFFFFFF, (seed or 0) >> 32, row_offset, keys)
    if on_host(keys):
        sweep(keys_cpu, len(keys), *arguments, work=32 * keys.size)
    else:
        by_thread(keys_cuda, keys.size, *arguments)


@register_jitable
def count_keys(keys, r, begin, step, low, high):
    """How many keys of a row, `step` apart, are in low..high."""
    count = 0
    for v in range(begin, keys.shape[1], step):
        count += int(low <= keys[r, v] <= high)
    return count


@register_jitable
def halfway(low, high):
    return low + (high - low) // np.int64(2)


@register_jitable
def list_id(keys, r, v, place, listed, order):
    """Put an id on the list of those that may be wanted, with its key beside it."""
    listed[r, place] = v
    order[r, place] = keys[r, v]


@register_jitable
def place_id(order, r, listed, i, count, wanted, ids, start):
    """Write id number i of the list to its place in the order of arrival, if it is among those wanted.

    The list is in order of ids: of equal keys the one that stands first comes first.
    """
    own, place = order[r, i], 0
    for j in range(i):
        place += int(order[r, j] <= own)
    for j in range(i + 1, count):
        place += int(order[r, j] < own)
    if place < wanted:
        ids[r, start + place] = listed[r, i]


@register_jitable
def close(keys, r, v):
    """Take an id out; one whose probability is refused stays so."""
    if keys[r, v] >= 0:
        keys[r, v] = CLOSED


@register_jitable
def time_of(bits):
    return np.int64(bits).view(np.float64)


@register_jitable
def smallest_cpu(keys, r, wanted):
    """The key below or at which `wanted` candidates lie."""
    low, high = np.int64(-1), LAST
    while low < high:
        middle = halfway(low, high)
        if count_keys(keys, r, 0, 1, np.int64(0), middle) >= wanted:
            high = middle
        else:
            low = middle + np.int64(1)
    return low


@cpu_sweep
def choose_cpu(begin, end, keys, start, ids, listed, order, candidates, refused, rejected):
    for r in range(begin, end):
        for i in range(start[r]):
            close(keys, r, ids[r, i])
        wanted = ids.shape[1] - start[r]
        candidates[r] = count_keys(keys, r, 0, 1, np.int64(0), LAST)
        refused[r] = count_keys(keys, r, 0, 1, REFUSED, REFUSED)
        rejected[r] = time_of(smallest_cpu(keys, r, wanted + 1)) if candidates[r] > wanted else math.inf
        bound, count = smallest_cpu(keys, r, wanted), 0
        for v in range(keys.shape[1]):
            if 0 <= keys[r, v] <= bound:
                list_id(keys, r, v, count, listed, order)
                count += 1
        for i in range(count):
            place_id(order, r, listed, i, count, wanted, ids, start[r])


@register_jitable
def smallest_cuda(keys, r, wanted, sums):
    low, high = np.int64(-1), LAST
    while low < high:
        middle = halfway(low, high)
        count = count_keys(keys, r, cuda.threadIdx.x, cuda.blockDim.x, np.int64(0), middle)
        if block_sum(count, sums) >= wanted:
            high = middle
        else:
            low = middle + np.int64(1)
    return low


@cuda_kernel
def choose_cuda(keys, start, ids, listed, order, candidates, refused, rejected):
    sums = cuda.shared.array(WARPS, np.float64)
    counts = cuda.shared.array(THREADS, np.int32)
    r, thread, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    for i in range(thread, start[r], threads):
        close(keys, r, ids[r, i])
    cuda.syncthreads()
    wanted = ids.shape[1] - start[r]
    open_ids = block_sum(count_keys(keys, r, thread, threads, np.int64(0), LAST), sums)
    wrong = block_sum(count_keys(keys, r, thread, threads, REFUSED, REFUSED), sums)
    next_key = smallest_cuda(keys, r, wanted + 1, sums)
    bound = smallest_cuda(keys, r, wanted, sums)
    if thread == 0:
        candidates[r], refused[r] = int(open_ids), int(wrong)
        rejected[r] = time_of(next_key) if open_ids > wanted else math.inf
    # Each thread lists a run of ids behind those of the threads before it, so the list is in order of ids.
    run = (keys.shape[1] + threads - 1) // threads
    begin, end = thread * run, min(keys.shape[1], (thread + 1) * run)
    own = 0
    for v in range(begin, end):
        own += int(0 <= keys[r, v] <= bound)
    counts[thread] = own
    cuda.syncthreads()
    place, count = 0, 0
    for other in range(threads):
        place += counts[other] if other < thread else 0
        count += counts[other]
    for v in range(begin, end):
        if 0 <= keys[r, v] <= bound:
            list_id(keys, r, v, place, listed, order)
            place += 1
    cuda.syncthreads()
    for i in range(thread, count, threads):
        place_id(order, r, listed, i, count, wanted, ids, start[r])


def choose(keys, start, ids, listed, order, candidates, refused, rejected):
    """The ids with the smallest keys, in the order of their keys; of equal keys the lower id comes first.

    Parameters
    ----------
    keys : (R, V) int64
        Overwritten: ids that are there already are taken out.
    start : (R,) int64
        How many ids of each row are there already.
    ids : (R, S) int32
        Filled from `start` on.
    listed, order : (R, V) int32, (R, V) int64
        Scratch.
    candidates, refused : (R,) int64
        Filled: ids that could be chosen, and ids whose probability is no probability. Where the first are too few, or where there
        are any of the second, what stands in `ids` is of no use.
    rejected : (R,) float64
        Filled: the arrival time of the first id that was not chosen; inf where all were.
    """
    if on_host(keys):
        sweep(choose_cpu, len(keys), keys, start, ids, listed, order, candidates, refused, rejected, work=64 * keys.size)
    else:
        launch(choose_cuda, len(keys), policy.THREADS, keys, start, ids, listed, order, candidates, refused, rejected)
