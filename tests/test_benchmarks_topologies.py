"""What the benchmark of topologies measures: gradients as the oracle has them, and problems as a trained model's."""

import numpy as np
import pytest

import lattice
from benchmarks import recursion, topologies

TIMED = [name for name in topologies.VARIANTS if name in topologies.TIMED]
SIZE = 2, 40, 8, 12, 64


def test_gradients_of_every_variant_are_those_of_the_oracle(monkeypatch):
    assert topologies.check() < 1e-4
    truth_of = topologies.truth_of

    def off(problem, topology):
        loss, grads = truth_of(problem, topology)
        return loss, [grad * (1.01 if topology.name == "multiblank" else 1) for grad in grads]

    monkeypatch.setattr(topologies, "truth_of", off)
    with pytest.raises(RuntimeError, match="from the oracle"):
        topologies.check()


@pytest.mark.parametrize("make", [topologies.trained_like, topologies.untrained])
@pytest.mark.parametrize("name", TIMED)
def test_problems_have_rows_for_all_arcs_and_no_blank_among_the_labels(make, name):
    topology = topologies.VARIANTS[name]
    problem, (_, _, _, V, H) = make(topology, *SIZE), SIZE
    assert problem.weight.shape == (V + topology.tail, H) and problem.bias.shape == (V + topology.tail,)
    assert problem.targets.min() > topologies.blank_of(topology) and problem.targets.max() < V
    assert np.isfinite(lattice.joint_transducer_loss(*problem, **topologies.asked(topology))).all()


def test_big_blanks_of_a_trained_model_save_frames():
    topology = topologies.VARIANTS["multiblank"]
    problem, blank = topologies.trained_like(topology, *SIZE), topologies.blank_of(topology)
    hidden = np.tanh(problem.encoder[:, :, None] + problem.predictor[:, None])
    best = (hidden @ problem.weight.T + problem.bias).argmax(-1)
    # No label is left, and no due frame: 4 frames are the longest, then 3 (by two), 2 and 1.
    assert best[0, -4:, -1].tolist() == [blank - 2, blank - 1, blank - 1, blank]


def test_the_row_of_durations_is_of_arcs_with_durations(monkeypatch):
    T, U, topology, width = recursion.SHAPES["tdt, 0 to 4"]
    assert (T, U, width) == (500, 100, None) and topology.durations == (0, 1, 2, 3, 4)
    given = []

    def timed(call, *arguments):
        given.append(arguments[-1])
        call(*arguments)
        return 1.0

    monkeypatch.setattr(recursion, "timed", timed)
    row = recursion.sweeps(40, 6, topology, None, 1)
    assert row == {"cells": 40 * 7, "forward": 1e9 / 280, "posteriors": 1e9 / 280}
    np.testing.assert_array_equal(given[0].steps, topology.steps)
    # What was given to the forward pass alone still holds scores.
    np.testing.assert_allclose(np.exp(given[0].score + topology.sigma).sum(0), 1, rtol=1e-5)
