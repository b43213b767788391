"""Arcs that take several frames ("tdt", "multiblank"), by the fused joint, against the oracle over its logits."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from lattice import Topology
from tests import compare, joint_oracle, oracle, steps_oracle, test_joint
from tests.problems import BFLOAT16, DTYPES
from tests.steps_problems import NEMO, PLACES, STEPS, blank_at, joint_problem, joint_problems, labels_stay, name_of
from tests.test_certified import check_report, compare_with_dense, report
from tests.test_posteriors import compare_all, padded

FLOOR = 2.0**-24
check = partial(test_joint.check, truth_of=steps_oracle.joint_loss_and_grad)
of_steps = pytest.mark.parametrize("topology", STEPS, ids=name_of)
of_floors = pytest.mark.parametrize("posterior_floor", [0, FLOOR])


def long_lengths(topology):
    """As many labels as a topology has room for beside some blanks."""
    return [60, 31, 44], [20 if labels_stay(topology) else 14, 9, 0]


@of_steps
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
def test_ragged_batches(topology, dtype, activation):
    options = {"activation": activation, "dtype": dtype, "frames": 9}
    check(joint_problem(1, topology, **options))
    check(joint_problem(2, topology, use_bias=False, blank=blank_at("first", 9, topology), **options))
    check(joint_problem(3, topology, sharpness=8.0, blank=blank_at("middle", 9, topology), **options))


@given(
    joint_problems(),
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.37, -25.0]), min_size=5, max_size=5),
    st.sampled_from([0.0, 0.01, 1.0]),
    st.sampled_from([0.0, FLOOR, 1e-3]),
)
def test_anything(problem, grad_loss, fastemit_lambda, posterior_floor):
    wide = problem.encoder.dtype == np.float64
    grad_loss = np.array(grad_loss[: len(problem.targets)], np.float64 if wide else np.float32)
    check(problem, grad_loss=grad_loss, fastemit_lambda=fastemit_lambda, posterior_floor=posterior_floor)


@of_floors
@pytest.mark.parametrize("durations, frames", [((2,), 6), ((2, 5), 7)])
def test_poison_in_frames_where_no_alignment_passes_is_nothing(durations, frames, posterior_floor):
    topology, options = Topology("tdt", durations=durations), {"posterior_floor": posterior_floor}
    problem = joint_problem(20, topology, lengths=([frames] * 2, [2, 1]))
    expected = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, **options)
    arcs = steps_oracle.alignments(frames, 1, topology)
    passed = {t for alignment in arcs for t, *_ in alignment}
    assert 0 < len(passed) < frames
    problem.encoder[:, [t for t in range(frames) if t not in passed]] = np.nan
    found = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, **options)
    np.testing.assert_array_equal(found[0], expected[0])
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(one, other)


@of_steps
def test_gradients_are_finite_differences(topology):
    problem = joint_problem(4, topology, batch=2, frames=5, labels=2, vocab=5, width=3, dtype=np.float64)
    upstream = np.array([1.0, -0.6])
    _, grads = lattice.joint_transducer_loss_and_grad(
        *problem.args, **problem.options, posterior_floor=0, grad_loss=upstream
    )
    for position, grad in enumerate(grads):

        def weighted(x, position=position):
            args = [*problem.args[:position], x, *problem.args[position + 1 :]]
            return upstream @ lattice.joint_transducer_loss(*args, **problem.options, posterior_floor=0)

        real = ~np.isnan(problem.args[position])
        expected = np.where(real, oracle.finite_differences(weighted, problem.args[position]), 0)
        np.testing.assert_allclose(grad, expected, atol=1e-7, err_msg=grads._fields[position])


@of_steps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_options_of_the_joint(topology, dtype):
    """Bounds, vocabularies, shared encoders, FastEmit, upstream gradients; and what `vjp` and the report say."""
    upstream = np.array([1, -2.5, 0, 0.3, 7], dtype)
    extra = {"fastemit_lambda": 0.7, "grad_loss": upstream}
    lengths = [6, 6, 4, 6, 4], [1, 2, 0, 0, 1]
    options = {"hypotheses": 5, "lengths": lengths, "bounded": True, "vocabulary": "lengths", "dtype": dtype}
    problem = joint_problem(5, topology, blank=blank_at("middle", 9, topology), **options)
    loss, grads = check(problem, **extra)
    kept = {"posterior_floor": 0, "fastemit_lambda": 0.7}
    other, pull = lattice.joint_transducer_loss_vjp(*problem.args, **problem.options, **kept)
    compare.assert_same(other, loss, per_example=True)
    for _ in range(2):
        for ours, expected in zip(pull(upstream), grads, strict=True):
            compare.assert_same(ours, expected, scale=10)
    told = report(problem, posterior_floor=0)
    check_report(told, problem)
    np.testing.assert_array_equal(told.certified, told.cells)


@of_steps
@pytest.mark.parametrize("kind", ["full", "lengths", "endings"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_vocabularies_are_of_tokens(topology, kind, dtype):
    """The rows of durations belong to every example, whatever its vocabulary is."""
    problem = joint_problem(6, topology, vocab=30, blank=blank_at("middle", 30, topology), vocabulary=kind, dtype=dtype)
    _, grads = check(problem)
    used = np.isin(np.arange(30), problem.vocabulary)
    assert kind == "full" or (grads.weight[:30][~used] == 0).all()
    assert len(grads.weight) == 30 + topology.tail and grads.weight[30:].any(axis=1).all()
    check(replace(problem, blank=problem.blank - 30))  # the same token, counted from the last
    check(joint_problem(7, topology, frames=15, labels=5, sharpness=8.0, vocabulary=kind, dtype=dtype))


@of_steps
@of_floors
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_overwriting_changes_where_not_what(topology, dtype, posterior_floor):
    problem = joint_problem(8, topology, frames=12, dtype=dtype, sharpness=8.0)
    floor = {"posterior_floor": posterior_floor}
    loss, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, **floor)
    given = problem.encoder.copy(), problem.predictor.copy(), *problem.args[2:]
    other, over = lattice.joint_transducer_loss_and_grad(*given, **problem.options, **floor, overwrite=True)
    assert np.shares_memory(over.encoder, given[0]) and np.shares_memory(over.predictor, given[1])
    np.testing.assert_array_equal(other, loss)
    for ours, expected in zip(over, grads, strict=True):
        compare.assert_same(ours, expected)


@of_steps
def test_half_precision_meets_float32_weights(topology):
    for dtype in (np.float16, BFLOAT16):
        loss, grads = check(joint_problem(9, topology, dtype=dtype, weight_dtype=np.float32))
        assert loss.dtype == np.float32
        assert [grad.dtype for grad in grads] == [dtype, dtype, np.float32, np.float32]


@of_steps
@of_floors
def test_more_labels_and_ids_than_any_block(topology, posterior_floor):
    """No sizes that divide anything: tiles and blocks end in the middle."""
    problem = joint_problem(10, topology, lengths=([79, 43, 6], [37, 19, 0]), vocab=131, width=13)
    check(problem, posterior_floor=posterior_floor)


def posteriors_of(encoder, predictor, *rest, topology, bounds, blank, vocabulary, vocabulary_lengths, dtype, **options):
    """The oracle's posteriors, summed over what an arc's step is, of logits that the oracle's joint makes."""
    found = []

    def keep(n, logits, labels, _):
        given = {"blank": blank, "topology": topology, "bounds": oracle.row_of(bounds, n)}
        loss, *gammas = steps_oracle.arc_posteriors(*steps_oracle.arc_scores(logits, labels, **given), topology)
        found.append((loss, *(gamma.sum(axis=-1) for gamma in gammas)))
        return loss, np.zeros_like(logits)

    assert vocabulary is None and vocabulary_lengths is None
    joint_oracle.through_joint(keep, encoder, predictor, *rest, **options, dtype=dtype)
    return padded((len(predictor), encoder.shape[1], predictor.shape[1]), found, dtype)


@of_steps
@of_floors
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_posteriors(topology, dtype, posterior_floor):
    """Of all arcs of a cell that are blanks, and of all that are labels, whatever frames they take."""
    problem = joint_problem(11, topology, frames=12, bounded=True, dtype=dtype)
    truth, naive = oracle.truth_and_naive(posteriors_of, dtype, *problem.args, **problem.options)
    ours = lattice.joint_transducer_posteriors(*problem.args, **problem.options, posterior_floor=posterior_floor)
    scale = (1 + np.abs(problem.weight.astype(float)).max()) * np.maximum(1, truth[0].astype(float))
    compare_all(ours, truth, naive, scale, slack=400 * posterior_floor)
    assert ours.blank[0].sum() > 1 and abs(ours.label.sum() - problem.target_lengths.sum()) < 0.1


@of_steps
def test_it_is_the_loss_of_its_logits(topology):
    """Against the other door, on logits made here; alignments and posteriors too."""
    problem = joint_problem(12, topology, frames=12, bounded=True, dtype=np.float64)
    hidden = np.tanh(problem.encoder[:, :, None] + problem.predictor[:, None])
    options = {"blank": problem.blank, "topology": topology, "bounds": problem.bounds}
    given = hidden @ problem.weight.T + problem.bias, *problem.args[4:]
    loss, grad_logits = lattice.transducer_loss_and_grad(*given, **options)
    ours, grads = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, posterior_floor=0)
    compare.assert_same(ours, loss, what="loss")
    compare.assert_same(grads.bias, grad_logits.sum(axis=(0, 1, 2)), scale=2 * loss.max(), what="bias")
    frames, score = lattice.transducer_alignment(*given, **options)
    joint_frames, joint_score = lattice.joint_transducer_alignment(*problem.args, **problem.options)
    np.testing.assert_array_equal(joint_frames, frames)
    compare.assert_same(joint_score, score, what="score")


@of_steps
def test_alignments_of_the_joint(topology):
    problem = joint_problem(13, topology, frames=12, dtype=np.float64)
    frames, score = lattice.joint_transducer_alignment(*problem.args, **problem.options)
    hidden = np.tanh(problem.encoder[:, :, None] + problem.predictor[:, None])
    logits = hidden @ problem.weight.T + problem.bias
    for b, (t, u) in enumerate(zip(*problem.args[5:], strict=True)):
        rows = logits[b, :t, : u + 1], problem.targets[b, :u]
        expected, emitted = steps_oracle.best_alignment(*rows, blank=problem.blank, topology=topology)
        np.testing.assert_allclose(score[b], expected, rtol=1e-12)
        assert frames[b, :u].tolist() == emitted and (frames[b, u:] == -1).all()


@of_steps
@pytest.mark.parametrize("sharpness", [0.0, 6.0, 20.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certified_is_dense(topology, sharpness, dtype):
    """Untrained lattices are dense, trained-like ones are not; in vocabularies, within bounds, or neither."""
    options = {"vocab": 40, "width": 16, "sharpness": sharpness, "lengths": long_lengths(topology), "dtype": dtype}
    for kind, bounded in ((None, False), ("lengths", False), (None, True)):
        problem = joint_problem(14, topology, vocabulary=kind, bounded=bounded, **options)
        told = compare_with_dense(problem)
        check_report(told, problem)
        if sharpness and not bounded:
            assert told.certified[0] < told.cells[0] and told.occupied[0] < 0.7 * told.cells[0]
        check(problem, posterior_floor=FLOOR, fastemit_lambda=0.3, grad_loss=np.array([1, -2, 0.5], dtype))


@pytest.mark.parametrize("name", ["tdt", "multiblank"])
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_certified_where_steps_differ(name, taken):
    """One blank, or one duration, is as good as all of the probability: bounds by any other would close its arcs."""
    topology = Topology(name, durations=(1, 2, 4) if name == "tdt" else (2, 4), sigma=0.05)
    problem = joint_problem(18, topology, vocab=20, width=16, sharpness=8.0, lengths=([61, 33], [14, 7]))
    at = 20 + taken if name == "tdt" else 19 - taken
    problem.bias[17 if name == "multiblank" else 20 :] -= 40
    problem.bias[at] += 48
    told = compare_with_dense(problem)
    check_report(told, problem)
    assert (told.certified < told.cells).all()
    check(problem, posterior_floor=FLOOR)


@pytest.mark.parametrize("name", ["tdt", "multiblank"])
def test_hundreds_of_frames(name):
    """As parakeet has them: long, sharp, and mostly skipped."""
    topology = Topology(name, durations=(2, 4, 8)) if name == "multiblank" else NEMO
    lengths = [400, 250], [80, 30]
    problem = joint_problem(15, topology, lengths=lengths, vocab=60, width=24, sharpness=8.0, activation="relu")
    problem.weight[...] *= 0.5
    problem.encoder[..., :2] *= 0.2
    problem.predictor[..., :2] *= 0.2
    told = compare_with_dense(problem)
    check_report(told, problem)
    assert (told.certified < 0.6 * told.cells).all()
    flat = joint_problem(16, topology, lengths=([300], [20]), vocab=60, width=24)
    check_report(compare_with_dense(flat), flat)


@pytest.mark.parametrize("place", PLACES)
@of_floors
def test_losses_above_ten_thousand(place, posterior_floor):
    for topology in STEPS:
        problem = joint_problem(17, topology, frames=24, blank=blank_at(place, 9, topology), activation="identity")
        problem.weight[...] *= 1e3
        loss, grads = check(problem, posterior_floor=posterior_floor)
        assert loss[0] > 1e4 and all(np.isfinite(grad).all() for grad in grads)
