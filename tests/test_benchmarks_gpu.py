"""The parts of the gpu benchmark that need no GPU.

The tests are of its shapes and its time, and of how it keeps one failure from costing more than its section.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import record, shapes
from benchmarks.gpu import command as gpu
from benchmarks.gpu import losses, problems, process, sections, tables, timing


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_ragged_lengths_are_those_of_librispeech():
    many = problems.ragged(3000, 500)
    for lengths, wanted in ((many.T, problems.FRAMES), (many.U, problems.LABELS)):
        np.testing.assert_allclose(np.quantile(lengths, (0.1, 0.5, 0.9, 1)), wanted[1:], rtol=0.02)
    assert 0.97 < many.cells / 3000 / 23616 < 1.03
    batch = problems.LOGITS["librispeech"]
    padded = len(batch.T) * batch.T.max() * (batch.U.max() + 1)
    assert len(batch.T) == 30 and (batch.U < batch.T).all() and 1.7 < padded / batch.cells < 2.6
    again = problems.LOGITS["librispeech packed"]
    assert again.packed and (again.T == batch.T).all() and (again.U == batch.U).all()


def test_trained_like_problems_keep_their_lengths_and_one_output_layer():
    shape = problems.Shape(np.array([60, 30]), np.array([10, 7]), 50, 32)
    problem = problems.host_joint(shape, "trained-like")
    assert problem.encoder.shape == (2, 60, 32) and problem.predictor.shape == (2, 11, 32)
    assert (problem.encoder_lengths == shape.T).all() and (problem.target_lengths == shape.U).all()
    single = shapes.trained_like(1, 30, 7, 50, 32, seed=problems.SEED)
    assert (problem.weight == single.weight).all() and (problem.encoder[1, :30] == single.encoder[0]).all()
    untrained = problems.host_joint(shape, "untrained")
    assert shapes.shares(problem)["certified"] < 0.5 < shapes.shares(untrained)["occupied"]


def named(*names):
    return {name: gpu.Section((name,), 60, {}) for name in names}


def test_sections_that_would_start_too_late_are_not_started():
    clock, results, saved, given = Clock(), {}, [], []

    def run(section, seconds):
        given.append((section.arguments[0], seconds))
        clock.now += 50
        return {}

    gpu.measure(named("a", "b", "c"), gpu.Budget(125, clock), results, lambda: saved.append(len(results)), run)
    assert given == [("a", 60), ("b", 60)] and saved == [1, 2, 3]
    assert results["c"]["not_measured"] == "out of time" and not gpu.failed(results)


def test_a_section_that_raises_costs_only_itself(capsys):
    results, saved = {}, []

    def run(section, seconds):
        if section.arguments == ("a",):
            raise OSError("gone")
        return {"case": {"seconds": seconds}}

    gpu.measure(named("a", "b"), gpu.Budget(500), results, lambda: saved.append(json.dumps(results)), run)
    assert results["a"]["error"] == "OSError: gone" and results["b"]["case"] == {"seconds": 60}
    assert len(saved) == 2 and gpu.failed(results) and not gpu.failed(results["b"])
    assert "a: 0 s, failed" in capsys.readouterr().out


def test_a_case_that_raises_costs_only_itself():
    out = io.StringIO()
    report = sections.Report(60, out)
    report.case("broken", lambda: 1 // 0)
    report.case("sound", lambda x: {"seconds": x}, 3.0)
    report.deadline = time.monotonic() - 1
    report.case("late", lambda: {})
    results = process.collected(0, "a library's chatter\n" + out.getvalue(), "")
    assert results["broken"]["error"].startswith("ZeroDivisionError") and results["broken"]["where"][-1].endswith(
        "1 // 0)"
    )
    assert results["sound"]["seconds"] == 3.0 and results["late"]["not_measured"] == "out of time"


def test_tests_come_after_what_is_wanted_most(monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(gpu.arrays, "cupy", lambda: None)
    monkeypatch.setattr(gpu, "writer", lambda path, results: lambda: None)
    monkeypatch.setattr(gpu, "run_section", lambda section, seconds: ran.append(section.arguments) or {})
    monkeypatch.setattr(gpu.process, "tests", lambda seconds: ran.append(("tests",)) or {"passed": 1})
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    with pytest.raises(SystemExit, match="0"):
        gpu.main(argparse.Namespace(**vars(parser.parse_args([])), json=None))
    first = [("check",), ("headline", "bfloat16"), ("headline", "float32"), ("device",), ("stages",), ("tests",)]
    assert ran[:6] == first and len(ran) == 1 + len(gpu.SECTIONS)


def test_the_headline_leaves_room_for_its_inputs():
    B, T, U, V, H = sections.HEADLINE.values()
    inputs = 4 * (B * T * H + B * (U + 1) * H + V * H + V + B * U + 2 * B)
    results = 4 * (V * H + V + B)
    assert inputs + results + max(sections.HEADLINE_LIMITS.values()) < sections.HEADLINE_POOL == 3_000_000_000
    asked = []
    report = type("Report", (), {"case": lambda self, name, *arguments: asked.append((name, arguments[1:3]))})()
    sections.headline(report, "bfloat16", "float32")
    assert asked == [
        ("bfloat16, 512 MiB", ("bfloat16", 512 << 20)),
        ("float32, 512 MiB", ("float32", 512 << 20)),
        ("bfloat16, 64 MiB", ("bfloat16", 64 << 20)),
        ("float32, 64 MiB", ("float32", 64 << 20)),
    ]


def test_what_a_section_printed_before_its_end_is_kept():
    results = process.collected(None, '{"copy": {"seconds": 1.0}}\n{"cublas": {"sec', "at line 7")
    assert results["copy"] == {"seconds": 1.0} and "at line 7" in results["error"]
    assert process.collected(-11, "", "Segmentation fault")["error"] == "exit code -11: Segmentation fault"


def test_every_section_can_be_run():
    for section in gpu.SECTIONS.values():
        assert section.arguments[0] in sections.SECTIONS
    code, _, error = process.ended([sys.executable, "-m", "benchmarks.gpu.sections", "--help"], 60)
    assert code == 0, error


def test_records_hold_no_folders():
    text = 'File "/home/me/lattice/tiles.py", line 4, in forward\n  x = 1 // 2 / 3  # /tmp/a.b-c/d.py and/or'
    assert process.tail(text, 5) == 'File "tiles.py", line 4, in forward\n  x = 1 // 2 / 3  # d.py and/or'


def test_what_a_command_started_is_ended_with_it():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    begin = time.monotonic()
    code, _, _ = process.ended([sys.executable, "-c", script], 1)
    assert code is None and time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("12 passed in 3.21s", {"passed": 12}),
        ("1 failed, 11 passed, 2 skipped, 1 error in 0.50s", {"failed": 1, "passed": 11, "skipped": 2, "errors": 1}),
        ("no tests ran in 0.01s", {}),
    ],
)
def test_counts_of_pytest(line, counts):
    assert process.counted(f"..F\n1 failed assertion\n{line}\ntier dlpack: not run\n") == counts


@pytest.mark.parametrize(
    ("body", "said"), [("assert 1 + 1 == 3", "exit code 1"), ("pytest.skip('no GPU')", "exit code 0")]
)
def test_a_tier_that_did_not_pass_is_an_error(tmp_path, body, said):
    (tmp_path / "test_it.py").write_text(f"import pytest\n\ndef test_it():\n    {body}\n")
    found = process.tests(60, str(tmp_path))
    assert found["error"] == said and gpu.failed({"tests": found}) and "FAILED" in tables.tests_line(found)
    assert any(body in line or "skipped" in line for line in found["last_lines"])


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_tree_is_the_one_git_knows(tmp_path):
    for name in ("b.py", "a/x.py", "a/__pycache__/x.pyc", "a.py", "empty/note"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(name)
    (tmp_path / ".gitignore").write_text("__pycache__\nempty\n.gitignore\n")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    known = subprocess.run(
        ["git", "write-tree"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    shutil.rmtree(tmp_path / ".git")
    assert process.tree(tmp_path) == known


def test_fractions_of_the_copy():
    rows = {"copy": {"seconds": 2.0, "ratio": 1.0}, "out=logits": {"ratio": 1.5}, "loss only": {"ratio": 1.0}}
    losses.add_fractions({**rows, "torchaudio": {"not_measured": "x"}}, real=50, whole=100)
    assert rows["copy"]["bandwidth"] == 100
    assert rows["out=logits"]["fraction"] == pytest.approx(0.5) and rows["out=logits"][
        "traffic_fraction"
    ] == pytest.approx(2 / 3)
    assert rows["loss only"]["fraction"] == rows["loss only"]["traffic_fraction"] == 0.25


def test_scratch_beyond_the_limit_is_an_error():
    names = [f"{kind}, {limit}" for kind in problems.KINDS for limit in losses.LIMITS]
    rows = {name: {"peak": 70 << 20} for name in names}
    losses.add_scratch(rows, outputs=2 << 20)
    assert [name for name in names if "error" in rows[name]] == ["untrained, 64 MiB", "trained-like, 64 MiB"]


def test_measured_calls_take_turns_and_those_that_fail_are_left_out(monkeypatch):
    calls, ticks = [], iter(range(1, 1000))
    monkeypatch.setattr(timing, "timed", lambda call: (call(), (float(next(ticks)), 0.5))[1])
    monkeypatch.setattr(timing, "peak_of", lambda call: (call(), 64)[1])

    def broken():
        raise ValueError("not in this precision\nsecond line")

    peer = timing.Lazily(lambda: broken)
    todo = {"copy": lambda: calls.append("copy"), "ours": lambda: calls.append("ours"), "peer": peer, "other": broken}
    rows = timing.measure(
        todo,
        "copy",
        rounds=2,
        prepare={"ours": lambda: calls.append("restore"), "peer": peer.prepare},
        optional={"peer"},
    )
    assert calls == ["copy", "restore", "ours"] * 3
    assert rows["ours"] == pytest.approx(
        {"peak": 64, "seconds": 3, "ratio": 5 / 3, "ratio_min": 4 / 3, "ratio_max": 2, "rounds": 2, "host": 0.5}
    )
    assert rows["peer"] == {"not_measured": "ValueError: not in this precision"} and "error" in rows["other"]


def test_the_summary_fits_into_the_end_of_a_log():
    number = {"seconds": 1e-3, "ratio": 1.25, "ratio_min": 1.2, "ratio_max": 1.3, "host": 1e-3, "peak": 1 << 30}
    calls = {name: {**number, "fraction": 0.8} for name in ("copy", "out=logits", "loss only", "torchaudio")}
    logits = {f"{name} {dtype}": {"rows": calls} for name in problems.LOGITS for dtype in ("float32", "bfloat16")}
    rows = ["three GEMMs", *(f"{kind}, {limit}" for kind in problems.KINDS for limit in losses.LIMITS)]
    joint = {name: {"rows": dict.fromkeys(rows, number), "untrained, occupied": 0.3} for name in problems.JOINT}
    stages = {
        f"case {n}": {"rows": {f"kernel_number_{k}": {**number, "share": k / 50} for k in range(15)}} for n in range(6)
    }
    steps = {
        "steps trained-like": {"rows": {f"step {n}": number for n in range(15)}},
        "long alignment": {"error": "other score"},
    }
    sampled = {"same ids": {"draws": 7, "different": 0}, "draw": {"rows": {"sample_vocabulary": number}}}
    measured = {
        "check": {"oracle": {"joint": 1e-7, "took": 1.0}},
        "device": {"copy": {"error": "x"}},
        "logits": logits,
        "joint float32": joint,
        "joint bfloat16": {"error": "exit code 1: gone"},
        "joint tf32": joint,
        "stages": stages,
        "sampled": sampled,
        "three_stage": steps,
        "headline float32": {"float32, 64 MiB": {**number, "inputs": 1, "error": "too much"}},
        "headline bfloat16": {"not_measured": "out of time"},
    }
    tests = {"error": "exit code 1", "failed": 2, "passed": 3, "seconds": 9.0, "last_lines": ["E  assert 1 == 2"]}
    text = tables.summary({"tests": tests, "sections": measured})
    assert len(text) < 12_000 and max(map(len, text.splitlines())) < 150
    for said in (
        "FAILED",
        "assert 1 == 2",
        "exit code 1: gone",
        "too much",
        "out of time",
        "default, untrained",
        "copy",
        "sample_vocabulary",
        "step 14",
        "other score",
    ):
        assert said in text
    assert set(measured) == set(gpu.SECTIONS)
    assert "kernel_number_14" in text and "kernel_number_0 " not in text


def test_without_a_gpu_it_says_why_and_writes_nothing(tmp_path):
    path = tmp_path / "gpu.json"
    script = (
        "import runpy, sys\n"
        "sys.modules['cupy'] = None\n"
        f"sys.argv = ['benchmarks', 'gpu', '--json', {str(path)!r}]\n"
        "runpy.run_module('benchmarks', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=record.ROOT)
    assert done.returncode == 2 and len(done.stdout.splitlines()) == 1 and "CuPy cannot be imported" in done.stdout, (
        done
    )
    assert not path.exists()


def test_a_record_made_without_git_says_when_and_of_what(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    known = gpu.environment()
    assert known["date"] and known["versions"]["numpy"] == np.__version__ and len(known["tree"]) == 40
    assert (known["commit"] == "") == (record.ROOT / ".git").exists()
