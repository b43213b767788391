"""Every door in four places: after a fork, in a thread pool, in a forked child of a thread, in a spawned process.

The fork comes after the parent has used the library.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from .. import record
from . import doors

SECONDS = 300
"""A child that takes longer counts as one that hangs."""


def digests() -> dict[str, str]:
    return {name: doors.digest(call()) for name, call in doors.calls().items()}


def in_child(kind: str) -> dict[str, str]:
    """What a process of a start method gives."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(kind)) as pool:
        return pool.submit(digests).result(timeout=SECONDS)


def in_threads(call, count: int = 4) -> list:
    with ThreadPoolExecutor(count) as pool:
        return [future.result(timeout=SECONDS) for future in [pool.submit(call) for _ in range(count)]]


def run(options) -> dict:
    """The record."""
    expected = digests()
    found = {
        "fork after use": [in_child("fork")],
        "thread pool": in_threads(digests),
        "spawn": [in_child("spawn")],
        "fork from threads": in_threads(lambda: in_child("fork"), 2),
        "parent afterwards": [digests()],
    }
    table = {name: {"runs": len(runs), "differ": sum(one != expected for one in runs)} for name, runs in found.items()}
    record.show("other processes and threads", table, ("runs", "differ"))
    return {"rows": table, "failures": [name for name, row in table.items() if row["differ"]]}
