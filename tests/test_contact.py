"""The first contact with a GPU: it ends, it keeps its time, and its folder holds what was known, whatever happens."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.gpu import contact, contact_steps, contact_table, failures, process
from benchmarks.gpu.contact_commands import Command, told
from benchmarks.gpu.contact_steps import FIRST, TOTAL, Step

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
NO_GPU = "raise ImportError('left out by a test')"
BROKEN_GPU = """
class cuda:
    is_available = staticmethod(lambda: True)
    class runtime:
        memGetInfo = staticmethod(lambda: (1, 1))
"""


class Script(Command):
    """A program of a test."""

    def line(self, seconds):
        return [sys.executable, "-u", "-c", *self.arguments]

    def read(self, ended):
        return told(ended)


def script(name: str, code: str, seconds: float = 30, **options) -> Step:
    return Step(name, seconds, {name: Script((code,))}, **{"needs_gpu": False, **options})


@pytest.fixture
def call(tmp_path):
    """A call in a folder of its own, with so many seconds."""

    def begin(seconds=60.0, before=None):
        scratch = tempfile.mkdtemp(dir=tmp_path)
        return contact.Contact(1, tmp_path / "out", Path(scratch), process.Budget(seconds), before)

    return begin


def run_with(cupy: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The whole command with another CuPy."""
    (folder / "cupy.py").write_text(cupy)
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHON": sys.executable}
    command = ["bash", str(record.ROOT / "benchmarks" / "gpu" / "contact.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


@needs_bash
@pytest.mark.parametrize("number", TOTAL)
def test_without_a_gpu_each_step_says_why_it_was_not_run(tmp_path, number):
    begin = time.monotonic()
    done = run_with(NO_GPU, tmp_path, str(number), "out")
    assert done.returncode == 2, done.stderr
    assert time.monotonic() - begin < 60 and len(done.stdout) < 12_000
    steps = FIRST if number == 1 else contact_steps.second(None)
    known = json.loads((tmp_path / "out" / "record.json").read_text())
    assert list(known["steps"]) == [step.name for step in steps]
    table = done.stdout.split("\n\n")[-1].strip().splitlines()
    assert len(table) == 1 + len(steps) <= 20 and max(map(len, table)) <= contact_table.WIDTH
    for step, line in zip(steps, table[1:], strict=True):
        assert line.startswith(step.name)
        assert "not run" in line or step.name == "env"
        assert "CuPy cannot be imported (left out by a test)" in line or step.name in ("env", "again")
    if number == 1 and not process.program("ncu"):
        assert "ncu is not on the PATH" in next(line for line in table if line.startswith("ncu"))
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {"log.txt", "record.json", "summary.txt"} <= set(files) and len(files) <= 8


@needs_bash
@pytest.mark.parametrize("arguments", [(), ("1",), ("3", "out"), ("1", "out", "--no-such")])
def test_a_command_that_is_wrong_has_a_code_of_its_own(tmp_path, arguments):
    done = run_with(NO_GPU, tmp_path, *arguments)
    assert done.returncode == 64 and done.stderr.startswith("usage: ") and not done.stdout


@needs_bash
def test_records_hold_no_folders(tmp_path):
    run_with(NO_GPU, tmp_path, "1", "out")
    text = (tmp_path / "out" / "record.json").read_text()
    assert not [part for part in json.loads(text)["environment"].values() if process.FOLDERS.search(str(part))]
    assert str(tmp_path) not in text and str(record.ROOT) not in text and not process.FOLDERS.search(text)


@needs_bash
def test_where_nothing_launches_the_call_ends_early(tmp_path):
    done = run_with(BROKEN_GPU, tmp_path, "1", "out")
    assert done.returncode == 3, done.stderr
    steps = json.loads((tmp_path / "out" / "record.json").read_text())["steps"]
    assert (
        steps["contact"]["state"] == "failed" and "error" in steps["contact"]["results"]["attempts"]["the normal way"]
    )
    assert {step["reason"] for name, step in steps.items() if name not in ("env", "contact")} == {"nothing launches"}
    assert "nothing launches: the normal way: " in done.stdout


def test_attempts_end_in_time():
    assert contact_steps.ENVIRONMENT.seconds + len(contact.attempts()) * (contact.PROBE + contact.KILL_AFTER) < 110


def test_what_launched_in_one_way_is_the_way_of_all_that_follows(call, tmp_path, monkeypatch):
    # A folder .ptx that lies in the source tree would be one more way.
    monkeypatch.setattr(contact, "PREBUILT", tmp_path / "none")
    ways = {"first": ({"LATTICE_PTX": None}, ""), "second": ({}, "not here"), "third": ({"HOW": "third"}, "")}
    monkeypatch.setattr(contact, "attempts", lambda: ways)
    monkeypatch.setattr(contact, "Probe", lambda arguments, environment: Script((PROBE,), environment))
    begun = call()
    checks = script("contact", "import os; print('{\"oracle\": {\"how\": \"' + os.environ['HOW'] + '\"}}')")
    after = script("after", "import os; assert os.environ['HOW'] == 'third'")
    assert begun.go((checks, after)) == 0 and begun.results["way"] == "third"
    assert begun.results["steps"]["contact"]["results"]["contact"] == {"oracle": {"how": "third"}}
    assert "error" in begun.results["steps"]["contact"]["results"]["attempts"]["first"]
    ways["third"] = ({"HOW": "third", "WRONG": "1"}, "")
    wrong = call()
    assert wrong.go((checks,)) == 1 and wrong.results["steps"]["contact"]["state"] == "failed"
    ways["third"] = ({"HOW": "third"}, "")
    asked = call(before={"way": "third"})
    asked.go((checks,))
    assert list(asked.results["steps"]["contact"]["results"]["attempts"]) == ["third"]


@pytest.mark.parametrize("serves", [False, True])
def test_a_folder_of_kernels_stays_in_use_if_one_of_them_launches(call, monkeypatch, tmp_path, serves):
    """The library refuses a folder that was written before the kernels changed, or for another GPU.

    It refuses the folder whatever the compiler does.
    """
    monkeypatch.setattr(contact, "PREBUILT", tmp_path)
    monkeypatch.setattr(contact, "Probe", lambda arguments, environment: Script((LAUNCHES % serves,), environment))
    begun = call()
    after = script("after", f"import os; assert os.environ.get('LATTICE_PTX') == {str(tmp_path) if serves else None!r}")
    assert begun.go((script("contact", "print('{\"oracle\": {}}')"), after)) == 0 and begun.way == "the normal way"
    attempts = begun.results["steps"]["contact"]["results"]["attempts"]
    assert ("launched" in attempts[contact.FROM_FOLDER]) == serves


LAUNCHES = """import json, os
print(json.dumps({"launched": True} if %r or "LATTICE_PTX" not in os.environ else {"error": "of other sources"}))
"""
PROBE = """import json, os
known = {"launched": True} if "HOW" in os.environ else {"error": "no compiler"}
print(json.dumps(known | ({"error": "off"} if "WRONG" in os.environ else {})))
"""


def test_a_step_that_hangs_is_ended_with_what_it_started_and_the_next_one_follows(call, monkeypatch):
    monkeypatch.setattr(contact.streams, "KILL_AFTER", 0.5)
    hangs = (
        "import signal, subprocess, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        'print(\'{"case": {"seconds": 1.0}}\')\nprint(\'{"child": %d}\' % child.pid)\nchild.wait()'
    )
    begun, begin = call(), time.monotonic()
    assert begun.go((script("hangs", hangs, 2), script("next", "print('here')"))) == 1
    first, last = begun.results["steps"].values()
    assert time.monotonic() - begin < 20 and first["state"] == "cut" and last["state"] == "ok"
    assert first["results"]["hangs"]["case"] == {"seconds": 1.0} and "its time was up" in contact_table.line(
        "hangs", first
    )
    assert ended(first["results"]["hangs"]["child"])


def ended(pid: int) -> bool:
    """Is a process gone, or about to be? One without a parent may wait to be collected."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_a_step_that_fails_costs_only_itself(call):
    begun = call()
    steps = (
        script("raises", "1 // 0"),
        script("says", 'print(\'{"a": {"error": "off"}}\')'),
        script("sound", "print(1)"),
        Step("absent", 9, {"absent": Script((), programs=("no-such-tool",))}, needs_gpu=False),
    )
    assert begun.go(steps) == 1
    assert [step["state"] for step in begun.results["steps"].values()] == ["failed", "failed", "ok", "not run"]
    text = contact_table.closing(begun.results)
    assert "ZeroDivisionError" in text and "| off" in text and "no-such-tool is not on the PATH" in text


def test_whatever_goes_wrong_in_the_runner_costs_only_a_step(call, monkeypatch):
    monkeypatch.setattr(
        Script, "read", lambda command, ended: {"joint": {"default": {"rows": {}}}, "a": ended.no_such_field}
    )
    begun = call()
    assert begun.go((script("joint", "print(1)"), Step("absent", 9, {}, reason="left out"))) == 1
    assert [step["state"] for step in begun.results["steps"].values()] == ["failed", "not run"]
    assert "no_such_field" in contact_table.closing(begun.results)
    broken = {"joint": {"default float32": {"rows": {}}}, "device": {}}
    assert "joint: KeyError" in contact_table.details({"steps": {"joint": {"results": broken}}})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["log.txt", "record.json.part", "summary.txt.part"])
def test_a_full_disk_costs_no_step(call, tmp_path, capsys, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to("/dev/full")
    begun = call()
    assert begun.go((script("one", "print(1)"), script("two", "print(2)"))) == 0
    assert [step["state"] for step in begun.results["steps"].values()] == ["ok", "ok"]
    assert begun.results["steps"]["one"]["seconds"] < 20 and "two" in capsys.readouterr().out


def test_tests_run_on_when_a_disk_is_full(tmp_path, monkeypatch):
    (tmp_path / "main.txt").symlink_to("/dev/full")
    monkeypatch.setenv("RUNNING", str(tmp_path))
    failures.keep("main.txt", "tests/test_a.py::test_b")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_exit_code_is_the_same_when_nobody_listens(tmp_path):
    (tmp_path / "cupy.py").write_text(NO_GPU)
    command = f"bash {record.ROOT}/benchmarks/gpu/contact.sh 1 out | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHON": sys.executable}
    assert subprocess.run(["bash", "-c", command], env=environment, cwd=tmp_path).returncode == 2


def test_a_text_that_cannot_be_encoded_costs_no_step(call):
    begun = call()
    assert begun.go((script("odd", 'print(\'{"error": "\\\\ud800"}\')'), script("next", "print(1)"))) == 1
    assert [step["state"] for step in begun.results["steps"].values()] == ["failed", "ok"]


@pytest.mark.parametrize(
    "known",
    [
        [1],
        "x",
        {},
        {"steps": []},
        {"steps": {"kernels": None}},
        {"steps": {"ncu": {"failures": [{}]}}},
        {"steps": {"ncu": {"failures": [{"id": 3}]}}},
    ],
)
def test_a_record_of_another_kind_is_told_and_left_out(tmp_path, capsys, monkeypatch, known):
    monkeypatch.setattr(contact.Contact, "go", lambda call, steps: call.results.update(steps={}) or len(steps))
    (tmp_path / "before.json").write_text(json.dumps(known))
    found = contact.main(["2", "--out", str(tmp_path / "out"), "--before", str(tmp_path / "before.json")])
    assert found == len(contact_steps.second(None)) and "--before cannot be read" in capsys.readouterr().out


def test_a_step_with_too_little_time_is_not_run(call):
    begun = call(contact.KILL_AFTER + contact.CLOSING + 3)
    assert begun.go((script("late", "print(1)"), script("short", "print(1)", 2))) == 1
    late, short = begun.results["steps"].values()
    assert late["state"] == "not run" and late["reason"] == "out of time" and short["state"] == "ok"


def test_a_step_has_no_more_than_what_is_left_of_the_call(call):
    begun, begin = call(contact.KILL_AFTER + contact.CLOSING + contact.LEAST + 0.5), time.monotonic()
    last = (
        "import signal, sys, time\n"
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(\'{"last": {"words": 1}}\')))\n'
        "time.sleep(60)"
    )
    begun.go((script("long", last),))
    assert begun.results["steps"]["long"]["state"] == "cut" and time.monotonic() - begin < 10
    # It is asked to end before it is ended.
    assert begun.results["steps"]["long"]["results"]["long"]["last"] == {"words": 1}


def test_steps_that_are_run_again_share_a_time(call, monkeypatch):
    monkeypatch.setattr(contact.Contact, "commands", lambda self, step, limit: {"limit": limit} | wait(0.2))
    begun = call()
    begun.again = 10.0
    begun.go((script("one", "", 30, again=True), script("two", "", 30, again=True), script("three", "", 30)))
    one, two, three = (step["results"]["limit"] for step in begun.results["steps"].values())
    assert one == 10 and 9 < two < 9.9 and three == 30


def wait(seconds: float) -> dict:
    time.sleep(seconds)
    return {}


@pytest.mark.parametrize("signs", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGHUP), (signal.SIGKILL,)])
def test_ended_from_outside_the_folder_holds_what_was_known(tmp_path, signs):
    program = (
        "from tests.test_contact import contact, process, script\nfrom pathlib import Path\n"
        "contact.end_with_signals()\n"
        f"call = contact.Contact(1, Path({str(tmp_path / 'out')!r}), "
        f"Path({str(tmp_path / 'scratch')!r}), process.Budget(60))\n"
        "sleeps = 'import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid())'\n"
        "sleeps += \"; print('half of it'); time.sleep(20)\"\n"
        "call.go((script('first', 'print(1)'), script('second', sleeps)))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=record.ROOT, stdout=subprocess.DEVNULL)
    log = tmp_path / "out" / "log.txt"
    wait_for(lambda: log.exists() and "half of it" in log.read_text())
    for sign in signs:
        child.send_signal(sign)
        time.sleep(0.3)
    child.wait(20)
    assert "second| half of it" in log.read_text()
    known = json.loads((tmp_path / "out" / "record.json").read_text())
    assert list(known["steps"]) == ["first"] and "first" in (tmp_path / "out" / "summary.txt").read_text()
    pid = int(next(line for line in log.read_text().splitlines() if "second| " in line).split("| ")[1])
    if signal.SIGTERM in signs:
        assert child.returncode == 128 + signal.SIGTERM and ended(pid)
    elif not ended(pid):
        os.killpg(pid, signal.SIGKILL)


def test_failed_tests_are_written_at_once_and_those_under_way_are_named(call, tmp_path, monkeypatch):
    path = tmp_path / "test_it.py"
    path.write_text(
        "import pathlib, time\n\ndef test_good():\n    pass\n\n"
        "def test_bad():\n    assert 1 + 1 == 3, '/home/me/x.py'\n\n"
        "def test_slow():\n    pathlib.Path(__file__).with_name('slow').touch()\n    time.sleep(60)\n"
    )
    # Its time is up as soon as the slow test has begun.
    monkeypatch.setattr(contact.streams, "_wait", lambda *_: wait_for((tmp_path / "slow").exists))
    begun = call()
    begun.go((Step("kernels", 30, {"kernels": contact_steps.tests(1, str(path))}, needs_gpu=False),))
    step = begun.results["steps"]["kernels"]
    (failure,) = step["failures"]
    assert (
        failure["id"].endswith("test_it.py::test_bad")
        and "1 + 1" in failure["message"]
        and "/home" not in failure["message"]
    )
    result = step["results"]["kernels"]
    assert (
        step["state"] == "cut"
        and result["running"][0].endswith("::test_slow")
        and result["failed"] == result["passed"] == 1
    )
    assert "FAILED" in contact_table.closing(begun.results) and "1 passed, 1 failed" in contact_table.closing(
        begun.results
    )


def wait_for(condition, seconds: float = 60) -> None:
    begin = time.monotonic()
    while not condition() and time.monotonic() - begin < seconds:
        time.sleep(0.05)


def test_what_cannot_be_collected_is_a_failure(call, tmp_path):
    (tmp_path / "test_it.py").write_text("import no_such_module\n")
    begun = call()
    step = Step("kernels", 30, {"kernels": contact_steps.tests(1, str(tmp_path / "test_it.py"))}, needs_gpu=False)
    assert begun.go((step,)) == 1
    assert "no_such_module" in begun.results["steps"]["kernels"]["failures"][0]["message"]
