"""The best alignment, from logits and from the joint, against the enumeration of all of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

import lattice
from tests import compare, joint_oracle, oracle, path_oracle, problems
from tests.problems import DTYPES, TOPOLOGIES, joint_problem, logits_problem, name_of, random_frames


def align(problem, **extra):
    door = lattice.transducer_alignment if hasattr(problem, "logits") else lattice.joint_transducer_alignment
    return door(*problem.args, **problem.options, **extra)


def loss_of(problem, **changes):
    if hasattr(problem, "logits"):
        return lattice.transducer_loss(*problem.args, **problem.options | changes)
    return lattice.joint_transducer_loss(*problem.args, **problem.options | changes, posterior_floor=0)


def of_each(problem, function, dtype):
    """function(n, logits, targets, blank=..., topology=..., bounds=...) of every example: a list."""
    found = []

    def of_logits(n, logits, targets, blank):
        bounds = oracle.row_of(problem.bounds, n)
        found.append(function(n, logits, targets, blank=blank, topology=problem.topology, bounds=bounds))
        return 0, np.zeros_like(logits)

    if hasattr(problem, "logits"):
        for n, (t, u) in enumerate(zip(problem.logit_lengths, problem.target_lengths, strict=True)):
            of_logits(n, problem.logits[n, :t, : u + 1].astype(dtype), problem.targets[n, :u], problem.blank)
        return found
    options = {name: value for name, value in problem.options.items() if name not in ("topology", "bounds")}
    joint_oracle.through_joint(of_logits, *problem.args, **options, dtype=dtype)
    return found


def check(problem, **extra):
    """Against the enumeration, and the worth of the found frames against the best; returns what the door gave."""
    frames, score = align(problem, **extra)
    given = problem.args[0].dtype
    assert frames.dtype == np.int32 and frames.shape == problem.targets.shape
    assert score.dtype == (np.float64 if given == np.float64 else np.float32)

    def best(dtype):
        def of_example(n, logits, targets, *, topology, **options):
            best, emitted = path_oracle.best_by_enumeration(logits, targets, topology=topology, **options, dtype=dtype)
            if emitted is None:
                return best, None, best
            arcs = oracle.arcs_along(frames[n, : len(targets)].tolist(), len(logits), topology)
            scores = oracle.arc_scores(logits, targets, topology=topology, **options)[1:]
            return best, emitted, path_oracle.score_of(arcs, *scores)

        scores, emitted, worth = zip(*of_each(problem, of_example, dtype))
        return np.array(scores), emitted, np.array(worth)

    dtype = given if hasattr(problem, "logits") else problem.weight.dtype
    (truth, expected, worth), (naive, naively, _) = oracle.truth_and_naive(best, dtype)
    compare.assert_close(score, truth, naive, per_example=True, what="score")
    for n, emitted in enumerate(expected):
        labels = problem.target_lengths[n]
        assert (frames[n, labels:] == -1).all()
        if emitted is None:
            assert (frames[n] == -1).all()
            continue
        compare.assert_close(worth[n].astype(score.dtype), truth[n], naive[n], what=f"what alignment {n} is worth")
        if emitted == naively[n]:  # and not a matter of rounding
            np.testing.assert_array_equal(frames[n, :labels], emitted)
    return frames, score


def assert_equal(results, others):
    for ours, theirs in zip(results, others, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def assert_bounds_the_loss(problem, frames, score):
    """No alignment is more probable than all; alone it is all there is."""
    loss = loss_of(problem)
    assert (np.isneginf(score) == np.isposinf(loss)).all()
    some = np.isfinite(score)
    gain = np.maximum(score[some] + loss[some], 0)
    compare.assert_same(gain, np.zeros_like(gain), scale=max(1, loss[some].max(initial=0)), what="score above -loss")
    lengths = problem.args[-2]
    if some.all() and len(score):
        bounds = lattice.alignment_bounds(
            frames, problem.target_lengths, lengths, left=0, right=0, topology=problem.topology
        )
        compare.assert_same(score, -loss_of(problem, bounds=bounds), per_example=True, what="score")


@given(problems.logits_problems())
def test_anything_from_logits(problem):
    found = check(problem)
    assert_bounds_the_loss(problem, *found)
    packed = replace(problem, logits=problem.pack(problem.logits))
    assert_equal(align(packed), found)


@given(problems.joint_problems(dropout=False))
def test_anything_from_the_joint(problem):
    assert_bounds_the_loss(problem, *check(problem))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_small_lattice_is_its_enumeration(topology, dtype):
    lengths = np.array([(t, u) for t in range(1, 5) for u in range(5) if topology == "rnnt" or u <= t]).T
    check(logits_problem(0, lengths=lengths, vocab=5, topology=topology, dtype=dtype))
    check(joint_problem(0, batch=lengths.shape[1], lengths=lengths, vocab=5, topology=topology, dtype=dtype))


@pytest.mark.parametrize("dtype", [np.float16, problems.BFLOAT16], ids=name_of)
def test_half_precision_meets_float32_weights(dtype):
    check(joint_problem(1, dtype=dtype, weight_dtype=np.float32))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_hypotheses_share_encoder_rows(topology, dtype):
    problem = joint_problem(
        2, batch=3, hypotheses=8, topology=topology, dtype=dtype, bounded=True, vocabulary="lengths"
    )
    assert not (np.diff(problem.encoder_index) >= 0).all()
    frames, score = check(problem)
    assert len(frames) == len(score) == 8


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_alignment_of_a_sharp_lattice_is_the_planted_one(topology):
    """More labels than a byte has bits and than a warp has lanes, and more frames than any run.

    The alignments are planted at random. The second search is within a band.
    """
    rng = np.random.default_rng(3)
    T, U = np.array([90, 70, 13]), np.array([60, 33, 0])
    planted = [random_frames(rng, t, u, topology) for t, u in zip(T, U, strict=True)]
    targets = rng.integers(1, 5, (3, 61))
    logits = np.zeros((3, 90, 62, 5), np.float32)
    for b, emitted in enumerate(planted):
        for t, u, is_label in oracle.arcs_along(emitted.tolist(), T[b], topology):
            logits[b, t, u, targets[b, u] if is_label else 0] = 20
    frames, score = lattice.transducer_alignment(logits, targets, T, U, topology=topology)
    assert (score > -1e-2).all() and (frames[:, 60:] == -1).all()
    for b, emitted in enumerate(planted):
        assert frames[b, : U[b]].tolist() == emitted.tolist()
    bounds = lattice.alignment_bounds(frames, U, T, left=2, right=3, topology=topology)
    banded = lattice.transducer_alignment(logits, targets, T, U, topology=topology, bounds=bounds)
    assert_equal(banded, (frames, score))


@pytest.mark.parametrize("frames", [3, 5])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("last", [-5, 0, 5])
def test_of_equal_alignments_the_one_with_the_blank_at_the_end(last, topology, frames):
    """Equal logits, or a last frame that likes its labels, or its blank."""
    problem = logits_problem(4, lengths=([frames], [3]), vocab=4, topology=topology, dtype=np.float64)
    problem.logits[...] = 0
    problem.logits[0, frames - 1, :, 1:] = last
    found, _ = check(problem)
    earliest = [0, 0, 0] if topology == "rnnt" else [0, 1, 2]
    if last == 0:
        assert found[0, :3].tolist() == earliest


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_labels_one_frame_and_as_many_labels_as_frames(topology):
    check(joint_problem(5, batch=3, lengths=([4, 1, 7], [0, 0, 0]), topology=topology, slack=(0, 0)))  # targets (B, 0)
    frames, _ = check(logits_problem(6, lengths=([1, 5, 5], [1, 5, 0]), topology=topology))
    if topology != "rnnt":
        assert frames[1, :5].tolist() == [0, 1, 2, 3, 4]
    else:
        frames, _ = check(logits_problem(7, lengths=([1], [5])))
        assert frames[0, :5].tolist() == [0] * 5


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_minus_infinity_closes_ways(topology):
    problem = logits_problem(11, lengths=([6, 6, 5], [3, 2, 2]), topology=topology)
    problem.logits[0, :4, 0, problem.targets[0, 0]] = -np.inf  # not before frame 4
    problem.logits[1, :, 1, problem.targets[1, 1]] = -np.inf  # never
    problem.logits[2, 1] = -np.inf  # a whole frame
    if topology != "rnnt":
        problem.logits[0, :4, 0, problem.targets[0, 0]] = [0, -np.inf, -np.inf, 0]
    frames, score = check(problem)
    assert np.isfinite(score[0]) and np.isneginf(score[1:]).all()
    assert frames[0, 0] in ((4, 5) if topology == "rnnt" else (0, 3))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_bias_of_minus_infinity_masks_an_id(topology):
    """Others never emit it, and an example that needs it has no alignment."""
    problem = joint_problem(17, vocab=12, topology=topology, lengths=([6, 5, 7], [3, 2, 4]), batch=3)
    used = set(problem.targets[:2][np.isin(problem.targets[:2], np.arange(12))].tolist())
    problem.bias[next(v for v in problem.targets[2, :4].tolist() if v not in used)] = -np.inf
    _, score = check(problem)
    assert np.isneginf(score).tolist() == [False, False, True]
    problem.bias[...] = -np.inf
    frames, score = check(problem)
    assert np.isneginf(score).all() and (frames == -1).all()
