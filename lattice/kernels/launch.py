"""How a sweep or a CUDA kernel runs: targets, compile options, threads, block sizes. The only launch policy.

The CPU sweeps are plain `nogil` functions over a range of rows; a small pool of Python threads runs the ranges. Numba's
own parallel layers were left aside on purpose: the work-queue layer aborts the process when two Python threads enter
it, the GNU OpenMP layer aborts a child made by `fork`, and both spin or hold threads that the BLAS wants. See
docs/writing-a-kernel.md.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numba
import numpy as np

from . import ptx, ptx_store
from .cache import cached

try:
    from numba import cuda
except Exception:
    # numba announces that it will drop its own CUDA target, and a numba-cuda that does not fit to numba fails in many
    # ways. The CPU half needs neither. Where a GPU is asked for, `device.arrays.cupy` says what is wrong.
    cuda = None

SERIAL_WORK = 1 << 15
"""Elements of work below which handing a range to another thread costs more than it saves (about 30 us)."""
PIECE_WORK = 1 << 26
"""Elements of work after which a sweep comes back to Python, where Ctrl-C is seen: some hundredths of a second."""

# A block has whole warps, and at most WARP of them, because `block_sum` keeps a number for each in shared memory.
WARP = 32
THREADS = 256
"""Threads of a block where a warp takes a row, or a thread a cell."""
LATTICE_THREADS = 512
"""Most threads of the block that sweeps one lattice. Longer transcripts are walked in panels, or by strides."""
REACH_THREADS = 256
"""Threads of the block that walks along the cells that alignments reach; its warps bound a cell each at once."""
SCAN_THREADS = 1024
"""Threads of the one block that adds up over frames."""

kernels: dict[str, Any] = {}
"""Every CUDA kernel that was imported, by its name. Kernels of a factory have names from `activations.named`."""
_pool: ThreadPoolExecutor | None = None


def cpu_sweep(function):
    """Decorator of a CPU sweep: compiled at its first call, or loaded from numba's cache on disk.

    `contract` allows fused multiply-add; nothing is reassociated, so -inf and NaN keep their meaning.
    """
    return cached(numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(function))


def cuda_kernel(function):
    """Decorator of a CUDA kernel. Nothing is compiled, and no driver needed, before its first launch."""
    if cuda is None:
        return function
    # The digest of the sources that are being imported: the files may have changed by the first launch.
    ptx_store.digest(Path(function.__code__.co_filename).parent)
    kernels[function.__name__] = cuda.jit(function)
    return kernels[function.__name__]


def on_host(array) -> bool:
    """Whether the CPU target works on an array."""
    return isinstance(array, np.ndarray)


def whole_warps(threads: int, most: int) -> int:
    """Threads of a block with work for `threads` of them: rounded up to whole warps, and at most `most`."""
    return min(most, -(-threads // WARP) * WARP)


def by_warp(kernel, rows: int, *arguments) -> None:
    """Launch a kernel in which a warp takes a row. Warps of the last block that have no row must return at once."""
    launch(kernel, -(-rows // (THREADS // WARP)), THREADS, *arguments)


def by_thread(kernel, count: int, *arguments) -> None:
    """Launch a kernel in which a thread takes one of `count` elements."""
    launch(kernel, -(-count // THREADS), THREADS, *arguments)


def launch(kernel, blocks: int | tuple[int, int], threads: int, *arguments) -> None:
    """Run a CUDA kernel on the current stream. A grid without blocks is no work."""
    blocks = blocks if isinstance(blocks, tuple) else (blocks,)
    if all(blocks):
        ptx.run(kernel, blocks, threads, arguments)


def thread_count() -> int:
    """Threads a sweep is spread over: `NUMBA_NUM_THREADS`, by default the processors this process may use."""
    return numba.config.NUMBA_NUM_THREADS


def _forget_pool() -> None:
    # Only the thread that forks lives on in the child, so the pool's tasks would never run there.
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)


def _submit(task) -> Future | None:
    """Hand a task to the pool; None where it takes no more, because the interpreter shuts down."""
    global _pool
    try:
        # Without a lock: two threads may each make a pool here, and both pools run what they were handed.
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, thread_count() - 1), thread_name_prefix="lattice")
        return _pool.submit(task)
    except RuntimeError:
        return None


def sweep(kernel, count: int, *arguments, work: int = 0, pieces: int = 1) -> None:
    """Run `kernel(begin, end, *arguments)` over `range(count)`, split among the threads, the calling one included.

    Parameters
    ----------
    kernel : callable
        A CPU sweep. Ranges must be independent, so that the result does not depend on how they are split.
    count : int
        Number of rows, columns or examples.
    *arguments
        Passed on. The kernel holds no GIL, so Python code of other threads runs meanwhile.
    work : int
        Elements touched in all; little work runs on the calling thread.
    pieces : int
        Pieces for each thread: more than 1 evens out rows of unequal cost.
    """
    threads = thread_count()
    if work < SERIAL_WORK or count < 2:
        if count:
            kernel(0, count, *arguments)
        return
    parts = min(count, max(threads * pieces, -(-work // PIECE_WORK)))
    begins = [count * part // parts for part in range(parts + 1)]  # (parts + 1,) part p is begins[p] to begins[p + 1]
    # All threads draw from one iterator. Its step holds the GIL, so no part goes to two threads, without a lock.
    todo = iter(range(parts))

    def drain():
        for part in todo:
            kernel(begins[part], begins[part + 1], *arguments)

    futures = []
    try:
        for _ in range(min(threads, parts) - 1):
            futures += filter(None, [_submit(drain)])
        # What no other thread takes is left to this one, so a pool that refuses costs time only.
        drain()
    except BaseException:
        # After Ctrl-C, a part that no thread has begun stays undone: the iterator is emptied.
        for _ in todo:
            pass
        raise
    finally:
        # No thread may touch the arrays once the caller has them back.
        wait(futures)
    for future in futures:
        future.result()  # raises what the thread raised
