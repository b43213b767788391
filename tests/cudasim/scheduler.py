"""The simulator of numba-cuda with its OS threads replaced by greenlets: fast, repeatable, and strict. Tests only.

Importing this module patches the simulator, so the process needs `NUMBA_ENABLE_CUDASIM=1`. A thread of a block runs
until it returns or waits. `ORDER` says in which order the threads take their turns, so that a missing barrier shows
under one order or another. Names such as `cuda.threadIdx` resolve on the module `numba.cuda` itself while a kernel
runs. The stock simulator swaps only the global `cuda` of the kernel's own module, and a plain helper of another module
fails there.
"""

import copy
import os
import random
from collections import deque
from typing import NamedTuple

import numpy as np
from greenlet import getcurrent, greenlet
from numba import config, cuda

if not config.ENABLE_CUDASIM:
    raise ImportError("the scheduler patches the simulator: set NUMBA_ENABLE_CUDASIM=1 before numba is imported")

from numba.cuda.errors import normalize_kernel_dimensions
from numba.cuda.simulator.kernel import FakeCUDAKernel
from numba.cuda.simulator.kernelapi import Dim3

from .block import BlockContext

ORDERS = ("forward", "reverse", "random:0", "random:1")
"""The orders a kernel should be tried under."""

ORDER = os.environ.get("CUDASIM_ORDER", "forward")
"""How threads and blocks take their turns: "forward", "reverse" or "random:SEED"."""

STRICT = True
"""Refuse a block barrier where threads wait in different places, or that some threads never reach: they returned."""


class Launch(NamedTuple):
    """What one launch was given; `stream` is the raw pointer of its stream."""

    kernel: str
    grid: tuple
    block: tuple
    stream: int
    shared_bytes: int


LAUNCHES = deque(maxlen=4096)
"""The last launches, oldest first."""


class DeviceThread(greenlet):
    """One CUDA thread. `barrier` is None while it can run, else what it waits for."""

    def __init__(self, context, block_index, thread_index, kernel, arguments):
        super().__init__()
        self.context, self.kernel, self.arguments = context, kernel, arguments
        self.blockIdx, self.threadIdx = block_index, thread_index
        size = context.blockDim
        self.thread_id = thread_index.x + size.x * (thread_index.y + size.y * thread_index.z)
        self.warp, self.lane = divmod(self.thread_id, 32)
        self.barrier = self.offered = self.received = None

    def run(self):
        # A GPU makes inf and NaN and wraps integers in silence. A greenlet starts without the caller's error state.
        with np.errstate(all="ignore"):
            self.kernel(*self.arguments)

    def wait(self, barrier, value=None):
        """Hand `value` in at a barrier; what all threads handed in, once they are there."""
        self.barrier, self.offered = barrier, value
        self.parent.switch()
        return self.received


def turns():
    """A function that puts a list in the order of `ORDER`."""
    kind, _, seed = ORDER.partition(":")
    if kind == "random":
        generator = random.Random(int(seed))
        return lambda items: generator.sample(items, len(items))
    return {"forward": list, "reverse": lambda items: items[::-1]}[kind]


def run_block(context, block_index, kernel, arguments, ordered):
    """Run the threads of one block until all have returned."""
    context.start_block()
    threads = [DeviceThread(context, block_index, index, kernel, arguments) for index in points(context.blockDim)]
    live = threads
    try:
        while live:
            ready = [thread for thread in ordered(live) if thread.barrier is None]
            for thread in ready:
                try:
                    thread.switch()
                except Exception as error:
                    error.add_note(f"in thread {thread.threadIdx} of block {block_index}")
                    raise
            live = [thread for thread in live if not thread.dead]
            released = release_warps(live) + release_block(live, len(threads))
            if live and not ready and not released:
                waits = sorted({str(thread.barrier) for thread in live})
                raise RuntimeError(f"deadlock in block {block_index}: {len(live)} threads wait for {', '.join(waits)}")
    finally:
        for thread in threads:
            thread.throw()


def release_warps(live):
    """Let the lanes go on whose whole mask has arrived; lanes that returned are not waited for. The number let go."""
    groups = {}
    for thread in live:
        if thread.barrier is not None and thread.barrier[0] == "warp":
            groups.setdefault(thread.barrier, []).append(thread)
    released = 0
    for (_, _, warp, mask), group in groups.items():
        expected = sum(1 for thread in live if thread.warp == warp and mask >> thread.lane & 1)
        if len(group) == expected:
            released += release(group, {thread.lane: thread.offered for thread in group})
    return released


def release_block(live, total):
    """Let all threads go on once every one waits at the block's barrier. The number let go."""
    if not live or not all(thread.barrier is not None and thread.barrier[0] == "block" for thread in live):
        return 0
    places = sorted({thread.barrier[1] for thread in live})
    if STRICT and len(live) < total:
        raise RuntimeError(f"{places[0]} reached by {len(live)} of {total} threads: the rest returned")
    if STRICT and len(places) > 1:
        raise RuntimeError(f"threads of one block wait at different barriers: {', '.join(places)}")
    return release(live, [thread.offered for thread in live])


def release(threads, received):
    for thread in threads:
        thread.barrier, thread.received = None, received
    return len(threads)


def points(size):
    """Every index of a grid or block, x fastest."""
    return [Dim3(x, y, z) for z in range(size.z) for y in range(size.y) for x in range(size.x)]


def device_memory(argument):
    """An argument as the kernel sees it: the memory itself.

    The stock simulator copies in and out, which hides aliasing.
    """
    if isinstance(argument, tuple):
        return tuple(map(device_memory, argument))
    memory = getattr(argument, "_array", argument)
    if isinstance(memory, np.ndarray) and memory.dtype.name == "bfloat16":
        raise TypeError("numba has no type for a bfloat16 array: pass a view of uint16")
    return memory


def launch(kernel, *arguments):
    """Replaces the call of a kernel or of a device function."""
    if isinstance(getcurrent(), DeviceThread):
        return kernel.fn(*arguments)
    if any(hasattr(argument, "_array") for argument in arguments) and any(isinstance(a, np.ndarray) for a in arguments):
        raise TypeError(f"{kernel.fn.__name__}: arrays of the host and of the device in one launch")
    grid, block = normalize_kernel_dimensions(kernel.grid_dim, kernel.block_dim)
    LAUNCHES.append(Launch(kernel.fn.__name__, grid, block, getattr(kernel.stream, "handle", 0), kernel.dynshared_size))
    context = BlockContext(grid, block, kernel.dynshared_size)
    memory = [device_memory(argument) for argument in arguments]
    ordered = turns()
    for block_index in ordered(points(context.gridDim)):
        run_block(context, block_index, kernel.fn, memory, ordered)


def configure(kernel, configuration):
    """Replaces `kernel[grid, block, stream, shared]`; a copy, so that a configuration that is kept does not change."""
    grid, block, stream, shared_bytes = (*configuration, *(0, 0)[len(configuration) - 2 :])
    if stream and not isinstance(stream, cuda.stream):
        raise TypeError(
            f"Expected a Stream object, ExperimentalStream, GraphBuilder, or 0, got {type(stream).__name__}"
        )
    configured = copy.copy(kernel)
    configured.grid_dim, configured.block_dim = normalize_kernel_dimensions(grid, block)
    configured.stream, configured.dynshared_size = stream, shared_bytes
    return configured


class ExternalStream(cuda.stream):
    def __init__(self, pointer):
        self.handle = pointer


def inside_kernel(name):
    """`__getattr__` of the module `numba.cuda`: what only exists while a kernel runs."""
    thread = getcurrent()
    if isinstance(thread, DeviceThread):
        return getattr(thread.context, name)
    raise AttributeError(f"module 'numba.cuda' has no attribute {name!r}")


FakeCUDAKernel.__call__ = launch
FakeCUDAKernel.__getitem__ = configure
cuda.__getattr__ = inside_kernel
cuda.external_stream = ExternalStream
cuda.as_cuda_array = lambda array, sync=True: array
