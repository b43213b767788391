"""What a step of the first contact may start: sections, tests, a sanitizer, a profiler.

Each says what it lacks, what its command line is, and what its output means.
"""

import re
import sys
from dataclasses import dataclass, field

from . import process
from .streams import Ended

FEW_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "2")
"""Of each of the processes that run tests side by side."""
PROFILED = "emit|gradient|hidden|bound|sums|to_slots"
LAUNCHES = 16
"""Launches that are looked at: those of one call over one tile."""
PARTS = ("SpeedOfLight", "Occupancy", "WarpStateStats")
METRICS = ("Duration", "DRAM Throughput", "Compute (SM) Throughput", "Achieved Occupancy")
TAIL = 12


@dataclass(frozen=True)
class Command:
    """A command and what it adds to its environment."""

    arguments: tuple[str, ...] = ()
    environment: dict = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def lacking(self) -> str:
        """What it cannot run without, as far as that is known without a GPU."""
        return ", ".join(
            [f"{name} is not installed" for name in self.modules if not process.importable(name)]
            + [f"{name} is not on the PATH" for name in self.programs if not process.program(name)]
        )

    def line(self, seconds: float) -> list[str]:
        """The command line, for so many seconds."""
        raise NotImplementedError

    def read(self, ended: Ended) -> dict:
        """What its output says; `error` is what went wrong, `cut` that its time was up."""
        raise NotImplementedError


def told(ended: Ended) -> dict:
    """Lines of JSON in an output, and what became of the command."""
    found = process.cases_of(ended.text)
    rest = "\n".join(line for line in ended.text.splitlines() if not line.startswith("{"))
    if ended.code is None:
        found["cut"] = f"its time was up: {process.tail(rest, 3)}"
    elif ended.code and "error" not in found:
        found["error"] = f"exit code {ended.code}: {process.tail(rest, TAIL)}"
    return process.without_folders(found)


class Section(Command):
    """A section of `benchmarks.gpu.sections`."""

    def line(self, seconds):
        # No case is begun in the last seconds: importing has taken its share of them already.
        return [
            sys.executable,
            "-m",
            "benchmarks.gpu.sections",
            *self.arguments,
            "--seconds",
            f"{max(1.0, seconds - 4):.0f}",
        ]

    def read(self, ended):
        return told(ended)


class Probe(Command):
    """A question of `benchmarks.gpu.probes`."""

    def line(self, seconds):
        return [sys.executable, "-m", "benchmarks.gpu.probes", *self.arguments]

    def read(self, ended):
        return told(ended)


class Tests(Command):
    """pytest; the first argument is the number of processes."""

    def line(self, seconds):
        workers, *rest = self.arguments
        return process.pytest_command("-p", "benchmarks.gpu.failures", *rest, workers=int(workers))

    def read(self, ended):
        found = {"exit_code": ended.code, **process.counted(ended.text)}
        if ended.code is None:
            found["cut"] = "its time was up"
        elif ended.code or not found.get("passed"):
            found["error"] = f"exit code {ended.code}"
        if "cut" in found or "error" in found:
            found["last_lines"] = process.tail(ended.text, 30).splitlines()
        return found


class Sanitizer(Command):
    """A tool of compute-sanitizer over the kernels' tests."""

    def line(self, seconds):
        return process.sanitize_command(*self.arguments)

    def read(self, ended):
        found = process.sanitized(*self.arguments, ended.code, ended.text)
        if ended.code is None:
            # Without a summary: only what it has printed of errors counts.
            marked = [
                line for line in found.pop("first_lines", ()) if "====" in line and "COMPUTE-SANITIZER" not in line
            ]
            del found["error"]
            found |= {"cut": "its time was up", **({"error": marked[0]} if marked else {})}
        return found


class Profile(Command):
    """Nsight Compute over one call."""

    def line(self, seconds):
        parts = [text for part in PARTS for text in ("--section", part)]
        ncu = [process.program("ncu") or "ncu", "--clock-control", "none", *parts]
        call = [sys.executable, "-m", "benchmarks.gpu.probes", "one_call"]
        return [*ncu, "-k", f"regex:{PROFILED}", "-c", str(LAUNCHES), *call]

    def read(self, ended):
        found = {"launches": profiled(ended.text)}
        errors = [line for line in ended.text.splitlines() if line.startswith("==ERROR==")]
        if ended.code is None:
            found["cut"] = "its time was up"
        elif ended.code or not found["launches"]:
            found["error"] = f"exit code {ended.code}: {(errors or [process.tail(ended.text, 1)])[0][:200]}"
        return process.without_folders(found)


def profiled(text: str) -> list[dict]:
    """The kernels of a report of ncu in the order of their launches, and some of its numbers, in its units."""
    found = []
    for line in text.splitlines():
        kernel = re.match(r"\s+(\S.*?) \(\d+, \d+, \d+\)x\(\d+, \d+, \d+\), Context", line)
        if kernel:
            name = re.search(r"(\w+?)_cuda", kernel[1])
            found.append({"kernel": re.sub(r".*?\d", "", name[1]) if name else kernel[1][:60]})
        number = re.match(r"\s+(\S.*?)\s{2,}(\S+)\s+([\d.,]+)\s*$", line)
        if number and found and number[1] in METRICS:
            found[-1][f"{number[1]} ({number[2]})"] = float(number[3].replace(",", ""))
    return found
