"""The topology whose label arcs end with a blank: what sets it apart from its neighbours, in small lattices.

The tests of every door take it as one of `TOPOLOGIES`.
"""

from math import comb

import numpy as np
import pytest

import lattice
from tests import compare, joint_oracle, oracle, path_oracle
from tests.problems import joint_problem, logits_problem

LENGTHS = np.array([(t, u) for t in range(1, 5) for u in range(5)]).T
"""Every lattice of up to 4 frames and 4 labels; no alignment has more labels than frames."""


def every_lattice(kind, seed, **options):
    return kind(
        seed, batch=20, frames=4, labels=4, lengths=LENGTHS, topology="constrained", dtype=np.float64, **options
    )


def test_every_small_lattice_of_logits():
    problem = every_lattice(logits_problem, 0, vocab=5)
    loss, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    frames, score = lattice.transducer_alignment(*problem.args, **problem.options)
    for b, (t, u) in enumerate(LENGTHS.T):
        logits, targets = problem.logits[b, :t, : u + 1], problem.targets[b, :u]
        truth = oracle.loss_by_enumeration(logits, targets, topology="constrained")
        np.testing.assert_allclose(loss[b], truth, rtol=1e-13)
        assert np.isposinf(truth) == (u > t)
        best, emitted = path_oracle.best_by_enumeration(logits, targets, topology="constrained")
        np.testing.assert_allclose(score[b], best, rtol=1e-13)
        assert frames[b, :u].tolist() == (emitted or [-1] * u)

        def of(x, targets=targets):
            return oracle.loss_by_enumeration(x, targets, topology="constrained")

        slope = oracle.finite_differences(of, logits.copy()) if u <= t else np.zeros_like(logits)
        np.testing.assert_allclose(grad[b, :t, : u + 1], slope, atol=1e-8)


@pytest.mark.parametrize("sharpness", [0.5, 8.0])
@pytest.mark.parametrize("bounded", [False, True])
def test_every_small_lattice_of_the_joint(bounded, sharpness):
    """Certified, where cells are left out, and dense."""
    fits = LENGTHS[:, LENGTHS[1] <= LENGTHS[0]]
    options = {"topology": "constrained", "dtype": np.float64, "sharpness": sharpness, "bounded": bounded}
    problem = joint_problem(1, batch=fits.shape[1], lengths=fits, vocab=6, **options)
    truth, grads = joint_oracle.joint_loss_and_grad(*problem.args, **problem.options)
    for floor in (2.0**-24, 0.0):
        loss, found = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=floor)
        np.testing.assert_allclose(loss, truth, rtol=1e-11, atol=1e-13)
        for ours, other in zip(found, grads, strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-6 if floor else 1e-11)


@pytest.mark.parametrize(("frames", "labels", "vocab"), [(1, 0, 2), (1, 1, 3), (7, 5, 4), (5, 5, 3), (60, 25, 3)])
def test_the_closed_form(frames, labels, vocab):
    problem = logits_problem(2, lengths=([frames], [labels]), vocab=vocab, topology="constrained", dtype=np.float64)
    problem.logits[...] = 0.5
    expected = (frames + labels) * np.log(vocab) - np.log(comb(frames, labels))
    np.testing.assert_allclose(lattice.transducer_loss(*problem.args, **problem.options), [expected], rtol=1e-13)


def test_up_to_one_label_it_is_rnnt_and_never_likelier():
    problem = logits_problem(3, batch=40, frames=9, labels=5, topology="constrained", dtype=np.float64)
    loss, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    wide = problem.options | {"topology": "rnnt"}
    wider, wide_grad = lattice.transducer_loss_and_grad(*problem.args, **wide)
    few = problem.target_lengths <= 1
    assert few.any() and (wider[~few] < loss[~few]).all()
    compare.assert_same(loss[few], wider[few])
    np.testing.assert_allclose(grad[few], wide_grad[few], atol=1e-13)


def test_a_sharp_lattice_skips_cells_and_its_account_holds():
    """The posterior of a row counts the alignments that only end a pair there."""
    options = {"vocab": 40, "width": 16, "sharpness": 8.0, "topology": "constrained", "dtype": np.float64}
    problem = joint_problem(4, batch=3, lengths=([50, 31, 44], [20, 9, 14]), **options)
    report = lattice.joint_transducer_report(*problem.args, **problem.options)
    T, U = problem.encoder_lengths, problem.target_lengths
    assert (report.cells == (U + 1) * (T - U + 1) - 1 + U).all()
    # An alignment has T + U rows.
    assert (report.occupied >= T + U).all() and (report.certified < 0.6 * report.cells).all()
    exact, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=0.0)
    floor = 1e-3
    report = lattice.joint_transducer_report(*problem.args, **problem.options, posterior_floor=floor)
    loss, found = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=floor)
    assert (np.abs(loss - exact) <= report.certificate + 1e-9).all()
    off = np.abs(found.bias - grads.bias).sum()
    assert 0 < off <= 2 * report.skipped_posterior.sum() + 4 * ((T + U) * report.certificate).sum() + 1e-9
