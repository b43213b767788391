"""Faults put into the compiled kernels, one at a time: does any case tell?

    python -m tests.ptxrun.faults [--kernel NAME] [--kind KIND] [--record FILE] [--summary FILE]

runs every case once to see which kernels it launches, then every fault of `seeds.py` on the cases that launch its kernel, until
one of them tells: by a fault that the machine finds, by a result that is not equal, or by a race. A case runs as in test_kernels.py,
in few threads and in production blocks. FILE holds a line for each run of a case and for each fault; what stands there is not run again.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import linecache
import math
import re
import time
from collections import Counter, defaultdict
from functools import cached_property, partial
from pathlib import Path
from unittest import mock

from numba import cuda

from lattice.kernels import ptx
from tests import kernel_cases, kernel_compare
from tests.few_threads import FEW

from . import driver, machine, parse, seeds
from .equivalent import EQUIVALENT

LOG_ROOM = 4_000_000
"""Accesses of one launch; the largest one of the cases has fewer."""
BLOCKS = {
    "few": machine.Settings(order="reverse", log_room=LOG_ROOM),
    "production": machine.Settings(order="random:0", log_room=LOG_ROOM),
}
FUEL = 20_000_000
"""Blocks of instructions of a faulty launch; sound ones take fewer."""
ONCE = ("parameter", "argument", "scale")
"""Kinds that are sown in one specialisation of a kernel: the others pass the same arguments, and index them alike."""
RACING = ("barrier", "warp barrier", "parameter", "argument")
"""Kinds that may make a race and change no result here."""

_kernels: dict[str, "Kernel"] = {}
"""Specialisations that were compiled, by the PTX."""


class Kernel:
    """A specialisation of a kernel: its PTX with the lines of its source, and its faults."""

    def __init__(self, kernel, arguments, text):
        self.text, self.kernel = text, kernel.py_func.__name__
        types = ptx.signature(arguments)
        shown = [str(getattr(of, "dtype", of)) for of in types]
        short = {"float": "f", "int": "i", "uint": "u"}
        self.name = (
            self.kernel
            + " "
            + " ".join(re.sub(r"(float|u?int)(\d+)", lambda m: short[m[1]] + str(int(m[2]) // 8), t) for t in shown)
        )
        names, first, self.arguments = kernel.py_func.__code__.co_varnames, 0, []
        for name, of, value in zip(names, types, arguments):
            axes = 0 if isinstance(value, ptx.NUMBERS) else value.ndim
            kind = f"[{of.dtype}, {axes}]" if axes else str(of)
            self.arguments.append(seeds.Argument(name, kind, axes, first))
            first += 5 + 2 * axes if axes else 1

    @cached_property
    def faults(self):
        return seeds.seeded(self.text, tuple(self.arguments))

    @cached_property
    def files(self):
        return dict(re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]+)"', self.text, flags=re.MULTILINE))

    @cached_property
    def function(self):
        """Translated with every fault along."""
        places = defaultdict(list)
        for number, fault in enumerate(self.faults, 1):
            if fault.place >= 0:
                places[fault.place].append((number, tuple(parse.instruction(text) for text in fault.instead)))
        return machine.Function(self.text, False, places)

    def source(self, fault):
        """The line of the source that a fault is in."""
        file, _, line = fault.line.partition(" ")
        return linecache.getline(self.files.get(file, ""), int(line or 0)).strip()

    def key(self, number):
        """What names a fault in a record."""
        fault = self.faults[number - 1]
        told = f"{self.name}|{fault.kind}|{fault.place}|{fault.instead}|{fault.shared}|{fault.swapped}"
        return f"{self.kernel}:{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def reason(self, fault):
        """The number of the entry in the table of faults that change nothing, or None."""
        for number, (kernel, kind, what, line, _) in enumerate(EQUIVALENT):
            matches = re.fullmatch(kernel, self.kernel) and kind == fault.kind
            if matches and re.fullmatch(what, fault.what) and re.fullmatch(line, self.source(fault)):
                return number
        return None


def _make(kernel, arguments, cc):
    """`ptx._make`, with the lines of the source in the PTX, which is kept apart."""
    path = ptx._kept(kernel, ptx.signature(arguments), cc).with_suffix(".lines")
    if path.exists():
        text = path.read_text()
    else:
        with mock.patch.object(cuda, "compile_ptx", partial(cuda.compile_ptx, lineinfo=True)):
            text = driver.compile_kernel(kernel, arguments, cc)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if text not in _kernels:
        _kernels[text] = Kernel(kernel, arguments, text)
    return ptx.load(text)


def compiled(texts):
    """The specialisations with these texts."""
    return [_kernels[text] for text in texts]


class Bench:
    """Runs cases, sound or with a fault, and notes which kernels they launch."""

    def __init__(self):
        self.launched, self.target, self.number, self._sound, self._known = set(), None, 0, {}, {}

    def function_of(self, number):
        text, _ = driver.functions[number]
        self.launched.add(text)
        if self.target is not None and text == self.target.text:
            return self.target.function
        if text not in self._sound:
            self._sound[text] = machine.Function(text, False)
        return self._sound[text]

    def launch(self, function, call):
        target = self.target
        if target is None or function is not target.function:
            return _launch(function, call)
        fault, parameters = target.faults[self.number - 1], list(call.parameters)
        for one, other in fault.swapped:
            parameters[one], parameters[other] = parameters[other], parameters[one]
        whole = function.translation
        if fault.shared:
            start, size = whole.shared[fault.shared]
            function.translation = whole._replace(shared=whole.shared | {fault.shared: (start, size // 2)})
        try:
            with mock.patch.object(machine, "settings", dataclasses.replace(machine.settings, seeded=self.number)):
                _launch(function, call._replace(parameters=parameters))
        finally:
            function.translation = whole

    def told(self, case, blocks, log=True):
        """How a case tells that something is wrong, or ""."""
        if case.id not in self._known:
            self._known[case.id] = kernel_compare.on_cpu(case)
        settings = BLOCKS[blocks] if log else dataclasses.replace(BLOCKS[blocks], log_room=0)
        with contextlib.ExitStack() as stack:
            for module, values in FEW if blocks == "few" else ():
                for name, value in values.items():
                    stack.enter_context(mock.patch.object(module, name, value))
            stack.enter_context(mock.patch.object(machine, "settings", settings))
            stack.enter_context(mock.patch.object(machine, "totals", machine.Totals()))
            try:
                kernel_compare.check(case, self.cupy.asarray, self.cupy.asnumpy, self._known[case.id])
            except AssertionError as error:
                return f"unequal: {error}"[:90]
            except Exception as error:
                return f"{type(error).__name__}: {error}"[:90]
            assert not machine.totals.unlogged or not log
            return "race" if machine.totals.races else ""


_launch = machine.launch


@contextlib.contextmanager
def bench():
    """A `Bench` in the place of the machine."""
    found = Bench()
    with driver.device() as cupy, contextlib.ExitStack() as stack:
        found.cupy = cupy
        fakes = ((ptx, "_make", _make), (ptx, "_functions", {}), (driver, "function_of", found.function_of),
                 (machine, "launch", found.launch), (machine, "FUEL", FUEL))  # fmt: skip
        for place, name, value in fakes:
            stack.enter_context(mock.patch.object(place, name, value))
        yield found


def every_run():
    """(case, blocks) of the tier, by name."""
    both = [*kernel_cases.every_case(), *kernel_cases.wide_cases()]
    few = {case.id: (case, "few") for case in kernel_cases.every_case()}
    return {f"{name}/few": run for name, run in few.items()} | {f"{case.id}/production": (case, "production") for case in both}


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
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        self._take(entry)


def learn(found, record, runs):
    """Run every case without a fault; kernels that were compiled are known then."""
    for name, (case, blocks) in runs.items():
        if name in record.runs and all(
            kernel in {one.name for one in _kernels.values()} for kernel in record.runs[name]["kernels"]
        ):
            continue
        found.launched, begin = set(), time.perf_counter()
        told = found.told(case, blocks)
        if told:
            raise RuntimeError(f"{name} tells without a fault: {told}")
        kernels = sorted(_kernels[text].name for text in found.launched)
        if name not in record.runs:
            record.write(run=name, kernels=kernels, seconds=round(time.perf_counter() - begin, 3))


def launching(record, runs):
    """Specialisation -> the runs that launch it: those of wide cases, then the quickest and the slowest by turns."""
    found, wide = defaultdict(list), {f"{case.id}/production" for case in kernel_cases.wide_cases()}
    for entry in sorted(record.runs.values(), key=lambda entry: (entry["seconds"], entry["run"])):
        for name in entry["kernels"] if entry["run"] in runs else ():
            found[name].append(entry["run"])
    turns = {name: [x for pair in zip(some, some[::-1]) for x in pair][: len(some)] for name, some in found.items()}
    return {name: sorted(some, key=lambda run: run not in wide) for name, some in turns.items()}


def sown():
    """(kernel, number) of each fault that is made, the kinds of `ONCE` in the specialisation that has most of them."""
    by_kernel = defaultdict(list)
    for one in sorted(_kernels.values(), key=lambda one: one.name):
        by_kernel[one.kernel].append(one)
    for several in by_kernel.values():
        for one in several:
            for number, fault in enumerate(one.faults, 1):
                most = max(several, key=lambda other: sum(f.kind == fault.kind for f in other.faults))
                if fault.kind not in ONCE or one is most:
                    yield one, number


def try_fault(found, kernel, number, names, runs, kills, patience=math.inf):
    """The run that tells of a fault, how, and the runs that were tried; those that told most so far come first."""
    fault = kernel.faults[number - 1]
    found.target, found.number = kernel, number
    tried, end = [], time.perf_counter() + patience
    try:
        for name in sorted(names, key=lambda name: -kills[name]):
            told = found.told(*runs[name], log=fault.kind in RACING)
            tried.append(name)
            if told:
                kills[name] += 1
                return name, told, tried
            if time.perf_counter() > end:
                break
    finally:
        found.target = None
    return "", "", tried


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
            complete = set(launching(record, runs)[kernel.name]) <= set(entry["tried"])
            why = "not gone through" if reason is None else EQUIVALENT[reason][-1]
            silent[kernel.kernel, fault.kind, fault.what, kernel.source(fault), why, complete] += 1
    names = ("kernel", "kind", "what", "line", "why", "all_cases_tried", "count")
    return {
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
    """Kernel -> the runs that told the faults of one of its specialisations, the one that needs fewest; who told most comes first."""
    by_kernel = defaultdict(lambda: defaultdict(Counter))
    for kernel, number in known:
        entry = record.faults.get(kernel.key(number))
        if entry and entry["by"] in runs:
            by_kernel[kernel.kernel][kernel.name][entry["by"]] += 1
    best = {name: max(several.values(), key=lambda told: sum(told.values())) for name, several in by_kernel.items()}
    return {name: tuple(run for run, _ in told.most_common()) for name, told in sorted(best.items())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", help="one kernel's faults")
    parser.add_argument("--kind", choices=seeds.KINDS)
    parser.add_argument("--record", type=Path, help="JSON lines: taken up again, and added to")
    parser.add_argument("--patience", type=float, default=math.inf, help="seconds after which a fault is given up for now")
    parser.add_argument("--summary", type=Path, help="write a summary of the record, as JSON")
    parser.add_argument("--tellers", type=Path, help="write the table that test_faults.py goes by")
    parser.add_argument("--no-run", action="store_true", help="make no fault, go by the record alone")
    parser.add_argument("--left", action="store_true", help="print what no case told and no entry of the table explains")
    asked = parser.parse_args()
    record, runs, kills = Record(asked.record), every_run(), defaultdict(Counter)
    with bench() as found:
        learn(found, record, runs)
        known = [(kernel, number) for kernel, number in sown()
                 if asked.kernel in (None, kernel.kernel) and asked.kind in (None, kernel.faults[number - 1].kind)]  # fmt: skip
        launches = launching(record, runs)
        for kernel, number in () if asked.no_run else sorted(known, key=turn):
            key, fault = kernel.key(number), kernel.faults[number - 1]
            before = record.faults.get(key)
            if before and before["by"] in runs:
                continue
            names = [name for name in launches[kernel.name] if not before or name not in before["tried"]]
            if before and not names:
                continue
            by, how, tried = try_fault(found, kernel, number, names, runs, kills[kernel.kernel, fault.kind], asked.patience)
            record.write(fault=key, kernel=kernel.name, kind=fault.kind, what=fault.what, line=kernel.source(fault), place=fault.place,
                         by=by, how=how, tried=[] if by else tried)  # fmt: skip
    print(f"{'fault':<14} {'told':>6} {'of':>6} {'change nothing':>15} {'left':>6}")
    for kind, told, of, excused, left in table(record, known, runs):
        print(f"{kind:<14} {told:>6} {of:>6} {excused:>15} {left:>6}")
    if asked.summary:
        asked.summary.write_text(json.dumps(summary(record, known, runs), indent=1) + "\n")
    if asked.tellers:
        lines = "".join(
            f"    {name!r}: (\n{''.join(f'        {run!r},' + chr(10) for run in told)}    ),\n"
            for name, told in tellers(record, known, runs).items()
        )
        asked.tellers.write_text(
            '"""The runs that told the faults of a kernel, written by `faults.py --tellers`."""\n\nTELLERS = {\n' + lines + "}\n"
        )
    if asked.left:
        for kernel, number in known:
            fault, entry = kernel.faults[number - 1], record.faults.get(kernel.key(number))
            if entry and entry["by"] not in runs and kernel.reason(fault) is None:
                print(f"{kernel.name} | {fault.kind} | {fault.what} | {kernel.source(fault)}")


if __name__ == "__main__":
    main()
