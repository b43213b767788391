"""The scheduler of the simulator: what it must run, and what it must refuse."""

import math
from types import ModuleType

import numba
import numpy as np
import pytest

pytest.importorskip("greenlet")

from numba import cuda

from . import scheduler

HELPERS = """
from numba import cuda as gpu
from numba.extending import register_jitable

def rank():
    return gpu.blockIdx.x * gpu.blockDim.x + gpu.threadIdx.x

@register_jitable
def warp_sum(value):
    step = 16
    while step:
        value += gpu.shfl_down_sync(0xFFFFFFFF, value, step)
        step //= 2
    return value
"""
helpers = ModuleType("helpers")
exec(HELPERS, helpers.__dict__)


@pytest.fixture(params=scheduler.ORDERS)
def order(request, monkeypatch):
    monkeypatch.setattr(scheduler, "ORDER", request.param)
    return request.param


@cuda.jit
def reverse_block(x, barrier):
    shared = cuda.shared.array(64, numba.float64)
    i, n = cuda.threadIdx.x, cuda.blockDim.x
    shared[i] = x[i]
    if barrier:
        cuda.syncthreads()
    x[i] = shared[n - 1 - i]


def test_a_barrier_makes_every_order_agree(order):
    reverse_block[1, 64](x := np.arange(64.0), True)
    assert (x == np.arange(64.0)[::-1]).all()


def test_a_missing_barrier_shows(order):
    reverse_block[1, 64](x := np.arange(64.0), False)
    assert np.isnan(x).any()


def test_a_value_overwritten_too_early_shows_under_some_order(monkeypatch):
    @cuda.jit
    def racy(x):
        i = cuda.threadIdx.x
        left = x[i - 1] if i else 0.0
        x[i] = left + 1.0

    seen = []
    for order in scheduler.ORDERS:
        monkeypatch.setattr(scheduler, "ORDER", order)
        racy[1, 8](x := np.zeros(8))
        seen.append((x == 1).all())
    assert any(seen) and not all(seen)


def test_shared_and_local_memory_start_as_poison_in_every_block():
    @cuda.jit
    def kernel(out):
        one, other = cuda.shared.array(1, numba.float32), cuda.shared.array(1, numba.int32)
        dynamic, local = cuda.shared.array(0, numba.float64), cuda.local.array(1, numba.float32)
        out[cuda.blockIdx.x] = math.isnan(one[0]) and other[0] == -1 and math.isnan(dynamic[1]) and math.isnan(local[0])
        one[0], other[0], dynamic[1] = 0, 0, 0

    kernel[3, 1, 0, 16](out := np.zeros(3, bool))
    assert out.all()


def test_warp_shuffles(order):
    @cuda.jit
    def kernel(x, out):
        i, full = cuda.grid(1), 0xFFFFFFFF
        out[0, i] = cuda.shfl_sync(full, x[i], 3)
        out[1, i] = cuda.shfl_up_sync(full, x[i], 1)
        out[2, i] = cuda.shfl_down_sync(full, x[i], 2)
        out[3, i] = cuda.shfl_xor_sync(full, x[i], 5)
        cuda.syncwarp()

    x = np.random.default_rng(0).standard_normal(64)
    out, lane, first = np.zeros((4, 64)), np.arange(64) % 32, np.arange(64) // 32 * 32
    kernel[2, 32](x, out)
    assert (out[0] == x[first + 3]).all()
    assert (out[1] == x[first + np.maximum(lane - 1, 0)]).all()
    assert (out[2] == x[first + np.where(lane + 2 < 32, lane + 2, lane)]).all()
    assert (out[3] == x[first + (lane ^ 5)]).all()


def test_a_shuffle_from_a_lane_that_is_not_there_is_undefined():
    @cuda.jit
    def kernel(out):
        out[cuda.threadIdx.x] = cuda.shfl_down_sync(0xFFFFFFFF, np.float32(1.0), 4)

    kernel[1, 8](out := np.zeros(8))
    assert (out[:4] == 1).all() and np.isnan(out[4:]).all()


def test_votes_and_bits(order):
    @cuda.jit
    def kernel(out):
        lane = cuda.laneid
        ballot = cuda.ballot_sync(0xFFFFFFFF, lane >= 8)
        out[lane, 0] = cuda.popc(ballot & cuda.lanemask_lt())
        out[lane, 1] = cuda.ffs(ballot)
        out[lane, 2] = cuda.clz(cuda.ballot_sync(0xFFFFFFFF, lane < 4))
        out[lane, 3] = cuda.all_sync(0xFFFFFFFF, lane < 32) and not cuda.all_sync(0xFFFFFFFF, lane < 31)
        out[lane, 4] = cuda.any_sync(0xFFFFFFFF, lane == 31) and not cuda.any_sync(0xFFFFFFFF, lane == 32)
        out[lane, 5] = cuda.popc(cuda.match_any_sync(0xFFFFFFFF, lane % 4))
        out[lane, 6] = cuda.ballot_sync(0xFFFFFFFF, True)

    kernel[1, 32](out := np.zeros((32, 7), int))
    assert (out[:, 0] == np.maximum(np.arange(32) - 8, 0)).all()
    assert (out[:, 1:] == [9, 28, 1, 1, 8, -1]).all()


def test_counting_barriers(order):
    @cuda.jit
    def kernel(out):
        i = cuda.threadIdx.x
        out[i, 0] = cuda.syncthreads_count(i < 3)
        out[i, 1] = cuda.syncthreads_and(i < 40)
        out[i, 2] = cuda.syncthreads_or(i == 40)

    kernel[1, 40](out := np.zeros((40, 3), int))
    assert (out == [3, 1, 0]).all()


def test_helpers_of_other_modules(order):
    @cuda.jit
    def kernel(x, out):
        i = helpers.rank()
        total = helpers.warp_sum(x[i])
        if cuda.laneid == 0:
            out[i // 32] = total

    kernel[2, 64](x := np.arange(128.0), out := np.zeros(4))
    assert (out == x.reshape(4, 32).sum(1)).all()
    with pytest.raises(AttributeError, match="blockIdx"):
        helpers.rank()


@pytest.mark.filterwarnings("error")
def test_arithmetic_is_silent():
    @cuda.jit
    def kernel(x):
        x[0] = x[1] - x[1]
        x[1] = np.uint32(1 << 31) * np.uint32(2)

    kernel[1, 1](x := np.full(2, np.inf))
    assert np.isnan(x[0]) and x[1] == 0


def test_a_barrier_that_some_threads_never_reach(order, monkeypatch):
    @cuda.jit
    def kernel(x):
        if cuda.threadIdx.x < 5:
            return
        cuda.syncthreads()
        x[0] = 1

    with pytest.raises(RuntimeError, match=r"syncthreads at kernel:.* reached by 27 of 32 threads"):
        kernel[1, 32](np.zeros(1))
    monkeypatch.setattr(scheduler, "STRICT", False)
    kernel[1, 32](x := np.zeros(1))
    assert x == 1


def test_two_barriers_in_the_branches_of_one_condition():
    @cuda.jit
    def kernel():
        if cuda.threadIdx.x < 32:
            cuda.syncthreads()
        else:
            cuda.syncthreads()

    with pytest.raises(RuntimeError, match="different barriers"):
        kernel[1, 64]()


def test_deadlock(order):
    @cuda.jit
    def kernel():
        if cuda.threadIdx.x < 16:
            cuda.syncwarp()
        else:
            cuda.syncthreads()

    with pytest.raises(RuntimeError, match="deadlock in block"):
        kernel[1, 32]()


def test_an_error_says_where_and_leaves_nothing_behind():
    @cuda.jit
    def kernel(x):
        cuda.syncthreads()
        x[cuda.threadIdx.x] = 1

    with pytest.raises(IndexError, match=r"in thread \(3, 0, 0\) of block \(0, 0, 0\)"):
        kernel[1, 4](np.zeros(3))
    kernel[1, 4](x := np.zeros(4))
    assert x.all()


def test_arguments_alias_and_configurations_stay():
    @cuda.jit
    def kernel(x, y):
        y[cuda.grid(1)] = x[cuda.grid(1)] + 1

    x = np.zeros(8)
    two, eight = kernel[1, 2], kernel[2, 4, cuda.external_stream(7), 16]
    two(x, x)
    assert x.sum() == 2
    eight(x, x)
    assert x.sum() == 10
    assert scheduler.LAUNCHES[-1] == ("kernel", (2, 1, 1), (4, 1, 1), 7, 16)


@pytest.mark.parametrize("configuration", [(1, 2048), (0, 32), ((1, 1 << 16), 1), (1, 32, 0, 49153)], ids=str)
def test_what_a_gpu_cannot_launch(configuration):
    with pytest.raises(ValueError, match=r"grid|block|bytes"):
        reverse_block[configuration](np.zeros(64), True)


def test_too_much_static_shared_memory():
    @cuda.jit
    def kernel():
        cuda.shared.array(6145, numba.float64)

    with pytest.raises(RuntimeError, match="49160 bytes"):
        kernel[1, 1]()
