"""The bits that every door gives for random problems: written down before a refactoring, and compared after it.

A digest is the SHA-256 of the dtypes, shapes and bytes of all outputs, and of the arguments as the call left them.
Where a call is refused, the type and the text of the error stand in place of the outputs. All NaN count as one, because
the compiler chooses which of them an operation gives.

Digests can be compared where versions and processor are as in the record. The process that makes them gives the BLAS
one thread: the number of its threads changes the bits of matrix products. The number of Numba's threads changes none.
"""

import argparse
import collections
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import record

PROBLEMS = 550
PACKAGES = ("numpy", "numba", "scipy", "ml_dtypes")
BLAS_THREADS = 1


class Entry(NamedTuple):
    """What is known of a problem; `error` is the name of the error that was raised, or empty."""

    label: str
    digest: str
    door: str
    error: str


def kind_of(error: Exception) -> str:
    """The built-in type that a caller catches an error by: a subclass of it is no other behaviour."""
    return next(base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins")


def feed(found, value) -> None:
    """Add a value, its kind and layout to a hash."""
    if isinstance(value, tuple | list):
        found.update(f"{type(value).__name__} {len(value)} ".encode())
        for part in value:
            feed(found, part)
    elif isinstance(value, dict):
        for name, part in value.items():
            found.update(f"{name}=".encode())
            feed(found, part)
    elif isinstance(value, np.ndarray):
        found.update(f"{value.dtype}{value.shape}".encode())
        if value.dtype.hasobject:
            found.update(repr(value.tolist()).encode())
            return
        if value.dtype.kind == "f" or value.dtype.name == "bfloat16":
            value = np.where(np.isnan(value), value.dtype.type(np.nan), value)
        found.update(value.tobytes())
    elif hasattr(value, "table"):  # a predictor of `bits_cases`
        feed(found, value.table)
    else:
        found.update(f"{type(value).__name__} {value!r} ".encode())


def hash_of(*values) -> str:
    found = hashlib.sha256()
    feed(found, values)
    return found.hexdigest()


def label_of(number: int, case, marks: list[str]) -> str:
    """Number, door, first real argument, options, what is particular, and a hash of the arguments."""
    given = case.arguments
    arrays = [x for x in given.values() if isinstance(x, np.ndarray) and x.dtype.kind in "fV"]
    layout = [f"{arrays[0].dtype} {'x'.join(map(str, arrays[0].shape))}"] if arrays else []
    options = [str(given[name]) for name in ("topology", "activation") if name in given]
    # The smallest workspace is for the library to say, and no part of what was drawn.
    drawn = hash_of({name: value for name, value in given.items() if name != "memory_limit"})
    return ", ".join([f"{number} {case.name}", *layout, *options, *marks, drawn[:8]])


def call(seed: int, number: int):
    """(case, label, what the door returned or said, name of the error) of a problem."""
    from .bits_changes import draw

    case, marks = draw(seed, number)
    label = label_of(number, case, marks)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return case, label, case.door(**case.arguments), ""
    except Exception as error:
        return case, label, f"{kind_of(error)}: {error}", kind_of(error)


def entry(seed: int, number: int) -> Entry:
    case, label, result, error = call(seed, number)
    return Entry(label, hash_of(result, case.arguments), case.name, error)


def flat(result) -> list:
    return [part for entry in result for part in flat(entry)] if isinstance(result, tuple) else [result]


def show(seed: int, number: int) -> None:
    """What one problem gives, output by output, for a look at a difference."""
    case, label, result, _ = call(seed, number)
    print(label)
    for output in flat(result):
        print(hash_of(output)[:16], f"{output.dtype}{output.shape}" if isinstance(output, np.ndarray) else output)
    print(hash_of(case.arguments)[:16], "the arguments afterwards")


def facts(seed: int) -> dict:
    """What digests depend on beside the code, as it is in this process."""
    import llvmlite.binding
    import numba

    return {
        "seed": seed,
        "threads": numba.get_num_threads(),
        "BLAS threads": BLAS_THREADS,
        "processor": llvmlite.binding.get_host_cpu_name(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def in_process(seed: int, problems: int, *, again: bool) -> tuple[dict, list[Entry], list[str]]:
    """Facts, entries, and what went wrong, in a process of its own; `again` computes every problem a second time."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(BLAS_THREADS), "OMP_NUM_THREADS": str(BLAS_THREADS)}
    command = [sys.executable, "-m", "benchmarks.stress.bits", "--seed", str(seed), "--problems", str(problems)]
    command += ["--again"] * again
    with subprocess.Popen(command, cwd=record.ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        told = [json.loads(line) for line in process.stdout]
    entries = [Entry(*line) for line in told[1 : problems + 1]]
    wrong = [
        f"{one.label}: other bits the second time"
        for one, other in zip(entries[::-1], told[problems + 1 :])
        if one != Entry(*other)
    ]
    if process.returncode:
        wrong.append(f"the process ended with {process.returncode} after {max(0, len(told) - 1)} calls")
    return told[0] if told else {}, entries, wrong


def child(seed: int, problems: int, again: bool) -> None:
    """A line of JSON for the facts and for each problem; the second time the problems come in the opposite order."""
    print(json.dumps(facts(seed)), flush=True)
    for number in [*range(problems), *(reversed(range(problems)) if again else ())]:
        print(json.dumps(entry(seed, number)), flush=True)


def read(path: str, problems: int | None) -> tuple[dict, dict[str, str]]:
    """Facts and digests by label of the first problems of a record."""
    recorded = json.loads(Path(path).read_text())
    if recorded.get("benchmark") != "stress bits":
        raise SystemExit(f"{path} is no record of `stress bits`")
    if (problems or 0) > len(recorded["digests"]):
        raise SystemExit(f"--problems is {problems}, but {path} has {len(recorded['digests'])}")
    return recorded["facts"], dict(list(recorded["digests"].items())[:problems])


def differing(recorded: dict[str, str], entries: list[Entry]) -> dict[str, str]:
    """Label -> how a problem differs from the recorded one."""
    told = {}
    for label, one in zip(recorded, entries):
        if label != one.label:
            told[one.label] = f"drawn otherwise than {label}"
        elif recorded[label] != one.digest:
            told[label] = "other bits"
    return told


def rows_of(entries: list[Entry], differ: dict[str, str]) -> dict[str, dict]:
    """Counts by door."""
    rows = collections.defaultdict(lambda: {"problems": 0, "refused": 0, "differ": 0})
    for one in sorted(entries, key=lambda one: one.door):
        rows[one.door]["problems"] += 1
        rows[one.door]["refused"] += bool(one.error)
        rows[one.door]["differ"] += one.label in differ
    return {**rows, "all": {key: sum(row[key] for row in rows.values()) for key in ("problems", "refused", "differ")}}


def add_arguments(parser) -> None:
    about = "what every door gives for random problems: --seed draws others, --only K shows what problem K gives"
    group = parser.add_argument_group("bits", about)
    group.add_argument("--record", metavar="FILE", help="write the digests down, each computed twice")
    group.add_argument("--against", metavar="FILE", help="compute digests again and name what differs")
    group.add_argument("--problems", type=int, metavar="N", help=f"the first N; {PROBLEMS} by default, or all recorded")


def run(options) -> dict:
    """The record of the run; that of the digests goes to `--record`."""
    if options.only is not None:
        show(options.seed, options.only)
        return {"seed": options.seed, "rows": {}, "failures": []}
    if bool(options.record) == bool(options.against):
        raise SystemExit("stress bits needs --record FILE or --against FILE, not both")
    seed, problems, recorded, differ = options.seed, options.problems or PROBLEMS, {}, {}
    if options.against:
        known, recorded = read(options.against, options.problems)
        seed, problems = known["seed"], len(recorded)
    found, entries, failures = in_process(seed, problems, again=bool(options.record))
    if options.record and not failures:
        digests = {one.label: one.digest for one in entries}
        written = {"benchmark": "stress bits", "problems": problems, "facts": found, "digests": digests}
        Path(options.record).write_text(json.dumps(written, indent=0) + "\n")
    if options.against:
        differ = differing(recorded, entries)
        failures = [*(f"{label}: {how}" for label, how in differ.items()), *failures]
        for name in found:
            if found[name] != known.get(name):
                print(f"{name}: {found[name]}, in the record {known.get(name)}")
    rows = rows_of(entries, differ)
    record.show("bits of random problems", rows, ("problems", "refused", "differ"))
    print(*failures, sep="\n")
    return {"facts": found, "rows": rows, "failures": failures}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("seed", "problems"):
        parser.add_argument(f"--{flag}", type=int, required=True)
    parser.add_argument("--again", action="store_true")
    child(**vars(parser.parse_args()))
