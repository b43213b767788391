"""The stand-in for CuPy: what it must refuse, what it must count, and that kernels take its arrays."""

import sys
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
from numba import cuda
from numba.extending import register_jitable

from . import scheduler  # noqa: F401
from .fake_cupy import install, uninstall


@pytest.fixture
def cupy():
    yield install()
    uninstall()


@register_jitable
def scaled(x, by):
    return x * by


@cuda.jit
def scale(x, by):
    x[cuda.grid(1)] = scaled(x[cuda.grid(1)], by)


def test_a_stream_of_cupy_is_no_stream_of_numba(cupy):
    with pytest.raises(TypeError, match="Expected a Stream object"):
        scale[1, 1, cupy.cuda.Stream()]


def test_kernels_take_arrays_of_the_device(cupy):
    x = cupy.asarray(np.arange(4, dtype=np.float32))
    scale[1, 2, cuda.external_stream(cupy.cuda.Stream.null.ptr)](x[2:], 10)
    assert x.get().tolist() == [0, 1, 20, 30]
    with pytest.raises(TypeError, match="host and of the device"):
        scale[1, 1](x, np.zeros(1))
    with pytest.raises(TypeError, match="uint16"):
        scale[1, 1](cupy.asarray(np.zeros(4, ml_dtypes.bfloat16)), 1)


MIXES = {
    "add": lambda fake, host: fake + host,
    "add from the left": lambda fake, host: host + fake,
    "into the host": lambda fake, host: np.add(host, 1, out=fake),
    "in place": lambda fake, host: host.__iadd__(fake),
    "assign": lambda fake, host: fake.__setitem__(slice(None), host),
    "read by assignment": lambda fake, host: host.__setitem__(slice(None), fake),
    "asarray": lambda fake, host: np.asarray(fake),
    "matmul": lambda fake, host: sys.modules["cupy"].matmul(fake, host),
    "out": lambda fake, host: sys.modules["cupy"].add(fake, fake, out=host),
    "copyto": lambda fake, host: sys.modules["cupy"].copyto(fake, host),
    "set": lambda fake, host: fake.set(fake),
    "get": lambda fake, host: fake.get(out=fake),
    "index": lambda fake, host: host[fake],
    "from_dlpack": lambda fake, host: sys.modules["cupy"].from_dlpack(host),
}


@pytest.mark.parametrize("mix", MIXES)
def test_host_and_device_do_not_mix(cupy, mix):
    with pytest.raises((TypeError, IndexError)):
        MIXES[mix](cupy.zeros(3), np.zeros(3))


COMPILED = {
    "arithmetic": lambda x, wide: x + x,
    "with a number": lambda x, wide: x * 2,
    "in place": lambda x, wide: wide.__iadd__(x),
    "sign": lambda x, wide: -x,
    "comparison": lambda x, wide: x == x,
    "widened": lambda x, wide: x.astype(np.float32),
    "rounded": lambda x, wide: wide.astype(x.dtype),
    "assigned to float32": lambda x, wide: wide.__setitem__(slice(None), x),
    "assigned from float32": lambda x, wide: x.__setitem__(slice(None), wide),
    "assigned to columns": lambda x, wide: x[:, :2].__setitem__(..., x[:, 1:]),
    "assigned to rows": lambda x, wide: x.__setitem__(slice(None), x[:1]),
    "fill": lambda x, wide: x.fill(1),
    "fill of columns": lambda x, wide: x[:, :2].fill(0),
    "number": lambda x, wide: x.__setitem__(0, 1),
    "ones": lambda x, wide: sys.modules["cupy"].ones(3, x.dtype),
    "copy": lambda x, wide: x.copy(),
    "array": lambda x, wide: sys.modules["cupy"].array(x),
    "contiguous": lambda x, wide: sys.modules["cupy"].ascontiguousarray(x.T),
    "shape": lambda x, wide: x.T.reshape(-1),
    "get": lambda x, wide: x[:, :2].get(),
    "copyto": lambda x, wide: sys.modules["cupy"].copyto(wide, x),
    "matmul": lambda x, wide: x @ wide.T,
    "a number by matmul": lambda x, wide: x[:1] @ x[:1].T,
}


@pytest.mark.parametrize("name", COMPILED)
def test_bfloat16_is_left_to_kernels_of_ours(cupy, name):
    x = cupy.asarray(np.ones((2, 3), ml_dtypes.bfloat16))
    with pytest.raises(RuntimeError, match="CuPy would compile a kernel of bfloat16"):
        COMPILED[name](x, cupy.ones((2, 3), np.float32))


def test_bytes_of_bfloat16_may_be_moved(cupy):
    x, y = (cupy.asarray(np.full((2, 3), value, ml_dtypes.bfloat16)) for value in (1, 2))
    x[1:] = y[1:]
    assert x.get().tolist() == [[1, 1, 1], [2, 2, 2]]
    x[:, :2] = x[:, :2]
    cupy.copyto(x, y)
    assert (x.view(np.uint16).T.copy().view(x.dtype).get() == 2).all()
    x[0] = 0
    y.fill(0)
    assert x.get().sum() == 6 and not y.get().any() and not cupy.zeros(2, y.dtype).get().any()
    x[:0].copy(), x[:0].astype(np.float32)


def test_capsules_are_not_host_memory(cupy):
    x = cupy.ones(3)
    with pytest.raises((RuntimeError, BufferError)):
        np.from_dlpack(x)
    assert x.__dlpack_device__() == (2, 0) and cupy.from_dlpack(x).data.ptr == x.data.ptr
    assert "dltensor" in repr(cupy.empty(3, ml_dtypes.bfloat16).__dlpack__(stream=1, max_version=(1, 0)))


def test_views_share_and_results_do_not(cupy):
    x = cupy.asarray(np.arange(12.0).reshape(3, 4))
    before = cupy.live_bytes
    x[1, 2][...] = 50
    x[:, None].T[0].fill(-1)
    x.view(np.uint8).reshape(-1)[8:16] = 0
    assert cupy.live_bytes == before and x[1, 2].ndim == 0
    assert (x.get() == [[-1, 0, 2, 3], [-1, 5, 50, 7], [-1, 9, 10, 11]]).all()
    y = np.float64(2) * x
    y -= 1
    assert cupy.live_bytes == before + 96 and (y.get() == 2 * x.get() - 1).all()
    assert type(y).__module__ == "cupy" and cupy.may_share_memory(x, x[1:]) and not cupy.shares_memory(x, y)


def test_memory_is_counted_limited_and_poisoned(cupy):
    begin, cupy.peak_bytes = cupy.live_bytes, cupy.live_bytes
    x = cupy.empty(1000, np.float32)
    assert np.isnan(x.get()).all() and cupy.live_bytes - begin == 4000
    view = x[10:20]
    del x
    assert cupy.live_bytes - begin == 4000
    y = view + 1
    del view, y
    assert (cupy.live_bytes - begin, cupy.peak_bytes - begin) == (0, 4040)
    cupy.limit = cupy.live_bytes + 100
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="Out of memory allocating 1,000 bytes"):
        cupy.zeros(1000, np.uint8)


def test_what_makes_the_host_wait(cupy):
    x = cupy.arange(3.0)
    x += x * 2
    x.set(x.get())
    assert cupy.syncs == 1
    cupy.asnumpy(x), x[0].item(), float(x[1]), bool(x[2] > 1)
    assert cupy.syncs == 5
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        assert cupy.cuda.get_current_stream().ptr == stream.ptr != 0
        pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(24), np.float64, 3)
        pinned[:] = 0
        x.get(out=pinned, blocking=False)
        event = stream.record()
        x.fill(0)
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
    assert cupy.syncs == 5 and np.isnan(pinned).all()
    event.synchronize()
    assert cupy.syncs == 6 and pinned.tolist() == [0, 3, 6]
    stream.synchronize(), cupy.cuda.Device().synchronize()
    assert cupy.syncs == 8


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_matmul(cupy, dtype):
    rng = np.random.default_rng(0)
    a, b = (cupy.asarray(rng.standard_normal(shape).astype(dtype)) for shape in ((3, 4), (4, 5)))
    out = cupy.empty((3, 5), dtype)
    before = cupy.live_bytes
    cupy.peak_bytes = before
    assert cupy.matmul(a, b, out=out) is out and cupy.peak_bytes == before
    want = (a.get().astype(np.float32) @ b.get().astype(np.float32)).astype(dtype)
    assert (out.get() == want).all() and ((a @ b).get() == want).all()
    cupy.matmul(b.T, a.T, out=cupy.empty((5, 3), np.float64))
    with pytest.raises(ValueError, match="Axis dimension mismatch"):
        cupy.matmul(a, a)
    with pytest.raises(ValueError, match="Output array has an invalid size"):
        cupy.matmul(a, b, out=a)


def test_matmul_makes_the_copies_of_cupy(cupy):
    a, out = cupy.zeros((8, 8)), cupy.zeros((8, 8))
    for operands, extra in (
        ((a, a), 0),
        ((a.T, a), 0),
        ((a[:, :4], a[:4]), 256),
        ((a, a.astype(np.float32)), 512),
        ((out, a), 512),
    ):
        before = cupy.peak_bytes = cupy.live_bytes
        cupy.matmul(*operands, out=out)
        assert cupy.peak_bytes - before == extra


def test_the_real_cupy_comes_back():
    module = sys.modules.setdefault("cupy", ModuleType("cupy"))
    fake = install()
    import cupy

    assert cupy is fake is sys.modules["cupy"] is not module
    assert cupy.cuda.is_available() and cupy.cuda.runtime.memGetInfo() == cupy.memory_info
    uninstall()
    assert sys.modules.pop("cupy") is module
