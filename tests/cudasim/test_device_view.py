"""Views of device memory behave as CuPy's own views do, and none leaves the memory that it is a view of."""

import weakref

import ml_dtypes
import numpy as np
import pytest

from lattice.device.memory import Cuda
from lattice.device.workspace import Workspace
from lattice.kernels.device_view import DeviceView
from lattice.kernels.rows import gather

CUTS = (slice(0, 3), slice(2, 9), slice(None), slice(4, 2), slice(-2, None), slice(7, 7))


def same(view, array):
    """The view is that array: its numbers, and its values in the same memory."""
    seen = view.array()
    assert (view.shape, view.dtype, view.ndim, view.size) == (array.shape, array.dtype, array.ndim, array.size)
    assert (view.nbytes, view.itemsize, len(view)) == (array.nbytes, array.itemsize, len(array))
    assert not view.size or view.data.ptr == view.ptr == seen.data.ptr == array.data.ptr
    assert np.array_equal(seen._array, array._array) and view.dtype == seen.dtype
    assert not view.size or view.turned != array.flags.c_contiguous == seen.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(7,), (7, 4), (1, 4), (7, 1), (5, 3, 2)], ids=str)
def test_what_is_done_to_a_view(device, shape, dtype):
    array = device.asarray(np.arange(np.prod(shape)).reshape(shape).astype(dtype))
    view = DeviceView.of(array)
    same(view, array)
    for cut in CUTS:
        same(view[cut], array[cut])
        same(view[cut][1:2], array[cut][1:2])
    for other in ((-1,), (-1, 1), (1, -1), (view.size,)):
        same(view.reshape(*other), array.reshape(*other))
    same(view.view(np.uint8), array.view(np.uint8))
    if len(shape) == 2:
        same(view.T, array.T)
        same(view.T.T, array)
    if view.nbytes % 16 == 0 and view.shape[-1] * view.itemsize % 8 == 0:
        same(view.view(np.float64), array.view(np.float64))
    assert DeviceView.of(view) is view
    assert np.array_equal(view.get().view(np.uint8), array.get().view(np.uint8))


def test_values_go_in_and_out(device):
    memory = DeviceView.of(device.asarray(np.zeros(96, np.uint8)))
    part = memory.at(32, (2, 4), np.dtype(np.float32))
    part.fill(3)
    assert (
        part.get().tolist() == [[3] * 4] * 2 and memory.get().view(np.float32).tolist() == [0] * 8 + [3] * 8 + [0] * 8
    )
    part.set(np.full((2, 4), 5, np.float32))
    copy = part.copy()
    part.fill(0)
    assert copy.get().tolist() == [[5] * 4] * 2 and copy.owner is not memory.owner and not part.get().any()


@pytest.mark.parametrize("begin, shape", [(-4, (2,)), (4, (24,)), (100, (0,)), (0, (5, 5))])
def test_a_view_that_leaves_its_memory_is_told_before_it_is_launched(device, begin, shape):
    memory = DeviceView.of(device.asarray(np.zeros(96, np.uint8)))
    outside = memory.at(begin, shape, np.dtype(np.float32))
    with pytest.raises(IndexError, match="leaves the 96 bytes"):
        outside.array()
    rows = outside.reshape(-1, 1)
    ids = DeviceView.of(device.asarray(np.zeros(max(1, rows.size), np.int64)))
    with pytest.raises(IndexError, match="leaves the 96 bytes"):
        gather(rows, ids, DeviceView.of(device.asarray(np.zeros((len(ids), 1), np.float32))))


def test_a_thread_behind_the_end_of_a_cut_is_told(device):
    """There is memory behind a cut, of the same workspace. The simulator sees the cut alone."""
    source = DeviceView.of(device.asarray(np.zeros((8, 1), np.float32)))[:4]
    ids, target = (DeviceView.of(device.asarray(x)) for x in (np.array([4]), np.zeros((1, 1), np.float32)))
    with pytest.raises(IndexError):
        gather(source, ids, target)


@pytest.mark.parametrize(
    "broken", [lambda v: v[::2], lambda v: v.T[:1], lambda v: v.reshape(5, 5), lambda v: v[:, :1], lambda v: v[0]]
)
def test_what_is_no_view_is_refused(device, broken):
    with pytest.raises((IndexError, ValueError, AttributeError)):
        broken(DeviceView.of(device.asarray(np.zeros((4, 6), np.float32))))
    with pytest.raises(ValueError, match="cannot be seen as float32"):
        DeviceView.of(device.asarray(np.zeros((4, 7), np.uint8))).view(np.float32)


def test_a_view_keeps_its_memory(device):
    space = Workspace(1024, Cuda(0))
    part, memory = space.take((3, 4), np.float32)[1:], weakref.ref(space.memory.owner._memory)
    del space
    assert memory() is not None and part.get().shape == (2, 4)
    del part
    assert memory() is None


def test_an_index_array_without_a_workspace_is_cupys_own(device):
    parts = Cuda(0).upload(None, np.arange(3), np.zeros((0, 2)), np.ones((2, 2), np.int32))
    assert all(isinstance(part, device.ndarray) for part in parts)
    lent = Cuda(0).upload(Workspace(1024, Cuda(0)), np.arange(3), np.zeros((0, 2)), np.ones((2, 2), np.int32))
    for part, view in zip(parts, lent):
        assert isinstance(view, DeviceView) and np.array_equal(view.get(), part.get()) and view.shape == part.shape
