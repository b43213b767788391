"""Greedy search where arcs take several frames, against plain Python: durations, big blanks, limits, ties, frames."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice import Topology
from tests import compare
from tests.problems import BFLOAT16, DTYPES, name_of
from tests.timed_decode_problems import exact_score, greedy, greedy_walk, timed_problem

TIMED = (
    Topology("tdt", durations=(0, 1, 2, 4), sigma=0.05),
    Topology("tdt", durations=(1, 3)),
    Topology("multiblank", durations=(2, 4), sigma=0.1),
)
TDT, STEADY, MULTIBLANK = TIMED
of_timed = pytest.mark.parametrize("topology", TIMED, ids=name_of)


def check(problem):
    """The door against the reference in two precisions; what it gave."""
    name = problem.weight.dtype
    truth, naive = (
        [greedy(problem, b, dtype) for b in range(len(problem.lengths))]
        for dtype in ((np.longdouble, np.float64) if name == np.float64 else (np.float64, np.float32))
    )
    found = lattice.greedy_decode(*problem.args, **problem.options)
    assert found.labels.shape[1] == found.lengths.max()
    for b, one in enumerate(truth):
        padding = [-1] * (found.labels.shape[1] - len(one.labels))
        assert found.labels[b].tolist() == one.labels + padding, b
        assert found.frames[b].tolist() == one.frames + padding, b
        expected = (np.array(side[b].label_scores) for side in (truth, naive))
        compare.assert_close(found.label_scores[b, : found.lengths[b]], *expected, per_example=True)
    assert found.lengths.tolist() == [len(one.labels) for one in truth]
    scores = (np.array([one.score for one in side]) for side in (truth, naive))
    compare.assert_close(found.score, *scores, per_example=True)
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("allowed", [None, "all", "some"])
@of_timed
def test_ragged_batches(topology, allowed, dtype):
    options = {"topology": topology, "allowed": allowed, "dtype": dtype}
    assert len(set(check(timed_problem(0, frames=12, **options)).lengths.tolist())) > 1
    check(timed_problem(1, activation="relu", use_bias=False, blank=3, most=2, frames=9, **options))
    check(timed_problem(2, activation="identity", blank=4, batch=1, **options))
    assert check(timed_problem(3, vocab=300, frames=9, blank=299, blank_lead=6.0, **options)).labels.size


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("allowed", [None, "some"])
@of_timed
def test_labels_in_a_frame_are_limited(topology, most, allowed):
    """A blank is taken behind the last one, at its score, by a step that a blank may take."""
    problem = timed_problem(4, topology, most=most, blank_lead=-9.0, allowed=allowed, frames=10)
    if topology == TDT:
        problem.bias[-4] = 3.0  # of the step of no frames
    found = check(problem)
    if allowed is None and topology != STEADY:
        counts = [np.bincount(row[row >= 0], minlength=1).max() for row in found.frames]
        assert max(counts) == most


@pytest.mark.parametrize("topology", [TDT, MULTIBLANK], ids=name_of)
def test_equal_scores_go_to_the_lower_id_and_the_shorter_duration(topology):
    problem = timed_problem(5, topology, batch=1, frames=9, most=2, use_bias=False, blank=3)
    problem.weight[...] = 0
    # Two labels of id 0 in frame 0, and a blank: of one frame behind no frames, or of the big blank's four.
    frames = {TDT: range(9), MULTIBLANK: (0, 4, 8)}[topology]
    found = check(problem)
    assert found.labels.tolist() == [[0, 0] * len(frames)]
    assert found.frames.tolist() == [[t for t in frames for _ in range(2)]]


@of_timed
def test_frames_that_are_skipped_are_not_looked_at(topology):
    """NaN in them is not seen, and no arc of them is scored."""
    problem = timed_problem(6, topology, batch=1, lengths=[9], activation="identity")
    problem.weight[...] = 0
    problem.bias[...] = 0
    long = {TDT: 9, STEADY: 7, MULTIBLANK: 3}[topology]  # the longest duration, or the big blank of four frames
    problem.bias[[long, 5] if problem.is_tdt else long] = 20.0
    jump = topology.durations[-1]
    clean = check(problem)
    problem.encoder[0, [t for t in range(9) if t % jump]] = np.nan
    found = lattice.greedy_decode(*problem.args, **problem.options)
    assert np.isfinite(found.score).all() and found.score == clean.score
    problem.encoder[0, jump] = np.nan
    assert np.isnan(lattice.greedy_decode(*problem.args, **problem.options).score).all()


def test_tokens_and_durations_are_chosen_apart():
    """The best pair would be another one: the blank may not take 0 frames, yet the label wins by its own head."""
    problem = timed_problem(7, TDT, batch=1, lengths=[5], use_bias=True, vocab=3)
    problem.weight[...] = 0
    problem.bias[:] = [1.0, 0.0, 0.9, 0.0, -1.0, -1.0, 2.0]  # label 0, and 4 frames
    found = check(problem)
    assert found.labels.tolist() == [[0, 0]] and found.frames.tolist() == [[0, 4]]
    arc = problem.bias[0] - np.log(np.exp(problem.bias[:3]).sum()) + 2.0 - np.log(np.exp(problem.bias[3:]).sum()) - 0.05
    np.testing.assert_allclose(found.label_scores, [[arc, arc]], rtol=1e-6)
    # The second label leads beyond the last frame: no alignment of the loss does, and the score is that of its arcs.
    np.testing.assert_allclose(found.score, [2 * arc], rtol=1e-6)


@of_timed
def test_scores_of_walks_that_end_in_time_are_of_an_alignment(topology):
    """No score is above the sum over alignments, where the last arc is a blank that leads to T."""
    ended = 0
    for seed in range(8):
        problem = timed_problem(seed, topology, frames=5, blank_lead=2.0, dtype=np.float64, batch=6)
        found = lattice.greedy_decode(*problem.args, **problem.options)
        for b in np.flatnonzero([greedy_walk(problem, b)[1] for b in range(6)]):
            labels = found.labels[b, : found.lengths[b]].tolist()
            assert found.score[b] <= exact_score(problem, b, labels) + 1e-12
            ended += 1
    assert ended > 6


@of_timed
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
def test_half_precision_meets_float32(topology, dtype):
    check(timed_problem(8, topology, dtype=dtype, weight_dtype=np.float32, allowed="some"))


@of_timed
@pytest.mark.parametrize("allowed", [None, "some"])
def test_a_batch_is_its_examples(topology, allowed):
    problem = timed_problem(9, topology, batch=5, frames=12, allowed=allowed, dtype=np.float64)
    found = check(problem)
    for b in range(5):
        own = check(problem.single(b))
        assert own.labels[0].tolist() == found.labels[b, : found.lengths[b]].tolist()
        compare.assert_same(own.score, found.score[b : b + 1])


@of_timed
def test_the_predictor_is_asked_for_new_labels_alone(topology):
    """Once for each label but those whose arc leads beyond the last frame."""
    problem = timed_problem(10, topology, batch=5, frames=12, blank_lead=0.0)
    found = check(problem)
    first, *others = problem.predictor.calls
    assert first.tolist() == [5] * 5
    asked, emitted = sum(map(len, others)), int(found.lengths.sum())
    assert emitted - 5 <= asked <= emitted and set(np.concatenate(others)) <= set(found.labels.ravel().tolist())


@of_timed
def test_minus_infinity_closes_ids_and_durations(topology):
    problem = timed_problem(11, topology, blank_lead=-4.0, frames=8)
    problem.bias[[0, 1]] = -np.inf
    assert not np.isin([0, 1], check(problem).labels).any()
    if problem.is_tdt:
        problem.bias[-1] = -np.inf
        check(problem)
        problem.bias[-4:] = -np.inf
    problem.bias[: problem.tokens] = -np.inf
    closed = [problem] + [replace(problem, bias=np.where(np.arange(10) < 6, 0, -np.inf).astype(np.float32))] * (
        topology == TDT
    )
    for one in closed:
        found = lattice.greedy_decode(*one.args, **one.options)
        assert not found.labels.size and np.isneginf(found.score).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, -1])
@of_timed
def test_a_row_of_nan_ends_its_example_alone(topology, where, value):
    """Also where a duration has it."""
    problem = timed_problem(12, topology, lengths=[6, 5], dtype=np.float64, allowed="all")
    whole = check(problem)
    problem.bias[where] = value
    found = lattice.greedy_decode(*problem.args, **problem.options)
    assert np.isnan(found.score).all() and not found.labels.size
    problem = timed_problem(12, topology, lengths=[6, 5], dtype=np.float64, allowed="all")
    problem.encoder[1, 0] = np.nan
    found = lattice.greedy_decode(*problem.args, **problem.options)
    assert np.isnan(found.score).tolist() == [False, True] and found.score[0] == whole.score[0]
