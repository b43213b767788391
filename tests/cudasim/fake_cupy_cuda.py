"""The `cupy.cuda` of the stand-in for CuPy: streams, events, devices, and the books on memory and synchronisation.

`cupy` is the module object that `install` of `fake_cupy` puts in `sys.modules`; its attributes `syncs`, `live_bytes`,
`peak_bytes`, `limit` and `memory_info` may be read and set by tests.
"""

import itertools
import os
import threading
import time
import weakref
from collections import defaultdict
from types import ModuleType, SimpleNamespace

import numpy as np

cupy = ModuleType("cupy")
cuda, memory, runtime = ModuleType("cupy.cuda"), ModuleType("cupy.cuda.memory"), ModuleType("cupy.cuda.runtime")
cuda.memory, cuda.runtime = memory, runtime
cupy.cuda, cupy.live_bytes, cupy.total_bytes = cuda, 0, 0

_handles = itertools.count(1 << 32, 16)
_copies = defaultdict(list)
_here = threading.local()
_hooks = []


def reset():
    """Start the books anew; memory that is still alive stays on them."""
    cupy.syncs, cupy.limit = 0, None
    cupy.peak_bytes = cupy.total_bytes = cupy.live_bytes
    cupy.memory_info = (1 << 34, 1 << 34)
    _copies.clear()
    _here.stream = Stream.null


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total):
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class Memory:
    """A block of device memory on the books until the last array over it is gone."""

    def __init__(self, size):
        if cupy.limit is not None and cupy.live_bytes + size > cupy.limit:
            raise OutOfMemoryError(size, cupy.live_bytes)
        cupy.live_bytes += size
        cupy.peak_bytes = max(cupy.peak_bytes, cupy.live_bytes)
        cupy.total_bytes = max(cupy.total_bytes, cupy.live_bytes)
        for hook in _hooks:
            hook.malloc_postprocess(device_id=0, size=size, mem_size=size, mem_ptr=id(self), pmem_id=0)
        weakref.finalize(self, _release, size).atexit = False


def _release(size):
    cupy.live_bytes -= size
    for hook in _hooks:
        hook.free_postprocess(device_id=0, mem_size=size, mem_ptr=0, pmem_id=0)


class MemoryHook:
    """What is told of memory while it is entered."""

    def malloc_postprocess(self, **event):
        pass

    def free_postprocess(self, **event):
        pass

    def __enter__(self):
        _hooks.append(self)
        return self

    def __exit__(self, *_):
        _hooks.remove(self)


class MemoryPool:
    def used_bytes(self):
        return cupy.live_bytes

    def total_bytes(self):
        return cupy.total_bytes

    def free_bytes(self):
        return cupy.total_bytes - cupy.live_bytes

    def free_all_blocks(self, stream=None):
        cupy.total_bytes = cupy.live_bytes

    def set_limit(self, size=None, fraction=None):
        cupy.limit = int(cupy.memory_info[1] * fraction) if size is None else size or None

    def get_limit(self):
        return cupy.limit or 0


class PinnedMemory(bytearray):
    """Page-locked host memory; like CuPy's it may be longer than was asked for."""

    def __init__(self, size):
        super().__init__(b"\xff" * (-(-size // 512) * 512))


def copy_later(stream, out, values):
    """Queue a copy to the host: `out` holds poison until the host waits for the stream."""
    out.ravel(order="K").view("u1")[...] = 0xFF
    _copies[stream.ptr].append([out, values])


def _deliver(copies):
    while copies:
        copy = copies.pop(0)
        if copy:
            out, values = copy
            out[...] = values
            copy.clear()


class Stream:
    def __init__(self, null=False, non_blocking=False, ptds=False, *, pointer=None):
        self.ptr = 0 if null else next(_handles) if pointer is None else pointer
        self._before = []

    @classmethod
    def from_external(cls, stream):
        return cls(pointer=stream.__cuda_stream__()[1])

    def __cuda_stream__(self):
        return (0, self.ptr)

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self):
        return hash(self.ptr)

    def __enter__(self):
        self._before.append(get_current_stream())
        return self.use()

    def __exit__(self, *_):
        self._before.pop().use()

    def use(self):
        _here.stream = self
        return self

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        pass

    def synchronize(self):
        cupy.syncs += 1
        _deliver(_copies[self.ptr])

    @property
    def done(self):
        _deliver(_copies[self.ptr])
        return True


Stream.null = Stream(null=True)


def get_current_stream(device_id=None):
    return getattr(_here, "stream", Stream.null)


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._covered = []

    def record(self, stream=None):
        self.time = time.perf_counter()
        self._covered = list(_copies[(stream or get_current_stream()).ptr])

    def synchronize(self):
        # A thread of the library that sleeps on an event keeps nobody waiting.
        cupy.syncs += threading.current_thread().name != "lattice-in-flight"
        _deliver(self._covered)

    @property
    def done(self):
        _deliver(self._covered)
        return True


class Device:
    compute_capability = "90"

    def __init__(self, device=None):
        self.id = int(device or 0)

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return self.id

    def __enter__(self):
        return self.use()

    def __exit__(self, *_):
        pass

    def use(self):
        if self.id:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        return self

    def synchronize(self):
        cupy.syncs += 1
        for copies in _copies.values():
            _deliver(copies)

    @property
    def mem_info(self):
        return runtime.memGetInfo()


_pool = MemoryPool()
cupy.get_default_memory_pool = lambda: _pool
memory.OutOfMemoryError = OutOfMemoryError
runtime.memGetInfo = lambda: cupy.memory_info
runtime.getDevice = lambda: 0
runtime.getDeviceCount = lambda: 1
runtime.driverGetVersion = runtime.runtimeGetVersion = lambda: 13000
runtime.deviceSynchronize = Device().synchronize
cuda.Stream, cuda.Event, cuda.Device, cuda.MemoryPool, cuda.MemoryHook = Stream, Event, Device, MemoryPool, MemoryHook
cuda.get_elapsed_time = lambda begin, end: 1e3 * (end.time - begin.time)
cuda.get_current_stream = get_current_stream
cuda.alloc_pinned_memory = PinnedMemory
cuda.is_available = lambda: True


def _compute_type(dtype):
    """What CuPy multiplies a dtype in: 7 is TF32, 1 the plain sums. CuPy reads the variable once."""
    return 7 if np.dtype(dtype) == np.float32 and int(os.environ.get("CUPY_TF32", "0")) else 1


cupy._core = SimpleNamespace(get_compute_type=_compute_type)
