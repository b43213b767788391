"""Arrays in and out: DLPack at the door, outputs in kind, the dtype that is computed in. The only importer of CuPy."""

import functools
import sys

import numpy as np

from . import dlpack

REAL_NAMES = ("float32", "float64", "float16", "bfloat16")
ALIGNMENT = 64
"""Bytes, the most that a framework asks of host memory that it takes without a copy."""


@functools.cache
def cupy():
    """CuPy, imported when the first array on a GPU arrives.

    Raises
    ------
    RuntimeError
        What is missing for CUDA: CuPy, a driver, a device, or the numba-cuda that compiles the kernels.
    """
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(f"CuPy cannot be imported ({error}): pip install 'transducer-lattice[cuda13]'") from error
    if not cupy.cuda.is_available():
        raise RuntimeError("CuPy finds no CUDA device, or no driver that is new enough for it")
    try:
        from numba import config, cuda
    # A numba-cuda that does not fit to numba fails in many ways.
    except Exception as error:
        raise RuntimeError(f"numba.cuda cannot be imported ({type(error).__name__}: {error})") from error
    if not config.ENABLE_CUDASIM and getattr(cuda, "implementation", "") != "NVIDIA":
        raise RuntimeError("numba's own CUDA target does not compile these kernels: pip install 'numba-cuda[cu13]'")
    return cupy


def read(x, name: str):
    """An array argument as NumPy or CuPy sees it, zero copy.

    Parameters
    ----------
    x : numpy.ndarray, cupy.ndarray, or any object with `__dlpack__`
    name : str
        The argument's name, for the error text.

    Raises
    ------
    TypeError
        `x` is no array, or its dtype cannot be taken.
    ValueError
        `x` requires a gradient, or lives on a device that cannot be used.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would not be seen: pass {name}.filled(...)")
    if isinstance(x, np.ndarray):
        # A subclass may redefine what indexing and arithmetic do; its view as a plain array does not.
        return x if type(x) is np.ndarray else x.view(np.ndarray)
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"{name}: expected an array (NumPy, CuPy, or with __dlpack__), got {type(x).__name__}")
    try:
        kind, number = _device_of(x, name)
        if kind in (dlpack.CPU, dlpack.CUDA_HOST):
            return dlpack.to_numpy(x)
        if kind in (dlpack.CUDA, dlpack.CUDA_MANAGED):
            return _on_gpu(x, name, number)
    except (BufferError, RuntimeError, TypeError, AttributeError) as error:
        text = str(error).partition("\n")[0]
        # torch's refusal of a gradient differs from others in its words only.
        if "grad" in text:
            raise ValueError(
                f"{name} requires a gradient: pass {name}.detach() and use the gradients returned here"
            ) from error
        if "Tracer" in type(x).__name__:
            text = "inside jit there is no memory to read: call from jax.pure_callback, or outside jit"
        raise TypeError(f"{name} of type {type(x).__name__} cannot be read by DLPack: {text}") from error
    raise ValueError(f"{name} is on device type {kind}, expected host memory (1) or CUDA ({dlpack.CUDA})")


def _device_of(x, name: str) -> tuple[int, int]:
    """DLPack's device type and number."""
    try:
        kind, number = x.__dlpack_device__()
        return int(kind), int(number)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{name} of type {type(x).__name__} has no device: {error}") from error


def _on_gpu(x, name: str, number: int):
    try:
        module = cupy()
    except RuntimeError as error:
        raise ValueError(f"{name} is on CUDA device {number}, which cannot be used: {error}") from error
    if isinstance(x, module.ndarray):
        return x
    with module.cuda.Device(number):
        return module.from_dlpack(x)


def to_host(**arguments) -> list:
    """Arguments of whole numbers with those on a GPU copied to the host, all in one wait; pairs are looked into.

    The one synchronisation at the door. Anything else is handed on as it is, for the checks to judge.
    """
    waited_for, copies = {}, []
    try:
        for name, x in arguments.items():
            if isinstance(x, (tuple, list)):
                kind = list if isinstance(x, list) else tuple
                copies.append(kind(_start_copy(part, f"{name}[{i}]", waited_for) for i, part in enumerate(x)))
            else:
                copies.append(_start_copy(x, name, waited_for))
    finally:
        # After an error, too: the memory of a copy that is still under way must not go to someone else.
        for number, stream in waited_for.items():
            with cupy().cuda.Device(number):
                stream.synchronize()
    return copies


def _start_copy(x, name: str, waited_for: dict):
    """A host array that a copy is on its way into, the stream noted; anything but an array on a GPU as it is."""
    if not hasattr(x, "__dlpack_device__") or _device_of(x, name)[0] not in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        return x
    array = for_kernels(read(x, name))
    with array.device:
        stream = cupy().cuda.get_current_stream()
        waited_for[array.device.id] = stream
        # A copy into pinned memory runs on by itself. A copy into any other memory would be waited for.
        pinned = cupy().cuda.alloc_pinned_memory(max(1, array.nbytes))
        out = np.frombuffer(pinned, array.dtype, array.size).reshape(array.shape)
        return array.get(stream=stream, out=out, blocking=False)


def bits(array):
    """Half precision as uint16, the rest as it is. CuPy copies bits without the headers that half precision takes."""
    return array.view(np.uint16) if array.dtype.name in ("float16", "bfloat16") else array


class _Alias:
    """Memory of an array under another flag; keeps the array alive."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def for_kernels(array):
    """The array as the kernels take it: C-contiguous, aligned, and never marked read-only.

    Other layouts are copied. A read-only array is not copied, but seen through a view without the mark, which no kernel
    writes to. With the mark numba would compile every kernel a second time, and arrays of some frameworks always carry
    it.
    """
    if not isinstance(array, np.ndarray):
        with array.device:
            return array if array.flags.c_contiguous else bits(array).copy(order="C").view(array.dtype)
    array = np.require(array, requirements=["C", "A"])
    # The view's dtype is set anew: the array interface has no name for bfloat16.
    return array if array.flags.writeable else np.asarray(_Alias(array)).view(array.dtype)


def is_read_only(x, array) -> bool:
    """Whether the memory of argument `x`, read as `array`, may not be written to."""
    if isinstance(array, np.ndarray):
        return not array.flags.writeable
    with array.device:
        # A CuPy array has no such mark.
        return x is not array and dlpack.is_read_only(x)


def address(array) -> int:
    """Of the first byte, on the host or on a GPU."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def overlap(one, other) -> bool:
    """Whether two C-contiguous arrays share memory."""
    first, second = address(one), address(other)
    return first < second + other.nbytes and second < first + one.nbytes


def give_back(array, like):
    """An output in the kind of the first argument, by its library's `from_dlpack`; as it is where there is none."""
    if array is None or type(array) is type(like) or isinstance(like, np.ndarray):
        return array
    if hasattr(like, "__array_namespace__"):
        return like.__array_namespace__().from_dlpack(dlpack.exporter(array))
    # A class derived from an array of a library lies in a module of its own, so its bases are asked, too.
    for base in type(like).__mro__:
        library = sys.modules.get(base.__module__.partition(".")[0])
        if hasattr(library, "from_dlpack"):
            return library.from_dlpack(dlpack.exporter(array))
    return array


def computing_dtype(dtype: np.dtype) -> np.dtype:
    """float64 for float64, float32 for everything narrower."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def aligned(size: int) -> int:
    """`size` bytes rounded up to a multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def aligned_bytes(size: int) -> np.ndarray:
    """`size` bytes of host memory, rounded up to the alignment and starting on it."""
    size = aligned(size)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    # Bytes up to the next multiple, 0 on one; the slice keeps the memory alive.
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]
