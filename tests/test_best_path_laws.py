"""Laws of the best alignment: layout, padding, batches, poison."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare
from tests.problems import DTYPES, GARBAGE_IDS, TOPOLOGIES, joint_problem, logits_problem, name_of
from tests.test_best_path import align, assert_equal
from tests.test_inputs import changed


def assert_alike(results, others):
    """The same alignments; products over other runs of cells may round their scores otherwise."""
    np.testing.assert_array_equal(results[0], others[0])
    compare.assert_same(results[1], others[1], per_example=True)


def test_the_label_axis_is_that_of_the_targets():
    """Wider than any target needs, and than the axis of the logits; also where nothing can be aligned."""
    problem = logits_problem(8, slack=(1, 0))
    targets = np.pad(problem.targets, ((0, 0), (0, 7)), constant_values=GARBAGE_IDS[0])
    frames, score = align(problem)
    wide = align(replace(problem, targets=targets))
    assert_alike(wide, (np.pad(frames, ((0, 0), (0, 7)), constant_values=-1), score))
    problem = joint_problem(8, slack=(0, 0))
    frames, score = align(problem)
    wide = align(replace(problem, targets=np.pad(problem.targets, ((0, 0), (0, 7)), constant_values=-1)))
    assert_alike(wide, (np.pad(frames, ((0, 0), (0, 7)), constant_values=-1), score))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("kind", [logits_problem, joint_problem])
def test_infeasible_examples_touch_no_other(kind, dtype):
    problem = kind(9, batch=3, lengths=([4, 6, 5], [3, 2, 3]), topology="monotonic", dtype=dtype)
    expected = align(problem)
    assert np.isfinite(expected[1]).all()
    shape = problem.args[0].shape[:2]
    first, last = np.zeros(shape, np.int32), np.full(shape, 9, np.int32)
    last[1, 3] = -1  # a frame without cells
    lengths = changed(problem.args[-2], 0, 2)  # fewer frames than labels
    name = "logit_lengths" if kind is logits_problem else "encoder_lengths"
    frames, score = align(replace(problem, **{name: lengths}, bounds=(first, last)))
    assert np.isneginf(score[:2]).all() and (frames[:2] == -1).all()
    assert_alike((frames[2:], score[2:]), [x[2:] for x in expected])


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_poison_stays_in_its_example(bad, topology, dtype):
    problem = logits_problem(10, lengths=([5, 6, 4], [3, 3, 2]), topology=topology, dtype=dtype)
    expected = align(problem)
    label = problem.targets[1, 1]
    for t, u in ((0, 0), (2, 1), (5, 3 if topology == "rnnt" else 2)):
        for entry in (0, label, 1 + label % 6):  # blank, label, another id
            poisoned = replace(problem, logits=changed(problem.logits, (1, t, u, entry), bad))
            frames, score = align(poisoned)
            assert np.isnan(score[1]) and (frames[1] == -1).all()
            assert_alike([x[[0, 2]] for x in (frames, score)], [x[[0, 2]] for x in expected])
    joint = joint_problem(
        10, batch=3, lengths=([5, 6, 4], [3, 3, 2]), topology=topology, dtype=dtype, activation="identity"
    )
    expected = align(joint)
    for row in (0, 5):
        frames, score = align(replace(joint, encoder=changed(joint.encoder, (1, row, 2), bad)))
        assert np.isnan(score[1]) and (frames[1] == -1).all()
        assert_alike([x[[0, 2]] for x in (frames, score)], [x[[0, 2]] for x in expected])


@pytest.mark.parametrize("kind", [logits_problem, joint_problem])
def test_a_batch_is_its_examples(kind):
    problem = kind(12, batch=5, frames=17, labels=12, bounded=True)
    frames, score = align(problem)
    names = {name for name in vars(problem) if isinstance(getattr(problem, name), np.ndarray)} - {"weight", "bias"}
    for b in range(5):
        rows = {name: getattr(problem, name)[b : b + 1] for name in names}
        one = align(replace(problem, **rows, bounds=tuple(bound[b : b + 1] for bound in problem.bounds)))
        np.testing.assert_array_equal(one[0], frames[b : b + 1])
        compare.assert_same(one[1], score[b : b + 1])


def test_padding_is_never_read():
    """Other padding, longer padding: the same. (Everywhere else the padding is NaN and ids out of range.)"""
    for kind in (logits_problem, joint_problem):
        frames, score = align(kind(13, slack=(0, 0)))
        long = kind(13, slack=(9, 7))
        for array in long.args[:2]:
            if array.dtype.kind == "f":
                array[np.isnan(array)] = np.inf
        long.targets[np.isin(long.targets, GARBAGE_IDS)] = 0  # the blank's id
        found = align(long)
        np.testing.assert_array_equal(found[0], np.pad(frames, ((0, 0), (0, 7)), constant_values=-1))
        compare.assert_same(found[1], score)


def test_an_empty_batch():
    logits, joint = logits_problem(14), joint_problem(14)
    frames, score = lattice.transducer_alignment(*(x[:0] for x in logits.args))
    assert frames.shape == (0, logits.targets.shape[1]) and score.shape == (0,)
    args = [x if position in (2, 3) else x[:0] for position, x in enumerate(joint.args)]
    frames, score = lattice.joint_transducer_alignment(*args)
    assert frames.shape == (0, joint.targets.shape[1]) and score.shape == (0,)


def test_results_are_fresh_contiguous_and_the_same_twice():
    for problem in (logits_problem(15), joint_problem(15, vocabulary="lengths")):
        for array in problem.args:
            array.setflags(write=False)
        results = align(problem)
        assert all(type(x) is np.ndarray and x.flags.c_contiguous and x.flags.writeable for x in results)
        assert_equal(align(problem), results)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_an_offset_costs_nothing(offset):
    problem = logits_problem(16, frames=14, labels=9)
    problem.logits[...] += offset
    wide = replace(problem, logits=problem.logits.astype(np.float64))
    compare.assert_same(align(problem)[1], align(wide)[1].astype(np.float32), per_example=True)
