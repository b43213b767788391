"""Greedy search against plain Python: topologies, vocabularies, dtypes, limits, padding, ties, NaN."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lattice
from tests import compare, decode_problems
from tests.decode_problems import decode_problem
from tests.problems import ACTIVATIONS, BFLOAT16, DTYPES, TOPOLOGIES, name_of


def check(problem):
    """The door against the reference in two precisions; what it gave."""
    name = problem.weight.dtype
    truth, naive = (
        [decode_problems.greedy(problem, b, dtype) for b in range(len(problem.lengths))]
        for dtype in ((np.longdouble, np.float64) if name == np.float64 else (np.float64, np.float32))
    )
    found = lattice.greedy_decode(*problem.args, **problem.options)
    assert isinstance(found, lattice.Hypotheses)
    labels, lengths, score, frames, label_scores = found
    assert labels.dtype == lengths.dtype == frames.dtype == np.int32
    assert score.dtype == label_scores.dtype == (np.float64 if problem.encoder.dtype == np.float64 else np.float32)
    assert labels.shape == frames.shape == label_scores.shape == (len(truth), max(len(one.labels) for one in truth))
    for b, one in enumerate(truth):
        padding = [-1] * (labels.shape[1] - len(one.labels))
        assert labels[b].tolist() == one.labels + padding and frames[b].tolist() == one.frames + padding, b
        compare.assert_close(
            label_scores[b, : lengths[b]],
            *(np.array(side[b].label_scores) for side in (truth, naive)),
            per_example=True,
        )
        assert not label_scores[b, lengths[b] :].any()
    assert lengths.tolist() == [len(one.labels) for one in truth]
    compare.assert_close(score, *(np.array([one.score for one in side]) for side in (truth, naive)), per_example=True)
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("allowed", [None, "all", "some"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_ragged_batches(topology, allowed, dtype):
    options = {"topology": topology, "allowed": allowed, "dtype": dtype}
    _, lengths, *_ = check(decode_problem(0, frames=9, **options))
    assert len(set(lengths.tolist())) > 1
    check(decode_problem(1, activation="relu", use_bias=False, blank=-1, most=2, **options))
    check(decode_problem(2, activation="identity", blank=3, batch=1, **options))
    check(decode_problem(3, vocab=300, frames=4, blank=299, blank_lead=6.0, **options))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    check(decode_problem(28, activation=activation, frames=8))


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("allowed", [None, "some"])
def test_labels_in_a_frame_are_limited(most, allowed):
    """Also where the blank is never the best; its score is that of the alignment all the same."""
    _, lengths, *_ = check(decode_problem(4, most=most, blank_lead=-9.0, allowed=allowed, vocab=5))
    if allowed is None:
        assert lengths.tolist() == (most * decode_problem(4, vocab=5).lengths).tolist()
    monotonic = decode_problem(4, most=most, blank_lead=-9.0, topology="monotonic")
    _, lengths, *_ = check(monotonic)
    assert lengths.tolist() == monotonic.lengths.tolist()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_one_frame_one_id_no_labels(topology):
    check(decode_problem(5, frames=1, topology=topology))
    labels, lengths, score, *_ = check(decode_problem(6, vocab=1, topology=topology))
    assert labels.shape == (4, 0) and not lengths.any() and not score.any()
    assert check(decode_problem(7, blank_lead=50.0, topology=topology))[0].shape == (4, 0)
    check(decode_problem(8, vocab=2, blank=1, topology=topology, allowed="all"))
    labels, _, score, *_ = check(replace(decode_problem(8, blank=2, topology=topology), allowed=np.full((4, 1), 2)))
    assert labels.shape == (4, 0) and not score.any()


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
def test_half_precision_meets_float32(dtype):
    problem = decode_problem(9, dtype=dtype, weight_dtype=np.float32, allowed="some")
    check(problem)
    problem.predictor.table = problem.predictor.table.astype(np.float32) + np.float32(0.01)
    check(problem)


@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_batch_is_its_examples(topology, allowed):
    problem = decode_problem(10, batch=5, frames=8, topology=topology, allowed=allowed, dtype=np.float64)
    labels, lengths, score, *_ = check(problem)
    for b in range(5):
        own_labels, own_lengths, own_score, *_ = check(problem.single(b))
        assert own_labels[0].tolist() == labels[b, : lengths[b]].tolist() and own_lengths[0] == lengths[b]
        compare.assert_same(own_score, score[b : b + 1])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_predictor_is_asked_for_new_labels_alone(topology):
    problem = decode_problem(11, batch=5, frames=8, topology=topology, blank=1)
    labels, lengths, *_ = check(problem)
    first, *others = problem.predictor.calls
    assert first.tolist() == [1] * 5
    asked = sorted(np.concatenate(others).tolist())
    given = [labels[b, : lengths[b]].tolist() for b in range(5)]
    if topology == "monotonic":
        # A label in the last frame is the last of all.
        shorter = replace(
            problem, encoder=problem.encoder[:, :-1].copy(), lengths=problem.lengths - (problem.lengths > 1)
        )
        given = [decode_problems.greedy(shorter, b)[0] if problem.lengths[b] > 1 else [] for b in range(5)]
    assert asked == sorted(v for row in given for v in row)


@pytest.mark.parametrize("empty", [None, ()])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_predictor_without_a_state(topology, empty):
    problem = decode_problem(12, topology=topology, blank=2)
    states = []

    def predict(labels, state):
        states.append(state)
        return problem.predictor.table[labels], empty

    stateless = replace(problem, predictor=predict)
    labels, lengths, score, *_ = lattice.greedy_decode(*stateless.args, **stateless.options)
    assert len(states) > 1 and states[0] is None and all(state == empty for state in states[1:])

    class Last:
        def vector(self, prefix):
            return problem.predictor.table[prefix[-1]]

    for b in range(4):
        one = decode_problems.greedy(replace(problem, predictor=Last()), b)
        assert labels[b, : lengths[b]].tolist() == one.labels
        assert score[b] == pytest.approx(one.score, rel=1e-5)


@pytest.mark.parametrize("allowed", [None, "all"])
@pytest.mark.parametrize("blank, expected", [(0, []), (3, [0, 0]), (1, [0, 0])])
def test_ties_go_to_the_lower_id(blank, expected, allowed):
    problem = decode_problem(13, blank=blank, most=2, allowed=allowed, batch=1, frames=1, use_bias=False)
    problem.weight[...] = 0
    assert check(problem)[0].tolist() == [expected]
    problem.weight[2:] = problem.weight[2]
    tied = decode_problem(14, batch=6, blank=0, blank_lead=0.0, most=2, allowed=allowed)
    tied.weight[1:4], tied.bias[1:4] = tied.weight[3], 8.0
    assert (check(tied)[0][:, 0] == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_frame_of_nan_ends_its_example_alone(topology, allowed, value):
    problem = decode_problem(
        15, lengths=[6, 5, 4], allowed=allowed, topology=topology, activation="identity", dtype=np.float64
    )
    labels, lengths, score, *_ = check(problem)
    cut = replace(problem, lengths=np.array([6, 2, 4]))
    until = check(cut)[0][1, : check(cut)[1][1]].tolist()
    problem.encoder[1, 2] = value
    poisoned_labels, poisoned_lengths, poisoned, *_ = lattice.greedy_decode(*problem.args, **problem.options)
    assert np.isnan(poisoned).tolist() == [False, True, False]
    assert poisoned_labels[1, : poisoned_lengths[1]].tolist() == until
    for b in (0, 2):
        assert poisoned_labels[b, : poisoned_lengths[b]].tolist() == labels[b, : lengths[b]].tolist()
        compare.assert_same(poisoned[b], score[b])
    problem.weight[3] = np.nan
    in_use = [problem.allowed is None or 3 in problem.ids(b)[0] for b in range(3)]
    poisoned = lattice.greedy_decode(*problem.args, **problem.options)[2]
    assert np.isnan(poisoned).tolist() == [in_use[0], True, in_use[2]]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_minus_infinity_closes_ids(topology):
    problem = decode_problem(16, topology=topology, blank_lead=-4.0, blank=2)
    problem.bias[[0, 3]] = -np.inf
    assert not np.isin([0, 3], check(problem)[0]).any()
    problem.bias[...] = -np.inf
    labels, _, score, *_ = lattice.greedy_decode(*problem.args, **problem.options)
    assert labels.shape == (4, 0) and np.isneginf(score).all()
    # No blank can be taken, and the limit of labels asks for one.
    problem.bias[...] = 0
    problem.bias[2] = -np.inf
    assert np.isneginf(check(problem)[2]).all() == (topology != "monotonic")


def test_arrays_of_any_layout_and_integers_of_either_width():
    problem = decode_problem(17, allowed="some")
    expected = lattice.greedy_decode(*problem.args, **problem.options)
    strided = replace(
        problem,
        encoder=np.asfortranarray(problem.encoder),
        weight=np.asfortranarray(problem.weight),
        bias=np.repeat(problem.bias, 2)[::2],
        lengths=problem.lengths.astype(np.int32),
        allowed=problem.allowed.astype(np.int32)[:, ::-1].copy()[:, ::-1],
    )
    for array in (strided.encoder, strided.weight, strided.lengths, strided.allowed):
        array.setflags(write=False)
    for ours, other in zip(lattice.greedy_decode(*strided.args, **strided.options), expected, strict=True):
        np.testing.assert_array_equal(ours, other)


def test_the_example_of_the_page_runs():
    page = Path(__file__).resolve().parent.parent / "docs" / "decoding.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    names = {}
    exec(block, names)
    assert names["labels"].shape[:2] == (2, 2) and np.isfinite(names["score"]).all()
