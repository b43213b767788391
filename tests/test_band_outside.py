"""Lattices whose likely alignments run where nobody looks first: the band alone is wrong, and the result is not."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests.band_problems import LIMITS, call, force
from tests.test_certified import check_report, compare_with_dense, from_any_logits


def towards(T, U, V=6):
    """Logits (T, U+1, V) that know nothing, and targets; label u has id 1 + u % 4."""
    return np.zeros((T, U + 1, V)), [1 + u % 4 for u in range(U)]


def alone(problem, near):
    """The loss over a band about given frames, and nothing else."""
    own = np.array([near]), problem.target_lengths, problem.encoder_lengths
    bounds = lattice.alignment_bounds(*own, left=5, right=5)
    return call("loss", replace(problem, bounds=bounds), posterior_floor=0.0)


def prefer(logits, targets, emitted, sure):
    """Make one alignment likely, until the end of the lattice, and all that leave it lag."""
    T, rows, _ = logits.shape
    for t in range(T):
        for u in range(rows):
            due = u < rows - 1 and t >= emitted[u]
            logits[t, u, targets[u] if due else 0] += sure


def all_mass_on_one_late_label():
    logits, targets = towards(60, 9)
    prefer(logits, targets, [55] * 9, 9.0)
    # Early labels cost little each, and dear together.
    logits[:30, :, 1:5] += 5.0
    return logits, targets, [3 * u for u in range(9)]


def a_bridge_outside_of_the_band():
    """One door of probability 1e-5 leads to cells where nothing is lost. On the band each frame costs 0.7 nats."""
    T, U = 60, 14
    logits, targets = towards(T, U)
    logits[...] = -40.0
    due = [4 * u for u in range(U)]
    for t in range(T):
        for u in range(U + 1):
            # The third id takes half.
            logits[t, u, [targets[u] if u < U and t >= due[u] else 0, 5]] = 0.0
    for u in range(U):
        logits[2, u] = -40.0
        logits[2, u, [0, targets[u]]] = [0.0, -11.0 if u == 1 else 0.0] if u == 1 else [-40.0, 0.0]
    logits[2:, U] = -40.0
    logits[2:, U, 0] = 0.0
    return logits, targets, due


def mass_that_leaves_and_returns():
    """In the middle, the likely alignment runs far above the frames that are named, and is met again behind."""
    T, U = 90, 30
    logits, targets = towards(T, U)
    likely = [u if u < 5 else 15 if u < 20 else 3 * u for u in range(U)]
    prefer(logits, targets, likely, 14.0)
    return logits, targets, [3 * u for u in range(U)]


def all_alike():
    logits, targets = towards(40, 9)
    return logits, targets, [0] * 9


CASES = [all_mass_on_one_late_label, a_bridge_outside_of_the_band, mass_that_leaves_and_returns, all_alike]


@pytest.mark.parametrize("limits", [list(LIMITS), ["SMALL"]], ids=["forced", "small"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_lattices_of_which_a_band_alone_is_wrong(case, limits, monkeypatch):
    logits, targets, near = case()
    problem = from_any_logits(logits, targets)
    dense = call("loss", problem, posterior_floor=0.0)
    assert alone(problem, near)[0] > dense[0] + 0.5
    force(monkeypatch, limits)
    for extra in ({}, {"near": np.array([near])}):
        check_report(compare_with_dense(problem, **extra), problem)
