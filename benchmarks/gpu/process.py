"""What the gpu benchmark leaves to other processes: the CUDA tests, the sections, compute-sanitizer, nvidia-smi."""

import contextlib
import glob
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .. import record

FOLDERS = re.compile(r"(?<![\w./])/(?:[\w.+-]+/)+")
"""Reasons go into records, and the folders of one machine do not belong there."""
GRACE = 30.0
"""Seconds after which a section whose time is up is ended."""
PYTEST = ("-q", "-o", "addopts=", "-p", "no:cacheprovider")
TOOLS = {
    "memcheck": r"ERROR SUMMARY: (\d+) error",
    "racecheck": r"RACECHECK SUMMARY: (\d+) hazard",
}
"""Tools of compute-sanitizer, and how each says what it found."""
WITHOUT_POOL = (
    "import sys, cupy, pytest; cupy.cuda.set_allocator(None); "
    f"sys.exit(pytest.main([*{PYTEST}, '--maxfail=20', 'tests/cuda/test_kernels.py']))"
)
"""Every array its own allocation: within a pool's block, memory beyond an array's end is still valid memory."""
PLUGINS = "xdist", "pytest_timeout"
TOOL_FOLDERS = (
    "/usr/local/cuda/bin",
    "/usr/local/cuda/nsight-compute",
    *sorted(glob.glob("/opt/nvidia/nsight-compute/*"))[::-1],
)


class Budget:
    """Seconds that are left."""

    def __init__(self, seconds: float, clock=time.monotonic):
        self.clock, self.end = clock, clock() + seconds

    @property
    def left(self) -> float:
        return self.end - self.clock()


def failed(node) -> bool:
    """Is there an error anywhere in a result?"""
    return isinstance(node, dict) and ("error" in node or any(failed(value) for value in node.values()))


def write(path: Path, text: str) -> None:
    """Write a file as a whole: a reader never meets half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(unfinished, path)


def known_environment(packages: tuple[str, ...]) -> dict:
    """The environment of every record, and the library's tree, because a copy without .git has no commit.

    The call asks nothing of a GPU.
    """
    known = record.environment((*record.PACKAGES, *packages))
    if not (record.ROOT / ".git").exists():
        known["commit"] = "a copy without .git: `git rev-parse COMMIT:lattice` prints the tree"
    return {**known, "tree": tree(record.ROOT / "lattice")}


def ended(command: list[str], seconds: float, environment: dict[str, str] | None = None) -> tuple[int | None, str, str]:
    """Return code (None where it ran out of time), stdout and stderr of a command.

    The command ends together with all that it started.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        # Into files: pipes that a grandchild holds open would be waited for.
        child = subprocess.Popen(
            command,
            cwd=record.ROOT,
            env={**os.environ, **(environment or {})},
            stdout=out,
            stderr=error,
            start_new_session=True,
        )
        try:
            code = child.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        texts = []
        for file in (out, error):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return code, *texts


def tail(text: str, lines: int) -> str:
    return FOLDERS.sub("", "\n".join(text.strip().splitlines()[-lines:]))


def without_folders(node):
    """A result whose texts name no folder of a machine."""
    if isinstance(node, dict):
        return {key: without_folders(value) for key, value in node.items()}
    if isinstance(node, list):
        return [without_folders(value) for value in node]
    return FOLDERS.sub("", node) if isinstance(node, str) else node


def importable(module: str) -> bool:
    """Is a package there? It is not imported."""
    return importlib.util.find_spec(module) is not None


def section(arguments: tuple[str, ...], seconds: float, environment: dict[str, str]) -> dict:
    """Run a section; its cases in one dict."""
    command = [sys.executable, "-m", "benchmarks.gpu.sections", *arguments, "--seconds", f"{seconds:.0f}"]
    return collected(*ended(command, seconds + GRACE, environment))


def collected(code: int | None, out: str, error: str) -> dict:
    """The lines of JSON that a section printed, and what became of it."""
    results = cases_of(out)
    if code is None:
        results["error"] = f"ended {GRACE:.0f} s after its time: {tail(error, 6)}"
    elif code:
        results["error"] = f"exit code {code}: {tail(error, 12)}"
    return results


def cases_of(out: str) -> dict:
    """The cases that a section printed, a line of JSON each."""
    results = {}
    for line in out.splitlines():
        # A process may be ended in the middle of a line.
        with contextlib.suppress(ValueError):
            results |= json.loads(line) if line.startswith("{") else {}
    return results


def pytest_command(*arguments: str, workers: int = 8, timeout: int = 30, most: int = 40) -> list[str]:
    """pytest in several processes, and with a time for each test, where the plugins for that are there."""
    parallel, timed = map(importable, PLUGINS)
    flags = ["-n", str(min(workers, len(os.sched_getaffinity(0))))] if parallel else []
    # A process that waits for a GPU hears no signal; a thread ends it, which costs no more than a worker.
    flags += ["--timeout", str(timeout), "--timeout-method", "thread" if parallel else "signal"] if timed else []
    return [sys.executable, "-m", "pytest", *PYTEST, *flags, f"--maxfail={most}", *arguments]


def program(name: str) -> str | None:
    """A tool of the CUDA toolkit, on the PATH or where the toolkit is put by default."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(TOOL_FOLDERS))


def tests(seconds: float, folder: str = "tests/cuda") -> dict:
    """Run the cuda tier; anything but passed tests is an error."""
    begin = time.monotonic()
    code, out, error = ended(pytest_command(folder), seconds)
    found = {"seconds": time.monotonic() - begin, "exit_code": code, **counted(out)}
    if code is None:
        found["error"] = f"not done after {seconds:.0f} s"
    elif code or not found.get("passed"):
        found["error"] = f"exit code {code}"
    if "error" in found:
        found["last_lines"] = tail(f"{out}\n{error}", 80).splitlines()
    return found


def counted(text: str) -> dict[str, int]:
    """The counts that pytest ends with, `errors` always in the plural."""
    ends = [line for line in text.splitlines() if re.search(r"\d+ [a-z]+ in [\d.]+s", line)]
    found = re.findall(r"(\d+) (passed|failed|error|skipped|xfailed|xpassed|deselected)", ends[-1] if ends else "")
    return {"errors" if word == "error" else word: int(count) for count, word in found}


def sanitize(tool: str, seconds: float) -> dict:
    """Run the kernels' tests under a tool of compute-sanitizer."""
    if program("compute-sanitizer") is None:
        return {"not_measured": "compute-sanitizer is not on the PATH"}
    begin = time.monotonic()
    code, out, error = ended(sanitize_command(tool), seconds)
    return {"seconds": time.monotonic() - begin, **sanitized(tool, code, out, error)}


def sanitize_command(tool: str) -> list[str]:
    return [program("compute-sanitizer") or "compute-sanitizer", "--tool", tool, "--error-exitcode", "99",
            "--report-api-errors", "no", "--target-processes", "all", sys.executable, "-c", WITHOUT_POOL]  # fmt: skip


def sanitized(tool: str, code: int | None, out: str, error: str = "") -> dict:
    """What a tool of compute-sanitizer found."""
    said = [int(count) for count in re.findall(TOOLS[tool], out)]
    found = {"exit_code": code, "found": sum(said) if said else None}
    if code or code is None or not said or sum(said):
        found["error"] = "not done in its time" if code is None else f"exit code {code}, found {found['found']}"
        marked = [line for line in out.splitlines() if line.startswith("=====")]
        found["first_lines"] = FOLDERS.sub("", "\n".join(marked[:80])).splitlines()
        found["last_lines"] = tail(f"{out}\n{error}", 40).splitlines()
    return found


def gpus(seconds: float = 20.0) -> list[dict]:
    """Name, driver and memory of each GPU, as nvidia-smi says within a time; nothing where it is not there."""
    fields = ("name", "driver_version", "memory.total", "memory.used", "clocks.max.sm", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds)
    except (OSError, subprocess.SubprocessError):
        return []
    return [dict(zip(fields, (value.strip() for value in line.split(",")))) for line in done.stdout.splitlines()]


EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What git calls a folder without files; it keeps none."""


def tree(folder: Path) -> str:
    """What git calls a folder of Python files and marks of types."""
    entries = b""
    for path in sorted(folder.iterdir(), key=lambda path: path.name + "/" * path.is_dir()):
        if path.is_dir():
            inner = tree(path)
            if inner != EMPTY:
                entries += f"40000 {path.name}\0".encode() + bytes.fromhex(inner)
        elif path.suffix in (".py", ".typed"):
            data = path.read_bytes()
            mode = 100755 if path.stat().st_mode & 0o100 else 100644
            entries += f"{mode} {path.name}\0".encode() + hashlib.sha1(b"blob %d\0" % len(data) + data).digest()
    return hashlib.sha1(b"tree %d\0" % len(entries) + entries).hexdigest()
