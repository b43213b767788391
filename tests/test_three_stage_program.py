"""The three-stage program end to end: on pseudo-speech, and on the phones of a corpus made here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.debs import write_deb
from tests.test_speech_packages import wave_bytes

pytest.importorskip("rapidfuzz")
pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("tqdm")
pytest.importorskip("nltk")

from studies.three_stage.report import alignment_lines, first_seconds, goal_lines, run_lines

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    "full-sum from scratch",
    "three stages",
    "full-sum from scratch, half",
    "three stages, half",
    "CTC model and full sum, half",
]
SMALL = {
    "utterances": 10,
    "held-out": 3,
    "stack": 4,
    "steps": 4,
    "stage-steps": (4, 4, 4),
    "half-stage-steps": (2, 2, 2),
    "control-steps": 2,
    "risk-steps": 2,
    "batch": 4,
    "channels": 8,
    "blocks": 2,
    "joint": 8,
    "chunk": 8,
    "beam": 3,
    "order": 2,
    "seeds": 1,
}


def made_up_run(*points):
    """Points are (seconds, stage, error rate); stage 0 is a CTC model."""
    names = ("seconds", "stage", "error_rate")
    kinds = ("CTC", "full sum")
    stages = [{"kind": kind, "steps": 10, "seconds": 20.0, "align_seconds": 5.0 * k} for k, kind in enumerate(kinds)]
    return {"curve": [dict(zip(names, point)) for point in points], "stages": stages, "seconds": points[-1][0]}


def test_the_time_to_a_goal_is_that_of_a_transducer():
    fast = made_up_run((10, 0, 0.2), (20, 0, 0.1), (30, 1, 0.3), (40, 1, 0.2))
    slow = made_up_run((20, 0, 0.9), (30, 1, 0.5), (80, 1, 0.25))
    assert first_seconds(fast, 0.2) == 40 and first_seconds(fast, 0.3) == 30 and first_seconds(slow, 0.2) is None
    assert goal_lines({"slow": [slow, fast], "fast": [fast, slow]}) == [
        "| the first row's last error rate | seed 0: 25.0 % | seed 1: 20.0 % |",
        "|---|---:|---:|",
        "| slow | 80 s, 1.00 of its time | 40 s, 1.00 of its time |",
        "| fast | 40 s, 0.50 of its time | not reached |",
    ]
    lines = run_lines({"fast": [fast, slow]}, {"CTC": 1_000_000, "full sum": 2_000_000})
    assert lines[2:] == [
        "| fast | CTC | 10 | 20 | 20 | 2000 | 50.0 (10.0 to 90.0) | 1 |",
        "| fast | full sum, 5.0 s of it to align | 10 | 20 | 40 | 1500 | 22.5 (20.0 to 25.0) | 2 |",
    ]


def test_alignments_have_a_line_each():
    error = {"median_ms": 20.0, "mean_ms": 25.0, "offset_ms": -10.0, "median_without_offset_ms": 12.0}
    errors = {"end": error, "centre": {**error, "offset_ms": 30.0}, "inside": 0.5, "inside_without_offset": 0.75}
    assert alignment_lines({"x": [errors]})[2] == "| x | 20 | 25 | -10 | 12 | 20 | 25 | 30 | 12 | 50.0 | 75.0 |"


def run_program(*arguments, folder):
    command = [sys.executable, "-m", "studies.three_stage", *arguments, "--jobs", "2", "--out", folder / "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, cwd=folder)
    assert done.returncode == 0, done.stderr


def small_package(path):
    """Thirteen sentences of three phones, each a tone of its own."""
    rng = np.random.default_rng(0)
    files, lines = {}, []
    for k in range(13):
        labels, samples, end = ["#"], [], 0.0
        for phone in rng.integers(3, size=6):
            length = int(rng.integers(1280, 2000))
            end += length / 16_000
            labels.append(f"{end:.5f} 125 {'abc'[phone]}")
            samples.append(8000 * np.sin(2 * np.pi * 300 * (1 + phone) / 16_000 * np.arange(length)))
        files[f"./lab/ru_{k:02}.lab"] = "\n".join(labels).encode()
        files[f"./wav/ru_{k:02}.wav"] = wave_bytes(np.concatenate(samples))
        lines.append(f'( ru_{k:02} "a" )\n')
    return write_deb(path, files | {"./etc/txt.done.data": "".join(lines).encode()})


@pytest.mark.slow
def test_all_stages_on_pseudo_speech(tmp_path):
    run_program("--smoke", folder=tmp_path)
    folder = tmp_path / "out" / "generated-20"
    study = json.loads((folder / "study.json").read_text())
    assert list(study["runs"]) == ROWS and study["alignments"] == {}
    assert [stage["kind"] for stage in study["runs"]["three stages"][0]["stages"]] == ["CTC", "Viterbi", "full sum"]
    assert [stage["steps"] for stage in study["runs"]["three stages, half"][0]["stages"]] == [2, 2, 2]
    lines = (folder / "table.md").read_text().splitlines()
    assert lines[: len(study["table"])] == study["table"] and len(study["table"]) == 2 + 10
    for name in ("goal", "memory", "risk"):
        assert set(study[name]) <= set(lines)
    assert set(study["peak_bytes"]) == {"CTC", "Viterbi", "full sum", "minimum Bayes risk", "full sum, dense logits"}
    assert str(tmp_path) not in json.dumps(study["environment"]).replace(str(tmp_path / "out"), "")
    assert (folder / "curve.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*seed0.json")}
    assert len(before) == 6 and not list(folder.glob("*checkpoint*"))
    run_program("--smoke", folder=tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*seed0.json")}


@pytest.mark.slow
def test_phones_are_held_against_their_times(tmp_path):
    small_package(tmp_path / "festvox-ru_1_all.deb")
    small = [
        str(part)
        for name, value in SMALL.items()
        for part in (f"--{name}", *(value if isinstance(value, tuple) else [value]))
    ]
    run_program("--units", "phones", "--data", tmp_path, *small, folder=tmp_path)
    study = json.loads((tmp_path / "out" / "festvox-phones" / "study.json").read_text())
    assert len(study["alignments"]) == len(study["alignment"]) - 2 == 5
    for errors in study["alignments"].values():
        assert 0 <= errors[0]["inside"] <= 1 and errors[0]["end"]["median_ms"] > 0
