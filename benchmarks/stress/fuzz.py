"""Every door called with arguments that are wrong in one to three places.

No call may crash, hang, raise an unclear error or give a wrong result. Calls run in child processes, a batch to each,
so that the death of one is seen and told. Call number K of seed S is the same on every machine: `--seed S --only K`
runs it by itself.
"""

import argparse
import collections
import contextlib
import copy
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from .. import record

BATCH = 1000
SECONDS = 120
"""What a batch may take before its last call counts as one that hangs."""
ADDRESS_SPACE = 8 << 30
"""A call that asks for more is refused by the system, and does not take the machine with it."""
SHOWN = 20


def options_of(seed: int, number: int):
    """(case, arguments, how they were changed, kind of change, threads beside it, names they write to) of a call."""
    from .fuzz_cases import MAKERS, make
    from .fuzz_mutations import SAME, change

    rng = np.random.default_rng([seed, number])
    case = make(rng, list(MAKERS)[number % len(MAKERS)])
    given, changes, kind, workers, raced = dict(case.arguments), [], SAME, [], set()
    if rng.random() < 0.03:
        given = {
            name: x[:0] if isinstance(x, np.ndarray) and name not in ("weight", "bias", "counts") else x
            for name, x in given.items()
        }
        changes, kind = ["no examples"], 2
    count = min(len(given), int(rng.choice([0, 1, 2, 3], p=[0.03, 0.6, 0.25, 0.12])))
    for name in rng.permutation(list(given))[:count]:
        found = change(rng, str(name), given)
        given[str(name)] = found.value
        changes.append(f"{name}: {found.what}")
        kind = max(kind, found.kind)
        if found.beside is not None:
            workers.append(found.beside)
            raced.add(str(name))
    return case, given, changes, kind, workers, raced


def call(seed: int, number: int):
    """(door, changes, outcome, what was wrong) of one call."""
    from .fuzz_contract import outcome
    from .fuzz_mutations import SAME

    case, given, changes, kind, workers, raced = options_of(seed, number)
    expected = case.door(**copy.deepcopy(case.arguments)) if kind == SAME else None
    return case.name, changes, *outcome(case, given, kind, workers, raced, expected)


@contextlib.contextmanager
def into(file):
    """What this process says, C code included, goes into a file."""
    kept = os.dup(1), os.dup(2)
    for number in (1, 2):
        os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        for number, copied in zip((1, 2), kept):
            os.dup2(copied, number)


def child(seed: int, first: int, last: int, progress: str) -> dict:
    """A batch in this process: counts of outcomes by door, and failures."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    counts, failures, length = collections.Counter(), [], 0
    with tempfile.TemporaryFile() as spoken, Path(progress).open("r+") as mark, into(spoken):
        for number in range(first, last):
            os.pwrite(mark.fileno(), b"%-20d" % number, 0)
            door, changes, found, wrong = call(seed, number)
            counts[f"{door} {found}"] += 1
            sys.stdout.flush()
            if os.fstat(spoken.fileno()).st_size > length:
                length = os.fstat(spoken.fileno()).st_size
                wrong = [*wrong, f"{length} bytes on stdout and stderr"]
            if wrong:
                failures.append({"number": number, "door": door, "changes": changes, "wrong": wrong})
    return {"counts": counts, "failures": failures}


def batch(seed: int, first: int, last: int) -> tuple[dict, int]:
    """What a child found in calls `first` to `last`, and the number to go on from: where it died, behind that."""
    with tempfile.NamedTemporaryFile() as progress:
        flags = {"seed": seed, "first": first, "last": last, "progress": progress.name}
        command = [
            sys.executable,
            "-m",
            "benchmarks.stress.fuzz",
            *(f"--{key}={value}" for key, value in flags.items()),
        ]
        try:
            done = subprocess.run(command, cwd=record.ROOT, capture_output=True, text=True, timeout=SECONDS)
            how = f"the process ended with {done.returncode}: {done.stderr[-1000:]}"
        except subprocess.TimeoutExpired:
            done, how = None, f"no end after {SECONDS} s"
        if done is not None and done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1]), last
        number = int(Path(progress.name).read_text() or first)
    return {"counts": {}, "failures": [{"number": number, "wrong": [how]}]}, number + 1


def measure(seed: int, calls: int) -> dict:
    """Outcomes of `calls` calls, by door and in all."""
    counts, failures, number, lost = collections.Counter(), [], 0, 0
    while number < calls:
        last = min(number + BATCH, calls)
        found, after = batch(seed, number, last)
        if after < last:
            # What ran before the call that killed its process is told by a batch that ends in front of it.
            before, _ = batch(seed, number, after - 1) if after - 1 > number else ({"counts": {}, "failures": []}, 0)
            found["failures"] += before["failures"]
            counts.update(before["counts"])
            lost += 1
        counts.update(found["counts"])
        failures += found["failures"]
        for failure in found["failures"]:
            print(json.dumps(failure), file=sys.stderr)
        number = after if after < last else last
        print(f"{number} calls, {len(failures)} failures", file=sys.stderr, flush=True)
    table = collections.defaultdict(dict)
    for key, count in sorted(counts.items()):
        door, found = key.split()
        table[door][found] = count
    return {"calls": calls, "seed": seed, "processes lost": lost, "failures": failures, "rows": table}


def add_arguments(parser) -> None:
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this call alone, in this process")


def run(options) -> dict:
    """The record; failures are shown as well."""
    if options.only is not None:
        door, changes, found, wrong = call(options.seed, options.only)
        return {"door": door, "changes": changes, "outcome": found, "failures": wrong}
    results = measure(options.seed, options.calls)
    record.show("fuzzed calls", results["rows"], ("result", "ValueError", "TypeError", "MemoryError"))
    for failure in results["failures"][:SHOWN]:
        print(failure["number"], failure.get("door"), failure.get("changes"), *failure["wrong"], sep="\n  ")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("seed", "first", "last"):
        parser.add_argument(f"--{flag}", type=int, required=True)
    parser.add_argument("--progress", required=True)
    print(json.dumps(child(**vars(parser.parse_args()))))
