"""Commands whose output is handed on line by line; when their time is up they are ended, with all they started."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from typing import NamedTuple

from .. import record

KILL_AFTER = 5.0
"""Seconds between asking a command to end and ending it."""
PIECE, KEPT = 1 << 16, 4 << 20
"""Characters that are read at once, of a line without an end too; characters kept of the beginning, and of the end."""


class Ended(NamedTuple):
    """What became of a command: its code, None where its time was up, and what it printed.

    Of a very long text the middle is left out.
    """

    code: int | None
    text: str


class Stream:
    """A command under way; `say(line)` is called as it prints."""

    def __init__(self, command: list[str], environment: dict[str, str | None], say):
        self.first: list[str] = []
        self.last: deque[str] = deque()
        self.room, self.held = KEPT, 0
        around = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
        # A group of its own, so that whatever it starts can be ended with it.
        self.child = subprocess.Popen(
            command,
            cwd=record.ROOT,
            env=around,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, args=(say,), daemon=True)
        self.reader.start()

    def _read(self, say):
        for line in iter(lambda: self.child.stdout.readline(PIECE), ""):
            self._keep(line)
            say(line.rstrip("\n"))

    def _keep(self, line):
        """A command that prints without end must not take the memory."""
        if self.room > 0:
            self.room -= len(line)
            self.first.append(line)
            return
        self.held += len(line)
        self.last.append(line)
        while self.held > KEPT:
            self.held -= len(self.last.popleft())

    @property
    def text(self) -> str:
        """What it printed, as far as it is kept."""
        return "".join([*self.first, *self.last])

    def ask(self, sign: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, sign)


def run(commands: dict[str, list[str]], seconds: float, environments: dict[str, dict], say) -> dict[str, Ended]:
    """Run commands side by side for at most so many seconds, and `KILL_AFTER` in which they may end by themselves.

    Parameters
    ----------
    commands : dict
        Name -> command.
    environments : dict
        Name -> additions to the environment; None takes a variable out of it.
    say : callable
        (name, line).
    """
    begun, ended, codes = {}, {}, {}
    deadline = time.monotonic() + seconds
    try:
        for name, command in commands.items():
            try:
                begun[name] = Stream(command, environments[name], lambda line, name=name: say(name, line))
            except OSError as error:
                ended[name] = Ended(127, f"{type(error).__name__}: {error.strerror}")
        for name, stream in begun.items():
            codes[name] = _wait(stream, deadline)
    finally:
        stop(list(begun.values()))
    for name, stream in begun.items():
        ended[name] = Ended(codes[name], stream.text)
    return ended


def _wait(stream: Stream, deadline: float) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return stream.child.wait(max(0.0, deadline - time.monotonic()))
    return None


def stop(streams: list[Stream]) -> None:
    """End commands with all they started: asked first, all at once, then forced."""
    for stream in streams:
        if stream.child.poll() is None:
            stream.ask(signal.SIGTERM)
    deadline = time.monotonic() + KILL_AFTER
    for stream in streams:
        _wait(stream, deadline)
        # What a command has started may outlive it.
        stream.ask(signal.SIGKILL)
        stream.child.wait()
        stream.reader.join(1.0)
