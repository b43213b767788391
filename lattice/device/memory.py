"""Where a problem is worked on: memory, copies and matrix products of the host and of a GPU behind one face."""

import functools
import math
import warnings
from dataclasses import dataclass

import numpy as np

from ..kernels.device_view import DeviceView
from ..kernels.rows import cast
from . import arrays, in_flight
from .arrays import aligned
from .gemm import COMPUTE_32F_FAST_TF32, gemm, turned


def count(shape) -> int:
    """Elements of an array of this shape."""
    return math.prod(shape) if isinstance(shape, tuple) else int(shape)


class _Device:
    def zeros(self, shape, dtype):
        """`empty`, filled with 0."""
        output = self.empty(shape, dtype)
        output.fill(0)
        return output

    def convert(self, values, dtype):
        """`values` rounded to `dtype`, in a fresh array; values of that dtype already are handed on as they are."""
        if values.dtype == dtype:
            return values
        output = self.empty(values.shape, dtype)
        cast(values, output)
        return output


class Host(_Device):
    """NumPy arrays and the CPU target."""

    name = "the host"
    on_gpu = False
    tile_bytes = 22 << 20
    """Bytes that a tile fills, about. Matrix products want long tiles, sweeps want tiles that stay in the cache.

    With lattices and factors of a few examples the workspace stays below 32 MiB. From there on glibc's malloc hands out
    fresh pages in every call, and the products that touch them first take a fifth longer.
    """
    memory_limit = 256 << 20
    """Bytes of a workspace where the caller names none."""
    reserve = 8 << 20
    """Bytes left unused where there is room: the BLAS packs operands into its own buffers, paid for once a process."""

    def active(self):
        """Context to work in: infinities and NaN are results here, not accidents worth a warning."""
        return np.errstate(all="ignore")

    def operand_dtype(self, dtype) -> np.dtype:
        """What matrix products of weights of a dtype take: on the host always what is computed in."""
        return arrays.computing_dtype(dtype)

    def empty(self, shape, dtype):
        """A fresh C-contiguous output, aligned for every framework that takes it without a copy."""
        dtype = np.dtype(dtype)
        size = count(shape) * dtype.itemsize
        # The bytes were rounded up, to whole elements of any dtype; the slice drops those that are too many.
        return arrays.aligned_bytes(size).view(dtype)[: size // dtype.itemsize].reshape(shape)

    def scratch(self, size: int, least: int):
        """`size` bytes for a workspace; `least` is of use to the error text of a GPU only."""
        return arrays.aligned_bytes(size)

    def pieces(self, memory):
        """A function (begin, shape, dtype) -> array in the bytes of a workspace, from `begin` on."""
        return lambda begin, shape, dtype: (
            memory[begin : begin + count(shape) * dtype.itemsize].view(dtype).reshape(shape)
        )

    def view(self, array):
        """An array as it is used many times in a pass."""
        return array

    def upload(self, space, *host_arrays) -> list:
        """Index arrays made on the host, where the kernels want them: the arguments themselves, not copies."""
        return list(host_arrays)

    def fetch(self, array) -> np.ndarray:
        """A copy of a kernel's result."""
        return array.copy()

    def mark(self) -> None:
        """The work so far, which on the host is done."""

    def follow(self, mark) -> None:
        """Wait for marked work."""

    def hold_until_read(self, like, *used) -> None:
        """Hold on to arrays until they have been read, which on the host they are."""

    def matmul(self, a, b, out) -> None:
        """out = a @ b"""
        np.matmul(a, b, out=out)

    def add_matmul(self, a, b, out, space, rows: int) -> None:
        """out += a @ b, `rows` rows of the output at a time.

        A matrix product overwrites its output, so each block is made apart, in `space`, and then added.
        """
        with space.borrowed():
            product = space.take((min(rows, len(out)), out.shape[1]), out.dtype)
            for begin in range(0, len(out), rows):
                block = out[begin : begin + rows]
                here = product[: len(block)]
                np.matmul(a[begin : begin + rows], b, out=here)
                block += here


@dataclass(frozen=True)
class Cuda(_Device):
    """CuPy arrays on one GPU, the current stream of the caller, and the CUDA target."""

    number: int
    on_gpu = True
    tile_bytes = 192 << 20
    """Bytes. Long enough for matrix products and launches; more room is better given to more examples at once."""
    memory_limit = 1 << 30
    """Bytes of a workspace where the caller names none. A sweep takes T + U steps however few examples are in a group,
    so in a small workspace most of a GPU waits."""
    reserve = 0  # what cuBLAS takes is not CuPy's memory, and not counted

    @property
    def name(self) -> str:
        return f"CUDA device {self.number}"

    @property
    def cupy(self):
        return arrays.cupy()

    def active(self):
        """Context to work in."""
        return self.cupy.cuda.Device(self.number)

    def operand_dtype(self, dtype) -> np.dtype:
        """bfloat16 weights meet hidden vectors rounded to bfloat16, whatever these are made of.

        float16 lacks the range for gradients and is widened.
        """
        return dtype if dtype.name == "bfloat16" else arrays.computing_dtype(dtype)

    def empty(self, shape, dtype):
        """A fresh output of CuPy's pool, which aligns it; not filled in."""
        try:
            return self.cupy.empty(shape, dtype)
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            size = count(shape) * np.dtype(dtype).itemsize
            raise MemoryError(
                f"{self.name} has no room for an output of {size} bytes, {self._free()} are free: with "
                "overwrite=True or out= the gradients need no memory of their own"
            ) from error

    def scratch(self, size: int, least: int):
        """`size` bytes for a workspace; with `least` bytes a smaller one would do."""
        try:
            return DeviceView.of(self.cupy.empty(aligned(size), np.uint8))
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            free = self._free()
            advice = (
                f"memory_limit={max(least, free // 2)} would do"
                if least <= free
                else f"the least that would do is {least}"
            )
            raise MemoryError(
                f"{self.name} has no room for a workspace of {size} bytes, {free} are free: {advice}"
            ) from error

    def _free(self) -> int:
        """Bytes that the device and CuPy's pool could still give."""
        pool = self.cupy.get_default_memory_pool()
        free = int(self.cupy.cuda.runtime.memGetInfo()[0]) + pool.free_bytes()
        # A limit of the pool that is not set is 0.
        return min(free, pool.get_limit() - pool.used_bytes()) if pool.get_limit() else free

    def mark(self):
        """The work so far, for `follow`."""
        return self.cupy.cuda.get_current_stream().record(self.cupy.cuda.Event(disable_timing=True))

    def follow(self, mark) -> None:
        """Let the current stream wait for marked work, which may have been given to another one."""
        self.cupy.cuda.get_current_stream().wait_event(mark)

    def hold_until_read(self, like, *used) -> None:
        """Hold on to arrays until the device has read them, where their library would not wait for that.

        torch's stream waits for ours when it takes an output, and CuPy frees memory in the order of its stream. JAX may
        reuse the memory of a temporary as soon as the temporary is let go.

        Parameters
        ----------
        like : array
            An argument as it was given, whose library decides.
        *used : arrays
            All that kernels may still read.
        """
        if type(like).__module__.partition(".")[0] not in ("cupy", "torch"):
            # `block`: a thread that waits for this event sleeps.
            event = self.cupy.cuda.Event(block=True, disable_timing=True)
            in_flight.hold_arguments(self.cupy.cuda.get_current_stream().record(event), used)

    def upload(self, space, *host_arrays) -> list:
        """Index arrays made on the host, copied to the device: into `space`, or into fresh memory without one.

        All go in one copy, through pinned memory, so that nothing waits.
        """
        begins = np.cumsum([0] + [aligned(array.nbytes) for array in host_arrays])  # in bytes; the last is the end
        size = int(begins[-1])
        block = self.empty(size, np.uint8) if space is None else space.take(size, np.uint8)
        if size:
            pinned = self.cupy.cuda.alloc_pinned_memory(size)
            staged = np.frombuffer(pinned, np.uint8, size)
            for begin, array in zip(begins, host_arrays):
                staged[begin : begin + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            block.set(staged)
            # The copy may not have begun, and reads the pinned memory when it does.
            in_flight.hold_pinned(self.mark(), pinned)
        places = zip(begins.tolist(), host_arrays)
        parts = [DeviceView.of(block).at(begin, array.shape, array.dtype) for begin, array in places]
        # Without a workspace they may be handed on, or out.
        return [part.array() for part in parts] if space is None else parts

    def fetch(self, array) -> np.ndarray:
        """A copy on the host; it waits for the device."""
        return array.get()

    def pieces(self, memory):
        """A function (begin, shape, dtype) -> view of the bytes of a workspace, from `begin` on."""

        # Tiles take the same pieces one after the other, and a view is never changed.
        @functools.lru_cache(maxsize=1 << 10)
        def piece(begin, shape, dtype):
            return memory.at(begin, shape if isinstance(shape, tuple) else (int(shape),), dtype)

        return piece

    def view(self, array):
        """A view of all of an array of CuPy, which costs less to launch with and to cut."""
        return DeviceView.of(array)

    def matmul(self, a, b, out, add: bool = False, *, tf32: bool = False) -> None:
        """out = a @ b, or out += a @ b, by cuBLAS.

        float32 is multiplied in TF32 where CuPy is set to it, or with `tf32`. bfloat16 is summed and given out in
        float32. Stacks of matrices are multiplied by CuPy.
        """
        if len(a.shape) > 2:
            self.cupy.matmul(a, b, out=out)
            return
        try:
            gemm(self.cupy, a, b, out, add, COMPUTE_32F_FAST_TF32 if tf32 else None)
        except self.cupy.cuda.cublas.CUBLASError as error:
            if a.dtype.name != "bfloat16":
                raise
            (M, K), N = a.shape, b.shape[1]
            warnings.warn(
                f"cuBLAS refuses the bfloat16 product ({M}, {K}) by ({K}, {N}): {error}. It is made in float32, from "
                f"copies that take {4 * K * (M + N)} bytes outside memory_limit",
                RuntimeWarning,
                stacklevel=2,
            )
            gemm(self.cupy, self._widened(a), self._widened(b), out, add)

    def add_matmul(self, a, b, out, space, rows: int) -> None:
        """out += a @ b, which cuBLAS does at once; `space` and `rows` are for the host."""
        self.matmul(a, b, out, add=True)

    def _widened(self, array):
        """A matrix in float32, in its own layout."""
        return self._widened(array.T).T if turned(array) else self.convert(array, np.dtype(np.float32))


def device_of(array):
    """Host or Cuda, by where an array lies."""
    return HOST if isinstance(array, np.ndarray) else Cuda(array.device.id)


HOST = Host()
