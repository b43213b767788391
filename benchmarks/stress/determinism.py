"""The bits of every door in 5 processes, and with 1 to 4 threads of the sweeps, the threads of the BLAS being fixed."""

import argparse
import json
import os
import subprocess
import sys

from .. import record
from . import doors

PROCESSES, MOST_THREADS = 5, 4


def digests() -> dict[str, str]:
    return {name: doors.digest(call()) for name, call in doors.calls().items()}


def in_process(threads: int | None = None) -> dict[str, str]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    if threads is not None:
        environment["NUMBA_NUM_THREADS"] = str(threads)
    command = [sys.executable, "-m", "benchmarks.stress.determinism"]
    done = subprocess.run(command, cwd=record.ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def differing(runs: list[dict[str, str]]) -> list[str]:
    return [name for name in runs[0] if len({run[name] for run in runs}) > 1]


def run(options) -> dict:
    """The record."""
    same, varied = [in_process() for _ in range(PROCESSES)], [in_process(n) for n in range(1, MOST_THREADS + 1)]
    table = {
        f"{PROCESSES} processes": {"doors": len(same[0]), "differing": differing(same)},
        f"1 to {MOST_THREADS} threads": {"doors": len(varied[0]), "differing": differing([same[0], *varied])},
    }
    record.show(
        "bits from process to process",
        {k: {**v, "differ": len(v["differing"])} for k, v in table.items()},
        ("doors", "differ"),
    )
    return {"rows": table, "failures": [name for name, row in table.items() if row["differing"]]}


if __name__ == "__main__":
    argparse.ArgumentParser().parse_args()
    print(json.dumps(digests()))
