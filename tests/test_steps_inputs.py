"""What the doors say of topologies whose arcs take several frames, and of what does not fit them."""

import re
from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice import Topology
from tests import steps_problems
from tests.problems import JointProblem

NEMO, MULTIBLANK = steps_problems.NEMO, steps_problems.STEPS[3]
JOINT = steps_problems.joint_problem(1, NEMO, vocab=9, vocabulary="lengths", lengths=([5, 6], [2, 3]))
LOGITS = steps_problems.logits_problem(1, NEMO, vocab=9, lengths=([5, 6], [2, 3]))
BLANKS = steps_problems.joint_problem(1, MULTIBLANK, vocab=9, vocabulary="lengths", lengths=([5, 6], [2, 3]))
BLANK_LOGITS = steps_problems.logits_problem(1, MULTIBLANK, vocab=9, lengths=([5, 6], [2, 3]))


def refused(problem, text, error=ValueError):
    joint = isinstance(problem, JointProblem)
    doors = ("loss_vjp", "report") if joint else ()
    for door in ("loss", "loss_and_grad", "alignment", "posteriors", *doors):
        with pytest.raises(error, match=re.escape(text)):
            getattr(lattice, f"{'joint_' * joint}transducer_{door}")(*problem.args, **problem.options)


def with_targets(problem, value):
    targets = problem.targets.copy()
    targets[1, 2] = value
    return replace(problem, targets=targets)


@pytest.mark.parametrize("name", ["tdt", "multiblank"])
def test_the_name_alone_says_no_durations(name):
    text = f"topology is '{name}', expected a Topology: the name alone has no durations"
    for problem in (JOINT, LOGITS, BLANKS, BLANK_LOGITS):
        refused(replace(problem, topology=name), text)


@pytest.mark.parametrize("problem", [JOINT, LOGITS], ids=["joint", "logits"])
@pytest.mark.parametrize("target", [9, 13, 14, -1])
def test_durations_are_no_targets(problem, target):
    text = f"targets[1, 2] is {target}, expected 0 to 8, the ids of the vocabulary; the 5 rows behind are durations"
    refused(with_targets(problem, target), text)


@pytest.mark.parametrize("problem", [JOINT, LOGITS], ids=["joint", "logits"])
def test_the_last_token_is_the_last_blank(problem):
    """-1 counts from the end of the tokens, and no row of durations is a blank."""
    refused(with_targets(problem, 8), "targets[1, 2] is 8, the blank")
    refused(replace(problem, blank=9), "blank is 9, expected -9 <= blank < 9, the size of the vocabulary")
    refused(replace(problem, blank=-10), "blank is -10, expected -9 <= blank < 9")


@pytest.mark.parametrize("rows", [1, 5, 6])
def test_rows_are_at_least_two_tokens_and_the_durations(rows):
    text = f"expected at least 7 in place of {rows}: two ids, and 5 durations behind them"
    bias, weight = JOINT.bias[:rows], JOINT.weight[:rows]
    few = replace(JOINT, weight=weight, bias=bias, vocabulary=None, vocabulary_lengths=None)
    refused(few, f"weight has shape ({rows}, 5), {text}")
    logits = LOGITS.logits[..., :rows]
    refused(replace(LOGITS, logits=logits), f"logits has shape {logits.shape}, {text}")


def test_a_bias_has_an_entry_for_each_row():
    """Durations included: without them it would be another layer's."""
    refused(replace(JOINT, bias=JOINT.bias[:9]), "bias has shape (9,), expected (14,) as the rows of weight (14, 5)")


@pytest.mark.parametrize("duration", [9, 13])
def test_durations_are_in_no_vocabulary(duration):
    ids = JOINT.vocabulary.copy()
    ids[1, 0] = duration
    text = "expected 0 to 8, the ids of the vocabulary; the 5 rows behind are durations"
    refused(replace(JOINT, vocabulary=ids), f"vocabulary[1, 0] is {duration}, {text}")


@pytest.mark.parametrize("problem", [BLANKS, BLANK_LOGITS], ids=["joint", "logits"])
def test_big_blanks_are_no_targets(problem):
    refused(with_targets(problem, 8), "targets[1, 2] is 8, the blank")
    refused(with_targets(problem, 7), "targets[1, 2] is 7, the big blank 1 below the blank")
    refused(with_targets(problem, 6), "targets[1, 2] is 6, the big blank 2 below the blank")


@pytest.mark.parametrize("problem", [BLANKS, BLANK_LOGITS], ids=["joint", "logits"])
@pytest.mark.parametrize("blank", [0, 1, -8])
def test_a_blank_has_its_big_blanks_below_it(problem, blank):
    text = f"blank is id {blank % 9}, expected at least 2: the big blanks have the 2 ids below it"
    refused(replace(problem, blank=blank), text)


@pytest.mark.parametrize("ids", [1, 2])
def test_rows_have_room_for_all_blanks(ids):
    """The argument that is too small is named, and no blank that would not fit whatever it is."""
    text = f"expected at least 3 in place of {ids}: the blank, and 2 big blanks below it"
    logits = BLANK_LOGITS.logits[..., :ids]
    refused(replace(BLANK_LOGITS, logits=logits), f"logits has shape {logits.shape}, {text}")
    few = replace(BLANKS, weight=BLANKS.weight[:ids], bias=BLANKS.bias[:ids], vocabulary=None, vocabulary_lengths=None)
    refused(few, f"weight has shape ({ids}, 5), {text}")


def test_the_blanks_alone_are_enough_without_labels():
    logits, lengths = np.zeros((1, 4, 1, 3)), (np.array([4]), np.array([0]))
    loss = lattice.transducer_loss(logits, np.zeros((1, 0), int), *lengths, blank=-1, topology=MULTIBLANK)
    assert np.isfinite(loss).all()


def test_a_vocabulary_holds_all_blanks():
    for big in (6, 7):
        kept = [ids[:length][ids[:length] != big] for ids, length in zip(BLANKS.vocabulary, BLANKS.vocabulary_lengths)]
        ids = np.full(BLANKS.vocabulary.shape, -1, np.int32)
        for row, own in zip(ids, kept, strict=True):
            row[: len(own)] = own
        text = f"vocabulary[0] lacks {big}, a big blank: it must hold all blanks"
        refused(replace(BLANKS, vocabulary=ids, vocabulary_lengths=None), text)


@pytest.mark.parametrize(
    ("durations", "text"),
    [
        ((0, 2, 1), "durations[2] is 1, expected at least 3: durations ascend"),
        ((0, 1, 1), "durations[2] is 1, expected at least 2: durations ascend"),
        ((-1, 1), "durations[0] is -1, expected at least 0: durations ascend"),
        ((0,), "durations[0] is 0, expected at least 1 for the longest duration"),
        ((), "durations is empty with 'tdt', expected the frames that its arcs may take"),
        (tuple(range(31)), "durations has 31 entries, expected at most 30"),
        ((0, 2**24 + 1), "durations[1] is 16777217, expected at most 16777216"),
    ],
)
def test_durations_ascend_and_a_blank_can_take_one(durations, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Topology("tdt", durations=durations)


def test_other_doors_refuse_them():
    """A set of label frames does not say which steps were taken."""
    names = "'rnnt', 'monotonic', 'constrained'"
    bounds = tuple(np.full((2, 7), u, np.int32) for u in (0, 3))
    for topology in (NEMO, MULTIBLANK):
        text = f"topology.name is '{topology.name}', expected one of {names}"
        for call in (
            lambda t=topology: lattice.transducer_exit_posterior(*LOGITS.args, topology=t, bounds=bounds),
            lambda t=topology: lattice.joint_path_loss_and_grad(
                *JOINT.args[:5], np.zeros((2, 3), int), *JOINT.args[5:], topology=t
            ),
            lambda t=topology: lattice.alignment_bounds(
                np.array([[0, 1]]), np.array([2]), np.array([3]), left=0, right=0, topology=t
            ),
        ):
            with pytest.raises(ValueError, match=re.escape(text)):
                call()
