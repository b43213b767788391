"""What a launch hands to the driver: the packed parameters are read back by address, as the driver would."""

import ctypes
import struct
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from lattice.device import arrays
from lattice.kernels import ptx
from lattice.kernels.device_view import DeviceView


class Array:
    """As much of a device array as a launch looks at."""

    def __init__(self, pointer, shape, dtype):
        array = np.empty(shape, dtype)
        self.shape, self.dtype, self.ndim, self.size = array.shape, array.dtype, array.ndim, array.size
        self.itemsize, self.strides, self.flags = array.itemsize, array.strides, array.flags
        self.data = SimpleNamespace(ptr=pointer)


class Driver:
    """Takes launches down: (function, grid, block, shared memory, stream, addresses of the parameters)."""

    def __init__(self):
        self.launches, self.contexts = [], []
        self.device, self.stream = 3, 77
        self.cuda = SimpleNamespace(
            Device=lambda: SimpleNamespace(id=self.device, compute_capability="90"),
            get_current_stream=lambda number: SimpleNamespace(ptr={self.device: self.stream}[number]),
            runtime=SimpleNamespace(
                getDevice=lambda: self.device, memGetInfo=lambda: self.contexts.append(threading.get_ident())
            ),
            driver=SimpleNamespace(launchKernel=self.launch),
        )

    def launch(self, function, x, y, z, bx, by, bz, shared, stream, parameters, extra):
        assert extra == 0
        addresses = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))
        raw = [ctypes.string_at(addresses[i], 8) for i in range(30)]
        self.launches.append((function, (x, y, z), (bx, by, bz), shared, stream, raw))


@pytest.fixture
def driver(monkeypatch):
    driver = Driver()
    monkeypatch.setattr(arrays, "cupy", lambda: driver)
    monkeypatch.setattr(ptx, "_make", lambda kernel, arguments, cc: SimpleNamespace(ptr=1234))
    monkeypatch.setattr(ptx, "_functions", {})
    monkeypatch.setattr(ptx, "_slots", ptx._Slots())
    return driver


def test_parameters_reach_the_driver_in_numbas_convention(driver):
    arguments = (
        Array(2**46 + 8, (5, 7), np.float32),
        9,
        True,
        np.float32(0.1),
        0.3,
        Array(640, (4,), np.uint16),
        np.float64(2.5),
    )
    for _ in range(2):
        ptx.run("kernel", (11, 2), 96, arguments)
    function, grid, block, shared, stream, raw = driver.launches[1]
    assert (function, grid, block, shared, stream) == (1234, (11, 2, 1), (96, 1, 1), 0, 77)
    expected = [0, 0, 35, 4, 2**46 + 8, 5, 7, 28, 4, 9, 1]
    assert [struct.unpack("<q", part)[0] for part in raw[:11]] == expected
    assert struct.unpack("<f", raw[11][:4])[0] == np.float32(0.1) and struct.unpack("<d", raw[12])[0] == 0.3
    assert [struct.unpack("<q", part)[0] for part in raw[13:20]] == [0, 0, 4, 2, 640, 4, 2]
    assert struct.unpack("<d", raw[20])[0] == 2.5
    assert len(driver.contexts) == 1


def test_a_view_passes_what_its_array_passes(driver):
    """Whatever view it is, and in whatever order arrays and views meet a kernel: one specialisation."""
    for shape, dtype, strides in (
        ((3, 4), np.float32, (16, 4)),
        ((6,), np.int64, (8,)),
        ((2, 3, 4), np.uint16, (24, 8, 2)),
        ((0, 5), np.float64, (40, 8)),
    ):
        array = Array(640, shape, dtype)
        ptx.run("kernel", (1,), 32, (array, 7, np.float32(2)))
        ptx.run("kernel", (1,), 32, (DeviceView.of(array), 7, np.float32(2)))
        one, other = (launch[-1][: 7 + 2 * len(shape)] for launch in driver.launches[-2:])
        expected = [0, 0, array.size, array.itemsize, 640, *shape, *strides, 7]
        assert one == other and [struct.unpack("<q", part)[0] for part in one[:-1]] == expected
    assert len(ptx._functions) == 4


def test_each_launch_asks_for_the_stream_of_its_own_time(driver):
    view = DeviceView.of(Array(640, (3,), np.float32))
    for driver.stream in (77, 78, 79):
        ptx.run("kernel", (1,), 32, (view,))
    assert [launch[4] for launch in driver.launches] == [77, 78, 79]


def test_a_turned_view_is_refused(driver):
    turned = DeviceView.of(Array(640, (3, 4), np.float32)).T
    for _ in range(2):
        with pytest.raises(ValueError, match=r"C-contiguous arrays, not .*turned=True"):
            ptx.run("kernel", (1,), 32, (turned,))
    assert not driver.launches
    ptx.run("kernel", (1,), 32, (turned.T,))
    assert len(driver.launches) == 1


def test_each_type_and_each_device_has_its_own_kernel(driver, monkeypatch):
    made = []
    monkeypatch.setattr(ptx, "_make", lambda kernel, arguments, cc: made.append(cc) or SimpleNamespace(ptr=len(made)))
    for dtype in (np.float32, np.float64, np.float32):
        ptx.run("kernel", (1,), 32, (Array(0, (2,), dtype),))
    ptx.run("kernel", (1,), 32, (Array(0, (2, 2), np.float32),))
    driver.device = 4
    ptx.run("kernel", (1,), 32, (Array(0, (2,), np.float32),))
    assert [launch[0] for launch in driver.launches] == [1, 2, 1, 3, 4]
    assert made == [(9, 0)] * 4


def test_threads_pack_apart_and_meet_the_context_once_each(driver):
    def call(number):
        for _ in range(200):
            ptx.run("kernel", (1,), 32, (number, Array(number, (number,), np.int64)))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(driver.launches) == 800 and len(driver.contexts) == 4
    for *_, raw in driver.launches:
        number, _, _, size, _, pointer, length, _ = (struct.unpack("<q", part)[0] for part in raw[:8])
        assert number == size == pointer == length


def test_the_context_is_there_before_the_first_module(driver, monkeypatch):
    steps = []
    driver.cuda.runtime.memGetInfo = lambda: steps.append("context")
    monkeypatch.setattr(ptx, "_make", lambda kernel, arguments, cc: steps.append("module") or SimpleNamespace(ptr=1))
    for kernel in ("first", "second"):
        ptx.run(kernel, (1,), 32, (1,))
    assert steps == ["context", "module", "module"]


def test_a_strided_array_is_refused(driver):
    strided = Array(0, (4, 4), np.float32)
    strided.flags = np.empty((4, 8))[:, ::2].flags
    with pytest.raises(ValueError, match="C-contiguous"):
        ptx.run("kernel", (1,), 32, (strided,))
    assert not driver.launches
