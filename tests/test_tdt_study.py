"""The study of durations: the walk of greedy decoding, equal beginnings, the program at smoke size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("threadpoolctl")
pytest.importorskip("rapidfuzz")

from studies.tdt import measure, model

ROOT = Path(__file__).resolve().parents[1]
TDT = model.TOPOLOGIES["tdt"]


def test_a_walk_visits_the_frames_that_no_step_passes():
    steps = np.full((6, 3), 2)
    steps[2, 0] = 0  # a label that stays, and then a blank, which cannot
    steps[2, 1] = 0
    assert measure.walk_of(np.array([2]), steps, TDT) == measure.Walk(4, 5)  # 0, 2, 2, 3, 5
    with pytest.raises(ValueError, match="label 0 is in frame 1"):
        measure.walk_of(np.array([1]), steps, TDT)


def test_both_topologies_begin_with_the_same_numbers():
    plain, timed = (model.parameters_for(topology, np.random.default_rng(1)) for topology in model.TOPOLOGIES.values())
    assert set(plain) == set(timed) and len(timed["output.weight"]) == len(plain["output.weight"]) + 5
    for name, value in plain.items():
        np.testing.assert_array_equal(timed[name][: len(value)], value)


@pytest.mark.slow
def test_smoke_run(tmp_path):
    pytest.importorskip("tqdm")
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-m", "studies.tdt", "--smoke", "--out", str(tmp_path / "new")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    record = json.loads((tmp_path / "new" / "study.json").read_text())
    assert len(record["rows"]) == 12 and record["table"] == done.stdout.splitlines()
    assert all(row["frames"] == 1 for row in record["rows"] if row["topology"] == "rnnt")
    assert all(0 < row["frames"] <= 1 for row in record["rows"])
