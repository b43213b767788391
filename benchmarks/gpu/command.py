"""Everything that is known only on a GPU: the CUDA tests, then the losses against copies and matrix products, within a time.

The losses are measured section by section, each in a process of its own (sections.py); the record is written after each.
The exit code is 1 where a test, a check or a section failed, 2 where there is no GPU.
"""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import lattice
from lattice import arrays

from .. import record
from . import process, tables

PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "numba-cuda", "cuda-bindings", "cuda-core", "ml-dtypes", "nvidia-cublas",
            "nvidia-cuda-nvrtc", "nvidia-cuda-nvcc", "nvidia-nvvm", "pytest")  # fmt: skip
LEAST = 30.0
"""Seconds without which no section is started: importing and compiling take about ten, and a case under way is waited for."""


class Section(NamedTuple):
    """Arguments of `benchmarks.gpu.sections`, seconds after which it starts no further case, additions to its environment."""

    arguments: tuple[str, ...]
    seconds: float
    environment: dict[str, str]


SECTIONS = {
    "check": Section(("check",), 60, {}),
    "device": Section(("device",), 60, {}),
    "headline float32": Section(("headline", "float32"), 90, {}),
    "logits": Section(("logits", "float32", "bfloat16"), 100, {}),
    "joint float32": Section(("joint", "float32"), 80, {}),
    "joint bfloat16": Section(("joint", "bfloat16"), 80, {}),
    "sampled": Section(("sampled",), 90, {}),
    "three_stage": Section(("three_stage",), 60, {}),
    "stages": Section(("stages",), 60, {}),
    "joint tf32": Section(("joint", "tf32"), 80, {"CUPY_TF32": "1"}),
    "headline bfloat16": Section(("headline", "bfloat16"), 90, {}),
}
"""In the order of what would be missed most."""


class Budget:
    """Seconds that are left."""

    def __init__(self, seconds: float, clock=time.monotonic):
        self.clock, self.end = clock, clock() + seconds

    @property
    def left(self) -> float:
        return self.end - self.clock()


def measure(sections: dict, budget: Budget, results: dict, save, run) -> None:
    """Run the sections for which there is time; whatever one of them does, the next one follows.

    Parameters
    ----------
    sections : dict
        Name -> Section.
    results : dict
        Filled by name: what `run` returned, or `not_measured`, or `error`.
    save : callable
        Called without arguments after each section.
    run : callable
        (section, seconds) -> dict.
    """
    for name, section in sections.items():
        left = budget.left
        if left < LEAST:
            results[name] = {"not_measured": "out of time"}
        else:
            begin = time.monotonic()
            try:
                results[name] = run(section, min(section.seconds, left - LEAST / 2))
            except Exception as error:
                results[name] = {"error": f"{type(error).__name__}: {error}"}
            results[name]["took"] = time.monotonic() - begin
            print(f"{name}: {results[name]['took']:.0f} s{', failed' if failed(results[name]) else ''}", flush=True)
        save()


def run_section(section: Section, seconds: float) -> dict:
    return process.section(section.arguments, seconds, section.environment)


def failed(node) -> bool:
    """Is there an error anywhere in a result?"""
    return isinstance(node, dict) and ("error" in node or any(failed(value) for value in node.values()))


def environment() -> dict:
    """That of every record, with what a GPU adds; the library's tree, because a copy without .git has no commit."""
    known = record.environment((*record.PACKAGES, *PACKAGES))
    if not (record.ROOT / ".git").exists():
        known["commit"] = "a copy without .git: `git rev-parse COMMIT:lattice` prints the tree"
    return {**known, "tree": process.tree(Path(lattice.__file__).parent), "gpu": process.gpus()}


def writer(path: str | None, results: dict):
    """A function that writes the record as it stands; a reader never meets half of one."""
    around = environment()

    def save():
        if path:
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(target.name + ".part")
            unfinished.write_text(json.dumps({"environment": around, **results}, indent=1) + "\n")
            os.replace(unfinished, target)

    return save


def main(options) -> None:
    try:
        arrays.cupy()
    except RuntimeError as error:
        print(f"nothing measured: {error}")
        raise SystemExit(2) from None
    budget = Budget(60 * options.minutes)
    if options.sanitize:
        results = {"benchmark": "gpu --sanitize", "tools": {}}
        save = writer(options.json, results)
        for tool in process.TOOLS:
            results["tools"][tool] = process.sanitize(tool, 30 * options.minutes)
            save()
    else:
        results = {"benchmark": "gpu", "minutes": options.minutes, "tests": {"not_measured": "by --skip-tests"}, "sections": {}}
        save = writer(options.json, results)
        if not options.skip_tests:
            results["tests"] = process.tests(min(options.test_seconds, budget.left))
            print(f"tests/cuda: {tables.tests_line(results['tests'])}", flush=True)
            save()
        chosen = {name: section for name, section in SECTIONS.items() if name in (options.only or SECTIONS)}
        measure(chosen, budget, results["sections"], save, run_section)
    print(tables.summary(results))
    raise SystemExit(1 if failed(results) else 0)


def add_arguments(command) -> None:
    command.add_argument("--minutes", type=float, default=8.0, help="time for everything; no section starts later")
    command.add_argument("--skip-tests", action="store_true", help="leave tests/cuda out")
    command.add_argument("--test-seconds", type=float, default=240.0, help="time for tests/cuda")
    command.add_argument("--only", nargs="*", choices=SECTIONS, metavar="SECTION", help=f"some of: {', '.join(SECTIONS)}")
    command.add_argument("--sanitize", action="store_true", help="only run the kernels' tests under compute-sanitizer")
