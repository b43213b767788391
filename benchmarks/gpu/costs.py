"""What a step costs: instructions of kernels, microseconds of the host; and a clock for host and device.

A kernel takes its bytes over the bandwidth or its instructions over the issue rate, whichever is more, or as long as
its chain of steps that wait for one another; and a gap before it. A product takes its operations over the rate of
cuBLAS, or its bytes. The host launches ahead of the device, and waits where the call waits.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from .dry import Block
from .machines import H100, Machine
from .work import Step, Unknown

WARP = 32


class Count(NamedTuple):
    """Instructions of a warp: for each element of a lane, and for each row; and cycles of a step of a chain."""

    element: float = 0.0
    row: float = 0.0
    cycles: float = 0.0


COUNTS = {
    "emit": Count(23.25, 150),
    "emit, bias": Count(26, 118),
    "gradient": Count(17.25, 198),
    "gradient anew, bias": Count(45.25, 202),
    "emit, bias, tdt": Count(17, 118 + 697),
    "gradient anew, bias, tdt": Count(30, 202 + 1055),
    "emit, bias, multiblank": Count(17.125, 118 + 100),
    "gradient anew, bias, multiblank": Count(30.25, 202 + 28),
    "hidden tanh": Count(62.5, 60),
    "bound tanh": Count(71, 180),
    "bound_steps tanh": Count(25.5, 180 + 359),
    "to_frames tanh": Count(31.6, 44),
    "to_slots tanh": Count(33.5, 44),
    "sums": Count(950, 0, 1100),
    # A guess of the cycles. They are no fewer than the instructions, since a warp issues one a cycle.
    "sums, scaled": Count(340, 0, 500),
    # Of a step of a cell, and of a round. The cycles are a guess, too: as many to an instruction as in `sums, scaled`.
    "step_sums": Count(643, 0, 946),
    "posteriors": Count(300, 60),
    "step_posteriors": Count(370, 60),
    "open": Count(20, 20),
    "select": Count(120, 0, 700),
    "leave_out": Count(60, 0, 700),
    "count": Count(20, 20),
    "list": Count(30, 20),
    "add_up": Count(150, 0, 2100),
    "locate": Count(200),
    "gather": Count(60),
    "scatter": Count(60),
    "share": Count(60),
    "unpack": Count(20, 60),
    "hidden tanh, factors": Count(10.6, 60),
    "hidden tanh, factors bfloat16": Count(11.8, 60),
    "bound tanh, factors": Count(14.4, 180),
    "bound tanh, factors bfloat16": Count(18.5, 180),
    "bound_steps tanh, factors": Count(17.625, 180 + 359),
    "factors": Count(105.5, 40),
    "split": Count(10.25, 40),
    "cast": Count(40),
    "measure": Count(20, 40),
    "ceiling": Count(20),
    "mark": Count(30),
    "clear_rows": Count(0, 30),
}
"""Kernel -> counts in sm_90 code of 2026-11-28, before recursion, activations and loops were made anew. What is
named `scaled` or `factors`, and `split`, came with these. Those of small kernels are rough, because gaps and bytes are
what they cost. Kernels of arcs that take several frames are of 2026-11-29. What they add to a row is all that stands
outside of loops, beyond what stands there in the kernel of two arcs, and what their loops over five durations do once
through. `bound_steps` has loops over durations alone added, a fourth to each of the four times that it makes a row."""
DRAWN = {"hidden": 10.9, "bound": 11.0, "bound_steps": 11.0, "to_frames": 7.4, "to_slots": 5.3}
"""Instructions an element that dropout adds, where a kernel has no count with it: those that it adds with tanh of
factors, in code of 2026-11-29."""
WITHOUT = (", to bfloat16", " bfloat16")
"""Variants for which the count of the kernel without them stands in, where they have none of their own."""


def counts_of(record: dict | None) -> dict[str, Count]:
    """`COUNTS` with what a record of `benchmarks.gpu.instructions` counted, and measured, in their place.

    A row of the record has `instructions` an element, and may have `cycles`, of a step of a chain.
    """
    counts = dict(COUNTS)
    for name, row in (record or {"kernels": {}})["kernels"].items():
        before = known(counts, name) or Count()
        counts[name] = before._replace(element=row["instructions"], cycles=row.get("cycles", before.cycles))
    return counts


def known(counts: dict[str, Count], name: str) -> Count | None:
    """The count of a kernel and variant, or of the kernel without the variant; None where there is neither."""
    for ending in ("", *WITHOUT):
        name = name.removesuffix(ending)
        if name in counts:
            return counts[name]
    kernel, rest = name.partition(" ")[0], name.removesuffix(", dropout")
    if rest in counts and rest != name:
        return counts[rest]._replace(element=counts[rest].element + DRAWN[kernel])
    return None


class Host(NamedTuple):
    """Seconds that Python takes: a tile with all its launches, a launch outside tiles, a wait, a frame, the door.

    These were taken on a shared machine of 2.5 GHz. A processor beside a GPU is `faster` so many times, as is assumed.
    `driver` is what the driver takes of a launch, where the other numbers are without it.
    """

    forward_tile: float = 173e-6
    backward_tile: float = 370e-6
    launch: float = 30e-6
    wait: float = 25e-6
    frame: float = 0.03e-6
    door: float = 100e-6
    faster: float = 1.3
    driver: float = 0.0


def host_of(record: dict | None, dtype: str) -> Host:
    """`Host` with what a record of `benchmarks.gpu.host` has taken, for operands of a dtype, on its own machine."""
    rows = (record or {}).get("host", {}).get(dtype, {})
    if not rows:
        return Host()
    # `emit` is one launch. A driver has taken no part in the record; what it takes is assumed.
    names = {"forward_tile": "forward tile", "backward_tile": "backward tile", "launch": "emit"}
    taken = {field: 1e-6 * rows[name]["us"] for field, name in names.items() if name in rows}
    return Host(**taken, faster=1.0, driver=2.5e-6)


class Rates(NamedTuple):
    """All that a prediction rests on."""

    machine: Machine = H100
    precision: str = "float32"
    counts: dict[str, Count] = COUNTS
    host: Host = Host()


def count_of(counts: dict[str, Count], step: Step) -> Count:
    """Of a kernel's step.

    Raises
    ------
    Unknown
        Naming the kernel.
    """
    found = known(counts, step.count)
    if found is None:
        raise Unknown(
            f"{step.name} has no count as {step.count!r}: say in COUNTS of benchmarks/gpu/costs.py what it takes"
        )
    return found


def filled(shape: tuple[int, ...], multiprocessors: int) -> float:
    """The share of the multiprocessors that is busy while cuBLAS makes a product of this shape.

    It takes tiles of 128 x 256, or smaller ones at nine tenths of the rate, and splits the sums where tiles are few.
    """
    (M, K, N), best = shape, 0.0
    for columns, rate in ((256, 1.0), (128, 0.9)):
        tiles = -(-M // 128) * -(-N // columns)
        tiles *= max(1, min(multiprocessors // tiles, K // 512))
        best = max(best, rate * tiles / (multiprocessors * -(-tiles // multiprocessors)))
    return best


def device_seconds(step: Step, rates: Rates) -> float:
    """Time of a step on the device, the gap before it included."""
    machine = rates.machine
    # What fits into the cache has been left there by the kernel before.
    moved = step.bytes / (machine.cache if step.bytes < machine.cache_size else machine.copy)
    if step.kind == "product":
        M, K, N = step.shape
        # A product with one row is bound by its bytes.
        rate = machine.products[rates.precision] * filled(step.shape, machine.multiprocessors)
        return machine.gap + max(moved, 2 * M * K * N / rate if M > 1 else 0.0)
    if step.kind == "CuPy":
        return machine.gap + moved
    count = count_of(rates.counts, step)
    issued = (count.element * step.elements / WARP + count.row * step.rows) / machine.issue
    return machine.gap + max(moved, issued, step.chain * count.cycles / machine.clock)


def three_products(cells: int, H: int, V: int, rates: Rates) -> float:
    """hidden @ weight.T, dlogits @ weight and dlogits.T @ hidden over all cells, in tiles that fill the device."""
    return 6 * cells * H * V / rates.machine.products[rates.precision]


def host_seconds(block: Block, rates: Rates) -> list[float]:
    """What Python takes before each step of a block has been handed over."""
    host = rates.host
    if block.tile:
        backward = any(step.count.startswith("gradient") for step in block.steps)
        whole = host.backward_tile if backward else host.forward_tile
        return [whole / len(block.steps) / host.faster + host.driver] * len(block.steps)
    of_kind = {"wait": lambda step: 0.0, "frames": lambda step: host.frame * step.rows}
    launch = host.launch + host.driver * host.faster
    return [of_kind.get(step.kind, lambda step: launch)(step) / host.faster for step in block.steps]


class Prediction(NamedTuple):
    """Of a call: seconds in all, of Python and of the device, and rows of its kernels and products by name."""

    total: float
    host: float
    device: float
    rows: dict[str, dict]


def predict(blocks: Iterable[Block], rates: Rates) -> Prediction:
    """Let host and device run: a step begins when it was handed over and the device is free."""
    now, free, device = rates.host.door / rates.host.faster, 0.0, 0.0
    waits, rows = 0.0, defaultdict(lambda: {"seconds": 0.0, "calls": 0})
    for block in blocks:
        on_device = [0.0 if step.kind in ("wait", "frames") else device_seconds(step, rates) for step in block.steps]
        on_host = host_seconds(block, rates)
        for step, seconds in zip(block.steps, on_device):
            rows[step.name]["seconds"] += block.repeat * seconds
            rows[step.name]["calls"] += block.repeat
        device += block.repeat * sum(on_device)
        for _ in range(block.repeat):
            for step, own, seconds in zip(block.steps, on_host, on_device):
                now += own
                if step.kind == "wait":
                    waits += max(0.0, free - now)
                    now = max(now, free) + rates.host.wait
                elif seconds:
                    free = max(now, free) + seconds
    return Prediction(max(now, free), now - waits, device, dict(rows))
