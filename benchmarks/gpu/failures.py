"""A plugin of pytest, `-p benchmarks.gpu.failures`: what is known of a run that may be ended at any moment.

Each failure is written as it occurs. The variable FAILURES names a file that lines of JSON are added to, RUNNING a
folder in which each process keeps the id of the test that it is running, and the first one `counts.json`.
"""

import collections
import contextlib
import json
import os
import re
from pathlib import Path

from .process import FOLDERS

LINES = 12
"""Lines of a message that are kept: the last ones, where the error is."""
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
SPOILED = re.compile(r"(?i)illegal.?address|illegal memory access|launch.?fail(ure|ed)|misaligned.?address")
"""After one of these errors of CUDA every call of the process fails."""
counts = collections.Counter()
spoiled = False


def pytest_runtest_logstart(nodeid):
    keep(f"{WORKER or 'main'}.txt", nodeid)


def pytest_runtest_logfinish(nodeid):
    keep(f"{WORKER or 'main'}.txt", "")
    if WORKER and spoiled:
        # Its report is out; another process takes its place, and the tests to come do not fail for this one.
        os._exit(1)


def pytest_runtest_logreport(report):
    global spoiled
    spoiled = spoiled or bool(report.failed and SPOILED.search(report.longreprtext))
    if report.when == "call" or not report.passed:
        note(report)


def pytest_collectreport(report):
    if report.failed:
        note(report)


def note(report) -> None:
    """Count a test, and write its failure down, in the process that collects those of the others."""
    if WORKER:
        return
    counts[report.outcome] += 1
    keep("counts.json", json.dumps(counts))
    path = os.environ.get("FAILURES")
    if path and report.failed:
        text = FOLDERS.sub("", "\n".join(report.longreprtext.strip().splitlines()[-LINES:]))
        line = {"id": report.nodeid, "when": getattr(report, "when", "collect"), "message": text}
        # On a full disk the tests run on.
        with contextlib.suppress(OSError), open(path, "a") as file:
            file.write(json.dumps(line) + "\n")


def keep(name: str, text: str) -> None:
    folder = os.environ.get("RUNNING")
    if folder:
        with contextlib.suppress(OSError):
            (Path(folder) / name).write_text(text)
