"""A stand-in for CuPy on NumPy memory, for a process without a GPU.

The stand-in is strict where CuPy is strict: host arrays do not mix in. `cupy = install()` puts it in `sys.modules`,
`uninstall()` takes it out. `cupy.syncs` counts the times the host waited. `cupy.live_bytes` and `cupy.peak_bytes` count
the memory of all arrays that are no views, `cupy.limit` bounds it. Fresh memory is poison, and so is the target of a
copy to the host that nobody has waited for yet.
"""

import sys
from importlib.machinery import ModuleSpec

import numpy as np

from .fake_cupy_array import elementwise, matmul, ndarray, operand, wrap
from .fake_cupy_bytes import compiled, moved_by_bytes
from .fake_cupy_cuda import cupy, reset

_modules = (cupy, cupy.cuda, cupy.cuda.memory, cupy.cuda.runtime)
_hidden = {}


def install():
    """Put the stand-in in the place of CuPy, its books fresh; the module `cupy`."""
    if sys.modules.get("cupy") is not cupy:
        names = [name for name in sys.modules if name.partition(".")[0] == "cupy"]
        _hidden.update((name, sys.modules.pop(name)) for name in names)
        sys.modules.update((module.__name__, module) for module in _modules)
    reset()
    return cupy


def uninstall():
    """Undo `install`."""
    for module in _modules:
        sys.modules.pop(module.__name__, None)
    sys.modules.update(_hidden)
    _hidden.clear()


def full(shape, fill_value, dtype=None, order="C"):
    result = wrap(np.full(shape, operand(fill_value), dtype))
    if operand(fill_value) != 0:
        compiled(result)
    return result


def zeros(shape, dtype=float, order="C"):
    return full(shape, 0, dtype)


def ones(shape, dtype=float, order="C"):
    return full(shape, 1, dtype)


def arange(*limits, dtype=None):
    return wrap(np.arange(*limits, dtype=dtype))


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        dtype = obj.dtype if dtype is None else np.dtype(dtype)
        return obj.astype(dtype, copy=bool(copy))
    cupy.syncs += blocking
    return wrap(np.array(obj, dtype, order=order, ndmin=ndmin))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy=copy, order=order or "K", blocking=blocking)


def ascontiguousarray(a, dtype=None):
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    values = np.asarray(a, order=order)
    if out is None:
        return values
    out[...] = values
    return out


def from_dlpack(x):
    """An array of ours over the memory of one of ours, or of the one that a test's foreign tensor holds as `_fake`."""
    if not hasattr(x, "_fake") and not isinstance(x, ndarray):
        if int(x.__dlpack_device__()[0]) == 1:
            raise TypeError(
                "CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))` instead."
            )
        raise BufferError(
            f"the stand-in for CuPy cannot read a capsule of {type(x).__name__}: give it an attribute `_fake`"
        )
    return getattr(x, "_fake", x).view()


def copyto(dst, src, casting="same_kind", where=None):
    if not isinstance(dst, ndarray):
        raise TypeError(f"Unsupported type {type(dst)}")
    if not isinstance(src, ndarray) or where is not None or not moved_by_bytes(src._array, dst._array):
        compiled(src, dst)
    np.copyto(dst._array, operand(src), casting=casting, where=True if where is None else operand(where))


def shares_memory(a, b, max_work=None):
    return np.shares_memory(operand(a), operand(b), max_work)


def may_share_memory(a, b, max_work=None):
    return np.may_share_memory(operand(a), operand(b), max_work)


def get_array_module(*args):
    return cupy if any(isinstance(arg, ndarray) for arg in args) else np


def _ufunc(function):
    def call(*operands, out=None):
        return elementwise(
            function, *operands[: function.nin], out=operands[-1] if len(operands) > function.nin else out
        )

    return call


for _name in ("add", "subtract", "multiply", "divide", "negative"):
    setattr(cupy, _name, _ufunc(getattr(np, _name)))
for _name in (
    "bool_",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
):
    setattr(cupy, _name, getattr(np, _name))
for _function in (full, zeros, ones, arange, array, asarray, ascontiguousarray, asnumpy, from_dlpack, copyto, matmul):
    setattr(cupy, _function.__name__, _function)
cupy.shares_memory, cupy.may_share_memory, cupy.get_array_module = shares_memory, may_share_memory, get_array_module
cupy.ndarray = ndarray
cupy.empty = lambda shape, dtype=float, order="C": ndarray(shape, dtype)
cupy.dtype, cupy.inf, cupy.nan, cupy.newaxis = np.dtype, np.inf, np.nan, None
cupy.__version__, cupy.__spec__ = "14.2.0", ModuleSpec("cupy", None)
