"""Everything that is known only on a GPU: the losses against copies and matrix products, the CUDA tests, within a time.

The losses are measured section by section, each in a process of its own (sections.py). The command writes the record
after each section. The exit code is 1 where a test, a check or a section failed, 2 where there is no GPU.
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

from lattice.device import arrays

from . import process, tables
from .process import Budget, failed

PACKAGES = (
    "cupy-cuda13x",
    "cupy-cuda12x",
    "numba-cuda",
    "cuda-bindings",
    "cuda-core",
    "ml-dtypes",
    "nvidia-cublas",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-nvcc",
    "nvidia-nvvm",
    "pytest",
)
LEAST = 30.0
"""Seconds without which no section is started. Importing and compiling take about ten of them, and the command waits
for a case under way."""


class Section(NamedTuple):
    """A section: its arguments, its time and its environment.

    `arguments` go to `benchmarks.gpu.sections`. After `seconds` the section starts no further case. `environment` is
    added to the environment of the process.
    """

    arguments: tuple[str, ...]
    seconds: float
    environment: dict[str, str]


SECTIONS = {
    "check": Section(("check",), 60, {}),
    "headline bfloat16": Section(("headline", "bfloat16"), 60, {}),
    "headline float32": Section(("headline", "float32"), 60, {}),
    "device": Section(("device",), 60, {}),
    "stages": Section(("stages",), 60, {}),
    "logits": Section(("logits", "float32", "bfloat16"), 100, {}),
    "joint float32": Section(("joint", "float32"), 80, {}),
    "joint bfloat16": Section(("joint", "bfloat16"), 80, {}),
    "sampled": Section(("sampled",), 90, {}),
    "three_stage": Section(("three_stage",), 60, {}),
    "joint tf32": Section(("joint", "tf32"), 80, {"CUPY_TF32": "1"}),
}
"""In the order of what would be missed most."""
FIRST = 5
"""Sections that come before the tests."""


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


def environment() -> dict:
    """That of every record, with what a GPU adds."""
    return {**process.known_environment(PACKAGES), "gpu": process.gpus()}


def writer(path: str | None, results: dict):
    """A function that writes the record as it stands."""
    around = environment()

    def save():
        if path:
            process.write(Path(path), json.dumps({"environment": around, **results}, indent=1) + "\n")

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
        results = {
            "benchmark": "gpu",
            "minutes": options.minutes,
            "tests": {"not_measured": "by --skip-tests"},
            "sections": {},
        }
        save = writer(options.json, results)
        chosen = [name for name in SECTIONS if name in (options.only or SECTIONS)]
        early = [name for name in chosen if name in list(SECTIONS)[:FIRST]]
        measure({name: SECTIONS[name] for name in early}, budget, results["sections"], save, run_section)
        if not options.skip_tests:
            results["tests"] = process.tests(min(options.test_seconds, budget.left))
            print(f"tests/cuda: {tables.tests_line(results['tests'])}", flush=True)
            save()
        measure({name: SECTIONS[name] for name in chosen[len(early) :]}, budget, results["sections"], save, run_section)
    print(tables.summary(results))
    raise SystemExit(1 if failed(results) else 0)


def add_arguments(command) -> None:
    command.add_argument("--minutes", type=float, default=8.0, help="time for everything; no section starts later")
    command.add_argument("--skip-tests", action="store_true", help="leave tests/cuda out")
    command.add_argument("--test-seconds", type=float, default=150.0, help="time for tests/cuda")
    command.add_argument(
        "--only", nargs="*", choices=SECTIONS, metavar="SECTION", help=f"some of: {', '.join(SECTIONS)}"
    )
    command.add_argument("--sanitize", action="store_true", help="only run the kernels' tests under compute-sanitizer")
