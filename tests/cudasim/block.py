"""What a kernel sees as `cuda` inside one simulated block.

The module has indices, barriers, warp intrinsics, poisoned memory and limits.
"""

import sys

import numpy as np
from greenlet import getcurrent
from numba import types
from numba.cuda.np.numpy_support import as_dtype
from numba.cuda.simulator.kernelapi import FakeCUDAModule

MAX_THREADS, MAX_SHARED_BYTES = 1024, 48 * 1024
MAX_BLOCK, MAX_GRID = (1024, 1024, 64), (2**31 - 1, 65535, 65535)


def numpy_dtype(dtype):
    return as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)


def poisoned(shape, dtype):
    """Memory that nobody has written: NaN in floats, -1 in integers."""
    dtype = numpy_dtype(dtype)
    return np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)


class LocalMemory:
    def array(self, shape, dtype, alignment=None):
        return poisoned(shape, dtype)


class SharedMemory:
    """The shared arrays of one block.

    A static array belongs to its place in the code. All dynamic arrays are the same bytes.
    """

    def __init__(self, dynamic_bytes):
        self.dynamic, self.static, self.total = poisoned(dynamic_bytes, np.uint8), {}, dynamic_bytes

    def array(self, shape, dtype, alignment=None):
        if shape == 0:
            dtype = numpy_dtype(dtype)
            return self.dynamic[: self.dynamic.size // dtype.itemsize * dtype.itemsize].view(dtype)
        caller = sys._getframe(1)
        place = (caller.f_code, caller.f_lasti)
        if place not in self.static:
            self.static[place] = poisoned(shape, dtype)
            self.total += self.static[place].nbytes
            if self.total > MAX_SHARED_BYTES:
                raise RuntimeError(
                    f"{self.total} bytes of shared memory in one block, {MAX_SHARED_BYTES} are to be had"
                )
        return self.static[place]


def meet_block(value=None):
    """The barrier of the whole block, known by the place in the kernel it was called from."""
    caller = sys._getframe(2)
    name = sys._getframe(1).f_code.co_name
    return getcurrent().wait(("block", f"{name} at {caller.f_code.co_name}:{caller.f_lineno}"), value)


def meet_warp(mask, value=None):
    """The barrier of the lanes in `mask`: what each lane handed in. Lanes must meet in the same intrinsic."""
    thread, mask = getcurrent(), int(mask) & 0xFFFFFFFF
    if not mask >> thread.lane & 1:
        raise RuntimeError(f"lane {thread.lane} is not in its own mask {mask:#x}")
    return thread.wait(("warp", sys._getframe(1).f_code.co_name, thread.warp, mask), value)


def pick(received, lane, value):
    """What `lane` handed in; poison if it is not there, where a GPU gives an undefined value."""
    if lane in received:
        return received[lane]
    return poisoned(1, np.asarray(value).dtype)[0]


def bits(value):
    """The bits of an integer and how many there are: Python integers are int64 to numba."""
    width = 64 if isinstance(value, (int, np.int64, np.uint64)) else 32
    return int(value) & ((1 << width) - 1), width


class BlockContext(FakeCUDAModule):
    """One launch; `start_block` begins each of its blocks."""

    threadIdx = property(lambda self: getcurrent().threadIdx)
    blockIdx = property(lambda self: getcurrent().blockIdx)
    laneid = property(lambda self: getcurrent().lane)

    def __init__(self, grid, block, dynamic_bytes):
        super().__init__(grid, block, dynamic_bytes)
        self._local, self.dynamic_bytes = LocalMemory(), dynamic_bytes
        for size, limits, name in ((grid, MAX_GRID, "grid"), (block, MAX_BLOCK, "block")):
            if not all(1 <= entry <= limit for entry, limit in zip(size, limits)):
                raise ValueError(f"{name} of {size}: each axis from 1 to {limits}")
        if np.prod(block) > MAX_THREADS:
            raise ValueError(f"block of {block}: more than {MAX_THREADS} threads")
        if dynamic_bytes > MAX_SHARED_BYTES:
            raise ValueError(f"{dynamic_bytes} bytes of dynamic shared memory: more than {MAX_SHARED_BYTES}")

    def start_block(self):
        self._shared = SharedMemory(self.dynamic_bytes)

    def syncthreads(self):
        meet_block()

    def syncthreads_count(self, predicate):
        return sum(map(bool, meet_block(predicate)))

    def syncthreads_and(self, predicate):
        return int(all(meet_block(predicate)))

    def syncthreads_or(self, predicate):
        return int(any(meet_block(predicate)))

    def syncwarp(self, mask=0xFFFFFFFF):
        meet_warp(mask)

    def shfl_sync(self, mask, value, lane):
        return pick(meet_warp(mask, value), lane % 32, value)

    def shfl_up_sync(self, mask, value, delta):
        lane = getcurrent().lane
        return pick(meet_warp(mask, value), lane - delta if lane >= delta else lane, value)

    def shfl_down_sync(self, mask, value, delta):
        lane = getcurrent().lane
        return pick(meet_warp(mask, value), lane + delta if lane + delta < 32 else lane, value)

    def shfl_xor_sync(self, mask, value, lanes):
        return pick(meet_warp(mask, value), getcurrent().lane ^ int(lanes), value)

    def ballot_sync(self, mask, predicate):
        votes = meet_warp(mask, bool(predicate))
        # int32, as numba types it: all 32 votes are -1.
        return np.uint32(sum(1 << lane for lane, vote in votes.items() if vote)).view(np.int32)

    def match_any_sync(self, mask, value):
        votes = meet_warp(mask, value)
        return np.uint32(sum(1 << lane for lane, other in votes.items() if other == value)).view(np.int32)

    def all_sync(self, mask, predicate):
        return all(meet_warp(mask, bool(predicate)).values())

    def any_sync(self, mask, predicate):
        return any(meet_warp(mask, bool(predicate)).values())

    def lanemask_lt(self):
        return np.int32((1 << getcurrent().lane) - 1)

    def popc(self, value):
        return bits(value)[0].bit_count()

    def clz(self, value):
        pattern, width = bits(value)
        return width - pattern.bit_length()

    def ffs(self, value):
        pattern, _ = bits(value)
        return (pattern & -pattern).bit_length()

    def brev(self, value):
        pattern, width = bits(value)
        return int(f"{pattern:0{width}b}"[::-1], 2)
