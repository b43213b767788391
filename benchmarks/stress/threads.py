"""Calls from 8 Python threads at once give the bits of serial ones; so do first calls that race to compile."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading

from .. import record
from . import doors

THREADS, ROUNDS = 8, 3


def race(rounds: int, threads: int = THREADS) -> dict:
    """Mixed calls of several threads, each beginning at another door, held against serial ones made afterwards."""
    calls = doors.calls()
    names, found, barrier = list(calls), [], threading.Barrier(threads)

    def work(first: int) -> None:
        barrier.wait()
        for number in range(rounds * len(names)):
            name = names[(number + first * 3) % len(names)]
            try:
                found.append((name, doors.digest(calls[name]())))
            except Exception as error:
                found.append((name, repr(error)))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    serial = {name: doors.digest(call()) for name, call in calls.items()}
    wrong = sorted({f"{name}: {told}"[:300] for name, told in found if told != serial[name]})
    return {"calls": len(found), "other bits than serial": wrong}


def in_fresh_process(rounds: int, cache: str | None = None) -> dict:
    environment = {**os.environ, **({} if cache is None else {"NUMBA_CACHE_DIR": cache})}
    command = [sys.executable, "-m", "benchmarks.stress.threads", "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=record.ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"calls": 0, "other bits than serial": [f"ended with {done.returncode}: {done.stderr[-500:]}"]}
    return json.loads(done.stdout)


def run(options) -> dict:
    """The record."""
    with tempfile.TemporaryDirectory() as cache:
        table = {"compiled": in_fresh_process(ROUNDS), "compiling, empty cache": in_fresh_process(1, cache)}
    shown = {name: {**row, "wrong": len(row["other bits than serial"])} for name, row in table.items()}
    record.show("calls from 8 threads", shown, ("calls", "wrong"))
    return {"threads": THREADS, "rows": table, "failures": [name for name, row in shown.items() if row["wrong"]]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, required=True)
    print(json.dumps(race(parser.parse_args().rounds)))
