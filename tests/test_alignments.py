"""Integer tools on alignments against definition and enumeration: bounds, frame-wise ids, shifts."""

from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from tests import compare, ctc_oracle, oracle
from tests.alignment_problems import any_alignments, random_alignments
from tests.ctc_problems import ctc_problem
from tests.problems import TOPOLOGIES, logits_problem, random_frames

EMITTED = {"rnnt": combinations_with_replacement, "monotonic": combinations, "constrained": combinations}
WIDTHS = [0, 1, 2, 9, 10**30]
SMALL = [(t, u) for t in range(1, 6) for u in range(4)]


def permitted(arcs, frames, left, right):
    """The definition: whether an alignment emits each label near its frame."""
    return all(frames[u] - left <= t <= frames[u] + right for t, u, is_label in arcs if is_label)


def bounds_of_one(frames, length, left, right, topology):
    """The bounds of one example."""
    given = np.array([frames], np.int64).reshape(1, -1), np.array([len(frames)]), np.array([length])
    first, last = lattice.alignment_bounds(*given, left=left, right=right, topology=topology)
    assert first.dtype == last.dtype == np.int32 and first.shape == last.shape == (1, length)
    return first[0], last[0]


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("length", "labels"), SMALL)
def test_the_permitted_alignments_survive_and_no_others(length, labels, topology):
    every = list(oracle.alignments(length, labels, topology))
    assert bool(every) == (topology == "rnnt" or labels <= length)
    for frames in EMITTED[topology](range(length), labels):
        for left in (0, 1, 2):
            for right in (0, 1, length):
                exists = oracle.cell_exists(length, labels, bounds_of_one(frames, length, left, right, topology))
                for arcs in every:
                    survives = all(exists[t, u] for t, u, _ in arcs)
                    assert survives == permitted(arcs, frames, left, right), (frames, left, right, arcs)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 2), (1, 2), (10**30, 0), (0, 10**30)])
def test_the_loss_in_the_bounds_is_that_of_the_permitted_alignments(topology, left, right):
    lengths = [pair for pair in SMALL if topology == "rnnt" or pair[1] <= pair[0]]
    problem = logits_problem(0, lengths=tuple(zip(*lengths, strict=True)), topology=topology, dtype=np.float64, vocab=4)
    rng = np.random.default_rng(left)
    frames, expected, by_oracle = np.full(problem.targets.shape, 10**6), [], []
    for b, (length, labels) in enumerate(lengths):
        frames[b, :labels] = random_frames(rng, length, labels, topology)
    lengths = problem.target_lengths, problem.logit_lengths
    bounds = lattice.alignment_bounds(frames, *lengths, left=left, right=right, topology=topology)
    for b, (length, labels) in enumerate(zip(problem.logit_lengths, problem.target_lengths, strict=True)):
        logits, targets = problem.logits[b, :length, : labels + 1], problem.targets[b, :labels]
        _, blank_score, label_score = oracle.arc_scores(logits.astype(np.longdouble), targets)
        scores = [
            sum(label_score[t, u] if is_label else blank_score[t, u] for t, u, is_label in arcs)
            for arcs in oracle.alignments(length, labels, topology)
            if permitted(arcs, frames[b].tolist(), left, right)
        ]
        assert len(scores) == 1 or left or right
        expected.append(-np.logaddexp.reduce(scores))
        within = {"topology": topology, "bounds": oracle.row_of(bounds, b)}
        by_oracle.append(oracle.loss_by_enumeration(logits, targets, **within))
    compare.assert_close(np.array(by_oracle), np.array(expected), np.array(by_oracle), per_example=True, what="oracle")
    ours = lattice.transducer_loss(*problem.args, topology=topology, bounds=bounds)
    compare.assert_close(ours, np.array(expected), np.array(by_oracle), per_example=True, what="loss")


@given(any_alignments(), st.sampled_from(WIDTHS), st.sampled_from(WIDTHS))
def test_bounds_count_labels(problem, left, right):
    """The formulas of the docstring, label by label; with every width, what they keep holds the alignment itself."""
    lengths = problem.target_lengths, problem.lengths
    first, last = lattice.alignment_bounds(problem.frames, *lengths, left=left, right=right, topology=problem.topology)
    assert first.dtype == last.dtype == np.int32 and first.shape == last.shape == (
        len(problem.frames),
        max(problem.lengths),
    )
    for b, (frames, _, length) in enumerate(problem.examples):
        for t in range(length):
            late, early = [f + right < t for f in frames], [f - left for f in frames]
            behind = [f < t for f in early] if problem.topology == "monotonic" else [f <= t for f in early]
            assert (first[b, t], last[b, t]) == (sum(late), sum(behind))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_width_zero_is_one_path_and_full_width_is_no_bound(topology):
    problem = random_alignments(1, frames=9, labels=6, topology=topology)
    given = problem.frames, problem.target_lengths, problem.lengths
    first, last = lattice.alignment_bounds(*given, left=0, right=0, topology=topology)
    assert (first == last).all() if topology == "monotonic" else (first != last).any()
    logits = np.random.default_rng(1).standard_normal((*first.shape, problem.targets.shape[1] + 1, 4))
    args = logits, problem.targets, problem.lengths, problem.target_lengths
    free = lattice.transducer_loss(*args, topology=topology)
    assert (lattice.transducer_loss(*args, topology=topology, bounds=(first, last))[:-1] > free[:-1]).all()
    wide = lattice.alignment_bounds(*given, left=9, right=9, topology=topology)
    np.testing.assert_array_equal(lattice.transducer_loss(*args, topology=topology, bounds=wide), free)


@given(any_alignments(["monotonic"]))
def test_ids_hold_each_label_at_its_frame(problem):
    ids = lattice.frames_to_ids(*problem.labelled, blank=problem.blank)
    assert ids.dtype == np.int32 and ids.shape == (len(problem.frames), max(problem.lengths))
    for row, (frames, targets, length) in zip(ids.tolist(), problem.examples, strict=True):
        expected = {**dict.fromkeys(range(length), problem.blank), **dict(zip(frames, targets, strict=True))}
        assert row == [expected[t] for t in range(length)] + [-1] * (len(row) - length)


@given(any_alignments(["monotonic"]), st.sampled_from(["first", "last"]))
def test_frames_to_ids_and_back(problem, keep):
    """Whatever is kept: a label has one frame. CTC cannot tell equal labels in neighbouring frames apart."""
    expected = np.where(problem.real, problem.frames, -1)
    for topology in ("monotonic", "ctc"):
        rest = {"blank": problem.blank, "topology": topology}
        touch = any(
            b - a == 1 and v == w
            for frames, targets, _ in problem.examples
            for a, b, v, w in zip(frames, frames[1:], targets, targets[1:], strict=False)
        )
        if touch and topology == "ctc":
            with pytest.raises(ValueError, match="a blank must part them"):
                lattice.frames_to_ids(*problem.labelled, **rest)
            continue
        ids = lattice.frames_to_ids(*problem.labelled, **rest)
        frames = lattice.ids_to_frames(ids, *problem.labelled[1:], **rest, keep=keep)
        assert frames.dtype == np.int32
        np.testing.assert_array_equal(frames, expected)


@given(any_alignments(["monotonic"]))
def test_runs_keep_their_last_or_first_frame(problem):
    """Labels that last: in CTC what parts equal labels is a blank, so their frames lie two apart at least."""
    for b, (frames, targets, length) in enumerate(problem.examples):
        spread = np.arange(len(frames)) * 2
        problem.frames[b, : len(frames)] = np.array(frames, int) + spread
        problem.lengths[b] = length + 2 * max(0, len(targets) - 1)
    expected = np.where(problem.real, problem.frames, -1)
    for keep, of_string in (("last", ctc_oracle.last_frames), ("first", ctc_oracle.first_frames)):
        ids = problem.strings(keep)
        frames = lattice.ids_to_frames(ids, *problem.labelled[1:], blank=problem.blank, keep=keep)
        np.testing.assert_array_equal(frames, expected)
        for row, string, length in zip(frames, ids, problem.lengths, strict=True):
            assert row[row >= 0].tolist() == of_string(string[:length].tolist(), problem.blank)


@pytest.mark.parametrize(
    ("targets", "length"), [([], 3), ([1], 4), ([1, 2], 4), ([1, 1], 5), ([2, 1, 1], 6), ([1, 2, 1], 5)]
)
@pytest.mark.parametrize("blank", [0, 3])
def test_every_string_that_spells_the_target(targets, length, blank):
    strings = list(ctc_oracle.strings(length, targets, blank))
    rest = (
        np.tile(np.array(targets, np.int64), (len(strings), 1)),
        *(np.full(len(strings), n) for n in (length, len(targets))),
    )
    for keep, expected in (("last", ctc_oracle.last_frames), ("first", ctc_oracle.first_frames)):
        frames = lattice.ids_to_frames(np.array(strings), *rest, blank=blank, keep=keep)
        assert frames.tolist() == [expected(string, blank) for string in strings]


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("repeated", [0.0, 0.8])
def test_the_best_string_of_ctc_is_its_alignment(blank, repeated):
    lengths = [(t, u) for t in range(1, 7) for u in range(4) if 2 * u - 1 <= t]
    problem = ctc_problem(3, lengths=tuple(zip(*lengths, strict=True)), vocab=4, blank=blank, repeated=repeated)
    ids = np.full(problem.logits.shape[:2], -7)
    for row, example in zip(ids, problem.examples, strict=True):
        row[: len(example[0])] = ctc_oracle.best_by_enumeration(*example, blank=blank)[1]
    for keep in ("first", "last"):
        ours = lattice.ctc_alignment(*problem.args, blank=blank, keep=keep)[0]
        np.testing.assert_array_equal(ours, lattice.ids_to_frames(ids, *problem.args[1:], blank=blank, keep=keep))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("length", "labels"), SMALL)
def test_a_shift_goes_just_as_far_as_needed(length, labels, topology):
    """The least alignment not before what the shift asks for, as far as the last alignment allows it."""
    every = list(EMITTED[topology](range(length), labels))
    for frames in combinations_with_replacement(range(length), labels) if every else ():
        given = np.array([frames], np.int64).reshape(1, labels), np.array([length]), np.array([labels])
        for shift in (-(10**30), -2, -1, 0, 1, 3, 10**30):
            wanted = [min(f + shift, max(ends)) for f, ends in zip(frames, zip(*every, strict=True), strict=True)]
            late = [row for row in every if all(have >= want for have, want in zip(row, wanted, strict=True))]
            moved = lattice.shift_frames(*given, shift, topology=topology)
            assert moved.dtype == np.int32
            assert moved.tolist() == [[min(ends) for ends in zip(*late, strict=True)]]


@given(any_alignments(), st.integers(-9, 9))
def test_shifted_frames_are_alignments(problem, shift):
    fits = problem.target_lengths <= problem.lengths
    for topology in TOPOLOGIES if fits.all() else ["rnnt"]:
        moved = lattice.shift_frames(problem.frames, problem.lengths, problem.target_lengths, shift, topology=topology)
        assert (moved[~problem.real] == -1).all()
        for row, (frames, _, length) in zip(moved, problem.examples, strict=True):
            row = row[: len(frames)]
            assert (row >= 0).all() and (row < length).all() and (np.diff(row) >= (topology != "rnnt")).all()
            if shift == 0 and topology == problem.topology:
                assert row.tolist() == frames
