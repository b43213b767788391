"""What a GPU itself can do: copies, matrix products at the joint's shapes, and what a launch costs."""

import ctypes
import functools
import math
import time

import numpy as np

from lattice import Topology, layout
from lattice.device import arrays
from lattice.kernels.locate import locate
from lattice.kernels.rows import NO_IDS
from lattice.kernels.sums import sums

from . import problems, timing

LAUNCHES = 2000
RNNT = Topology("rnnt").moves
SAME = 1e-9
"""Largest relative deviation of a total in float64."""
RECURSION = {"T": 1000, "U": 100, "examples": (1, 8, 128)}
COMPUTE_32F, COMPUTE_TF32, DEFAULT_TENSOR_OP = 68, 77, 99
"""Constants of cuBLAS."""
TYPES = {"float32": 0, "bfloat16": 14}
"""Constants of CUDA."""
PRECISIONS = {
    "float32": ("float32", "float32", COMPUTE_32F),
    "tf32": ("float32", "float32", COMPUTE_TF32),
    "bfloat16 to float32": ("bfloat16", "float32", COMPUTE_32F),
    "bfloat16 to bfloat16": ("bfloat16", "bfloat16", COMPUTE_32F),
}
"""Name -> dtype of the operands, dtype of the product, what cuBLAS computes in."""


def device(report) -> None:
    """The GPU's own ceilings, and what a launch costs."""
    for name, measure, *arguments in (
        ("properties", properties),
        ("copy", copy),
        ("launch", launch),
        ("recursion", recursion, *RECURSION.values()),
        ("cublas", cublas),
    ):
        report.case(name, measure, *arguments)


def properties() -> dict:
    runtime = arrays.cupy().cuda.runtime
    known = runtime.getDeviceProperties(0)
    return {
        "name": known["name"].decode(),
        "compute_capability": f"{known['major']}.{known['minor']}",
        "memory": int(known["totalGlobalMem"]),
        "multiprocessors": int(known["multiProcessorCount"]),
        "l2": int(known["l2CacheSize"]),
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
    }


def copy(size: int = 1 << 30, pairs: int = 3) -> dict:
    """Device-to-device copies of `size` bytes, over pairs of buffers in turn."""
    buffers = [[problems.normals(size // 4, np.dtype(np.float32)) for _ in range(2)] for _ in range(pairs)]
    turns = iter(range(1 << 20))

    def run():
        arrays.cupy().copyto(*buffers[next(turns) % pairs])

    seconds = timing.median_of(run, rounds=9)
    return {"bytes": size, "seconds": seconds, "bandwidth": 2 * size / seconds}


def cublas(cells: int = problems.CHUNK, H: int = 512, V: int = 1024) -> dict:
    """Rates of the joint's three products, FLOP/s."""
    rows = {}
    for name, (operand, product, compute) in PRECISIONS.items():
        real, out = problems.real_dtype(operand), problems.real_dtype(product)
        hidden, weight, grad_logits = (problems.normals(size, real) for size in ((cells, H), (V, H), (cells, V)))
        empty = problems.device().empty
        products = {
            "hidden @ weight.T": (hidden, weight.T, empty((cells, V), out)),
            "dlogits @ weight": (grad_logits, weight, empty((cells, H), out)),
            "dlogits.T @ hidden": (grad_logits.T, hidden, empty((V, H), out)),
        }
        rows[name] = {}
        for label, arguments in products.items():
            seconds = timing.median_of(functools.partial(gemm, *arguments, compute))
            rows[name][label] = 2 * cells * H * V / seconds
    return {"cells": cells, "H": H, "V": V, "rows": rows}


def gemm(a, b, out, compute: int) -> None:
    """out = a @ b; operands that are not C-contiguous are transposed views of what is."""
    cuda = arrays.cupy().cuda
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    (M, K), N = a.shape, b.shape[1]
    operand, product = TYPES[a.dtype.name], TYPES[out.dtype.name]
    # cuBLAS counts columns first: out.T = b.T @ a.T.
    b_turned, a_turned = int(not b.flags.c_contiguous), int(not a.flags.c_contiguous)
    left = (b.data.ptr, operand, K if b_turned else N)
    right = (a.data.ptr, operand, M if a_turned else K)
    result = (out.data.ptr, product, N)
    scales = ctypes.addressof(one), ctypes.addressof(zero)
    handle, how = cuda.device.get_cublas_handle(), (compute, DEFAULT_TENSOR_OP)
    cuda.cublas.gemmEx(handle, b_turned, a_turned, N, M, K, scales[0], *left, *right, scales[1], *result, *how)


def launch(count: int = LAUNCHES) -> dict:
    """Seconds of a launch: host time a call, and time a call until the device is done.

    Other calls stand beside the launch.
    """
    place, empty = problems.device(), problems.device().empty
    frames = layout.frames_of(np.arange(1), np.array([4]), np.array([2]), RNNT, None)
    frame_base, label_base, positions, none, weight = place.upload(
        None, np.arange(4), np.zeros(1, np.int64), np.ones((1, 2), np.int32), NO_IDS, np.ones((32, 32), np.float32)
    )
    (frames, _), cells = frames.on(place, None), frames.cells
    row, slot, label, owner = (empty(cells, dtype) for dtype in (np.int64, np.int64, np.int32, np.int32))
    product = empty((32, 32), np.float32)

    def add_in_place():
        slot.__iadd__(1)

    calls = {
        "locate, 12 arrays": lambda: locate(
            0, none, frames, positions, frame_base, label_base, row, slot, label, owner
        ),
        "CuPy, slot += 1": add_in_place,
        "matmul 32 x 32": lambda: place.matmul(weight, weight.T, product),
        "upload of 3 arrays": lambda: place.upload(None, *(np.zeros(8) for _ in range(3))),
    }
    return {"launches": count, "rows": {name: launches(call, count) for name, call in calls.items()}}


def recursion(T: int, U: int, examples: tuple[int, ...]) -> dict:
    """alpha and beta without other kernels: seconds of a step along the diagonals, by the number of examples.

    The blocks of the examples run side by side.
    """
    rows, off = {}, []
    for B in examples:
        call, deviation = uniform(B, T, U)
        seconds = timing.median_of(call)
        off.append(deviation())
        rows[f"B={B}"] = {"seconds": seconds, "step": seconds / (T + U)}
    # NaN comes through this maximum, and is an error too.
    worst = float(np.max(off))
    error = {} if worst <= SAME else {"error": "log_z is not the number of alignments times their weight"}
    return {"T": T, "U": U, "worst": worst, "rows": rows, **error}


def uniform(B: int, T: int, U: int, score: float = -0.75):
    """A call that sweeps over lattices whose arcs all weigh the same, and one that says how far off its totals are.

    log_z is then the logarithm of the number of alignments, and of the weight of one of them.
    """
    alignments = math.lgamma(T + U) - math.lgamma(U + 1) - math.lgamma(T)
    wanted, place, cells = alignments + (T + U) * score, problems.device(), B * T * (U + 1)
    frames, _ = layout.frames_of(np.arange(B), np.full(B, T), np.full(B, U), RNNT, None).on(place, None)
    blank, label = place.empty(cells, np.float32), place.empty(cells, np.float32)
    blank.fill(score)
    label.fill(score)
    alpha, beta, log_z = (place.empty(size, np.float64) for size in (cells, cells, B))

    def deviation() -> float:
        found = np.concatenate([log_z.get(), beta.get()[:: T * (U + 1)]])
        return float(np.abs(found - wanted).max() / abs(wanted))

    return functools.partial(sums, frames, RNNT, blank, label, alpha, log_z, beta), deviation


def launches(call, count: int) -> dict:
    call()
    wait = arrays.cupy().cuda.get_current_stream().synchronize
    wait()
    begin = time.perf_counter()
    for _ in range(count):
        call()
    returned = time.perf_counter()
    wait()
    return {"host": (returned - begin) / count, "synchronised": (time.perf_counter() - begin) / count}
