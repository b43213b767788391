"""What a measurement rests on.

The module times calls in turns, measures the peak memory of the process, and records the machine and the versions.
"""

import datetime
import gc
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "numba", "scipy", "torch", "torchaudio", "fast-rnnt", "optimized-transducer", "warprnnt-numba")
THREAD_SETTINGS = ("_NUM_THREADS", "_THREAD_TIMEOUT", "_BLOCKTIME")
"""How the names of variables end that say how many threads there are, and how long they spin."""


def interleaved(calls: dict, rounds: int = 5, prepare: dict | None = None) -> dict[str, list[float]]:
    """Seconds of each call, the calls taking turns, after one round that is not counted.

    `prepare` holds, by name, what has to be done before a call without being timed.
    """
    seconds = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            if prepare and name in prepare:
                prepare[name]()
            gc.collect()
            begin = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratios(seconds: dict[str, list[float]], floor: str) -> dict[str, dict]:
    """Median seconds, and median, smallest and largest ratio to the floor of the same round."""
    table = {}
    for name, values in seconds.items():
        relative = [value / base for value, base in zip(values, seconds[floor])]
        table[name] = {
            "seconds": statistics.median(values),
            "ratio": statistics.median(relative),
            "ratio_min": min(relative),
            "ratio_max": max(relative),
            "rounds": len(values),
        }
    return table


class PeakMemory:
    """Growth of this process's resident memory inside a `with` block, at its highest, in bytes."""

    def __enter__(self):
        gc.collect()
        # Writing 5 makes the kernel forget the highest mark so far.
        Path("/proc/self/clear_refs").write_text("5")
        self.before = self.status("VmRSS")
        return self

    def __exit__(self, *error):
        self.high = self.status("VmHWM")
        self.growth = self.high - self.before

    @staticmethod
    def status(field: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise OSError(f"/proc/self/status has no {field}")


def in_child(module: str, **arguments) -> dict:
    """Run `python -m module` in a process of its own; its last line of output is the result in JSON."""
    flags = [text for key, value in arguments.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    done = subprocess.run([sys.executable, "-m", module, *flags], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(flags)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def commit() -> str:
    """The commit that was measured, marked where code has been changed since; empty without git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return ""
    described = subprocess.run(["git", "describe", "--always"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    # Records and documents may be under way; what was measured may not.
    code = ["lattice", "samplers", *(str(path) for path in Path(__file__).parent.rglob("*.py"))]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], cwd=ROOT, capture_output=True).returncode
    return f"{described}-dirty" if changed else described


def environment(packages: tuple[str, ...] = PACKAGES) -> dict:
    """Machine, versions of the packages that are there, and commit."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cpu = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions,
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"].get("openblas configuration", ""),
        "threads": {name: value for name, value in sorted(os.environ.items()) if name.endswith(THREAD_SETTINGS)},
    }


def write(path: str | None, results: dict) -> None:
    """Write a record beside the environment it was measured in."""
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"environment": environment(), **results}, indent=1) + "\n")


def wrapped(text: str) -> str:
    """Prose of a document in lines of at most 120 characters."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def not_measured(reasons: dict[str, str]) -> str:
    """What stands below a table: the implementations that it lacks, and why."""
    missing = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
    return wrapped(f"Not measured: {missing or 'nothing'}.")


def save(figure, path: Path) -> None:
    """Write a picture, and let go of it."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def show(title: str, table: dict[str, dict], columns: tuple[str, ...]) -> None:
    """Print rows as a table; a value that was not measured is a dash."""
    width = max(len(name) for name in table) + 2
    print(f"\n{title}\n{'':{width}}" + "".join(f"{column:>16}" for column in columns))
    for name, row in table.items():
        cells = (row.get(column) for column in columns)
        print(
            f"{name:{width}}"
            + "".join(
                f"{'-' if cell is None else f'{cell:,.3g}' if isinstance(cell, float) else cell:>16}" for cell in cells
            )
        )
