"""Certified sparse lattices: what is left out never matters, and the report says how much that is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from lattice.kernels import occupied
from lattice.tiles import certificate, full_sum
from tests import compare, oracle
from tests.oracle import most_of_a_row
from tests.problems import ACTIVATIONS, DROPOUTS, DTYPES, TOPOLOGIES, joint_problem, name_of
from tests.test_joint import check, gradient_scale, slack_of

FLOOR = 2.0**-24
LENGTHS = ([60, 31, 44], [20, 9, 0])


def report(problem, **extra):
    return lattice.joint_transducer_report(*problem.args, **problem.options, **extra)


def trained_like(seed=15, sharpness=8.0, **options):
    return joint_problem(
        seed, **{"batch": 3, "lengths": LENGTHS, "vocab": 40, "width": 16, "sharpness": sharpness, **options}
    )


def compare_with_dense(problem, posterior_floor=FLOOR, **extra):
    """Loss and gradients against those of all cells, within what the report allows; returns the report."""
    extra["posterior_floor"] = posterior_floor
    told = report(problem, **extra)
    dense_loss, dense = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=0)
    loss, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, **extra)
    alone = lattice.joint_transducer_loss(*problem.args, **problem.options, **extra)
    assert (told.certificate >= 0).all() and (told.certificate <= 1e-6).all()
    compare.assert_same(loss, dense_loss, per_example=True, slack=told.certificate.max(), what="loss")
    compare.assert_same(alone, loss, per_example=True, what="loss alone")
    arcs = problem.encoder_lengths + problem.target_lengths
    kappa = most_of_a_row(problem.topology)
    l1 = float(np.sum(kappa * (told.skipped_posterior + 2 * arcs * told.certificate)))
    # `slack_of` carries one unit of the logits' gradient in a single cell back to the inputs.
    cells = int(np.sum(problem.encoder_lengths * (problem.target_lengths + 1)))
    slack = l1 * slack_of(problem, 1.0) / (kappa * cells)
    size = np.abs(dense_loss[np.isfinite(dense_loss)]).max(initial=1)
    scale = size * gradient_scale(problem, dense_loss)
    for name, ours, other in zip(grads._fields, grads, dense, strict=True):
        if other is not None:
            compare.assert_same(ours, other, scale=scale, slack=slack, k=64, what=name)
    return told


def check_report(told, problem):
    assert (told.occupied <= told.certified).all()
    assert (told.certified <= told.cells).all()
    assert (told.skipped_posterior >= 0).all()
    assert told.workspace_bytes <= 256 << 20
    assert len(told.cells) == len(problem.targets)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(TOPOLOGIES),
    st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0]),
    st.sampled_from([np.float32, np.float32, np.float64]),
    st.sampled_from([None, "lengths", "endings"]),
    st.booleans(),
    st.sampled_from([None, 30]),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(DROPOUTS),
)
def test_certified_is_dense(seed, topology, sharpness, dtype, vocabulary, bounded, hypotheses, activation, dropout):
    """24 to 30 lattices at a time."""
    problem = joint_problem(
        seed,
        batch=24,
        frames=30,
        labels=9,
        vocab=12,
        width=6,
        topology=topology,
        sharpness=sharpness,
        dtype=dtype,
        vocabulary=vocabulary,
        bounded=bounded,
        hypotheses=hypotheses,
        activation=activation,
        dropout=dropout,
    )
    check_report(compare_with_dense(problem), problem)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_sharp_lattices_are_sparse_and_right(topology, dtype):
    problem = trained_like(topology=topology, dtype=dtype)
    check(problem, posterior_floor=FLOOR)
    told = compare_with_dense(problem)
    check_report(told, problem)
    assert (told.certified[:2] < 0.5 * told.cells[:2]).all()
    assert told.certified[2] == told.cells[2]  # without labels there is one path
    assert (told.rounds >= 1).all()


def test_flat_lattices_go_the_dense_way():
    for problem in (trained_like(sharpness=0), trained_like(sharpness=1.0, topology="monotonic")):
        told = compare_with_dense(problem)
        np.testing.assert_array_equal(told.certified, told.cells)
        assert not told.certificate.any()


def test_ties_go_the_dense_way():
    problem = trained_like(sharpness=0)
    problem.weight[...] = 0
    problem.bias[...] = 0
    told = compare_with_dense(problem)
    np.testing.assert_array_equal(told.certified, told.cells)


def test_it_is_decided_for_each_example():
    """One sharp lattice, and two that know nothing: their hidden vectors are far too small for the weights."""
    problem = trained_like(lengths=([60, 40, 60], [20, 10, 20]))
    problem.encoder[1:] *= np.float32(1e-3)
    problem.predictor[1:] *= np.float32(1e-3)
    told = compare_with_dense(problem)
    assert told.certified[0] < 0.5 * told.cells[0]
    np.testing.assert_array_equal(told.certified[1:], told.cells[1:])


def from_logits(logits, targets, **options):
    """A problem whose logits are encoder + predictor: (T, V) and (U+1, V)."""
    encoder, predictor = (np.asarray(part, np.float32)[None] for part in logits)
    base = joint_problem(0, batch=1, frames=4, labels=2, use_bias=False)
    vocab = encoder.shape[-1]
    return replace(
        base,
        encoder=encoder,
        predictor=predictor,
        weight=np.eye(vocab, dtype=np.float32),
        targets=np.array([targets]),
        encoder_lengths=np.array([encoder.shape[1]]),
        target_lengths=np.array([len(targets)]),
        activation="identity",
        **options,
    )


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_likely_path_is_far_from_what_the_bounds_suggest(topology):
    """Blanks rule between the pair everywhere, so the bounds wait until the end.

    A third id makes waiting all but impossible.
    """
    T, U, V = 60, 15, 5
    t, u = np.arange(T, dtype=np.float32), np.arange(U + 1, dtype=np.float32)
    encoder, predictor = np.zeros((T, V)), np.zeros((U + 1, V))
    encoder[:, 0], encoder[:, 4], predictor[:, 4] = 3, 2 * t - 20, -2 * 4 * u
    problem = from_logits((encoder, predictor), [1, 2, 3] * 5, topology=topology)
    told = compare_with_dense(problem)
    loss = lattice.joint_transducer_loss(*problem.args, **problem.options)
    assert np.isfinite(loss).all()
    assert told.occupied[0] < told.cells[0]
    check(problem, posterior_floor=FLOOR)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("late", [2, 50.0, 300.0])
def test_all_mass_on_one_late_label(topology, late):
    T, V = 80, 6
    encoder, predictor = np.zeros((T, V)), np.zeros((2, V))
    encoder[:, 0] = late
    encoder[-1] = 0
    encoder[-1, 3] = late
    problem = from_logits((encoder, predictor), [3], topology=topology)
    compare_with_dense(problem)
    check(problem, posterior_floor=FLOOR)


def from_any_logits(logits, targets):
    """A problem of one example with the logits (T, U+1, V): relu leaves each cell one hidden entry of its own."""
    T, rows, V = logits.shape
    encoder = np.repeat(np.eye(T), rows, axis=1)
    predictor = np.tile(np.eye(rows), T) - 1
    problem = from_logits((encoder, predictor), targets)
    return replace(problem, weight=np.ascontiguousarray(logits.reshape(-1, V).T, np.float32), activation="relu")


@pytest.mark.parametrize("frames", [60, 200])
def test_many_small_doors(frames):
    """Ways out of the likely row, each far below the floor, that lead through the same cells: those are above it."""
    logits = np.full((frames, 4, 5), -60.0)
    logits[:, 0, 0] = logits[:, 1, 2] = logits[:, 2, 3] = logits[:, 3, 0] = 0
    logits[: frames // 4, 0, 1] = np.log(6e-9)
    logits[-1, 0, :2] = -60.0, 0
    problem = from_any_logits(logits, [1, 2, 3])
    truth = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    label = np.pad(truth[:, range(3), [1, 2, 3]], ((0, 0), (0, 1)), constant_values=-np.inf)
    blank_posterior, label_posterior = oracle.arc_posteriors(truth[..., 0], label, "rnnt")[1:]
    posterior = blank_posterior + label_posterior
    for floor in (FLOOR, 1e-6):
        told = compare_with_dense(problem, floor)
        assert told.certificate[0] <= floor
        assert posterior[posterior < 0.5 * floor].sum() <= told.skipped_posterior[0]
        assert told.occupied[0] >= (posterior > 2 * floor).sum()


@pytest.mark.parametrize("sharpness, times", [(20.0, 1), (6.0, 10), (6.0, 100)])
def test_large_logits_keep_their_gradients(sharpness, times):
    """The backward pass multiplies other rows together than the forward pass does.

    Large logits round to other numbers.
    """
    problem = trained_like(1, sharpness=sharpness, batch=2, lengths=([60, 53], [12, 9]), width=64)
    problem.weight[...] *= np.float32(times)
    _, dense = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=0)
    _, grads = check(problem, posterior_floor=FLOOR)
    for name, ours, other in zip(grads._fields, grads, dense, strict=True):
        assert np.linalg.norm(ours - other) < 2e-6 * np.linalg.norm(other), name


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_logits_far_from_zero(topology, offset):
    problem = trained_like(topology=topology, sharpness=10.0)
    problem.bias[...] += np.float32(offset)
    told = compare_with_dense(problem)
    # An offset of all logits moves no score, and its rounding little.
    assert told.certified[0] < 0.5 * told.cells[0]
    problem = trained_like(topology=topology)
    problem.weight[...] *= 1e4
    compare_with_dense(problem)


@pytest.mark.parametrize(
    "activation, pair", [("tanh", (np.inf, -np.inf)), ("identity", (3e38, 3e38)), ("relu", (np.nan, 0.0))]
)
def test_a_cell_that_cannot_be_bounded_is_seen(activation, pair):
    """NaN or infinity stands in a cell far off any likely path.

    Dense lattices see the cell, so the certified walk has to. The cell touches no other example.
    """
    problem = trained_like(lengths=([60, 60], [20, 20]), batch=2, activation=activation)
    if activation != "tanh":
        problem = replace(problem, encoder=np.tanh(problem.encoder), predictor=np.tanh(problem.predictor))
    weight = np.pad(problem.weight, ((0, 0), (0, 1)), constant_values=1e-3)
    encoder, predictor = (np.pad(x, ((0, 0), (0, 0), (0, 1))) for x in (problem.encoder, problem.predictor))
    encoder[0, 0, -1], predictor[0, 20, -1] = pair
    problem = replace(problem, encoder=encoder, predictor=predictor, weight=weight)
    patterns = []
    for floor in (0, FLOOR):
        loss, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=floor)
        assert np.isnan(loss).tolist() == [True, False], floor
        assert not np.isnan(grads.encoder[1]).any()
        patterns.append(np.isnan(grads.encoder[0, :60]))
    assert patterns[0].any(axis=1).all()
    np.testing.assert_array_equal(*patterns)


def test_the_floor_of_zero_proves_nothing(monkeypatch):
    problem = trained_like()
    monkeypatch.setattr(full_sum, "certify", None)
    loss, _ = lattice.joint_transducer_loss_and_grad(*problem.args, posterior_floor=0)
    assert np.isfinite(loss).all()
    told = report(problem, posterior_floor=0)
    np.testing.assert_array_equal(told.certified, told.cells)
    assert (told.occupied <= told.cells).all() and (told.skipped_posterior <= 2.0**-100 * told.cells).all()
    assert not told.rounds.any() and not told.certificate.any()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_cells_without_a_row_of_the_gradient_are_left_out_at_any_floor(topology, monkeypatch):
    """Below a posterior of 2**-100 all entries of a row are 0. Visiting such cells changes sums by rounding only."""
    problem = trained_like(topology=topology)
    told = report(problem, posterior_floor=0)
    assert (told.certified == told.cells).all() and (told.occupied[:2] < 0.9 * told.cells[:2]).all()
    loss, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=0)
    monkeypatch.setattr(occupied, "NEGLIGIBLE", 0.0)
    np.testing.assert_array_equal(report(problem, posterior_floor=0).occupied, told.cells)
    every_loss, every = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=0)
    np.testing.assert_array_equal(loss, every_loss)
    for one, other in zip(grads, every, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(other).max())


def test_rounds_end(monkeypatch):
    """When they do, what is missing is computed."""
    problem = trained_like(dtype=np.float64)
    assert report(problem).rounds.max() > 2
    monkeypatch.setattr(certificate, "ROUNDS", 2)
    told = compare_with_dense(problem)
    assert told.rounds.max() == 2
    assert told.certified[0] == told.cells[0]


@pytest.mark.parametrize("posterior_floor", [0.9, 1e-3, 1e-30, 1e-300, 5e-324])
def test_any_floor(posterior_floor):
    """However high, the loss keeps its certificate; however low, nothing breaks."""
    problem = trained_like()
    told = compare_with_dense(problem, posterior_floor)
    check_report(told, problem)
    if posterior_floor > 0.5:
        assert (told.occupied < told.certified)[:2].all()


def test_the_report_is_the_batch_and_not_the_groups():
    """In the order of the targets, though examples that share an encoder row are worked on together."""
    problem = joint_problem(8, batch=4, hypotheses=9, frames=40, labels=12, vocab=30, width=12, sharpness=8.0)
    told = report(problem)
    np.testing.assert_array_equal(told.cells, problem.encoder_lengths * (problem.target_lengths + 1))
    small = report(problem, memory_limit=1 << 18)
    assert small.workspace_bytes <= 1 << 18 < told.workspace_bytes
    for name in ("cells", "certified", "occupied", "rounds"):
        np.testing.assert_array_equal(getattr(small, name), getattr(told, name), err_msg=name)
    for n in range(9):
        rows = slice(n, n + 1)
        single = lattice.joint_transducer_report(
            problem.encoder,
            problem.predictor[rows],
            *problem.args[2:4],
            *(x[rows] for x in problem.args[4:]),
            encoder_index=problem.encoder_index[rows],
        )
        assert single.certified[0] == told.certified[n] and single.occupied[0] == told.occupied[n]


def test_the_report_takes_the_call_it_reports_on_and_writes_nothing():
    problem = trained_like()
    for wrong, text in (
        ({"fastemit_lambda": -1.0}, "fastemit_lambda"),
        ({"grad_loss": np.ones(2, np.float32)}, "grad_loss"),
    ):
        with pytest.raises(ValueError, match=text):
            report(problem, **wrong)
    before = problem.encoder.copy()
    told = report(problem, fastemit_lambda=0.1, grad_loss=np.ones(3, np.float32), overwrite=True)
    np.testing.assert_array_equal(problem.encoder, before)
    assert told._fields == (
        "cells",
        "certified",
        "occupied",
        "rounds",
        "certificate",
        "skipped_posterior",
        "exit_posterior",
        "workspace_bytes",
    )
    with pytest.raises(ValueError, match=r"posterior_floor is 1\.0"):
        report(problem, posterior_floor=1.0)


def test_a_report_of_nothing():
    problem = trained_like()
    empty = [x[:0] if position not in (2, 3) else x for position, x in enumerate(problem.args)]
    told = lattice.joint_transducer_report(*empty)
    assert all(len(column) == 0 for column in told[:-1])


def test_infeasible_examples_cost_nothing():
    problem = trained_like(topology="monotonic", lengths=([60, 31, 44], [20, 9, 3]))
    problem = replace(problem, encoder_lengths=np.array([60, 5, 44]))
    told = report(problem)
    assert told.cells[1] == told.certified[1] == told.occupied[1] == 0
    first = np.zeros((3, 60), np.int64)
    last = np.full((3, 60), 20)
    last[0, 7] = -1
    told = report(replace(trained_like(), bounds=(first, last)))
    assert told.cells[0] > 0 == told.certified[0] == told.occupied[0]
