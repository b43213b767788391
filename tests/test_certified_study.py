"""The picture of a certified lattice: what is drawn is what the library does, and the program runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lattice
from examples.digit_strings.lattice_picture import lattice_picture_arrays
from studies.certified_lattice.problem import BLANK, FLOOR, trained_like
from studies.certified_lattice.rounds import NEVER, rounds_of

ROOT = Path(__file__).resolve().parents[1]
SUMMARY = re.compile(
    r"loss [\d.]+ nats, certificate (\S+); of (\d+) cells (\d+) certified in (\d+) rounds, (\d+) occupied\n"
    r"largest true posterior of a cell never computed (\S+), floor \S+; picture \S+\n"
)


@pytest.mark.parametrize("sharpness", [1.0, 0.45, 0.1])
def test_the_rounds_drawn_are_those_of_the_library(sharpness):
    joint = trained_like(120, 15, 60, 32, sharpness=sharpness, seed=3)
    report, rounds = lattice.joint_transducer_report(*joint), rounds_of(joint)
    computed = rounds.round != NEVER
    assert computed.sum() == report.certified[0]
    assert rounds.round.max() + 1 == report.rounds[0]
    assert (computed.sum() < computed.size) == (sharpness > 0.1)
    truth = lattice_picture_arrays(
        joint.encoder[0], joint.predictor[0], joint.weight, joint.bias, joint.targets[0], BLANK
    )
    assert truth.posterior[~computed].max(initial=0.0) < FLOOR
    # The first cell is on every alignment, by the bounds as well; no cell has more than all of them.
    assert rounds.bound[0, 0] == pytest.approx(0, abs=1e-9)
    assert (rounds.bound <= 1e-9).all() and np.isfinite(rounds.bound).all()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--half-trained"]])
def test_smoke_run_writes_a_picture(tmp_path, arguments):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "new" / "picture.png"
    command = [sys.executable, "-m", "studies.certified_lattice", "--smoke", "--out", str(picture), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert picture.read_bytes().startswith(b"\x89PNG")
    certificate, cells, certified, rounds, occupied, left_out = map(float, SUMMARY.fullmatch(done.stdout).groups())
    assert 0 < occupied <= certified < cells == 120 * 16
    assert rounds >= 2 and 0 <= certificate <= 5e-7
    assert left_out < FLOOR
