"""Beam search where arcs take several frames: enumeration where nothing is dropped, plain Python where something is."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice import Topology
from tests import compare
from tests.problems import DTYPES, name_of
from tests.test_beam_decode import decode
from tests.timed_decode_problems import (
    beam_search,
    every_alignment,
    every_sequence,
    exact_score,
    timed_problem,
)

ALL = 4096
"""A beam from which nothing is dropped here."""
TIMED = (
    Topology("tdt", durations=(0, 1, 2), sigma=0.05),
    Topology("tdt", durations=(0, 2, 3)),
    Topology("tdt", durations=(1, 2)),
    Topology("multiblank", durations=(2, 3), sigma=0.1),
)
of_timed = pytest.mark.parametrize("topology", TIMED, ids=name_of)


def labels_and_scores(rows):
    return [(labels, score) for score, labels in rows if score > -np.inf]


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("allowed", [None, "some"])
@of_timed
def test_a_beam_that_drops_nothing_is_exact(topology, allowed, dtype):
    """All label sequences are found, each with the sum over its alignments; frames are those of the best."""
    vocab = 5 if topology.name == "multiblank" else 3
    options = {"vocab": vocab, "frames": 4, "batch": 3, "allowed": allowed, "dtype": dtype, "blank_lead": 0.0}
    problem = timed_problem(20, topology, most=1, **options)
    found = lattice.beam_decode(*problem.args, **problem.options, beam=ALL, nbest=200)
    for b, rows in enumerate(decode(problem, ALL, 200)):
        sequences = labels_and_scores(rows)
        assert sorted(labels for labels, _ in sequences) == sorted(every_sequence(problem, b))
        precisions = (np.longdouble, np.float64) if dtype == np.float64 else (np.float64, np.float32)
        truth, naive = (
            np.array([exact_score(problem, b, labels, kind) for labels, _ in sequences]) for kind in precisions
        )
        scores = np.array([score for _, score in sequences])
        assert (np.diff(scores) <= 0).all()
        compare.assert_close(scores, truth, naive, per_example=True)
        for n, (labels, _) in enumerate(sequences):
            _, emissions = max(every_alignment(problem, b, labels), key=lambda pair: pair[0])
            assert found.frames[b, n, : len(labels)].tolist() == [t for t, _ in emissions]
            expected = [score for _, score in emissions]
            np.testing.assert_allclose(found.label_scores[b, n, : len(labels)], expected, rtol=1e-4)


@pytest.mark.parametrize("durations", [(0, 2), (2, 4)])
def test_alignments_that_run_over_are_not_found(durations):
    """Steps of 2 frames do not lead to an odd T. Greedy search goes beyond it."""
    problem = timed_problem(21, Topology("tdt", durations=durations), lengths=[3, 4], vocab=3, blank_lead=0.0)
    found = lattice.beam_decode(*problem.args, **problem.options, beam=5, nbest=3)
    assert np.isneginf(found.score[0]).all() and np.isfinite(found.score[1, 0])
    assert np.isfinite(lattice.greedy_decode(*problem.args, **problem.options).score).all()


@pytest.mark.parametrize("beam", [1, 2, 3, 7])
@pytest.mark.parametrize("allowed", [None, "some"])
@of_timed
def test_a_beam_that_drops_some_drops_the_worst(topology, allowed, beam):
    """The same prefixes, scores and frames as the search over dictionaries."""
    for seed in range(4):
        problem = timed_problem(seed, topology, frames=8, allowed=allowed, most=3, dtype=np.float64)
        whole = lattice.beam_decode(*problem.args, **problem.options, beam=beam, nbest=beam)
        for b, rows in enumerate(decode(problem, beam)):
            expected = beam_search(problem, b, beam)
            assert [labels for labels, _ in labels_and_scores(rows)] == [one.labels for one in expected]
            scores = [one.score for one in expected] + [-np.inf] * (beam - len(expected))
            np.testing.assert_allclose([score for score, _ in rows], scores, rtol=1e-12)
            for one, frames, label_scores in zip(expected, whole.frames[b], whole.label_scores[b]):
                assert frames[: len(one.frames)].tolist() == one.frames
                np.testing.assert_allclose(label_scores[: len(one.frames)], one.label_scores, rtol=1e-12)


@pytest.mark.parametrize("beam", [1, 3, 8])
@of_timed
def test_no_score_is_above_the_exact_one(topology, beam):
    problem = timed_problem(22, topology, frames=5, most=2, dtype=np.float64)
    for b, rows in enumerate(decode(problem, beam)):
        found = labels_and_scores(rows)
        assert len({tuple(labels) for labels, _ in found}) == len(found)
        for labels, score in found:
            assert score <= exact_score(problem, b, labels) + 1e-12


def test_without_big_blanks_it_is_rnnt():
    topology = Topology("multiblank", durations=(2,))
    problem = timed_problem(23, topology, vocab=4, frames=3, dtype=np.float64, most=2)
    problem.bias[-2] = -np.inf  # the big blank
    sizes = {"beam": ALL, "nbest": 8}
    expected = lattice.beam_decode(*problem.args, **problem.options | {"topology": "rnnt"}, **sizes)
    for ours, other in zip(lattice.beam_decode(*problem.args, **problem.options, **sizes), expected, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-12)


@of_timed
def test_frames_that_nobody_waits_for_are_not_looked_at(topology):
    jump, options = topology.durations[-1], {"activation": "identity", "dtype": np.float64}
    problem = timed_problem(24, topology, lengths=[4 * jump], **options)
    problem.weight[...] = 0
    problem.bias[...] = -np.inf
    problem.bias[[0, 5, -1] if problem.is_tdt else [0, 3]] = 0.0  # label 0 or a blank, of the longest duration
    problem.encoder[0, [t for t in range(4 * jump) if t % jump]] = np.nan
    found = lattice.beam_decode(*problem.args, **problem.options, beam=4, nbest=4)
    assert np.isfinite(found.score).all() and found.lengths.max() > 1
    assert not (found.frames[found.frames >= 0] % jump).any()


@pytest.mark.parametrize("frame, value", [(3, np.nan), (6, np.nan), (3, np.inf)])
@pytest.mark.parametrize("allowed", [None, "some"])
@of_timed
def test_a_frame_of_nan_ends_its_example_alone(topology, allowed, frame, value):
    """With the prefixes that waited for it; those that waited for later frames, and had ended, are gone."""
    problem = timed_problem(27, topology, lengths=[6, 7, 5], allowed=allowed, activation="identity", dtype=np.float64)
    expected = decode(problem, 4)
    waited = beam_search(problem, 1, 4, until=frame)
    problem.encoder[1, frame] = value
    found = decode(problem, 4)
    assert np.isnan([score for score, _ in found[1]]).all()
    assert [labels for _, labels in found[1]] == [one.labels for one in waited]
    for b in (0, 2):
        assert [labels for _, labels in found[b]] == [labels for _, labels in expected[b]]
        compare.assert_same(*(np.array([score for score, _ in side[b]]) for side in (found, expected)))
    problem.encoder[1, 0] = value
    at_once = decode(problem, 4)[1]
    assert [labels for _, labels in at_once] == [[]] * 4 and np.isnan([score for score, _ in at_once]).all()


@of_timed
def test_what_has_no_probability_is_not_found(topology):
    problem = timed_problem(28, topology, frames=8)
    problem.bias[[0, 1]] = -np.inf
    assert not {0, 1} & {v for rows in decode(problem, 4) for _, labels in rows for v in labels}
    if problem.is_tdt:
        closed = replace(problem, bias=problem.bias.copy())
        closed.bias[problem.tokens :] = -np.inf
        assert decode(closed, 4) == [[(-np.inf, [])] * 4] * 4
    problem.bias[...] = -np.inf
    assert decode(problem, 4) == [[(-np.inf, [])] * 4] * 4


@pytest.mark.parametrize("allowed", [None, "some"])
@of_timed
def test_a_batch_is_its_examples(topology, allowed):
    problem = timed_problem(29, topology, batch=5, frames=9, allowed=allowed, dtype=np.float64)
    for b, rows in enumerate(decode(problem, 4)):
        (own,) = decode(problem.single(b), 4)
        assert [labels for _, labels in own] == [labels for _, labels in rows]
        compare.assert_same(*(np.array([score for score, _ in side]) for side in (own, rows)))


@of_timed
def test_the_predictor_is_asked_for_all_at_once(topology):
    """At most one call a level, with each new label once, whatever durations it goes on by."""
    problem = timed_problem(31, topology, batch=3, lengths=[6, 6, 1], most=2)
    decode(problem, 3)
    first, *others = problem.predictor.calls
    assert first.tolist() == [5] * 3
    levels = 1 if topology.name == "tdt" and topology.durations[0] else 2
    assert len(others) <= 6 * levels and max(map(len, others)) <= 3 * 3 * 3
    assert not set(np.concatenate(others).tolist()) & set(problem.blanks)
