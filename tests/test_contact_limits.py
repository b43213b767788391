"""Limits of the first contact: of time, and of what a step may print."""

import sys
import time

import pytest

from benchmarks.gpu import contact, streams
from tests.test_contact import call, script

__all__ = ["call"]


def test_a_step_that_prints_without_end_costs_neither_time_nor_memory(call, monkeypatch):
    monkeypatch.setattr(streams, "KEPT", 1000)
    monkeypatch.setattr(contact, "LOG_BYTES", 1000)
    monkeypatch.setattr(streams, "KILL_AFTER", 1.0)
    flood = "import os\nprint('begin')\nwhile True: os.write(1, b'y' * 65536)"
    begun, begin = call(), time.monotonic()
    begun.go((script("flood", flood, 2), script("after", "print('{\"x\": {}}')")))
    steps = begun.results["steps"]
    assert steps["flood"]["state"] == "cut" and steps["after"]["results"]["after"] == {"x": {}}
    log = (begun.out / "log.txt").read_text()
    assert time.monotonic() - begin < 30 and "flood| begin" in log and "after| " in log and len(log) < 5000


def test_the_beginning_and_the_end_of_a_long_text_are_kept(monkeypatch):
    monkeypatch.setattr(streams, "KEPT", 1000)
    code = "for i in range(9999): print(i)\nprint('x' * 200_000)\nprint('end')"
    text = streams.run({"a": [sys.executable, "-c", code]}, 60, {"a": {}}, lambda *said: None)["a"].text
    assert text.startswith("0\n1\n") and text.endswith("end\n") and len(text) < 2 * streams.PIECE


def test_too_little_time_for_anything_is_not_that_nothing_launches(call):
    begun = call(seconds=1)
    assert begun.go((script("contact", "pass"), script("after", "pass"))) == 1
    assert begun.results["steps"]["after"]["reason"] == contact.OUT_OF_TIME


@pytest.mark.parametrize("seconds", ["nan", "-5", "inf", "0"])
def test_a_time_that_is_none_is_refused(tmp_path, seconds, capsys):
    with pytest.raises(SystemExit, match="64"):
        contact.main(["1", "--out", str(tmp_path / "out"), f"--seconds={seconds}"])
    assert "--seconds is " in capsys.readouterr().err and not (tmp_path / "out").exists()
