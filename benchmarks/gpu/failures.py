"""A plugin of pytest, `-p benchmarks.gpu.failures`: each failure is written as it occurs, for the run may be ended from outside.

The variable FAILURES names a file that lines of JSON are added to, RUNNING a folder in which each process keeps the id of
the test that it is running.
"""

import json
import os
import signal
from pathlib import Path

from .process import FOLDERS

LINES = 12
"""Lines of a message that are kept: the last ones, where the error is."""
WORKER = os.environ.get("PYTEST_XDIST_WORKER")


def pytest_configure(config):
    # At its end a run says what it has counted. The workers leave that to the process that they work for.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if WORKER else signal.default_int_handler)


def pytest_runtest_logstart(nodeid):
    running(nodeid)


def pytest_runtest_logfinish(nodeid):
    running("")


def running(nodeid: str) -> None:
    folder = os.environ.get("RUNNING")
    if folder:
        (Path(folder) / f"{WORKER or 'main'}.txt").write_text(nodeid)


def pytest_runtest_logreport(report):
    note(report)


def pytest_collectreport(report):
    note(report)


def note(report) -> None:
    """Write a failure down, in the process that collects those of the others."""
    path = os.environ.get("FAILURES")
    if path and report.failed and not WORKER:
        text = FOLDERS.sub("", "\n".join(report.longreprtext.strip().splitlines()[-LINES:]))
        with open(path, "a") as file:
            file.write(json.dumps({"id": report.nodeid, "when": getattr(report, "when", "collect"), "message": text}) + "\n")
