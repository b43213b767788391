"""Laws of the integer tools on alignments: padding, layout, batches, the smallest of problems."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests.alignment_problems import random_alignments
from tests.problems import GARBAGE_IDS

ARRAYS = ("frames", "targets", "lengths", "target_lengths")


def all_of(problem, ids=None):
    """What every function gives: bounds, frame-wise ids, frames of ids, shifted frames."""
    frames, targets, lengths, target_lengths = problem.labelled
    rest = {"topology": problem.topology}
    found = [*lattice.alignment_bounds(frames, target_lengths, lengths, left=1, right=2, **rest)]
    found.append(lattice.shift_frames(frames, lengths, target_lengths, 2, **rest))
    if problem.topology == "monotonic":
        ids = problem.strings() if ids is None else ids
        found.append(lattice.frames_to_ids(*problem.labelled, blank=problem.blank))
        found.append(lattice.ids_to_frames(ids, targets, lengths, target_lengths, blank=problem.blank))
    return found


def monotonic(seed, **options):
    """A problem whose equal labels are parted by a frame, so that CTC can spell it."""
    problem = random_alignments(seed, vocab=9, frames=11, labels=5, topology="monotonic", **options)
    for b, (_, targets, _) in enumerate(problem.examples):
        problem.targets[b, : len(targets)] = 1 + np.arange(len(targets)) % 3
    return problem


PROBLEMS = [monotonic(0), random_alignments(1, frames=11, labels=5)]


def assert_equal(results, others):
    for ours, theirs in zip(results, others, strict=True):
        assert ours.dtype == theirs.dtype == np.int32
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("problem", PROBLEMS, ids=["monotonic", "rnnt"])
def test_results_are_fresh_contiguous_and_of_the_same_kind(problem):
    copies = [array.copy() for array in problem.labelled]
    results = all_of(problem)
    assert all(type(x) is np.ndarray and x.flags.c_contiguous and x.flags.writeable for x in results)
    assert not any(np.shares_memory(x, y) for x in results for y in (*problem.labelled, *results) if x is not y)
    for array, copy in zip(problem.labelled, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert_equal(all_of(problem), results)


@pytest.mark.parametrize("problem", PROBLEMS, ids=["monotonic", "rnnt"])
def test_a_batch_is_its_examples(problem):
    together = all_of(problem)
    for b in range(len(problem.frames)):
        alone = all_of(problem.single(b))
        assert_equal(alone, [x[b : b + 1, : y.shape[1]] for x, y in zip(together, alone, strict=True)])


@pytest.mark.parametrize("problem", PROBLEMS, ids=["monotonic", "rnnt"])
def test_padding_is_never_read(problem):
    """Other padding, none, longer padding: the same numbers, and -1 beyond a target."""
    expected, U = all_of(problem), problem.target_lengths.max()
    for garbage in (-1, 0, problem.blank, 1, 2**31 - 1, -(2**63), 2**63 - 1):
        frames, targets = (np.where(problem.real, x, garbage) for x in problem.labelled[:2])
        ids = problem.strings()
        ids[np.isin(ids, GARBAGE_IDS)] = garbage
        assert_equal(all_of(replace(problem, frames=frames, targets=targets), ids), expected)
    cut = replace(problem, frames=problem.frames[:, :U], targets=problem.targets[:, :U])
    long = replace(
        problem, frames=np.pad(problem.frames, ((0, 0), (0, 3))), targets=np.pad(problem.targets, ((0, 0), (0, 3)))
    )
    for found in (
        all_of(cut),
        all_of(long),
        all_of(replace(problem, frames=cut.frames)),
        all_of(replace(problem, targets=cut.targets)),
    ):
        for x, y in zip(found, expected, strict=True):
            shared = min(x.shape[1], y.shape[1])
            np.testing.assert_array_equal(x[:, :shared], y[:, :shared])
            assert (x[:, shared:] == -1).all() and (y[:, shared:] == -1).all()


@pytest.mark.parametrize("problem", PROBLEMS, ids=["monotonic", "rnnt"])
def test_integers_of_either_width_strided_and_read_only(problem):
    expected = all_of(problem)
    narrow = replace(problem, **{name: getattr(problem, name).astype(np.int32) for name in ARRAYS})
    strided = replace(problem, **{name: np.repeat(getattr(problem, name), 3, axis=-1)[..., ::3] for name in ARRAYS})
    turned = replace(problem, frames=np.asfortranarray(problem.frames), targets=problem.targets[::-1].copy()[::-1])
    assert not (strided.frames.flags.c_contiguous or turned.frames.flags.c_contiguous)
    frozen = replace(problem, **{name: getattr(problem, name).copy() for name in ARRAYS})
    for name in ARRAYS:
        getattr(frozen, name).setflags(write=False)
    for other in (narrow, strided, turned, frozen):
        assert_equal(all_of(other), expected)
    ids = problem.strings()
    assert_equal(all_of(problem, np.repeat(ids, 2, axis=1)[:, ::2]), expected)


@pytest.mark.parametrize("topology", ["rnnt", "monotonic"])
def test_the_smallest_problems(topology):
    empty = replace(PROBLEMS[0], **{name: getattr(PROBLEMS[0], name)[:0] for name in ARRAYS}, topology=topology)
    first, last, shifted, *_ = all_of(replace(empty, topology="rnnt"))
    assert first.shape == last.shape == (0, 0) and shifted.shape == empty.frames.shape
    assert lattice.frames_to_ids(*empty.labelled).shape == (0, 0)
    assert lattice.ids_to_frames(np.zeros((0, 3), int), *empty.labelled[1:]).shape == empty.targets.shape
    nothing = random_alignments(2, lengths=([1, 4], [0, 0]), slack=0, topology=topology)  # frames (B, 0)
    first, last, shifted, *others = all_of(nothing)
    assert first.shape == (2, 4) and not first.any() and not last.any() and shifted.shape == (2, 0)
    if topology == "monotonic":
        assert others[0].tolist() == [[0, -1, -1, -1], [0] * 4] and others[1].shape == (2, 0)
    full = random_alignments(3, lengths=([1, 4], [1, 4]), slack=0, topology="monotonic")  # a label in every frame
    assert full.frames.tolist()[1] == [0, 1, 2, 3]
    for shift in (-3, 0, 5):
        moved = lattice.shift_frames(full.frames, full.lengths, full.target_lengths, shift)
        assert moved.tolist() == [[0, -1, -1, -1], [0, 1, 2, 3]]
    ids = lattice.frames_to_ids(*full.labelled)
    assert ids[1].tolist() == full.targets[1].tolist() and ids[0, 0] == full.targets[0, 0]
    assert_equal([lattice.ids_to_frames(ids, *full.labelled[1:], topology="monotonic")], [moved])
