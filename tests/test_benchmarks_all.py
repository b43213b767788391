"""All measurements in one command.

A failure loses its own cell, what is there is kept, and tables and pictures are drawn.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import all as everything
from benchmarks import joint, joint_stages, peer_memory, peer_tables, peers, pictures, record, shapes

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"versions": {"torchaudio": "2.11", "fast-rnnt": "1.3"}, "commit": "abc", "date": "2030-01-01"}


def time_record(failed=None):
    rows = {
        "lattice, untrained, 64 MiB": {"ratio": 0.5},
        "lattice, trained-like, 64 MiB": {"ratio": 0.1},
        "lattice, untrained, every cell": {"ratio": 1.4},
        "torchaudio, untrained": {"ratio": 4.0},
        "torchaudio, trained-like": {"ratio": 25.0},
        "fast_rnnt, pruned, untrained": {"ratio": 0.13},
    }
    return {
        "environment": ENVIRONMENT,
        "shapes": {"ragged": joint.SHAPES["ragged"]},
        "rows": {"ragged": rows},
        "failed": {"ragged": failed or {}},
        "not_measured": {"k2": "not installed"},
    }


def options(folder, **changed):
    return SimpleNamespace(
        **{
            "out": str(folder),
            "parts": ["time"],
            "shapes": ["smoke"],
            "without": ["all"],
            "rounds": 1,
            "minutes": 1,
            "again": False,
            **changed,
        }
    )


def test_a_table_has_every_row_losing_ones_too():
    lines = peer_tables.comparison_table("time", time_record({"k2": "killed by SIGKILL"})).splitlines()
    assert "| | B=8 T≤448 U≤107 V=500 H=512 |" in lines
    assert "| three matrix products over the real cells, nothing else | 1.00 |" in lines
    assert "| **lattice, 64 MiB** | **0.50 / 0.10** |" in lines and "| **lattice, every cell** | **1.40** |" in lines
    assert "| torchaudio 2.11 | 4.0 / 25 |" in lines and "| fast_rnnt 1.3, pruned (approximate) | 0.13 |" in lines
    assert "| k2 | failed |" in lines and "Failed: k2 at ragged (killed by SIGKILL)." in lines
    assert lines[-1] == "Not measured: k2 (not installed)."
    assert peer_tables.comparison_table("time", None) == "not measured"


@pytest.mark.parametrize("part", peer_tables.COMPARISONS)
def test_pictures_are_drawn(tmp_path, part):
    pytest.importorskip("matplotlib")
    record = time_record({"k2": "no result in 15 minutes"})
    if part != "time":
        own = {"total": 9e6, "inputs": 1e6, "outputs": 2e6, "ratio": 3.0}
        record["rows"]["ragged"] = {key: own for row in peer_tables.COMPARISONS[part].ours for key in row.keys}
    pictures.draw(part, record, tmp_path / "folder" / "picture.png")
    assert (tmp_path / "folder" / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("raise ValueError('no such thing: /some/folder/lib.so')", "ValueError: no such thing: lib.so"),
        ("import time; time.sleep(60)", "no result in 0.02 minutes"),
    ],
)
def test_what_fails_loses_its_own_cell(tmp_path, monkeypatch, code, reason):
    start = subprocess.run

    def replaced(command, **how):
        return start([sys.executable, "-c", code] if "benchmarks" in command else command, **how)

    monkeypatch.setattr(subprocess, "run", replaced)
    cell = everything.cell_of("time", "smoke", "torchaudio", options(tmp_path, minutes=0.02 if "sleep" in code else 1))
    assert cell["failed"] == reason and "commit" in cell["environment"]


def test_cells_that_are_there_are_kept(tmp_path, monkeypatch):
    ran = []

    def run_cell(arguments, path, minutes):
        ran.append(arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"environment": ENVIRONMENT, "rows": {"three GEMMs": {"ratio": 1.0}}}))

    monkeypatch.setattr(everything, "run_cell", run_cell)
    for _ in range(2):
        merged = everything.merged("time", options(tmp_path))
    assert ran == [["joint", "--shape", "smoke", "--only", "lattice", "--rounds", "1"]]
    assert merged["rows"] == {"smoke": {"three GEMMs beside lattice": {"ratio": 1.0}}} and merged["commits"] == ["abc"]
    everything.merged("time", options(tmp_path, again=True))
    assert len(ran) == 2
    (tmp_path / "cells" / "time-smoke-lattice.json").write_text(
        json.dumps({"environment": ENVIRONMENT, "failed": "why"})
    )
    merged = everything.merged("time", options(tmp_path))
    assert merged["failed"] == {"smoke": {"lattice": "why"}} and merged["rows"] == {"smoke": {}}


def test_every_peer_has_a_cell_and_smoke_only_if_asked(monkeypatch):
    found = [peers.Peer(name, "1", exact, None, None) for name, (_, exact, _) in peers.PEERS.items()]
    monkeypatch.setattr(peers, "available", lambda: found)
    monkeypatch.setattr(peers, "missing", dict)
    assert everything.asked("time", []) == ["lattice", *peers.PEERS]
    assert everything.asked("memory", ["k2"]) == [*peer_memory.OURS, *(name for name in peers.PEERS if name != "k2")]
    assert [name for name in peers.PEERS if name not in everything.asked("logits", [])] == [
        "fast_rnnt, pruned",
        "k2, pruned",
    ]
    assert everything.shapes_of("time", []) == ["default", "librispeech-100", "long", "short", "mandarin", "ragged"]
    assert everything.shapes_of("time", ["smoke", "long"]) == ["long", "smoke"]
    assert [peer.name for peer in peers.chosen([], "torchaudio")[0]] == ["torchaudio"] and peers.chosen(
        [], "lattice"
    ) == ([], {})
    arguments = everything.arguments_of("accuracy", "smoke", "torchaudio", 5)
    assert "torchaudio" not in arguments and arguments[:4] == ["accuracy", "--shape", "smoke", "--without"]
    assert set(arguments[4:]) == set(peers.PEERS) - {"torchaudio"}


@pytest.mark.slow
def test_all_runs_at_smoke_size(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "all", "--shapes", "smoke", "--without", "all", "--rounds", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for part in everything.PARTS:
        record = json.loads((tmp_path / f"{part}.json").read_text())
        assert record["failed"] == {"smoke": {}} and "commit" in record["environment"], record["failed"]
        rows = record["rows"]["smoke"]
        if part in peer_tables.COMPARISONS:
            assert all(key in rows for row in peer_tables.COMPARISONS[part].ours for key in row.keys)
        assert (tmp_path / f"{part}.png").exists() == pictures.possible()
    table = done.stdout.splitlines()
    assert (
        "| **lattice, in place** |" in " ".join(table)
        and sum(line.startswith("Not measured: nothing") for line in table) == 4
    )


def test_first_to_go_is_the_cell():
    code = "from benchmarks.all import first_to_go; first_to_go(); print(open('/proc/self/oom_score_adj').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "1000"


def test_the_ragged_shape_is_that_of_librispeech():
    frames, labels = map(np.array, joint.LENGTHS["ragged"])
    B, T, U, _, _ = joint.SHAPES["ragged"]
    assert len(frames) == len(labels) == B and frames.max() == T and labels.max() == U
    cells = int((frames * (labels + 1)).sum())
    assert np.median(frames) == pytest.approx(343, abs=1) and cells / B == pytest.approx(23_616, rel=0.05)
    assert B * T * (U + 1) / cells == pytest.approx(1.98, abs=0.01)


@pytest.mark.parametrize("make", joint.KINDS.values(), ids=joint.KINDS)
def test_lengths_make_padding(make):
    lengths = (9, 14, 20), (8, 5, 0)
    problem = make(3, 20, 8, 32, 16, lengths=lengths)
    assert shapes.cells(problem) == 9 * 9 + 14 * 6 + 20
    if make is shapes.trained_like:
        last = problem.encoder[range(3), problem.encoder_lengths - 1, 0]
        assert np.array_equal(last, 1.5 * problem.target_lengths), "all labels fall due within their own frames"
    assert np.array_equal(make(2, 20, 8, 32, 16).encoder_lengths, [20, 20])


def test_the_floor_counts_real_cells(monkeypatch):
    counted = []
    monkeypatch.setitem(joint.SHAPES, "tiny", (2, 9, 4, 32, 16))
    monkeypatch.setitem(joint.LENGTHS, "tiny", ((9, 3), (4, 1)))
    monkeypatch.setattr(joint, "three_gemms", lambda *sizes: counted.append(sizes) or (lambda: None))
    assert list(joint.measure("tiny", 1, [], ours=False)) == ["three GEMMs"]
    assert counted == [(2, 9, 4, 32, 16, 9 * 5 + 3 * 2)]


def test_the_stages_of_a_call_add_up_to_it():
    table = joint_stages.measure("untrained", "smoke", 2)
    whole, between = table.pop(joint_stages.WHOLE), table.pop(joint_stages.BETWEEN)
    assert table.pop("three products")["ratio"] == 1
    assert {"bound_tanh", "select", "hidden_tanh", "emit", "gradient", "dlogits.T @ hidden"} <= table.keys()
    # Medians over two rounds are means, so sums hold to rounding. Between the stages lies Python, which takes time.
    assert sum(row["seconds"] for row in table.values()) + between["seconds"] == pytest.approx(whole["seconds"])
    assert between["seconds"] > 0 and all(row["calls"] >= 1 for row in table.values())


def test_nothing_stays_watched():
    from lattice.kernels import emissions, launch

    joint_stages.split(lambda: None)
    assert emissions.sweep is launch.sweep


def test_a_record_says_what_was_set_for_threads(monkeypatch):
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "4")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    found = record.environment()["threads"]
    assert found["OPENBLAS_THREAD_TIMEOUT"] == "4" and found["NUMBA_NUM_THREADS"] == "2"
    assert not [name for name in found if "THREAD" not in name and "BLOCKTIME" not in name]
