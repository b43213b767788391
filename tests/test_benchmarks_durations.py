"""The benchmark of "tdt" from given logits: what is timed is right, and the command writes what it has measured."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import durations
from benchmarks.peers import OURS


def measured(tmp_path, without=()):
    """The record of the command at its smallest shape."""
    out = tmp_path / "durations.json"
    durations.main(SimpleNamespace(shape="smoke", rounds=1, without=list(without), json=str(out)))
    return json.loads(out.read_text())


def test_logits_have_the_durations_behind_the_ids():
    logits, targets, frames, labels = durations.problem_of(*durations.SHAPES["smoke"])
    assert logits.shape == (2, 20, 6, 32 + len(durations.TDT.durations)) and logits.dtype == np.float32
    assert targets.shape == (2, 5) and targets.min() > 0 and targets.max() < 32
    assert list(frames) == [20, 20] and list(labels) == [5, 5]


def test_ours_is_the_loss_of_the_oracle():
    errors = durations.check([OURS])[OURS]
    assert errors["loss"] < 1e-6 and errors["gradient"] < 1e-5


def test_a_loss_far_from_the_oracle_is_not_timed(monkeypatch):
    def off(*problem):
        loss, grad = durations.ours(*problem)()
        return lambda: (1.001 * loss, grad)

    monkeypatch.setitem(durations.CALLS, "off", off)
    with pytest.raises(RuntimeError, match=r"the loss of off is 1\.0e-03 from the oracle"):
        durations.check([OURS, "off"])


@pytest.mark.parametrize("without", [durations.PEER, "all"])
def test_the_command_runs_at_smoke_size(tmp_path, capsys, without):
    record = measured(tmp_path, [without])
    assert record["rows"].keys() == {"numpy.copyto", OURS} and record["shape"] == [2, 20, 5, 32]
    ours = record["rows"][OURS]
    assert ours["ratio"] > 1 and ours["loss_error"] < 1e-6 and ours["logits"] == 4 * 2 * 20 * 6 * 37
    assert record["rows"]["numpy.copyto"]["ratio"] == 1 and record["peer_versions"] == {}
    assert record["not_measured"] == {durations.PEER: "left out by --without"}
    printed = capsys.readouterr().out
    assert "B=2 T=20 U=5 V=32+5" in printed and "not measured: transformers: left out" in printed


def test_a_peer_that_is_not_there_is_named(tmp_path, monkeypatch):
    def broken(*problem):
        raise OSError("no such thing: /some/folder/lib.so")

    monkeypatch.setattr(durations, "transformers", broken)
    assert measured(tmp_path)["not_measured"] == {durations.PEER: "OSError: no such thing: lib.so"}


def test_the_peer_is_measured_beside_ours(tmp_path):
    if absent := durations.missing():
        pytest.skip(absent[durations.PEER])
    record = measured(tmp_path)
    peer = record["rows"][durations.PEER]
    assert peer["loss_error"] < durations.AGREE and peer["gradient_error"] < 1e-3 and peer["growth"] >= 0
    assert record["peer_versions"].keys() == {durations.PEER} and record["not_measured"] == {}
