"""Every topology with every option of its scores: best alignments, the loss along one, bounds, and both searches."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare, problems
from tests.decode_problems import beam_search, decode_problem, every_sequence
from tests.path_problems import path_problem
from tests.problems import GARBAGE_IDS, VARIANTS, joint_problem, logits_problem, name_of
from tests.test_beam_decode import assert_exact, decode
from tests.test_best_path import assert_bounds_the_loss
from tests.test_best_path import check as check_best
from tests.test_decode import check as check_greedy
from tests.test_path_loss import check as check_path
from tests.test_path_oracle import LOSSES
from tests.test_topology_laws import SMALL, of_variants

SCORED = [topology for topology in VARIANTS if topology.delay_penalty == 0]
of_scored = pytest.mark.parametrize("topology", SCORED, ids=name_of)


@of_variants
def test_every_small_lattice_has_its_best_alignment(topology):
    lengths = SMALL[topology.name]
    options = {"lengths": lengths, "vocab": 4, "topology": topology, "dtype": np.float64}
    check_best(logits_problem(1, blank=-1, **options))
    check_best(joint_problem(2, batch=lengths.shape[1], blank=2, **options))


@of_variants
def test_alignments_within_bounds_and_vocabularies(topology):
    for dtype in (np.float32, np.float64):
        options = {"topology": topology, "dtype": dtype, "bounded": True}
        problem = logits_problem(3, **options)
        frames, score = check_best(problem)
        assert_bounds_the_loss(problem, frames, score)
        problem = joint_problem(4, vocabulary="lengths", hypotheses=5, sharpness=4.0, blank=1, **options)
        assert_bounds_the_loss(problem, *check_best(problem))


@of_variants
def test_of_equal_alignments_the_one_with_the_blank_at_the_end(topology):
    # One label alone is as likely as a blank, so that sums in any order are equal.
    problem = logits_problem(5, lengths=([5], [3]), vocab=2, topology=topology, dtype=np.float64)
    problem.logits[...] = 0
    found, _ = check_best(problem)
    if topology.delay_penalty == 0:
        assert found[0, :3].tolist() == ([0, 0, 0] if topology.name == "rnnt" else [0, 1, 2])


def test_a_penalty_moves_the_best_alignment():
    """Of all that are as probable, the earliest or the latest."""
    for name, early, late in (("rnnt", [0, 0], [4, 4]), ("monotonic", [0, 1], [3, 4]), ("constrained", [0, 1], [3, 4])):
        logits, targets, lengths = np.zeros((1, 6, 3, 4)), np.array([[1, 2]]), (np.array([5]), np.array([2]))
        for penalty, frames in ((0.1, early), (-0.1, late)):
            topology = lattice.Topology(name, delay_penalty=penalty)
            found, score = lattice.transducer_alignment(logits, targets, *lengths, topology=topology)
            assert found[0].tolist() == frames
            arcs = 5 if name == "monotonic" else 7
            expected = -arcs * np.log(4) + penalty * sum(2 - t for t in frames)
            np.testing.assert_allclose(score, expected, rtol=1e-14)


@of_variants
@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[3], LOSSES[-1]], ids=str)
def test_the_loss_along_an_alignment(topology, loss):
    upstream = np.array([1, -2, 0, 0.5])
    for dtype in (np.float32, np.float64):
        options = {"topology": topology, "dtype": dtype}
        check_path(path_problem(6, blank=3, **options), **loss)
        problem = path_problem(7, frames=12, labels=6, vocabulary="lengths", sharpness=4.0, blank=-1, **options)
        check_path(problem, grad_loss=upstream.astype(dtype), **loss)


@pytest.mark.parametrize("loss", LOSSES[:1] + LOSSES[3:4], ids=str)
def test_what_a_blank_leaves_may_be_nobodys(loss):
    """Where no label has a probability a blank is no surer, so its row has a loss, and a gradient."""
    topology = lattice.Topology("monotonic", hat=True)
    problem = path_problem(15, batch=2, lengths=([4, 3], [0, 0]), topology=topology, dtype=np.float64)
    problem.bias[1:] = -np.inf
    found, grads = check_path(problem, **loss)
    assert (found > 0).all() and np.isfinite(found).all() and grads.bias[0] and not grads.bias[1:].any()


@of_variants
def test_along_an_alignment_it_is_the_sum_within_bounds_of_width_zero(topology):
    problem = path_problem(8, frames=14, labels=9, topology=topology, dtype=np.float64)
    frames = np.where(np.isin(problem.frames, GARBAGE_IDS), -1, problem.frames)
    lengths = problem.target_lengths, problem.encoder_lengths
    bounds = lattice.alignment_bounds(frames, *lengths, left=0, right=0, topology=topology)
    for b, (labels, length) in enumerate(zip(*lengths, strict=True)):
        expected = problems.band(frames[b, :labels], length, 0, 0, topology)
        for ours, theirs in zip(bounds, expected, strict=True):
            np.testing.assert_array_equal(ours[b, :length], theirs)
    given = problem.args[:5] + problem.args[6:]
    loss, grads = lattice.joint_transducer_loss_and_grad(*given, **problem.options, bounds=bounds, posterior_floor=0)
    found, along = lattice.joint_path_loss_and_grad(*problem.args, **problem.options)
    compare.assert_same(found, loss, per_example=True)
    for ours, other in zip(along, grads, strict=True):
        compare.assert_same(ours, other, scale=8 * np.abs(loss).max())


@of_variants
@pytest.mark.parametrize("allowed", [None, "some"])
def test_greedy_search(topology, allowed):
    for dtype in (np.float32, np.float64):
        options = {"topology": topology, "allowed": allowed, "dtype": dtype}
        _, lengths, *_ = check_greedy(decode_problem(9, frames=9, blank_lead=0.0, **options))
        assert lengths.any()
        check_greedy(decode_problem(10, use_bias=False, blank=-1, most=2, **options))


@pytest.mark.parametrize("hat", [False, True])
def test_a_frame_of_constrained_ends_with_the_blank_behind_its_label(hat):
    """Also where labels are likelier than any blank: it is rnnt with a label in a frame, and not monotonic."""
    problem = decode_problem(11, topology=lattice.Topology("constrained", hat=hat), blank_lead=-9.0, dtype=np.float64)
    found = check_greedy(problem)
    assert (found.lengths == problem.lengths).all()
    rnnt = replace(problem, topology=replace(problem.topology, name="rnnt"), max_labels_per_frame=1)
    for ours, other in zip(found, check_greedy(rnnt), strict=True):
        np.testing.assert_array_equal(ours, other)
    monotonic = check_greedy(replace(problem, topology=replace(problem.topology, name="monotonic")))
    assert (found.score < monotonic.score - 1).all()


@of_scored
def test_a_beam_that_drops_nothing_is_exact(topology):
    problem = decode_problem(
        12, vocab=4, frames=3, batch=3, topology=topology, most=1, dtype=np.float64, blank=2, blank_lead=0.0
    )
    for b, rows in enumerate(decode(problem, 4096, 200)):
        found = [(score, labels) for score, labels in rows if score > -np.inf]
        assert sorted(labels for _, labels in found) == sorted(every_sequence(problem, b))
        assert_exact(problem, b, found)


@of_scored
@pytest.mark.parametrize("beam", [1, 3])
def test_a_beam_that_drops_some_drops_the_worst(topology, beam):
    problem = decode_problem(13, frames=7, vocab=6, topology=topology, most=3, dtype=np.float64, blank=-1)
    for b, rows in enumerate(decode(problem, beam)):
        expected = beam_search(problem, b, beam)
        assert [labels for _, labels in rows] == [one.labels for one in expected]
        np.testing.assert_allclose([score for score, _ in rows], [one.score for one in expected], rtol=1e-12)


@of_scored
@pytest.mark.parametrize("door", ["greedy_decode", "beam_decode"])
def test_decoding_knows_no_delay_penalty(door, topology):
    problem = decode_problem(14, topology=topology, blank_lead=0.0)
    expected = getattr(lattice, door)(*problem.args, **problem.options)
    late = replace(problem, topology=replace(topology, delay_penalty=-50.0))
    for ours, other in zip(getattr(lattice, door)(*late.args, **late.options), expected, strict=True):
        np.testing.assert_array_equal(ours, other)
