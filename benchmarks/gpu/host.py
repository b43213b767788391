"""Python's share of a fused joint on a GPU, measured without one: `python -m benchmarks.gpu.host [--json FILE]`.

CuPy's own arrays lie over addresses that belong to nobody, and what would reach the driver is counted and does nothing.
So the times are those of Python alone. A device adds what its driver takes for a launch.
"""

import argparse
import contextlib
import statistics
import time
from collections import Counter
from functools import partial
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np

from lattice.device import arrays
from lattice.device.memory import Cuda
from lattice.inputs.joint import JointProblem
from lattice.inputs.targets import Targets
from lattice.kernels import ptx
from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.emissions import emit
from lattice.kernels.gradient import gradient
from lattice.kernels.hidden_transpose import hidden_transpose
from lattice.kernels.state import CellState, Visited
from lattice.tiles import full_sum
from lattice.tiles.certificate import BoundedGroups
from lattice.tiles.gradients import Outputs
from lattice.tiles.tiler import Tiler
from lattice.topology import Topology

from .. import record
from .problems import real_dtype

SIZES = {"B": 32, "T": 400, "U": 80, "V": 1024, "H": 640}
LIMIT = 64 << 20
"""Bytes of the workspace: small, so that there are many tiles. Their size changes nothing of what Python does."""
ROUNDS = 9
CALLS = 500


class Driver:
    """What CuPy hands to the driver, counted; `cupy` is CuPy but for that."""

    def __init__(self):
        import cupy

        self.calls, self.next = Counter(), 1 << 40

        class Array(cupy.ndarray):
            """An array whose contents nobody reads or writes."""

            def fill(self, value):
                pass

            def set(self, values, stream=None):
                pass

            def __setitem__(self, key, value):
                pass

            def __iadd__(self, other):
                return self

        self.array, self.memory = Array, cupy.cuda
        self.cupy, cuda = ModuleType("cupy"), ModuleType("cupy.cuda")
        vars(self.cupy).update(vars(cupy), cuda=cuda, empty=self.empty, matmul=self.counted("matmul"))
        stream = SimpleNamespace(ptr=0, record=lambda event: event)
        driver = SimpleNamespace(launchKernel=self.counted("launch"))
        cublas = SimpleNamespace(CUBLASError=RuntimeError, gemmEx=self.counted("gemm"))
        runtime = SimpleNamespace(memGetInfo=lambda: (0, 0), getDevice=lambda: 0)
        device = SimpleNamespace(get_cublas_handle=lambda: 1)
        vars(cuda).update(vars(cupy.cuda), driver=driver, cublas=cublas, runtime=runtime, device=device)
        here = SimpleNamespace(id=0, compute_capability="90")
        cuda.Device = lambda number=0: here
        cuda.get_current_stream, cuda.alloc_pinned_memory = lambda number=0: stream, bytearray
        cuda.Event = lambda **options: SimpleNamespace(done=True)

    def counted(self, name):
        def call(*arguments, **options):
            self.calls[name] += 1

        return call

    def empty(self, shape, dtype=float):
        """An array over addresses of nobody."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = self.memory.UnownedMemory(self.next, max(1, size), None, 0)
        self.next += arrays.aligned(size) + arrays.ALIGNMENT
        return self.array(shape, dtype, self.memory.MemoryPointer(memory, 0))

    @contextlib.contextmanager
    def there(self):
        """The device is this one."""
        make = lambda kernel, arguments, cc: SimpleNamespace(ptr=1)  # noqa: E731
        with mock.patch.object(arrays, "cupy", lambda: self.cupy), mock.patch.object(ptx, "_make", make):
            yield self


class Joint:
    """A group of a joint problem on a device, and the calls that are timed."""

    def __init__(self, driver: Driver, dtype: np.dtype):
        self.driver, empty = driver, driver.empty
        B, T, U, V, H = SIZES.values()
        ids, each = np.ones((B, U), np.int32), np.ones(B, np.int64)
        targets = Targets(ids, 0 * each[:, None], T * each, U * each, Topology(), None, U)
        shapes = (B, T, H), (B, U + 1, H), (V, H), V
        real = [empty(shape, dtype) for shape in shapes]
        problem = JointProblem(Cuda(0), *real, targets, ACTIVATIONS["tanh"], None, None, LIMIT, 2.0**-24)
        work = full_sum.plan(problem, gradients=True, limit=LIMIT)
        # The pieces take more than a pass does, of memory that costs nothing.
        self.tiler, kind = Tiler(work._replace(plan=work.plan._replace(space=4 * LIMIT))), work.dtype
        self.group = self.tiler.group(0).__enter__()  # held until the end: nothing is given back
        cells, self.tile = self.group.frames.cells, work.plan.tile
        self.tiles = -(-cells // self.tile)
        self.state = CellState.take(self.tiler.space.take, cells, kind)
        first_cell = self.group.frames.offset[self.group.frames.starts]
        numbers = (self.tiler.space.take(cells, np.int64), *self.state)
        self.numbers, self.upstream = numbers, empty(B, kind)
        self.outputs = Outputs(real[0], real[1], empty((V, H), kind), empty(V, kind))
        held = full_sum.Held({0: Visited(first_cell, *numbers)}, BoundedGroups())
        self.both_ways = full_sum.both_ways(empty(B, np.float64), self.upstream, 0.0, held)

    def forward(self) -> None:
        self.tiler.score_run(self.group, self.state)

    def backward(self) -> None:
        with self.tiler.space.borrowed():
            self.both_ways(self.tiler, 0, self.group, self.outputs)

    def pieces(self) -> dict:
        """What a tile is made of, by name."""
        tiler, count, state = self.tiler, self.tile, self.state
        space, device, kind, operand = tiler.space, tiler.device, tiler.work.dtype, tiler.work.operand
        (_, layer), *_ = tiler.layers(self.group)
        S, H = layer.weight.shape

        def take():
            with space.borrowed():
                space.take((count, H), kind)

        tile = tiler.hidden(self.group, 0, tiler.none, count)
        logits, target, grad_hidden = space.take((count, S), kind), space.take((count, S), operand), None
        grad_hidden = space.take((count, H), kind)
        rows = space.take((len(self.group.encoder_row), H), kind), space.take((len(self.group.predictor_row), H), kind)
        part, here = tiler.count_up[:count], state.at(slice(0, count))
        own, known = self.numbers[0][:count], [array[:count] for array in self.numbers[1:]]
        arcs = tile.label_id, tile.owner, layer.blank_id
        places = tile.frame, tile.slot, own, self.group.device_frames, self.group.label_base
        activation, grads = tiler.problem.activation, (grad_hidden, self.group.dropout)
        write = partial(gradient, logits, target, part, layer.bias, *arcs, *known, 0.0, self.upstream, anew=True)
        return {
            "take": take,
            "slice": lambda: own[1:count],
            "turn": lambda: layer.weight.T,
            "place": lambda: self.lent(tiler.place, self.group, 0, tiler.none, count),
            "hidden": lambda: self.lent(tiler.hidden, self.group, 0, tiler.none, count),
            "product": lambda: device.matmul(target, layer.weight, grad_hidden),
            "emit": lambda: emit(logits, layer.bias, part, tiler.none, tile.label_id, layer.blank_id, *here),
            "gradient": write,
            "transposes": lambda: hidden_transpose(activation, tile.hidden, *grads, *places, *rows),
        }

    def lent(self, call, *arguments):
        with self.tiler.space.borrowed():
            call(*arguments)


def median(call, rounds: int = ROUNDS, times: int = 1) -> float:
    """Microseconds of a call, the median of rounds after one that is not counted."""
    taken = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        for _ in range(times):
            call()
        taken.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(taken[1:]) / times


def measure(dtype: str) -> dict:
    """Microseconds and calls of the driver, for a tile each way, and microseconds of its pieces."""
    driver = Driver()
    with driver.there():
        joint, found = Joint(driver, real_dtype(dtype)), {}
        for name, call in (("forward tile", joint.forward), ("backward tile", joint.backward)):
            us = median(call) / joint.tiles
            driver.calls.clear()
            call()
            calls = {kind: round(count / joint.tiles, 2) for kind, count in sorted(driver.calls.items())}
            found[name] = {"us": us, "calls": calls}
        found |= {name: {"us": median(call, times=CALLS)} for name, call in joint.pieces().items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json")
    options = parser.parse_args()
    results = {dtype: measure(dtype) for dtype in ("bfloat16", "float32")}
    for dtype, rows in results.items():
        print(dtype)
        for name, row in rows.items():
            print(f"  {name:14} {row['us']:7.2f} us  {row.get('calls', '')}")
    record.write(options.json, {"benchmark": "host", "host": results})


if __name__ == "__main__":
    main()
