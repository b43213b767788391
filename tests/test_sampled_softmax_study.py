"""The sampled-softmax study.

The tests are of its training step, its rows, the conventional joint beside it, and the program at smoke size.
"""

# ruff: noqa: E402 - packages that may be missing are asked for first

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rapidfuzz")
pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")

ROOT = Path(__file__).resolve().parents[1]

import samplers
from studies.sampled_softmax import evaluate, step
from studies.sampled_softmax.bias import bias_lines, losses_of
from studies.sampled_softmax.conventional import conventional_joint, dense_logits
from studies.sampled_softmax.measure import measure_rows
from studies.sampled_softmax.report import table_lines
from studies.sampled_softmax.rows import Row, ctc_distribution, draw_vocabulary, study_rows
from studies.sampled_softmax.train import clip, run_once
from studies.speech.batches import Batch
from studies.speech.corpus import Utterances, load_corpus
from studies.speech.encoder import encoder_forward
from studies.speech.network import initial_parameters

PROGRAM = sys.executable, "-m", "studies.sampled_softmax", "--smoke"
ROWS = study_rows([9, 12])


def batch_of(vocab, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, vocab, (2, 3)).astype(np.int32)
    return Batch(
        rng.standard_normal((2, 7, 5)).astype(dtype), np.array([7, 5]), targets, np.array([3, 2]), np.arange(2)
    )


def parameters_for(row, vocab=20, dtype=np.float64):
    rng = np.random.default_rng(1)
    found = initial_parameters(
        rng,
        features=5,
        vocab_size=vocab,
        channels=6,
        blocks=2,
        width=3,
        joint=5,
        embedding=4,
        mode=row.mode,
        dtype=dtype,
    )
    return {name: (value + 0.1 * rng.standard_normal(value.shape)).astype(dtype) for name, value in found.items()}


@pytest.mark.parametrize("row", ROWS[:4], ids=lambda row: row.name)
def test_the_gradient_is_that_of_the_whole_objective(row):
    """Uniform vocabularies do not depend on the parameters: the draw is held fixed while they are moved."""
    parameters, batch = parameters_for(row), batch_of(20)
    grads = step.training_step(parameters, batch, row, 5).grads
    rng = np.random.default_rng(2)
    assert grads.keys() == parameters.keys()
    for name, value in parameters.items():
        direction = rng.standard_normal(value.shape)
        found = []
        for sign in (1, -1):
            parameters[name] = value + sign * 1e-6 * direction
            result = step.training_step(parameters, batch, row, 5)
            found.append(result.loss + result.ctc_loss)
        parameters[name] = value
        assert (found[0] - found[1]) / 2e-6 == pytest.approx(np.vdot(grads[name], direction), rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("row", [ROWS[0], ROWS[4], ROWS[6], ROWS[7], ROWS[9]], ids=lambda row: row.name)
def test_the_conventional_joint_is_the_same_function(row):
    parameters, batch = parameters_for(row), batch_of(20)
    ours = step.training_step(parameters, batch, row, 3)
    other = step.training_step(parameters, batch, row, 3, joint=conventional_joint)
    assert ours.loss == pytest.approx(other.loss, rel=1e-12)
    for name, grad in ours.grads.items():
        np.testing.assert_allclose(grad, other.grads[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_rows_draw_from_what_they_say():
    batch = batch_of(200)
    names = {}
    for row in study_rows([20]):
        encoded, _ = encoder_forward(parameters_for(row, 200), batch.frames, batch.frame_lengths, mode=row.mode)
        drawn = draw_vocabulary(row, batch, encoded, 0)
        names[row.name] = drawn
        if row.source is None:
            assert drawn is None
            continue
        assert drawn.ids.shape == (2, 20)
        assert (drawn.ids[0] == drawn.ids[1]).all() == (row.strategy == "batch")
        if row.source != "uniform":
            p = ctc_distribution(row, encoded, batch.frame_lengths)
            expected = samplers.sample_vocabulary(
                batch.targets, batch.target_lengths, 20, distribution=0.99 * p + 0.01 / 200, seed=0
            )
            np.testing.assert_array_equal(drawn.ids, expected.ids)
    assert len(names) == 7


def test_self_conditioned_rows_mix_all_posteriors():
    row, batch = ROWS[5], batch_of(20)
    encoded, _ = encoder_forward(parameters_for(row), batch.frames, batch.frame_lengths, mode="self")
    parts = [samplers.ctc_posterior(x, batch.frame_lengths) for x in (encoded.ctc_logits, *encoded.intermediate_logits)]
    np.testing.assert_allclose(ctc_distribution(row, encoded, batch.frame_lengths), np.mean(parts, axis=0))


@pytest.mark.parametrize("source", ["uniform", "ctc"])
def test_corrected_sums_are_right_on_average(source):
    row = Row("", "none", source, "example", 8)
    parameters, batch = parameters_for(row, 60), batch_of(60)
    encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    cell = encoded.encoder[:, :1], np.ones((2, 1, 5)), 2 * parameters["output.weight"], parameters["output.bias"]
    whole = np.exp(dense_logits(*cell, None)[1]).sum(axis=-1)
    sums = []
    for seed in range(4000):
        drawn = draw_vocabulary(row, batch, encoded, seed)
        sums.append(np.exp(dense_logits(*cell, drawn)[1] - drawn.log_inclusion[:, None, None]).sum(axis=-1))
    error = np.std(sums, axis=0) / np.sqrt(len(sums))
    assert (np.abs(np.mean(sums, axis=0) - whole) < 4 * error).all() and (error < 0.05 * whole).all()


def test_losses_over_drawn_ids_are_lower():
    row = Row("", "none", "uniform", "example", 8)
    whole, part, corrected = losses_of(parameters_for(row, 60), batch_of(60), row, 0)
    assert part < whole and part < corrected
    whole, part, corrected = losses_of(parameters_for(row, 60), batch_of(60), row._replace(size=60), 0)
    assert whole == pytest.approx(part, rel=1e-12) == pytest.approx(corrected, rel=1e-12)


def test_sizes_below_the_targets_are_left_out():
    _, held_out, _ = load_corpus("generated", units=30, utterances=8, held_out=6)
    most = max(len(set(target.tolist())) for target in held_out.targets)
    parameters = initial_parameters(
        np.random.default_rng(0), features=held_out.features[0].shape[1], vocab_size=31, channels=8, blocks=2, joint=8
    )
    lines = bias_lines(parameters, held_out, [most, most + 1])
    assert [line.split("|")[2].strip() for line in lines[2:]] == [str(most + 1)] * 2


def test_error_rates_count_edits():
    class Units:
        def decode(self, ids):
            return " ".join("abcdef"[i] for i in ids)

    truth = Utterances([], [np.array([1, 2, 3]), np.array([4])], ["b c d", "e"])
    rates = evaluate.error_rates({0: [1, 3], 1: [4, 5]}, truth, Units())
    assert rates == {"unit_error_rate": 0.5, "word_error_rate": 0.5}


def test_allowed_ids_bound_what_is_decoded():
    train_set, held_out, units = load_corpus("generated", units=30, utterances=8, held_out=6)
    row = ROWS[1]
    parameters = initial_parameters(
        np.random.default_rng(0),
        features=train_set.features[0].shape[1],
        vocab_size=31,
        channels=8,
        blocks=2,
        joint=8,
        mode=row.mode,
    )
    rates = evaluate.evaluate(parameters, held_out, units, row, [1, 30])
    assert rates["top 30"]["missing"] == 0 and rates["top 1"]["missing"] > 0
    assert rates["top 30"]["unit_error_rate"] == rates["free"]["unit_error_rate"]
    found = evaluate.decode(parameters, held_out, row, allowed=1)
    assert sorted(found) == list(range(6)) and all(len(set(ids)) <= 1 for ids in found.values())


def test_long_gradients_are_shortened():
    grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    clip(grads, 10.0)
    assert grads["a"][0] == 3
    clip(grads, 1.0)
    assert grads["a"][0] == pytest.approx(0.6) and grads["b"][0, 0] == pytest.approx(0.8)


def test_a_run_is_kept_and_not_repeated(tmp_path):
    corpus = load_corpus("generated", units=30, utterances=8, held_out=4)
    options = {"channels": 8, "blocks": 2, "joint": 8, "steps": 3, "batch": 4, "sizes": [25]}
    path, calls = tmp_path / "folder" / "run.json", []
    first = run_once(path, Row("x", "none", "ctc", "example", 25), 0, corpus, options, calls.append)
    assert len(calls) == 3 and len(first["losses"]) == 3
    assert run_once(path, Row("x"), 0, corpus, options, calls.append) == json.loads(path.read_text()) == first
    with pytest.raises(ValueError, match=r"was made with .*'steps': 3.*, not .*'steps': 4"):
        run_once(path, Row("x"), 0, corpus, options | {"steps": 4}, calls.append)
    assert len(calls) == 3


def test_a_larger_vocabulary_takes_memory_only_where_logits_are_dense():
    train_set, _, _ = load_corpus("generated", units=300, utterances=12, held_out=4)
    rows = [Row("all"), Row("some", "none", "uniform", "example", 60)]
    parameters = initial_parameters(
        np.random.default_rng(0), features=train_set.features[0].shape[1], vocab_size=301, channels=8, blocks=2, joint=8
    )
    found = measure_rows(dict.fromkeys(rows, parameters), train_set, 12, rounds=1)
    assert found["some"]["conventional_bytes"] < 0.5 * found["all"]["conventional_bytes"]
    assert found["all"]["peak_bytes"] < 0.7 * found["all"]["conventional_bytes"]


@pytest.mark.slow
def test_the_program_writes_table_and_picture_and_goes_on_where_it_stopped(tmp_path):
    command = [*PROGRAM, "--jobs", "2", "--out", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "generated-60"
    study = json.loads((folder / "study.json").read_text())
    assert list(study["runs"]) == list(study["measured"]) == [row.name for row in study_rows([40, 50])]
    lines = (folder / "table.md").read_text().splitlines()
    table = table_lines(study["runs"], study["measured"])
    assert len(table) == 2 + 10 and lines[: len(table)] == table
    assert lines[len(table) + 1].startswith("| drawn from")
    assert (folder / "memory.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*seed0.json")}
    assert len(before) == 10
    assert subprocess.run(command, capture_output=True, env=environment, timeout=500).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*seed0.json")}


@pytest.mark.slow
def test_the_full_softmax_alone(tmp_path):
    command = [*PROGRAM, "--sizes", "--jobs", "1", "--out", tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=500
    )
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "generated-60" / "study.json").read_text())
    assert len(study["runs"]) == 3 and study["bias"] == []
