"""What the benchmark of dropout measures: gradients as the oracle has them, and lattices that look trained with it."""

from types import SimpleNamespace

import numpy as np
import pytest

import lattice
from benchmarks import dropout, shapes
from tests import joint_oracle

SIZE = 2, 60, 12, 40, 128


def test_gradients_are_those_of_the_oracle(monkeypatch):
    assert dropout.check() < 1e-4
    kept = joint_oracle.kept
    monkeypatch.setattr(joint_oracle, "kept", lambda given, *place: kept((given[0], given[1] + 1), *place))
    with pytest.raises(RuntimeError, match="from the oracle"):
        dropout.check()


def test_lattices_look_trained_with_dropout_where_many_values_tell_the_same():
    options = {"dropout": (dropout.RATE, 1)}
    shares = {}
    for spread in (1, 32):
        problem = shapes.trained_like(*SIZE, spread=spread)
        for how in ({}, options):
            report = lattice.joint_transducer_report(*problem, **how)
            shares[spread, len(how)] = report.occupied.sum() / report.cells.sum()
    assert shares[1, 1] > 1.5 * shares[1, 0]
    assert shares[32, 1] == pytest.approx(shares[32, 0], rel=0.1)


def test_table(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(dropout, "check", lambda: 0.0)
    monkeypatch.setattr(dropout, "ACTIVATIONS", ("tanh", "relu"))
    dropout.main(SimpleNamespace(shape="smoke", rounds=1, json=str(tmp_path / "record.json")))
    text = capsys.readouterr().out
    for activation in dropout.EVERY:
        assert f"{activation}, trained-like, dropout" in text
    assert "beside rate 0" in text and np.all([f"{name}, every cell" in text for name in dropout.EVERY])
    assert (tmp_path / "record.json").exists()
