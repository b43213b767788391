"""Beam search against enumeration where nothing is dropped, against plain Python where something is, and its laws."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare, decode_problems
from tests.decode_problems import decode_problem, every_alignment, every_sequence, exact_score
from tests.problems import BFLOAT16, DTYPES, TOPOLOGIES, name_of

HAT = lattice.Topology(hat=True), lattice.Topology("monotonic", hat=True)
ALL = 4096
"""A beam from which nothing is dropped here."""


def decode(problem, beam, nbest=None):
    """[[(score, labels), ...] for each example], -inf and NaN included, after a look at the shapes."""
    nbest = beam if nbest is None else nbest
    found = lattice.beam_decode(*problem.args, **problem.options, beam=beam, nbest=nbest)
    assert isinstance(found, lattice.Hypotheses)
    labels, lengths, score, frames, label_scores = found
    assert labels.dtype == lengths.dtype == frames.dtype == np.int32
    assert score.dtype == label_scores.dtype == (np.float64 if problem.encoder.dtype == np.float64 else np.float32)
    assert lengths.shape == score.shape == (len(problem.lengths), nbest) and labels.shape == (
        *score.shape,
        lengths.max(),
    )
    padding = np.arange(labels.shape[2]) >= lengths[:, :, None]
    assert labels.shape == frames.shape == label_scores.shape
    assert (labels[padding] == -1).all() and (labels[~padding] >= 0).all()
    assert (frames[padding] == -1).all() and not label_scores[padding].any() and (label_scores[~padding] <= 0).all()
    assert not lengths[np.isneginf(score)].any()
    rows = [[row[:length].tolist() for row, length in zip(*pair)] for pair in zip(labels, lengths, strict=True)]
    return [list(zip(scores, sequences, strict=True)) for scores, sequences in zip(score, rows, strict=True)]


def assert_exact(problem, b, found):
    """Every score is that of its labels, summed over all alignments."""
    precisions = (np.longdouble, np.float64) if problem.weight.dtype == np.float64 else (np.float64, np.float32)
    truth, naive = (np.array([exact_score(problem, b, labels, dtype) for _, labels in found]) for dtype in precisions)
    compare.assert_close(np.array([score for score, _ in found]), truth, naive, per_example=True, what=f"example {b}")


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("allowed", [None, "all", "some"])
@pytest.mark.parametrize(
    "topology, most", [("rnnt", 1), ("rnnt", 2), ("monotonic", 0), (HAT[0], 2), (HAT[1], 0)], ids=name_of
)
def test_a_beam_that_drops_nothing_is_exact(topology, most, allowed, dtype):
    """All label sequences are found, each with the sum over its alignments, best first."""
    frames = 2 if most == 2 else 3
    problem = decode_problem(
        20,
        vocab=4,
        frames=frames,
        batch=3,
        topology=topology,
        most=most,
        allowed=allowed,
        dtype=dtype,
        blank=2,
        blank_lead=0.0,
    )
    for b, rows in enumerate(decode(problem, ALL, 200)):
        found = [(score, labels) for score, labels in rows if score > -np.inf]
        assert sorted(labels for _, labels in found) == sorted(every_sequence(problem, b))
        scores = [score for score, _ in rows]
        assert scores == sorted(scores, reverse=True)
        assert_exact(problem, b, found)


@pytest.mark.parametrize("beam", [1, 2, 3, 7])
@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("topology", [*TOPOLOGIES, *HAT], ids=name_of)
def test_a_beam_that_drops_some_drops_the_worst(topology, allowed, beam):
    """The same hypotheses and scores as the search over dictionaries."""
    for seed in range(4):
        problem = decode_problem(
            seed, frames=7, vocab=6, topology=topology, allowed=allowed, most=3, dtype=np.float64, blank=-1
        )
        whole = lattice.beam_decode(*problem.args, **problem.options, beam=beam, nbest=beam)
        for b, found in enumerate(decode(problem, beam)):
            expected = decode_problems.beam_search(problem, b, beam)
            assert [labels for _, labels in found[: len(expected)]] == [one.labels for one in expected]
            scores = [one.score for one in expected] + [-np.inf] * (beam - len(expected))
            np.testing.assert_allclose([score for score, _ in found], scores, rtol=1e-12)
            for one, frames, label_scores in zip(expected, whole.frames[b], whole.label_scores[b]):
                assert frames[: len(one.frames)].tolist() == one.frames
                np.testing.assert_allclose(label_scores[: len(one.frames)], one.label_scores, rtol=1e-12)


@pytest.mark.parametrize("topology", [*TOPOLOGIES, *HAT], ids=name_of)
def test_labels_are_placed_by_their_best_alignment(topology):
    problem = decode_problem(32, frames=3, vocab=4, batch=3, topology=topology, most=2, dtype=np.float64)
    found = lattice.beam_decode(*problem.args, **problem.options, beam=ALL, nbest=40)
    for b, n in np.ndindex(3, 40):
        length = found.lengths[b, n]
        if length:
            labels = found.labels[b, n, :length].tolist()
            _, emissions = max(every_alignment(problem, b, labels), key=lambda pair: pair[0])
            assert found.frames[b, n, :length].tolist() == [t for t, _ in emissions]
            scores = [score for _, score in emissions]
            np.testing.assert_allclose(found.label_scores[b, n, :length], scores, rtol=1e-12)
    assert found.lengths.max() > 2


@pytest.mark.parametrize("beam", [1, 3, 8])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_hypotheses_are_distinct_and_no_score_is_above_the_exact_one(topology, beam):
    problem = decode_problem(21, frames=4, vocab=5, topology=topology, most=2, dtype=np.float64)
    for b, rows in enumerate(decode(problem, beam)):
        found = [(score, labels) for score, labels in rows if score > -np.inf]
        assert len({tuple(labels) for _, labels in found}) == len(found)
        assert [score for score, _ in found] == sorted((score for score, _ in found), reverse=True)
        for score, labels in found:
            assert score <= exact_score(problem, b, labels) + 1e-12


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_wider_beams_find_better_labels(topology):
    """The exhaustive one always, others on the average over problems, judged by the exact scores."""
    best, frames = {beam: [] for beam in (1, 2, 4, ALL)}, 3 if topology == "rnnt" else 5
    for seed in range(12):
        problem = decode_problem(
            seed, frames=frames, vocab=4, topology=topology, most=2, dtype=np.float64, blank_lead=0.0
        )
        for beam, scores in best.items():
            scores += [exact_score(problem, b, rows[0][1]) for b, rows in enumerate(decode(problem, beam, 1))]
    assert (np.array(best[ALL]) >= np.max([best[1], best[2], best[4]], axis=0) - 1e-12).all()
    means = [np.mean(scores) for scores in best.values()]
    assert means == sorted(means) and means[0] < means[-1]


@pytest.mark.parametrize("allowed", [None, "some"])
def test_a_monotonic_beam_of_one_is_greedy(allowed):
    problem = decode_problem(22, frames=9, batch=5, topology="monotonic", allowed=allowed, blank_lead=0.0)
    labels, lengths, score, *_ = lattice.greedy_decode(*problem.args, **problem.options)
    for b, ((beam_score, beam_labels),) in enumerate(decode(problem, 1)):
        assert beam_labels == labels[b, : lengths[b]].tolist() and beam_score == score[b]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, BFLOAT16], ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_scores_are_those_of_the_loss_over_the_same_vocabulary(topology, dtype):
    """Labels that cannot exceed the limit of a frame, against `joint_transducer_loss`."""
    problem = decode_problem(23, frames=3, vocab=5, batch=3, topology=topology, most=2, allowed="some", dtype=dtype)
    found = [
        (b, score, labels)
        for b, rows in enumerate(decode(problem, ALL, 400))
        for score, labels in rows
        if score > -np.inf and len(labels) <= (2 if topology == "rnnt" else 3)
    ]
    owner = np.array([b for b, _, _ in found])
    lengths = np.array([len(labels) for _, _, labels in found])
    targets = np.zeros((len(found), 3), np.int64)
    predictor = np.zeros((len(found), 4, 5), dtype)
    vocabulary = np.full((len(found), 5), -1)
    for n, (b, _, labels) in enumerate(found):
        targets[n, : len(labels)] = labels
        ids, blank = problem.ids(b)
        vocabulary[n, : len(ids)] = ids
        predictor[n, : len(labels) + 1] = [
            problem.predictor.vector([blank, *labels[:u]]) for u in range(len(labels) + 1)
        ]
    loss = lattice.joint_transducer_loss(
        problem.encoder,
        predictor,
        problem.weight,
        problem.bias,
        targets,
        problem.lengths[owner],
        lengths,
        topology=topology,
        vocabulary=vocabulary,
        encoder_index=owner,
        posterior_floor=0,
    )
    assert len(found) > 20 and len(set(owner.tolist())) == 3
    compare.assert_same(np.array([score for _, score, _ in found]), -loss)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_allowed_vocabularies(topology):
    problem = decode_problem(24, batch=6, frames=5, vocab=9, topology=topology, blank_lead=-1.0)
    free = decode(problem, 5)
    everything = replace(problem, allowed=np.random.default_rng(0).permuted(np.tile(np.arange(9), (6, 1)), axis=1))
    for rows, others in zip(free, decode(everything, 5), strict=True):
        assert [labels for _, labels in rows] == [labels for _, labels in others]
        compare.assert_same(*(np.array([score for score, _ in side]) for side in (rows, others)))
    some = replace(problem, allowed=np.array([[3, 0], [3, 5], [8, 1], [5, 3], [0, -1], [2, -1]]))
    for row, found in zip(some.allowed, decode(some, 5), strict=True):
        used = {v for _, labels in found for v in labels}
        assert used <= set(row.tolist()) - {0, -1} and bool(used) == (row.max() > 0)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_fewer_hypotheses_than_asked_for(topology):
    problem = decode_problem(25, batch=3, frames=1, vocab=2, most=2, topology=topology, blank=1)
    for rows in decode(problem, 7, 6):
        found = [labels for score, labels in rows if score > -np.inf]
        assert sorted(found) == ([[], [0], [0, 0]] if topology == "rnnt" else [[], [0]])
        assert all(labels == [] for _, labels in rows[len(found) :])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_labels_at_all(topology):
    problem = decode_problem(26, most=0, topology=topology, vocab=7 if topology == "rnnt" else 1)
    for b, rows in enumerate(decode(problem, 3)):
        assert [labels for _, labels in rows] == [[]] * 3 and np.isneginf([score for score, _ in rows[1:]]).all()
        assert_exact(problem, b, rows[:1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_frame_of_nan_ends_its_example_alone(topology, allowed, value):
    problem = decode_problem(
        27, lengths=[6, 5, 4], allowed=allowed, topology=topology, activation="identity", dtype=np.float64
    )
    expected = decode(problem, 4)
    expected[1] = decode(replace(problem, lengths=np.array([6, 2, 4])), 4)[1]
    problem.encoder[1, 2] = value
    found = decode(problem, 4)
    assert np.isnan([score for score, _ in found[1]]).all()
    for rows, others in zip(found, expected, strict=True):
        assert [labels for _, labels in rows] == [labels for _, labels in others]
    for b in (0, 2):
        compare.assert_same(*(np.array([score for score, _ in side[b]]) for side in (found, expected)))
    problem.encoder[1, 0] = value
    at_once = decode(problem, 4)[1]
    assert [labels for _, labels in at_once] == [[]] * 4 and np.isnan([score for score, _ in at_once]).all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_has_no_probability_is_not_found(topology):
    problem = decode_problem(28, topology=topology, blank=2)
    problem.bias[[0, 3]] = -np.inf
    assert not {0, 3} & {v for rows in decode(problem, 4) for _, labels in rows for v in labels}
    problem.bias[...] = -np.inf
    assert decode(problem, 4) == [[(-np.inf, [])] * 4] * 4


@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_batch_is_its_examples(topology, allowed):
    problem = decode_problem(29, batch=5, frames=8, topology=topology, allowed=allowed, dtype=np.float64)
    for b, rows in enumerate(decode(problem, 4)):
        (own,) = decode(problem.single(b), 4)
        assert [labels for _, labels in own] == [labels for _, labels in rows]
        compare.assert_same(*(np.array([score for score, _ in side]) for side in (own, rows)))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_ties_go_to_the_lower_id(topology):
    problem = decode_problem(30, frames=1, batch=2, topology=topology, vocab=5, most=1, blank=1, use_bias=False)
    problem.weight[...] = 0
    order = [[0], [], [2], [3], [4]] if topology == "monotonic" else [[], [0], [2], [3], [4]]
    for rows in decode(problem, 5):
        assert [labels for _, labels in rows] == order


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_predictor_is_asked_for_new_labels_alone_and_for_all_at_once(topology):
    """At most one call a level, and never for a label in the last frame of a monotonic search."""
    problem = decode_problem(31, batch=3, lengths=[4, 4, 1], most=2, topology=topology)
    decode(problem, 3)
    first, *others = problem.predictor.calls
    assert first.tolist() == [0] * 3
    assert len(others) <= {"rnnt": 4 * 2, "monotonic": 3, "constrained": 4}[topology]
    assert max(map(len, others)) <= 9 and 0 not in np.concatenate(others)
