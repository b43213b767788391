"""The accuracy benchmark measures what it says, against a truth that is one."""

import numpy as np
import pytest

from benchmarks import accuracy, shapes


def test_errors_are_those_that_were_made():
    truth = accuracy.truth_of(shapes.untrained(*accuracy.SHAPES["smoke"]))
    loss, gradients = truth
    off = gradients._replace(weight=1.01 * gradients.weight)
    found = accuracy.errors(loss + 0.25, off, truth)
    assert found["loss_error"] == pytest.approx(0.25) and found["weight"] == pytest.approx(0.01)
    assert found["gradient_error"] == found["weight"] and found["encoder"] == 0


def test_the_truth_is_held_against_the_oracle(monkeypatch):
    assert accuracy.check() < 1e-11
    right = accuracy.truth_of
    monkeypatch.setattr(accuracy, "truth_of", lambda problem: (right(problem)[0] + 1e-6, right(problem)[1]))
    with pytest.raises(RuntimeError, match="from the oracle"):
        accuracy.check()


def test_table_and_picture_leave_out_what_failed(tmp_path):
    rows = accuracy.measure("smoke", [])
    assert all(row["gradient_error"] < 1e-5 for row in rows.values())
    assert accuracy.names_of({"rows": {"a": rows}}) == ["lattice", "lattice, every cell"]
    alone = {key: row for key, row in rows.items() if key.startswith("lattice, every cell")}
    results = {
        "shapes": {"a": [1, 20, 5, 32, 16], "b": [1, 20, 5, 32, 16]},
        "rows": {"a": rows, "b": alone},
        "not_measured": {},
    }
    line = next(line for line in accuracy.table_of(results).splitlines() if line.startswith("| lattice |"))
    assert line.endswith("|  |") and line.count(" / ") == 1
    pytest.importorskip("matplotlib")
    accuracy.draw(results, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[1:4] == b"PNG"
    assert np.isfinite([row["loss_error"] for row in rows.values()]).all()
