"""Views of a GPU's memory that cost little to make, because a tile makes dozens of them and launches take them all.

A view of CuPy costs some microseconds, and as much again when a launch asks it for its address, shape and strides. A
view of this module is a C-contiguous piece of an array of CuPy. It knows an address, and holds what a launch passes of
it.
"""

import math

import numpy as np

from .ptx_types import kind_name, pack_array


class DeviceView:
    """A C-contiguous array in the memory of an array of CuPy, or the transposed view of a matrix.

    Attributes
    ----------
    owner : cupy.ndarray
        Whose memory it is, which lives as long as the view.
    ptr : int
        Address of the first byte.
    shape : tuple of int
    dtype : numpy.dtype
    kind, packed : str, bytes
        As in `ptx_types`: what decides about the specialisation of a kernel, and the parameters of a launch.
    turned : bool
        The transposed view of a matrix: an operand of a matrix product, and of nothing else.
    """

    __slots__ = ("dtype", "kind", "owner", "packed", "ptr", "shape", "turned")

    def __init__(self, owner, ptr, shape, dtype):
        self.owner, self.ptr, self.shape, self.dtype, self.turned = owner, ptr, shape, dtype, False
        self.kind, self.packed = kind_name(dtype.char, len(shape)), pack_array(ptr, shape, dtype.itemsize)

    @classmethod
    def of(cls, array) -> "DeviceView":
        """All of a C-contiguous array of CuPy, or of a view."""
        return array if isinstance(array, cls) else cls(array, array.data.ptr, array.shape, array.dtype)

    # What CuPy calls these numbers.
    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: math.prod(self.shape) * self.dtype.itemsize)
    data = property(lambda self: self, doc="What has the address, as `data.ptr`.")

    def __len__(self):
        return self.shape[0]

    def __repr__(self):
        return f"DeviceView(ptr={self.ptr}, shape={self.shape}, dtype={self.dtype}, turned={self.turned})"

    def at(self, offset: int, shape: tuple[int, ...], dtype) -> "DeviceView":
        """A view of the same memory, `offset` bytes behind its begin."""
        return DeviceView(self.owner, self.ptr + offset, shape, dtype)

    def __getitem__(self, key: slice) -> "DeviceView":
        shape, dtype = self.shape, self.dtype
        begin, end, step = key.indices(shape[0])
        if step != 1 or self.turned:
            raise IndexError(f"{self!r} cannot be cut by {key}: expected a run of rows of a C-contiguous array")
        count = end - begin if end > begin else 0
        if count == shape[0]:
            return self
        # Arrays of one axis are cut most often, and cost less without what follows.
        if len(shape) == 1:
            return DeviceView(self.owner, self.ptr + begin * dtype.itemsize, (count,), dtype)
        row = math.prod(shape[1:]) * dtype.itemsize  # bytes
        return DeviceView(self.owner, self.ptr + begin * row, (count, *shape[1:]), dtype)

    @property
    def T(self) -> "DeviceView":
        """The matrix turned; a row or a column stays C-contiguous."""
        rows, columns = self.shape
        result = DeviceView(self.owner, self.ptr, (columns, rows), self.dtype)
        if not self.turned and rows != 1 and columns != 1:
            # No kernel is compiled for this kind, so a launch looks closer and refuses it.
            result.turned, result.kind = True, "turned"
        return result

    def view(self, dtype) -> "DeviceView":
        """The same bytes in another dtype, by the last axis."""
        dtype = np.dtype(dtype)
        *before, last = self.shape
        size = last * self.dtype.itemsize
        if size % dtype.itemsize or self.turned:
            raise ValueError(f"{self!r} cannot be seen as {dtype}")
        return DeviceView(self.owner, self.ptr, (*before, size // dtype.itemsize), dtype)

    def reshape(self, *shape) -> "DeviceView":
        """The same elements in another shape, of which one size may be -1."""
        known = -math.prod(shape) if -1 in shape else math.prod(shape)
        shape = tuple(self.size // max(1, known) if size == -1 else size for size in shape)
        if math.prod(shape) != self.size or self.turned:
            raise ValueError(f"{self!r} cannot be seen in the shape {shape}")
        return DeviceView(self.owner, self.ptr, shape, self.dtype)

    def array(self):
        """The same memory as an array of CuPy.

        Raises
        ------
        IndexError
            The view leaves the memory of its owner: a bug of who made it.
        """
        begin = self.ptr - self.owner.data.ptr
        end = begin + self.nbytes
        if begin < 0 or end > self.owner.nbytes:
            raise IndexError(f"{self!r} leaves the {self.owner.nbytes} bytes from {self.owner.data.ptr} on")
        shape = self.shape[::-1] if self.turned else self.shape
        # As bytes, of which any dtype can be seen. An empty array has none.
        bits = self.owner.reshape(-1).view("u1")
        array = bits[begin:end].view(self.dtype).reshape(shape)
        return array.T if self.turned else array

    # What launches and products do not need goes through an array of CuPy. All of it is rare, or waits anyway.
    def fill(self, value) -> None:
        self.array().fill(value)

    def set(self, values) -> None:
        self.array().set(values)

    def get(self):
        """A copy on the host; it waits for the device."""
        return self.array().get()

    def copy(self) -> "DeviceView":
        """A view of all of a fresh array."""
        return DeviceView.of(self.array().copy())
