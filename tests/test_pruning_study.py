"""The pruning study: k2's smoothed loss and bands, the training step, what is measured, the program at smoke size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")

import lattice
from examples.digit_strings.strings import BLANK, NUM_LABELS, join_strings, split_scans
from studies.pruning import bands, measure, model
from tests import oracle

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = np.array([9, 6]), np.array([4, 2])


def problem(seed=0):
    rng = np.random.default_rng(seed)
    am, lm = rng.standard_normal((2, 9, 7)), rng.standard_normal((2, 5, 7))
    return am, lm, rng.integers(1, 7, (2, 4)), *LENGTHS


def strings(count=3, seed=0, **options):
    return join_strings(split_scans(0)[0], count, np.random.default_rng(seed), **options)


def test_gradients_of_the_smoothed_loss_are_finite_differences():
    am, lm, *integers = problem()
    _, *grads, _ = bands.smoothed_loss(am, lm, *integers, blank=0)

    def loss(am, lm):
        return bands.smoothed_loss(am, lm, *integers, blank=0)[0].sum()

    for grad, found in zip(
        grads,
        (oracle.finite_differences(lambda x: loss(x, lm), am), oracle.finite_differences(lambda x: loss(am, x), lm)),
        strict=True,
    ):
        np.testing.assert_allclose(grad, found, atol=1e-8)


def test_without_smoothing_it_is_the_loss_of_the_sum_of_logits():
    am, lm, *integers = problem(1)
    loss, grad_am, grad_lm, posteriors = bands.smoothed_loss(am, lm, *integers, blank=0, lm_scale=0.0)
    expected, grads = lattice.transducer_loss_and_grad(am[:, :, None] + lm[:, None], *integers)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(grad_am, grads.sum(2), atol=1e-12)
    np.testing.assert_allclose(grad_lm, grads.sum(1), atol=1e-12)
    told = lattice.transducer_posteriors(am[:, :, None] + lm[:, None], *integers)
    for ours, other in zip(posteriors, told[1:], strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_bands_can_be_followed_from_the_first_cell_to_the_last(size):
    for seed in range(20):
        am, lm, *integers = problem(seed)
        *_, posteriors = bands.smoothed_loss(4 * am, 4 * lm, *integers, blank=0)
        first, last = bands.pruned_bounds(posteriors, *LENGTHS, size)
        assert (last - first == min(size, 5) - 1).all() and (first[:, 0] == 0).all()
        assert (np.diff(first) >= 0).all() and (np.diff(first) <= min(size, 5) - 1).all()
        logits = am[:, :, None] + lm[:, None]
        assert np.isfinite(lattice.transducer_loss(logits, *integers, bounds=(first, last))).all()


def test_gradients_of_a_step_are_finite_differences():
    parameters = model.parameters_with_simple(np.random.default_rng(3), dtype=np.float64)
    batch = strings(2)
    batch = batch._replace(frames=batch.frames.astype(np.float64))
    _, grads = model.loss_and_grads(parameters, batch)

    def total():
        encoder, predictor, _ = model.forward(parameters, batch)
        integers = batch.targets, batch.encoder_lengths, batch.target_lengths
        output = parameters["output.weight"], parameters["output.bias"]
        loss = lattice.joint_transducer_loss(encoder, predictor, *output, *integers, posterior_floor=0.0).sum()
        simple = bands.smoothed_loss(*model.simple_logits(parameters, encoder, predictor), *integers, blank=BLANK)[0]
        return (loss + model.SIMPLE_SCALE * simple.sum()) / batch.target_lengths.sum()

    assert set(grads) == set(parameters)
    rng = np.random.default_rng(4)
    for name in ("simple.am.weight", "simple.lm.weight", "simple.lm.bias", "encoder.4.weight", "predictor.weight"):
        at = tuple(rng.integers(n) for n in parameters[name].shape)
        kept, found = parameters[name][at], []
        for step in (1e-5, -1e-5):
            parameters[name][at] = kept + step
            found.append(total())
        parameters[name][at] = kept
        np.testing.assert_allclose(grads[name][at], (found[0] - found[1]) / 2e-5, atol=1e-7)


def test_no_bias_is_above_its_bound():
    scans, rng = split_scans(0)[0], np.random.default_rng(5)
    trained = model.checkpoints(scans, [0, 4], 2, model.parameters_with_simple(rng), rng)
    held_out, before = strings(3, digits=(12, 14)), None
    for step, loss, parameters in trained:
        wide = measure.in_float64(parameters)
        found = measure.errors_of(wide, held_out, before)
        assert list(found) == list(measure.BANDS[: 3 + (step > 0)]) and np.isfinite(loss) == (step > 0)
        for errors in found.values():
            assert (errors["bias"] >= -1e-9).all() and (errors["bias"] > 1e-9).any()
            for name in ("bound", "joint_bound"):
                assert (errors["bias"] <= errors[name] * (1 + 1e-9) + 1e-9).all()
            assert (errors["joint_bound"] <= errors["bound"] * (1 + 1e-9)).all()
            assert ((errors["cells"] > 0) & (errors["cells"] < 1)).all() and (errors["gradient"] > 0).all()
        before = wide


def test_banded_logits_are_rows_of_all():
    parameters = measure.in_float64(model.parameters_with_simple(np.random.default_rng(6)))
    batch = strings(3, seed=7)
    joint = measure.joint_of(parameters, batch)
    bounds = measure.bands_of(parameters, batch, None)["S = 3"]
    own = lattice.transducer_loss(measure.banded_logits(joint, bounds), *joint[4:], bounds=bounds, banded=True)
    np.testing.assert_allclose(own, lattice.joint_transducer_loss(*joint, bounds=bounds), rtol=1e-10)
    assert joint[2].shape[0] == NUM_LABELS
    every = np.zeros_like(bounds[0]), np.full_like(bounds[0], 99)
    np.testing.assert_array_equal(measure.cells_of(joint, every), batch.encoder_lengths * (batch.target_lengths + 1))


@pytest.mark.slow
def test_smoke_run(tmp_path):
    pytest.importorskip("tqdm")
    command = [sys.executable, "-m", "studies.pruning", "--smoke", "--out", str(tmp_path / "new")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert (tmp_path / "new" / "pruning.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "new" / "study.json").read_text())
    assert len(record["rows"]) == 11 and record["table"] == done.stdout.splitlines()
    assert (tmp_path / "new" / "table.md").read_text() == done.stdout
