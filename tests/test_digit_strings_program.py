"""The digit-string demo as a program: the lattices it reports on, what it prints, logs and draws."""

# ruff: noqa: E402 - the examples folder has to be on the path before its package is imported

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("rapidfuzz")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from digit_strings import sparsity
from digit_strings.lattice_picture import lattice_picture_arrays
from digit_strings.log import LearningCurve, epoch_line, log_epoch
from digit_strings.network import encoder_forward, initial_parameters, label_contexts, predictor_forward
from digit_strings.sparsity import cell_shares
from digit_strings.strings import BLANK, join_strings, split_scans, take_string

PROGRAM = ROOT / "examples" / "02_train_digit_strings.py"
FLOOR = 2.0**-24  # the library's default posterior_floor


def sharp_network(rng):
    """Parameters in float64 whose scores lie far apart: a part of every lattice is negligible, and provably so."""
    parameters = initial_parameters(rng, dtype=np.float64)
    parameters["output.weight"] *= 64
    # Labels have to be rarer than blanks, as in a trained network: the bounds are of no use where all ids are alike.
    parameters["output.bias"][BLANK] = 192
    return parameters


def test_cell_shares_are_those_of_the_posteriors():
    parameters = sharp_network(np.random.default_rng(6))
    strings = join_strings(split_scans(0)[0], 6, np.random.default_rng(6))
    cells, reach = 0, 0
    for b in range(6):
        string = take_string(strings, b)
        encoder, _ = encoder_forward(parameters, string.frames, string.encoder_lengths)
        predictor, _ = predictor_forward(parameters, label_contexts(string.targets))
        output = parameters["output.weight"], parameters["output.bias"]
        posterior = lattice_picture_arrays(encoder[0], predictor[0], *output, string.targets[0], BLANK).posterior
        cells, reach = cells + posterior.size, reach + (posterior >= FLOOR).sum()
    occupied, certified = cell_shares(parameters, strings)
    assert occupied == reach / cells
    assert occupied < certified < 1


def test_cell_shares_come_from_the_first_strings_alone(monkeypatch):
    monkeypatch.setattr(sparsity, "MAX_STRINGS", 3)
    parameters = sharp_network(np.random.default_rng(7))
    strings = join_strings(split_scans(0)[0], 5, np.random.default_rng(7))
    shares = cell_shares(parameters, strings)
    strings.frames[3:] = np.nan
    assert cell_shares(parameters, strings) == shares
    strings.frames[2] = 0
    assert cell_shares(parameters, strings) != shares


def test_the_log_has_one_object_an_epoch(tmp_path):
    path = tmp_path / "new" / "log.json"
    path.parent.mkdir()
    path.write_text("an older run\n")
    curve = LearningCurve([], [], [0.9], [1.0], [], [])
    log_epoch(path, curve)
    assert path.read_text() == '{"epoch": 0, "occupied": 0.9, "certified": 1.0}\n'
    assert epoch_line(curve) == "epoch  0  untrained; of the lattice cells: occupied 90%  certified 100%"
    for column, number in zip(curve, (2.5, 0.5, 0.25, 0.375, 20.0, 8.0)):
        column.append(number)
    log_epoch(path, curve)
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1]) == {
        "epoch": 1,
        "loss": 2.5,
        "error_rate": 0.5,
        "occupied": 0.25,
        "certified": 0.375,
        "step_ms": 20.0,
        "joint_ms": 8.0,
    }
    line = "epoch  1  loss 2.500 nats a label  errors 50.00%  occupied 25%  certified 38%  step 20.0 ms (joint 8.0)"
    assert epoch_line(curve) == line


def test_an_interrupted_run_keeps_the_log_of_its_epochs(tmp_path, monkeypatch):
    for package in ("matplotlib", "tqdm", "threadpoolctl"):
        pytest.importorskip(package)
    specification = importlib.util.spec_from_file_location("train_digit_strings", PROGRAM)
    program = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(program)
    scans, held_out_scans = split_scans(0)
    held_out = join_strings(held_out_scans, 3, np.random.default_rng(8))
    log = tmp_path / "new" / "log.json"
    args = argparse.Namespace(epochs=3, steps=2, batch=2, log=log)
    parameters = initial_parameters(np.random.default_rng(8))
    shares = [cell_shares(parameters, held_out)]

    def read_once(parameters, strings):
        if len(shares) == 2:
            raise KeyboardInterrupt
        shares.append(cell_shares(parameters, strings))
        return [[]] * 3

    monkeypatch.setattr(program, "read_strings", read_once)
    with pytest.raises(KeyboardInterrupt):
        program.train(parameters, scans, held_out, np.random.default_rng(8), args)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert [(row["occupied"], row["certified"]) for row in rows] == shares
    assert rows[1]["error_rate"] == 1.0


@pytest.mark.parametrize("option", ["--epochs", "--steps", "--batch", "--held-out"])
def test_a_count_below_one_is_refused(option, monkeypatch, capsys):
    from digit_strings.arguments import read_arguments

    monkeypatch.setattr(sys, "argv", ["demo", "--smoke", option, "0"])
    with pytest.raises(SystemExit):
        read_arguments("The demo.")
    assert f"argument {option}: 0, expected at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_smoke_run_writes_a_picture_and_repeats_itself(tmp_path):
    for package in ("lattice", "matplotlib", "tqdm"):
        pytest.importorskip(package)
    picture, log = tmp_path / "new" / "picture.png", tmp_path / "log.json"
    command = [sys.executable, str(PROGRAM), "--smoke", "--out", str(picture), "--log", str(log)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    printed, logged = [], []
    for _ in range(2):
        printed.append(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
        logged.append([json.loads(line) for line in log.read_text().splitlines()])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert re.search(r"held-out label error rate \d+\.\d\d%, trained in \d+ s, picture \S+picture\.png\s*$", printed[0])
    assert [len(re.findall(rf"^epoch  {epoch}  ", printed[0], re.M)) for epoch in range(4)] == [1, 1, 1, 0]
    assert [row["epoch"] for row in logged[0]] == [0, 1, 2]
    for row in logged[0]:
        assert 0 < row["occupied"] <= row["certified"] <= 1
    for row in (*logged[0][1:], *logged[1][1:]):
        assert 0 < row.pop("joint_ms") < row.pop("step_ms")
    assert logged[0] == logged[1]


def test_the_figure_shows_the_cells_from_epoch_0_on():
    pytest.importorskip("matplotlib")
    from digit_strings.figure import draw_curve, plt

    curve = LearningCurve([2.0, 1.0], [0.5, 0.25], [0.9, 0.5, 0.125], [1.0, 0.75, 0.25], [20.0] * 2, [8.0] * 2)
    figure = plt.figure()
    draw_curve(figure, curve)
    loss, error_rate, cells = (
        [(line.get_label().split(":")[0], *line.get_xydata().tolist()) for line in axes.lines] for axes in figure.axes
    )
    shown = figure.axes[0].get_xlim()
    plt.close(figure)
    assert [line[1:] for line in loss] == [([1, 2.0], [2, 1.0])]
    assert [line[1:] for line in error_rate] == [([1, 50.0], [2, 25.0])]
    assert cells == [("certified", [0, 100], [1, 75], [2, 25]), ("occupied", [0, 90], [1, 50], [2, 12.5])]
    assert shown[0] <= 0
