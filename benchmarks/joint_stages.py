"""Where the time of the fused joint goes on the CPU: its sweeps and products, in units of the three products."""

import functools
import statistics
import sys
import time
from contextlib import ExitStack
from unittest import mock

import lattice
from lattice.device.memory import Host

from . import joint, record, shapes
from .gpu.stages import product_of

WHOLE, BETWEEN = "the whole call", "between them"


def main(options) -> None:
    rows = {kind: measure(kind, options.shape, options.rounds) for kind in joint.KINDS}
    B, T, U, V, H = joint.SHAPES[options.shape]
    for kind, table in rows.items():
        title = f"fused joint by stage, {kind}, B={B} T={T} U={U} V={V} H={H} float32, in units of the three products"
        record.show(title, table, ("seconds", "ratio", "ratio_min", "ratio_max", "calls"))
    record.write(options.json, {"benchmark": "joint_stages", "shape": joint.SHAPES[options.shape], "rows": rows})


def measure(kind: str, shape: str, rounds: int) -> dict[str, dict]:
    """A row for each stage of one problem: median seconds, and the ratio to the three products of the same round."""
    problem = joint.problem_of(kind, shape)
    floor = joint.three_gemms(*joint.SHAPES[shape], shapes.cells(problem))
    call = functools.partial(lattice.joint_transducer_loss_and_grad, *problem)
    taken = []
    for turn in range(rounds + 1):
        begin = time.perf_counter()
        floor()
        products = time.perf_counter() - begin
        stages = split(call)
        # The first round compiles, and is not counted.
        if turn:
            taken.append((products, stages))
    table = {"three products": row_of([(products, products, 3) for products, _ in taken])}
    for name in taken[0][1]:
        table[name] = row_of([(products, *stages[name]) for products, stages in taken])
    return table


def row_of(rounds: list[tuple[float, float, int]]) -> dict:
    """From (seconds of the products, seconds of the stage, calls of the stage) of each round."""
    ratios = [seconds / products for products, seconds, _ in rounds]
    return {
        "seconds": statistics.median(seconds for _, seconds, _ in rounds),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "calls": rounds[0][2],
    }


def split(call) -> dict[str, tuple[float, int]]:
    """Seconds and calls of the whole call, of each sweep and product in it, and of what lies between them."""
    spent: dict[str, list[float]] = {}

    def timed(name, function, *arguments, **options):
        begin = time.perf_counter()
        function(*arguments, **options)
        spent.setdefault(name, []).append(time.perf_counter() - begin)

    with ExitStack() as stack:
        # Each module of kernels has the name `sweep` of its own.
        for name, module in list(sys.modules.items()):
            if name.startswith("lattice.kernels.") and not name.endswith(".launch") and hasattr(module, "sweep"):
                inner = module.sweep
                stack.enter_context(mock.patch.object(module, "sweep", functools.partial(_swept, timed, inner)))
        for name in ("matmul", "add_matmul"):
            product = functools.partialmethod(_multiplied, timed, getattr(Host, name))
            stack.enter_context(mock.patch.object(Host, name, product))
        begin = time.perf_counter()
        call()
        whole = time.perf_counter() - begin
    stages = {name: (sum(seconds), len(seconds)) for name, seconds in spent.items()}
    between = whole - sum(seconds for seconds, _ in stages.values())
    largest_first = dict(sorted(stages.items(), key=lambda item: -item[1][0]))
    return {WHOLE: (whole, 1), **largest_first, BETWEEN: (between, 1)}


def _swept(timed, sweep, kernel, *arguments, **options) -> None:
    timed(getattr(kernel, "py_func", kernel).__name__.removesuffix("_cpu"), sweep, kernel, *arguments, **options)


def _multiplied(device, timed, product, a, b, *arguments, **options) -> None:
    timed(product_of(a, b), product, device, a, b, *arguments, **options)
