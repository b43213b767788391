"""Faults put into the compiled kernels, one at a time: does any case tell?

    python -m tests.ptxrun.faults [--kernel NAME] [--kind KIND] [--record FILE] [--summary FILE]

runs every case once to see which kernels it launches. Then it runs every fault of `seeds.py` on the cases that launch
its kernel, until one of them tells: by a fault that the machine finds, by a result that is not equal, or by a race. A
case runs as in test_kernels.py, in few threads and in production blocks. FILE holds a line for each run of a case and
for each fault. What stands there is not run again.
"""

import argparse
import contextlib
import dataclasses
import hashlib
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

from lattice.kernels import ptx, ptx_store
from lattice.kernels.ptx_types import signature, type_names
from tests import kernel_cases, kernel_compare, launches
from tests.few_threads import FEW

from . import driver, machine, parse, seeds
from .equivalent import EQUIVALENT
from .record import Record, launching, summary, table, untold, write_open, write_tellers

LOG_ROOM = 4_000_000
"""Accesses of one launch; the largest one of the cases has fewer."""
BLOCKS = {
    "few": machine.Settings(order="reverse", log_room=LOG_ROOM),
    "production": machine.Settings(order="random:0", log_room=LOG_ROOM),
}
FUEL = 20_000_000
"""Blocks of instructions of a faulty launch; sound ones take fewer."""
ONCE = ("parameter", "argument", "scale", "shuffle")
"""Kinds that are sown in one specialisation of a kernel, the one with most faults of the kind. The other
specialisations take the same arguments, and index and exchange them alike. For shuffles it is a specialisation of
float64, which tells what becomes of the lower half of a sum."""
RACING = ("barrier", "warp barrier", "parameter", "argument", "loop")
"""Kinds that may make a race and change no result here."""

_kernels: dict[str, "Kernel"] = {}
"""Specialisations that were compiled, by the PTX."""


class Kernel:
    """A specialisation of a kernel: its PTX with the lines of its source, and its faults."""

    def __init__(self, kernel, arguments, text):
        self.text, self.kernel = text, kernel.py_func.__name__
        types = signature(arguments)
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
        """The line of the source that a fault is in, without its comment."""
        file, _, line = fault.line.partition(" ")
        return linecache.getline(self.files.get(file, ""), int(line or 0)).partition("  # ")[0].strip()

    def key(self, number):
        """What names a fault in a record."""
        fault = self.faults[number - 1]
        told = f"{self.name}|{fault.kind}|{fault.place}|{fault.instead}|{fault.shared}|{fault.swapped}"
        return f"{self.kernel}:{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def reason(self, fault):
        """The number of the entry in the table of faults that change nothing, or None."""
        for number, (kernel, kind, what, line, _) in enumerate(EQUIVALENT):
            matches = re.fullmatch(kernel, self.kernel) and re.fullmatch(kind, fault.kind)
            if matches and re.fullmatch(what, fault.what) and re.fullmatch(line, self.source(fault)):
                return number
        return None


def _make(kernel, arguments, cc):
    """`ptx._make`, with the lines of the source in the PTX, which is kept apart."""
    path = ptx_store.cached(kernel, type_names(arguments), cc).with_suffix(".lines")
    if path.exists():
        text = path.read_text()
    else:
        with mock.patch.object(cuda, "compile_ptx", partial(cuda.compile_ptx, lineinfo=True)):
            text = ptx.compile_kernel(kernel, arguments, cc)
        ptx_store.keep(path, text)
    if text not in _kernels:
        _kernels[text] = Kernel(kernel, arguments, text)
    return ptx.load(text)


def compiled(texts):
    """The specialisations with these texts."""
    return [_kernels[text] for text in texts]


def library():
    """Names of the kernels that faults are put into: of those that differ in their activation alone, of `BROAD`."""
    others = tuple(f"_{name}_cuda" for name in (*kernel_compare.NARROW, "slope"))
    return sorted(name for name in launches.library() if not name.endswith(others))


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
        fakes = (
            (ptx, "_make", _make),
            (ptx, "_functions", {}),
            (driver, "function_of", found.function_of),
            (machine, "launch", found.launch),
            (machine, "FUEL", FUEL),
        )
        for place, name, value in fakes:
            stack.enter_context(mock.patch.object(place, name, value))
        yield found


def every_run():
    """(case, blocks) of the tier, by name."""
    both = [*kernel_cases.every_case(), *kernel_cases.wide_cases()]
    few = {case.id: (case, "few") for case in kernel_cases.every_case()}
    return {f"{name}/few": run for name, run in few.items()} | {
        f"{case.id}/production": (case, "production") for case in both
    }


def learn(found, record, runs):
    """Run every case without a fault; kernels that were compiled are known then."""
    for name, (case, blocks) in runs.items():
        if name in record.runs and {one.name for one in _kernels.values()}.issuperset(record.runs[name]["kernels"]):
            continue
        found.launched, begin = set(), time.perf_counter()
        told = found.told(case, blocks)
        if told:
            raise RuntimeError(f"{name} tells without a fault: {told}")
        kernels = sorted(_kernels[text].name for text in found.launched)
        if name not in record.runs:
            record.write(run=name, kernels=kernels, seconds=round(time.perf_counter() - begin, 3))


def _telling(several, kind):
    """The specialisation of a kernel that the faults of a kind are sown in."""
    wide = kind == "shuffle"
    return max(
        several, key=lambda one: (sum(fault.kind == kind for fault in one.faults), wide and one.name.count(" f8"))
    )


def sown():
    """(kernel, number) of each fault that is made, the kinds of `ONCE` in one specialisation."""
    by_kernel, names = defaultdict(list), set(library())
    for one in sorted(_kernels.values(), key=lambda one: one.name):
        if one.kernel in names:
            by_kernel[one.kernel].append(one)
    for several in by_kernel.values():
        telling = {kind: _telling(several, kind) for kind in ONCE}
        for one in several:
            for number, fault in enumerate(one.faults, 1):
                if telling.get(fault.kind, one) is one:
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


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", choices=library(), metavar="NAME_cuda", help="one kernel's faults")
    parser.add_argument("--kind", choices=seeds.KINDS)
    parser.add_argument("--record", type=Path, help="JSON lines: taken up again, and added to")
    parser.add_argument(
        "--patience", type=float, default=math.inf, help="seconds after which a fault is given up for now"
    )
    parser.add_argument("--summary", type=Path, help="write a summary of the record, as JSON")
    parser.add_argument("--tellers", type=Path, help="write the table that test_faults.py goes by")
    parser.add_argument(
        "--open", type=Path, help="write the table of those that no case tells and nobody has gone through"
    )
    parser.add_argument("--no-run", action="store_true", help="make no fault, go by the record alone")
    parser.add_argument(
        "--left", action="store_true", help="print what no case told and no entry of the table explains"
    )
    asked = parser.parse_args(arguments)
    record, runs, kills = Record(asked.record), every_run(), defaultdict(Counter)
    with bench() as found:
        learn(found, record, runs)
        known = [
            (kernel, number)
            for kernel, number in sown()
            if asked.kernel in (None, kernel.kernel) and asked.kind in (None, kernel.faults[number - 1].kind)
        ]
        launched_by = launching(record, runs)
        # The slowest kernel comes last.
        turns = {
            pair: (pair[0].kernel == "choose_cuda", seeds.KINDS.index(pair[0].faults[pair[1] - 1].kind))
            for pair in known
        }
        for kernel, number in () if asked.no_run else sorted(known, key=turns.get):
            key, fault = kernel.key(number), kernel.faults[number - 1]
            before = record.faults.get(key)
            if before and before["by"] in runs:
                continue
            names = [name for name in launched_by[kernel.name] if not before or name not in before["tried"]]
            if before and not names:
                continue
            by, how, tried = try_fault(
                found, kernel, number, names, runs, kills[kernel.kernel, fault.kind], asked.patience
            )
            told = {"kernel": kernel.name, "kind": fault.kind, "what": fault.what, "line": kernel.source(fault)}
            record.write(fault=key, **told, place=fault.place, by=by, how=how, tried=[] if by else tried)
    print(f"{'fault':<14} {'told':>6} {'of':>6} {'change nothing':>15} {'left':>6}")
    for kind, told, of, excused, left in table(record, known, runs):
        print(f"{kind:<14} {told:>6} {of:>6} {excused:>15} {left:>6}")
    if asked.summary:
        asked.summary.write_text(json.dumps(summary(record, known, runs), indent=1) + "\n")
    if asked.tellers:
        write_tellers(asked.tellers, record, known, runs)
    if asked.open:
        write_open(asked.open, record, known, runs)
    if asked.left:
        for entry in sorted(untold(record, known, runs)):
            print(" | ".join(entry))


if __name__ == "__main__":
    main()
