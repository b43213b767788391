"""Draws without replacement: every id gets a key, the smallest keys win. Rows are independent, the same on all targets.

A candidate of probability p gets the arrival time E / p with E standard exponential. Draws without replacement in
proportion to p come in the order of these times (Efraimidis and Spirakis 2006). The order is also the Gumbel top-k
order, because the Gumbel key of the candidate is log p - log E. A time needs one logarithm, a Gumbel key three. Times
are not negative, so their bits, read as int64, sort as the times do. Everything after the draw compares integers.
"""

import math

import numpy as np
from numba.extending import register_jitable

from lattice.kernels import launch as policy
from lattice.kernels.block import block_sum
from lattice.kernels.cells import widen
from lattice.kernels.launch import THREADS, WARP, by_thread, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep

from .philox import exponential_of

# Keys from 0 to LAST are candidates'; the other two kinds lie outside that range.
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
    if not (0.0 <= p < math.inf):  # a NaN is not in the range
        return REFUSED
    if p == 0.0:
        return CLOSED
    # A tiny p may make the time +inf, which is LAST: still a candidate.
    return np.float64(exponential_of(key_0, key_1, row, v) / p).view(np.int64)


@register_jitable
def precedence(p):
    """A key that is smaller for larger p, without a draw. An id of probability 0 comes last but can be chosen."""
    p = np.float64(p)
    if not (0.0 <= p < math.inf):
        return REFUSED
    # -0.0 has the sign bit set: its bits would be the smallest integer.
    return LAST if p == 0.0 else LAST - np.float64(p).view(np.int64)


@register_jitable
def row_of(probabilities, r):
    """The row of `probabilities` (R, V) or (1, V) that row r draws from: its own, or the shared one."""
    return min(r, probabilities.shape[0] - 1)


@register_jitable
def fill_key(keys, r, v, probabilities, drawn, key_0, key_1, row_offset):
    # The counter is the number of the row over all devices of a step, so no two rows share random numbers.
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
    drawn = int(seed is not None)
    key = ((seed or 0) & 0xFFFFFFFF, (seed or 0) >> 32)
    arguments = (probabilities, drawn, *key, row_offset, keys)
    if on_host(keys):
        sweep(keys_cpu, len(keys), *arguments, work=32 * keys.size)
    else:
        by_thread(keys_cuda, keys.size, *arguments)


@register_jitable
def count_keys(keys, r, begin, step, low, high):
    """How many keys of row r, from `begin` on and `step` apart, are at least `low` and at most `high`."""
    count = 0
    for v in range(begin, keys.shape[1], step):
        count += int(low <= keys[r, v] <= high)
    return count


@register_jitable
def halfway(low, high):
    # low + high could pass the largest int64.
    return low + (high - low) // np.int64(2)


@register_jitable
def list_id(keys, r, v, place, listed, order):
    """Put an id on the list of ids that may be wanted, with its key beside it in `order`."""
    listed[r, place] = v
    order[r, place] = keys[r, v]


@register_jitable
def place_id(order, r, listed, i, count, wanted, ids, start):
    """Write id number i of the list to its place in the order of arrival, if it is among the first `wanted`.

    The list is in order of ids, so of equal keys the lower id comes first.
    """
    # The place is the number of ids that come earlier: each id finds it by itself, and no two find the same.
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
    """The arrival time whose bits are the key; nonsense for a key of `precedence`, where nobody reads the time."""
    return np.int64(bits).view(np.float64)


@register_jitable
def smallest_cpu(keys, r, wanted):
    """The smallest key at or below which `wanted` candidates lie; LAST where there are fewer, -1 for none wanted."""
    # Bisection of the range of keys: 63 counts of the row, without a sort and without scratch memory.
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
        # Positives are in the row already and cannot be drawn.
        for i in range(start[r]):
            close(keys, r, ids[r, i])
        wanted = ids.shape[1] - start[r]
        candidates[r] = count_keys(keys, r, 0, 1, np.int64(0), LAST)
        refused[r] = count_keys(keys, r, 0, 1, REFUSED, REFUSED)
        rejected[r] = time_of(smallest_cpu(keys, r, wanted + 1)) if candidates[r] > wanted else math.inf
        # Equal keys at the bound may make the list longer than `wanted`: `place_id` leaves out the last ones.
        bound, count = smallest_cpu(keys, r, wanted), 0
        for v in range(keys.shape[1]):
            if 0 <= keys[r, v] <= bound:
                list_id(keys, r, v, count, listed, order)
                count += 1
        for i in range(count):
            place_id(order, r, listed, i, count, wanted, ids, start[r])


@register_jitable
def smallest_cuda(keys, r, wanted, partial):
    # As `smallest_cpu`. All threads get the same sum, so all take the same steps.
    low, high = np.int64(-1), LAST
    while low < high:
        middle = halfway(low, high)
        count = count_keys(keys, r, cuda.threadIdx.x, cuda.blockDim.x, np.int64(0), middle)
        # Float64 holds each count exactly.
        if block_sum(count, partial) >= wanted:
            high = middle
        else:
            low = middle + np.int64(1)
    return low


@cuda_kernel
def choose_cuda(keys, start, ids, listed, order, candidates, refused, rejected):
    partial = cuda.shared.array(WARPS, np.float64)
    counts = cuda.shared.array(THREADS, np.int32)  # ids that each thread lists
    r, thread, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    for i in range(thread, start[r], threads):
        close(keys, r, ids[r, i])
    # Other threads count the keys that are closed here.
    cuda.syncthreads()
    wanted = ids.shape[1] - start[r]
    open_ids = block_sum(count_keys(keys, r, thread, threads, np.int64(0), LAST), partial)
    wrong = block_sum(count_keys(keys, r, thread, threads, REFUSED, REFUSED), partial)
    # All threads search, although one writes: a barrier inside a branch would hang.
    next_key = smallest_cuda(keys, r, wanted + 1, partial)
    bound = smallest_cuda(keys, r, wanted, partial)
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
        From `fill_keys`. Overwritten: ids that a row holds already are taken out.
    start : (R,) int64
        How many ids each row holds already.
    ids : (R, S) int32
        Filled from `start` on.
    listed, order : (R, V) int32, (R, V) int64
        Scratch.
    candidates, refused : (R,) int64
        Filled: ids that could be chosen, and ids whose probability is no probability. Where candidates are too few, or
        where any id is refused, `ids` holds nothing of use.
    rejected : (R,) float64
        Filled: the arrival time of the first id that was not chosen; inf where all were.
    """
    arguments = (keys, start, ids, listed, order, candidates, refused, rejected)
    if on_host(keys):
        sweep(choose_cpu, len(keys), *arguments, work=64 * keys.size)
    else:
        launch(choose_cuda, len(keys), policy.THREADS, *arguments)
