"""Arrays in and out: DLPack at the door, the dtype that is computed in, the workspace. Other libraries are known here alone."""

import sys

import numpy as np

REAL_NAMES = ("float32", "float64", "float16", "bfloat16")
ALIGNMENT = 64


def read(x, name: str) -> np.ndarray:
    """A NumPy view of an array argument, zero copy.

    Parameters
    ----------
    x : numpy.ndarray or any object with `__dlpack__` in host memory
    name : str
        The argument's name, for the error text.

    Raises
    ------
    TypeError
        `x` is no array, or its dtype cannot be taken.
    ValueError
        `x` requires a gradient, or lives on another device.
    """
    if isinstance(x, np.ndarray):
        return x
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"{name}: expected an array (NumPy, or with __dlpack__), got {type(x).__name__}")
    if hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) != 1:
        raise ValueError(f"{name} is on device {tuple(x.__dlpack_device__())}: only host memory (device type 1) can be read")
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError) as error:
        text = str(error)
        if "grad" in text:
            raise ValueError(f"{name} requires a gradient: pass {name}.detach() and use the gradients returned here") from error
        raise TypeError(f"{name} of type {type(x).__name__} cannot be read by DLPack: {text}") from error


class _Alias:
    """Memory of an array under another flag; keeps the array alive."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def for_kernels(array: np.ndarray) -> np.ndarray:
    """The array as the kernels take it: C-contiguous, aligned, and never marked read-only.

    Other layouts are copied. A read-only array is not: it is seen through a view without the mark, which no kernel writes to.
    Numba would compile every kernel a second time for it, and arrays of some frameworks always carry the mark.
    """
    array = np.require(array, requirements=["C", "A"])
    return array if array.flags.writeable else np.asarray(_Alias(array)).view(array.dtype)


def give_back(array: np.ndarray, like):
    """An output in the kind of the first argument, through its library's `from_dlpack`; NumPy where it has none."""
    if isinstance(like, np.ndarray) or array is None:
        return array
    if hasattr(like, "__array_namespace__"):
        library = like.__array_namespace__()
    else:
        library = sys.modules[type(like).__module__.partition(".")[0]]
    return library.from_dlpack(array) if hasattr(library, "from_dlpack") else array


def computing_dtype(dtype: np.dtype) -> np.dtype:
    """float64 for float64, float32 for everything narrower."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def empty(shape, dtype) -> np.ndarray:
    """A fresh C-contiguous output, aligned for every framework that takes it without a copy."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return aligned_bytes(size).view(dtype)[: size // dtype.itemsize].reshape(shape)


def as_output(values: np.ndarray, dtype) -> np.ndarray:
    """A fresh output that holds `values` rounded to `dtype`; values of that dtype already are handed on as they are."""
    if values.dtype == dtype:
        return values
    output = empty(values.shape, dtype)
    output[:] = values
    return output


def aligned_bytes(size: int) -> np.ndarray:
    """`size` bytes, rounded up to the alignment and starting on it."""
    size = -(-size // ALIGNMENT) * ALIGNMENT
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


class Workspace:
    """One block of scratch memory, handed out piece by piece and taken back in the opposite order.

    Parameters
    ----------
    size : int
        Bytes; nothing beyond them is allocated.
    """

    def __init__(self, size: int):
        self.memory = aligned_bytes(size)
        self.used = 0

    def take(self, shape, dtype) -> np.ndarray:
        """An uninitialised array out of the block."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        begin = self.used
        self.used += -(-size // ALIGNMENT) * ALIGNMENT
        if self.used > len(self.memory):
            raise MemoryError(f"workspace of {len(self.memory)} bytes is {self.used - len(self.memory)} bytes short")
        return self.memory[begin : begin + size].view(dtype).reshape(shape)

    def release(self, mark: int) -> None:
        """Take back everything handed out since `used` was `mark`."""
        self.used = mark
