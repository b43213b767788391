"""The first contact with a GPU that is at hand for minutes: `python -m benchmarks.gpu.contact CALL --out FOLDER`.

Each step is a process of its own with a time after which it is ended; whatever one of them does, the next one follows.
What a step prints goes to `log.txt` at once. `record.json` and `summary.txt` are written anew after each step. A call
that is ended at any moment leaves in the folder all that was known by then. The call ends early only where nothing
launches. Nothing is installed.

The exit code is 0 where all is known, 1 where a step failed or was cut short, 2 without a GPU, 3 where nothing
launches, 64 where the command itself is wrong.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from .. import record
from . import contact_table, process, streams
from .contact_commands import Probe, Tests
from .contact_steps import AGAIN, FIRST, TOTAL, Step, second
from .process import Budget, failed
from .streams import KILL_AFTER

LEAST = 6.0
"""Seconds without which no step is started."""
CLOSING = 2.0
"""Seconds that are kept for the end."""
PROBE = 25.0
"""Seconds for one attempt to launch a kernel: three of them and `env` take less than 110."""
CHECKS = 15.0
"""Seconds for the checks after it, at least."""
LOG_BYTES = 1 << 20
"""Of what one command prints; the rest of it is left out of the log."""
OUT_OF_TIME = "out of time"
PREBUILT, CUDA_HOME = record.ROOT / ".ptx", Path("/usr/local/cuda")
FROM_FOLDER = "prebuilt PTX"
KEPT_FAILURES = 60
USAGE = 64


def attempts() -> dict[str, tuple[dict, str]]:
    """Ways to come by a kernel: additions to the environment, and why a way is none here."""
    compiled = {"LATTICE_PTX": None, "LATTICE_PTX_ONLY": None}
    here = CUDA_HOME.exists() and os.environ.get("CUDA_HOME") != str(CUDA_HOME)
    return {
        "the normal way": (compiled, ""),
        "CUDA_HOME": (
            {**compiled, "CUDA_HOME": str(CUDA_HOME)},
            "" if here else "no toolkit in the usual place, or it was used already",
        ),
        FROM_FOLDER: (
            {"LATTICE_PTX": str(PREBUILT), "LATTICE_PTX_ONLY": "1"},
            "" if PREBUILT.exists() else "there is no folder .ptx",
        ),
    }


class Contact:
    """A call under way: its time, its folder, and what is known so far."""

    def __init__(self, call: int, out: Path, scratch: Path, budget: Budget, before: dict | None = None):
        self.out, self.budget, self.before, self.begin = out, budget, before or {}, time.monotonic()
        out.mkdir(parents=True, exist_ok=True)
        self.failures, self.running = out / "failures.jsonl", scratch / "running"
        self.failures.unlink(missing_ok=True)
        for folder in ("running", "numba", "cupy"):
            (scratch / folder).mkdir(parents=True)
        self.environment = {
            "PYTHONUNBUFFERED": "1",
            "NUMBA_CACHE_DIR": str(scratch / "numba"),
            "CUPY_CACHE_DIR": str(scratch / "cupy"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "FAILURES": str(self.failures),
            "RUNNING": str(self.running),
            "LATTICE_PTX": str(PREBUILT) if PREBUILT.exists() else None,
            "LATTICE_PTX_ONLY": None,
            # Where this call is itself a test in a worker of pytest, its own tests are none of that worker's.
            "PYTEST_XDIST_WORKER": None,
        }
        self.lock = threading.Lock()
        self.log = (out / "log.txt").open("w", encoding="utf-8", errors="backslashreplace")
        self.no_gpu, self.way, self.again, self.said = "", "", AGAIN, Counter()
        self.results = {
            "benchmark": "gpu contact",
            "call": call,
            "said": "",
            "steps": {},
            "environment": process.known_environment(()) | {"command": f"python -m benchmarks.gpu.contact {call}"},
        }

    def say(self, name: str, line: str) -> None:
        """Add a line to the log; commands that run side by side take turns."""
        # On a full disk a step runs on; what reads its output must never stop.
        with self.lock, contextlib.suppress(OSError):
            self.said[name] += len(line) + 1
            if self.said[name] < LOG_BYTES:
                self.log.write(f"{time.monotonic() - self.begin:6.1f} {name}| {line}\n")
                self.log.flush()

    def save(self) -> None:
        texts = (contact_table.details(self.results), contact_table.closing(self.results))
        for name, text in (("record.json", json.dumps(self.results, indent=1)), ("summary.txt", "\n\n".join(texts))):
            # A disk may be full now and not later; what is printed remains.
            with contextlib.suppress(OSError):
                process.write(self.out / name, text + "\n")

    def go(self, steps: tuple[Step, ...]) -> int:
        """Run the steps; the exit code."""
        code = 0
        for step in steps:
            code = code or (3 if self.nothing_launches() else 0)
            try:
                result = self.step(step, "nothing launches" if code else "")
            except Exception as error:
                # Whatever it is, the next step follows.
                result = {"state": "failed", "seconds": 0.0, "results": {step.name: {"error": text_of(error)}}}
            self.results["steps"][step.name] = result
            said = contact_table.line(step.name, result)
            show(said)
            self.say(step.name, f"= {said}")
            states = [known["state"] for known in self.results["steps"].values()]
            self.results["said"] = f"{states.count('ok')} of {len(steps)} steps ok"
            self.save()
        late = any(result.get("reason") == OUT_OF_TIME for result in self.results["steps"].values())
        return code or (2 if self.no_gpu else 1 if {"failed", "cut"} & set(states) or late else 0)

    def nothing_launches(self) -> bool:
        known = self.results["steps"].get("contact", {"state": "not run"})
        return known["state"] != "not run" and not self.way

    def step(self, step: Step, reason: str = "") -> dict:
        """Run one step, or say why not."""
        lacking = {name: command.lacking() for name, command in step.commands.items()}
        if step.needs_gpu and self.no_gpu:
            reason = "; ".join([self.no_gpu, *filter(None, lacking.values())])
        elif not reason and step.commands and all(lacking.values()):
            reason = "; ".join(lacking.values())
        limit = self.budget.left - KILL_AFTER - CLOSING
        for most in (step.seconds, self.again if step.again else None):
            limit = limit if most is None else min(limit, most)
        reason = step.reason or reason or (OUT_OF_TIME if limit < min(LEAST, step.seconds or LEAST) else "")
        if reason:
            return {"state": "not run", "seconds": 0.0, "reason": reason}
        begin, already = time.monotonic(), self.noted()
        work = self.contact if step.name == "contact" else self.commands
        results = work(step, limit) | {name: {"not_measured": why} for name, why in lacking.items() if why}
        took = time.monotonic() - begin
        self.again -= took if step.again else 0
        result = {"state": self.state(results), "seconds": took, "results": results}
        if step.name == "contact" and self.no_gpu:
            return {"state": "not run", "seconds": took, "reason": self.no_gpu}
        failures = self.noted()[len(already) :]
        if failures:
            result["failures"] = failures[:KEPT_FAILURES]
        return result

    def state(self, results: dict) -> str:
        if "attempts" in results and self.way:
            # An attempt may fail where another one launches.
            results = {**results, "attempts": results["attempts"][self.way]}
        return "failed" if failed(results) else "cut" if unfinished(results) else "ok"

    def commands(self, step: Step, limit: float) -> dict:
        """Run the commands of a step that can be run, side by side."""
        able = {name: command for name, command in step.commands.items() if not command.lacking()}
        for left in self.running.iterdir():
            left.unlink()
        lines = {name: command.line(limit) for name, command in able.items()}
        around = {name: {**self.environment, **command.environment} for name, command in able.items()}
        ended = streams.run(lines, limit, around, self.say)
        results = {name: command.read(ended[name]) for name, command in able.items()}
        for name, command in able.items():
            if isinstance(command, Tests) and "cut" in results[name]:
                results[name] |= self.under_way()
        return results

    def under_way(self) -> dict:
        """What is known of tests that were ended: their counts so far, and those that were running."""
        texts = {path.name: path.read_text() for path in self.running.iterdir()}
        counts = process.cases_of(texts.pop("counts.json", ""))
        # A process that crashed was running what is a failure by now.
        failures = {failure["id"] for failure in self.noted()}
        return counts | {"running": sorted(set(filter(None, texts.values())) - failures)}

    def contact(self, step: Step, limit: float) -> dict:
        """Launch a kernel, in one way or another, then check what else the losses rest on."""
        begin, results, ways = time.monotonic(), {"attempts": {}}, attempts()
        preferred = self.before.get("way")
        for name in sorted(ways, key=lambda name: name != preferred):
            environment, _ = ways[name]
            found = results["attempts"][name] = self.attempt(name, *ways[name])
            if "no_gpu" in found:
                self.no_gpu = found["no_gpu"]
                return results
            if found.get("launched"):
                self.results["way"] = self.way = name
                # A folder of prebuilt PTX saves the steps to come their compilations: it stays in use.
                self.environment |= {key: value for key, value in environment.items() if value is not None}
                if self.environment.get("LATTICE_PTX") and name != FROM_FOLDER:
                    self.try_folder(results["attempts"], ways[FROM_FOLDER])
                left = max(limit - (time.monotonic() - begin), CHECKS)
                return results | self.commands(step, min(left, self.budget.left - KILL_AFTER - CLOSING))
        return results

    def attempt(self, name: str, environment: dict, why: str) -> dict:
        """Launch a kernel in one way, unless `why` says that it is none here."""
        left = self.budget.left - KILL_AFTER - CLOSING
        if why or left <= LEAST:
            return {"not_measured": why or OUT_OF_TIME}
        probe = Step("contact", PROBE, {name: Probe(("launch",), environment)})
        return self.commands(probe, min(PROBE, left))[name]

    def try_folder(self, known: dict, way: tuple[dict, str]) -> None:
        """Leave the folder out if the library would refuse it: no step could launch.

        The library refuses a folder that was written from other sources or for another device.
        """
        if FROM_FOLDER not in known:
            known[FROM_FOLDER] = self.attempt(FROM_FOLDER, *way)
        if not known[FROM_FOLDER].get("launched") or failed(known[FROM_FOLDER]):
            self.environment["LATTICE_PTX"] = None

    def noted(self) -> list[dict]:
        """The failures of tests so far."""
        lines = self.failures.read_text().splitlines() if self.failures.exists() else []
        return list(filter(None, (process.cases_of(line) for line in lines)))


def unfinished(node) -> bool:
    """Was anything cut short, or not begun for lack of time?"""
    if not isinstance(node, dict):
        return False
    return "cut" in node or node.get("not_measured") == OUT_OF_TIME or any(map(unfinished, node.values()))


def show(text: str) -> None:
    """Print, whatever the encoding is. Nobody may be listening any more; the folder is what counts."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError:
        # What is left in its buffer would change the exit code.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def text_of(error: BaseException) -> str:
    return process.without_folders(f"{type(error).__name__}: {error}")


def end_with_signals() -> None:
    """End the commands too when this process is ended from outside or its terminal goes away.

    A second signal does not keep the process from ending them.
    """
    signs = (signal.SIGTERM, signal.SIGHUP)

    def end(number, _):
        for sign in signs:
            signal.signal(sign, signal.SIG_IGN)
        sys.exit(128 + number)

    for sign in signs:
        signal.signal(sign, end)


class Parser(argparse.ArgumentParser):
    """One whose errors have an exit code that no call has."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {message}\n")


def main(arguments=None) -> int:
    parser = Parser(prog="python -m benchmarks.gpu.contact", description=__doc__)
    parser.add_argument(
        "call", type=int, choices=TOTAL, help="1 meets the machine, 2 measures what the first call left open"
    )
    parser.add_argument("--out", required=True, help="folder for log.txt, record.json, summary.txt, failures.jsonl")
    parser.add_argument("--before", help="record.json of the first call, for the second")
    parser.add_argument("--seconds", type=float, help=f"for everything; by default {TOTAL[1]:.0f} and {TOTAL[2]:.0f}")
    options = parser.parse_args(arguments)
    if options.seconds is not None and not 1 <= options.seconds < math.inf:
        parser.error(f"--seconds is {options.seconds}, expected a number from 1")
    before = None
    if options.before:
        try:
            before = json.loads(Path(options.before).read_text())
            second(before)
        except Exception as error:
            # It may hold anything; the steps that need none of it are run.
            before = None
            show(f"--before cannot be read: {text_of(error)}")
    end_with_signals()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        budget = Budget(options.seconds or TOTAL[options.call])
        contact = Contact(options.call, Path(options.out).resolve(), Path(scratch), budget, before)
        code = contact.go(FIRST if options.call == 1 else second(before))
    show(f"\n{contact_table.closing(contact.results)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
