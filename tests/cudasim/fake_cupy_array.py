"""The array of the stand-in for CuPy, and the arithmetic on it; `fake_cupy_bytes` says what is refused for bfloat16."""

import operator
from types import SimpleNamespace

import numpy as np

from .fake_cupy_bytes import capsule, compiled, moved_by_bytes
from .fake_cupy_cuda import Device, Memory, copy_later, get_current_stream

GAP = 64
"""Bytes behind an array that belong to none: an access beyond the end must not meet another array by chance."""


def apart(size):
    """Bytes of poison for one array."""
    return np.full(size + GAP, 0xFF, np.uint8)[:size]


class ndarray:
    """CuPy's array.

    `_array` is the NumPy array with its memory: launches of kernels take it, and tests look into it.
    """

    __module__, __hash__, __array_priority__ = "cupy", None, 100

    def __init__(self, shape, dtype=float):
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._memory = Memory(size)
        self._array = apart(size).view(dtype).reshape(shape)

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    nbytes = property(lambda self: self._array.nbytes)
    itemsize = property(lambda self: self._array.itemsize)
    strides = property(lambda self: self._array.strides)
    flags = property(lambda self: self._array.flags)
    device = property(lambda self: Device())
    data = property(lambda self: SimpleNamespace(ptr=self._array.ctypes.data))
    T = property(lambda self: wrap(self._array.T, self))

    def __len__(self):
        return len(self._array)

    def __repr__(self):
        return f"fake cupy {self._array!r}"

    def reshape(self, *shape, order="C"):
        return self._viewed(self._array.reshape(*shape, order=order))

    def transpose(self, *axes):
        return wrap(self._array.transpose(*axes), self)

    def ravel(self, order="C"):
        return self._viewed(self._array.ravel(order))

    def _viewed(self, array):
        """The array in another shape, for which CuPy copies where it must."""
        if not np.may_share_memory(array, self._array):
            compiled(self)
        return wrap(array, self)

    def view(self, dtype=None):
        return wrap(self._array.view(dtype or self.dtype), self)

    def __getitem__(self, key):
        return wrap(self._array[_key(key)], self)

    def __setitem__(self, key, value):
        target = self._array[_key(key)]
        if isinstance(value, ndarray):
            if not moved_by_bytes(value._array, target):
                compiled(value._array, target)
        elif operand(value) != 0 or not target.flags.c_contiguous:
            compiled(target)
        target[...] = operand(value)

    def fill(self, value):
        self[...] = value

    def copy(self, order="C"):
        compiled(self)
        return wrap(self._array.copy(order))

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self.dtype == dtype:
            return self
        result = wrap(self._array.astype(dtype, order))
        compiled(self, result)
        return result

    def get(self, stream=None, order="C", out=None, blocking=True):
        if out is not None and not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out is None:
            out = np.empty(self.shape, self.dtype, order)
        if out.dtype != self.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
        if out.shape != self.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        if not out.flags.forc:
            raise RuntimeError("`out` cannot be specified when copying to non-contiguous ndarray")
        stream = stream or get_current_stream()
        # Like CuPy: an array of another layout is first made contiguous on the device.
        same_layout = (out.flags.c_contiguous and self.flags.c_contiguous) or (
            out.flags.f_contiguous and self.flags.f_contiguous
        )
        copy_later(stream, out, self._array.copy() if same_layout else self.copy()._array)
        if blocking:
            stream.synchronize()
        return out

    def set(self, array, stream=None):
        if not isinstance(array, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != array.dtype:
            raise TypeError(f"{array.dtype} array cannot be set to {self.dtype} array")
        if self.shape != array.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {array.shape}")
        if not self.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        self._array[...] = array

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        return bool(self.get())

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *operands, out=(None,), **options):
        if method != "__call__" or options:
            return NotImplemented
        return matmul(*operands, out=out[0]) if ufunc is np.matmul else elementwise(ufunc, *operands, out=out[0])

    def __matmul__(self, other):
        return matmul(self, other)

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if dl_device is not None and int(dl_device[0]) == 1:
            return capsule(self.get(), device=1)
        return capsule(self._array, device=2)

    @property
    def __cuda_array_interface__(self):
        strides = None if self.flags.c_contiguous else self.strides
        data, stream = (self.data.ptr, False), get_current_stream().ptr or 1
        typestr = self.dtype.str
        return {
            "shape": self.shape,
            "typestr": typestr,
            "data": data,
            "strides": strides,
            "version": 3,
            "stream": stream,
        }


def _method(ufunc, swap=False, inplace=False):
    def method(self, other):
        operands = (other, self) if swap else (self, other)
        return elementwise(ufunc, *operands, out=self if inplace else None)

    return method


for _name, _ufunc in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide}.items():
    setattr(ndarray, f"__{_name}__", _method(_ufunc))
    setattr(ndarray, f"__r{_name}__", _method(_ufunc, swap=True))
    setattr(ndarray, f"__i{_name}__", _method(_ufunc, inplace=True))
for _name, _ufunc in {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}.items():
    setattr(ndarray, f"__{_name}__", _method(_ufunc))
ndarray.__eq__, ndarray.__ne__ = _method(np.equal), _method(np.not_equal)
ndarray.__neg__ = lambda self: elementwise(np.negative, self)


def wrap(array, viewed=None):
    """An array of ours over `array`: a view that shares the memory of `viewed`, or one with memory of its own."""
    if array.dtype.kind in "OSUMm":
        raise ValueError(f"Unsupported dtype {array.dtype}")
    result = ndarray.__new__(ndarray)
    if viewed is not None and np.may_share_memory(array, viewed._array):
        result._memory, result._array = viewed._memory, array
        return result
    result._memory = Memory(array.nbytes)
    by_columns = array.flags.f_contiguous and not array.flags.c_contiguous
    result._array = apart(array.nbytes).view(array.dtype).reshape(array.shape, order="F" if by_columns else "C")
    result._array[...] = array
    return result


def operand(value):
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return value
    raise TypeError(f"Unsupported type {type(value)}")


def _key(key):
    """The key with an Ellipsis, so that NumPy answers with a view even where every axis is indexed."""
    keys = key if isinstance(key, tuple) else (key,)
    for entry in keys:
        if not (entry is None or entry is Ellipsis or isinstance(entry, slice)):
            operator.index(entry)
    return keys if any(entry is Ellipsis for entry in keys) else (*keys, Ellipsis)


def elementwise(ufunc, *operands, out=None):
    arrays = [operand(entry) for entry in operands]
    compiled(*operands, out)
    if out is None:
        return wrap(np.asarray(ufunc(*arrays)))
    ufunc(*arrays, out=operand(out))
    return out


def matmul(a, b, out=None):
    """The product, with the temporaries CuPy makes where cuBLAS cannot take an operand or write the output as it is."""
    for entry in (a, b) if out is None else (a, b, out):
        if not isinstance(entry, ndarray):
            raise TypeError(f"Unsupported type {type(entry)}")
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("Scalar operands are not allowed, use '*' instead")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"Axis dimension mismatch: {a.shape} and {b.shape}")
    dtype = np.promote_types(a.dtype, b.dtype)
    batched = max(a.ndim, b.ndim) > 2
    a, b = _for_blas(a, dtype, batched), _for_blas(b, dtype, batched)
    # float16 and bfloat16 are summed in float32 and rounded once.
    computing = np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind in "fV" else dtype
    if not batched and a.size == b.size == a.shape[-1]:
        # A single number is a sum of CuPy's own, not of cuBLAS.
        compiled(a, b)
    product = np.matmul(a._array.astype(computing, copy=False), b._array.astype(computing, copy=False))
    if out is None:
        return wrap(np.asarray(product).astype(dtype))
    if out.shape != product.shape:
        raise ValueError("Output array has an invalid size")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(f"Cannot cast {dtype} to {out.dtype} in same_kind casting mode")
    written = out
    if (
        out.dtype != dtype
        or not out.flags.c_contiguous
        or any(np.may_share_memory(out._array, x._array) for x in (a, b))
    ):
        written = ndarray(out.shape, dtype)
    written._array[...] = product
    if written is not out:
        compiled(out)
        out._array[...] = written._array
    return out


def _for_blas(a, dtype, batched):
    if a.dtype != dtype:
        return a.astype(dtype)
    return a if a.flags.c_contiguous or (a.flags.f_contiguous and not batched) else a.copy()
