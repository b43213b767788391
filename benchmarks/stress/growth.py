"""Resident memory after 1,000 and after 10,000 calls of each door, refused calls and dropped closures among them."""

import gc

import lattice

from .. import record, shapes
from . import doors

WARM, CALLS = 1000, 10_000
BOUND = 2 << 20
"""Bytes that resident memory may differ by between the two counts."""


def dropped():
    """A closure that nobody calls."""
    problem = shapes.trained_like(2, 20, 5, 30, 8)
    return lambda: lattice.joint_transducer_loss_vjp(*problem)[0]


def every_call() -> dict:
    named = {f"refused: {name}": call for name, call in doors.refused().items()}
    return {**doors.calls(doors.SMALL), "vjp dropped": dropped(), **named}


def growth(call, warm: int, calls: int) -> dict:
    """Bytes of resident memory after `warm` calls, and how many more after `calls`."""
    for _ in range(warm):
        call()
    gc.collect()
    before = record.PeakMemory.status("VmRSS")
    for _ in range(calls - warm):
        call()
    gc.collect()
    after = record.PeakMemory.status("VmRSS")
    return {"resident": before, "growth": after - before, "calls": calls}


def measure(warm: int = WARM, calls: int = CALLS) -> dict:
    return {name: growth(call, warm, calls) for name, call in every_call().items()}


def run(options) -> dict:
    """The record."""
    table = measure()
    record.show("growth of resident memory, bytes", table, ("resident", "growth", "calls"))
    failures = [name for name, row in table.items() if row["growth"] > BOUND]
    return {"bound": BOUND, "warm": WARM, "rows": table, "failures": failures}
