"""What is known of faults that were made: a file that is taken up again, and what it comes to."""

import importlib.metadata
import json
from collections import Counter, defaultdict

from tests import kernel_cases

from . import seeds
from .equivalent import EQUIVALENT


class Record:
    """Lines of JSON in a file, or in memory alone."""

    def __init__(self, path):
        self.path, self.runs, self.faults = path, {}, {}
        for line in path.read_text().splitlines() if path and path.exists() else ():
            self._take(json.loads(line))

    def _take(self, entry):
        if "run" in entry:
            self.runs[entry["run"]] = entry
        else:
            before = self.faults.get(entry["fault"])
            entry["tried"] = [*(before["tried"] if before else ()), *entry["tried"]]
            self.faults[entry["fault"]] = entry

    def write(self, **entry):
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        self._take(entry)


def launching(record, runs):
    """Specialisation -> the runs that launch it: those of wide cases, then the quickest and the slowest by turns."""
    found, wide = defaultdict(list), {f"{case.id}/production" for case in kernel_cases.wide_cases()}
    for entry in sorted(record.runs.values(), key=lambda entry: (entry["seconds"], entry["run"])):
        for name in entry["kernels"] if entry["run"] in runs else ():
            found[name].append(entry["run"])
    turns = {name: [x for pair in zip(some, some[::-1]) for x in pair][: len(some)] for name, some in found.items()}
    return {name: sorted(some, key=lambda run: run not in wide) for name, some in turns.items()}


def table(record, known, runs):
    """Rows of (kind, told, of, in the table, left) of what was made."""
    told, of, excused = Counter(), Counter(), Counter()
    for kernel, number in known:
        fault, entry = kernel.faults[number - 1], record.faults.get(kernel.key(number))
        if entry is None:
            continue
        of[fault.kind] += 1
        told[fault.kind] += entry["by"] in runs
        excused[fault.kind] += entry["by"] not in runs and kernel.reason(fault) is not None
    return [(kind, told[kind], of[kind], excused[kind], of[kind] - told[kind] - excused[kind]) for kind in seeds.KINDS]


def summary(record, known, runs):
    """What a record comes to: by kind and by kernel, and each fault that was not told."""
    kinds, kernels, silent = table(record, known, runs), defaultdict(Counter), Counter()
    for kernel, number in known:
        fault, entry = kernel.faults[number - 1], record.faults.get(kernel.key(number))
        if entry is None:
            continue
        kernels[kernel.kernel]["told" if entry["by"] in runs else "not told"] += 1
        if entry["by"] not in runs:
            reason = kernel.reason(fault)
            why = "not gone through" if reason is None else EQUIVALENT[reason][-1]
            silent[kernel.kernel, fault.kind, "" if reason is None else kernel.source(fault), why] += 1
    names = ("kernel", "kind", "line", "why", "count")
    return {
        "benchmark": "ptxrun faults",
        "command": "python -m tests.ptxrun.faults --record FILE --summary FILE",
        "versions": {name: importlib.metadata.version(name) for name in ("numba", "numba-cuda", "llvmlite", "numpy")},
        "kernels": len({kernel.kernel for kernel, _ in known}),
        "specialisations": len({kernel.name for kernel, _ in known}),
        "runs_of_cases": len(runs),
        "by_kind": [dict(zip(("kind", "told", "of", "change_nothing", "left"), row)) for row in kinds],
        "by_kernel": {name: dict(counts) for name, counts in sorted(kernels.items())},
        "not_told": [dict(zip(names, (*key, count))) for key, count in sorted(silent.items())],
    }


def tellers(record, known, runs):
    """Kernel -> the runs that told the faults of its specialisation with most of them; who told most comes first."""
    by_kernel = defaultdict(lambda: defaultdict(Counter))
    for kernel, number in known:
        entry = record.faults.get(kernel.key(number))
        if entry and entry["by"] in runs:
            by_kernel[kernel.kernel][kernel.name][entry["by"]] += 1
    best = {name: max(several.values(), key=lambda told: sum(told.values())) for name, several in by_kernel.items()}
    return {name: tuple(run for run, _ in told.most_common()) for name, told in sorted(best.items())}


def untold(record, known, runs):
    """What no case told and no entry of the table explains."""
    found = set()
    for kernel, number in known:
        fault, entry = kernel.faults[number - 1], record.faults.get(kernel.key(number))
        if entry and entry["by"] not in runs and kernel.reason(fault) is None:
            found.add((kernel.kernel, fault.kind, fault.what, kernel.source(fault)))
    return found


def write_tellers(path, record, known, runs):
    """Write the table that test_faults.py goes by."""
    found = tellers(record, known, runs)
    lines = (f"    {name!r}: ({', '.join(map(repr, told))},),\n" for name, told in found.items())
    head = '"""The runs that told the faults of a kernel, written by `faults.py --tellers`."""\n\nTELLERS = {\n'
    path.write_text(head + "".join(lines) + "}\n")


def write_open(path, record, known, runs):
    """Write the table of what is left."""
    path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in sorted(untold(record, known, runs))) + "\n]\n")
