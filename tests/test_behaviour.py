"""The harness of the behaviour table judges as it says, and this library passes every case of it."""

import importlib
import json
import os
import signal
import sys
import time

import numpy as np
import pytest

from benchmarks import behaviour, implementations, peers, table
from benchmarks.edge_cases import CASES

OURS = {"from logits": implementations.from_logits, "fused joint": implementations.fused_joint}


def segfaults(question):
    os.kill(os.getpid(), signal.SIGSEGV)


def leaves(question):
    os._exit(3)


def sleeps(question):
    time.sleep(600)


def raises(question):
    raise RuntimeError("no such file /some/folder/peer.so\nand more")


def is_off(question):
    loss, (gradient,) = implementations.from_logits(question)
    return loss, (gradient * np.float32(1.01),)


def has_another_loss(question):
    loss, gradients = implementations.from_logits(question)
    return loss + np.float32(0.1), gradients


def has_the_sum(question):
    loss, gradients = implementations.from_logits(question)
    return loss.sum(), gradients


def leaks_nan(question):
    loss, (gradient,) = implementations.from_logits(question)
    gradient[0, 0, 0, 0] = np.nan
    return loss, (gradient,)


def fills_the_poisoned(question):
    loss, (gradient,) = implementations.from_logits(question)
    gradient[1] = 7
    return loss, (gradient,)


def hides_nan(question):
    loss, (gradient,) = implementations.from_logits(question)
    return np.nan_to_num(loss), (np.nan_to_num(gradient),)


def answers_all(question):
    return np.ones(4), (np.zeros(question.logits.shape),)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fake", "verdict", "detail"),
    [
        (segfaults, "crash", "SIGSEGV"),
        (leaves, "crash", "exit status 3"),
        (sleeps, "hang", "no answer in 8 s"),
        (raises, "refused", "RuntimeError: no such file peer.so"),
        (is_off, "wrong", ""),
        (has_another_loss, "wrong", ""),
        (leaks_nan, "NaN", ""),
        (has_the_sum, "right", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_child_gets_the_verdict_it_deserves(fake, verdict, detail):
    path, seconds = f"{__name__}:{fake.__name__}", 8 if fake is sleeps else behaviour.SECONDS
    cell = behaviour.judge("ragged batch", False, lambda _: behaviour.answer_of_child(path, "ragged batch", seconds))
    assert (cell["verdict"], cell["good"], cell["detail"]) == (verdict, verdict == "right", detail)
    assert cell["verdict"] in behaviour.VERDICTS


def test_errors_are_relative():
    cell = behaviour.judge("ragged batch", False, lambda question: behaviour.answer(is_off, question))
    assert cell["gradient_error"] == pytest.approx(0.01, rel=1e-3) and cell["loss_error"] < 1e-6
    cell = behaviour.judge(
        "zero upstream", False, lambda question: behaviour.answer(implementations.from_logits, question)
    )
    assert cell["gradient_error"] == 0


def test_an_answer_where_there_is_none_is_not_right():
    cell = behaviour.judge("id too large", False, lambda question: behaviour.answer(answers_all, question))
    assert (cell["verdict"], cell["good"], cell["detail"]) == ("accepted", False, "loss [1. 1. 1. 1.]")
    cell = behaviour.judge("id too large", False, lambda question: behaviour.answer(raises, question))
    assert (cell["verdict"], cell["good"]) == ("refused", True)


@pytest.mark.parametrize(
    ("fake", "verdict"),
    [(hides_nan, "wrong"), (leaks_nan, "NaN"), (fills_the_poisoned, "right"), (implementations.from_logits, "right")],
)
def test_the_loss_of_a_poisoned_example_tells_of_it(fake, verdict):
    cell = behaviour.judge("NaN in one example", False, lambda question: behaviour.answer(fake, question))
    assert cell["verdict"] == verdict


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("call", OURS)
def test_ours(call, case):
    cell = behaviour.judge(case, call == "fused joint", lambda question: behaviour.answer(OURS[call], question))
    expected = "refused" if CASES[case].make().refuse else "right"
    assert cell["verdict"] in (expected, "not expressible"), cell
    assert cell["good"] is not False


@pytest.mark.parametrize("name", implementations.PEERS)
def test_a_peer_is_right_where_nothing_is_special(name):
    """The table is about edge cases, not about calls that were put together wrongly."""
    pytest.importorskip("torch")
    if name in peers.missing():
        pytest.skip(peers.missing()[name])
    call = getattr(implementations, implementations.PEERS[name])
    cell = behaviour.judge("ragged batch", False, lambda question: behaviour.answer(call, question))
    assert cell["verdict"] == "right", cell


def test_questions_are_what_they_say():
    """Where the truth would be that of the ragged batch whatever is done to it, a case asks nothing."""
    plain = CASES["ragged batch"].make()
    assert np.isfinite(plain.logits).all() and plain.real.sum() < plain.logits[..., 0].size
    padded = CASES["NaN padding"].make()
    assert np.array_equal(np.isnan(padded.logits).all(-1), ~padded.real)
    assert {2**30, -7} <= set(CASES["garbage target padding"].make().targets.ravel().tolist())
    for name in ("transposed", "sliced"):
        strided = CASES[name].make()
        assert np.array_equal(strided.logits, plain.logits) and not strided.logits.flags.c_contiguous
    loss, _ = behaviour.true_answer(CASES["no path"].make(), True, np.float64)
    assert np.isinf(loss[1]) and np.isfinite(loss[[0, 2, 3]]).all()
    closed = CASES["-inf arcs"].make()
    loss, _ = behaviour.true_answer(closed, False, np.float64)
    assert np.isfinite(loss).all() and np.isneginf(closed.logits).sum() > 40


def test_every_implementation_is_run_or_missing():
    names, missing = implementations.importable()
    assert sorted([*names, *missing]) == sorted(implementations.FUNCTIONS)
    for path in implementations.FUNCTIONS.values():
        module, function = path.split(":")
        assert callable(getattr(importlib.import_module(module), function))
    exact = {name for name, (_, is_exact, _) in peers.PEERS.items() if is_exact}
    assert set(implementations.PEERS) == exact


def test_the_record_holds_every_case():
    record = table.newest("behaviour")
    assert list(record["rows"]) == list(CASES)
    cells = [cell for row in record["rows"].values() for cell in row.values()]
    assert {cell["verdict"] for cell in cells} <= set(behaviour.VERDICTS)
    assert "/" not in record["environment"]["command"].replace("benchmarks/results/", "")


def test_the_command_writes_a_record(tmp_path, monkeypatch, capsys):
    few = {name: CASES[name] for name in ("T = 1", "id negative")}
    monkeypatch.setattr(behaviour, "CASES", few)
    file = tmp_path / "record.json"
    without = list(implementations.PEERS)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "behaviour"])
    behaviour.main(type("Options", (), {"without": without, "json": str(file)}))
    assert "T = 1" in capsys.readouterr().out
    record = json.loads(file.read_text())
    verdicts = [record["rows"][case]["lattice, fused joint"]["verdict"] for case in few]
    assert verdicts == ["right", "refused"]
