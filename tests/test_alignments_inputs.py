"""What the integer tools on alignments refuse.

Their errors say which argument, where, which value and what would do.
"""

import numpy as np
import pytest

import lattice
from tests.signatures import signature
from tests.test_inputs import WRONG, changed, says
from tests.test_inputs_values import NeedsGradient

LENGTHS, TARGET_LENGTHS = np.array([5, 6, 4]), np.array([3, 4, 2])
FRAMES = np.array([[0, 2, 4, -7, 9], [1, 2, 4, 5, -1], [0, 3, 0, 0, 0]])
TARGETS = np.array([[1, 2, 3, 0, 0], [3, 3, 1, 2, -5], [2, 1, 0, 0, 0]])
IDS = np.array([[1, 0, 2, 0, 3, 9], [0, 3, 0, 3, 1, 2], [2, 2, 0, 1, -5, -5]])
GIVEN = {
    "alignment_bounds": {
        "frames": FRAMES,
        "target_lengths": TARGET_LENGTHS,
        "encoder_lengths": LENGTHS,
        "left": 1,
        "right": 2,
    },
    "ids_to_frames": {"ids": IDS, "targets": TARGETS, "lengths": LENGTHS, "target_lengths": TARGET_LENGTHS},
    "frames_to_ids": {"frames": FRAMES, "targets": TARGETS, "lengths": LENGTHS, "target_lengths": TARGET_LENGTHS},
    "shift_frames": {"frames": FRAMES, "lengths": LENGTHS, "target_lengths": TARGET_LENGTHS, "shift": 1},
}
SIGNATURES = {
    "alignment_bounds": "frames target_lengths encoder_lengths * left right topology='rnnt'",
    "ids_to_frames": "ids targets lengths target_lengths * blank=0 topology='ctc' keep='last'",
    "frames_to_ids": "frames targets lengths target_lengths * blank=0 topology='monotonic'",
    "shift_frames": "frames lengths target_lengths shift * topology='monotonic'",
}
OF_FRAMES = ("alignment_bounds", "frames_to_ids", "shift_frames")
OF_LABELS = ("ids_to_frames", "frames_to_ids")


def refuse(doors, changes, exception, *words):
    for door in [doors] if isinstance(doors, str) else doors:
        given = dict(GIVEN[door])
        given |= {name: change(given[name]) if callable(change) else change for name, change in changes.items()}
        with pytest.raises(exception, match=says(*words)):
            getattr(lattice, door)(**given)


def lengths_of(door):
    return "encoder_lengths" if door == "alignment_bounds" else "lengths"


@pytest.mark.parametrize("door", GIVEN)
def test_signatures(door):
    """Names, order and defaults are the contract. What the other tests change is accepted as it is."""
    assert signature(getattr(lattice, door)) == SIGNATURES[door]
    getattr(lattice, door)(**GIVEN[door])


@pytest.mark.parametrize("door", GIVEN)
def test_arrays(door):
    for name, array in GIVEN[door].items():
        if isinstance(array, int):
            continue
        for wrong in (array.tolist(), None, "text"):
            refuse(door, {name: wrong}, TypeError, name)
        refuse(door, {name: NeedsGradient()}, ValueError, name, ".detach()")
        for dtype in (np.float32, np.int16, np.uint8, bool):
            refuse(door, {name: array.astype(dtype)}, TypeError, name, np.dtype(dtype).name, "int32 or int64")
        refuse(door, {name: array[None]}, ValueError, name, (1, *array.shape))
        refuse(door, {name: array[0]}, WRONG, name)
        if name not in ("frames", "ids"):
            refuse(door, {name: array[:2]}, ValueError, name, 2, 3, next(iter(GIVEN[door])))


@pytest.mark.parametrize("door", GIVEN)
def test_lengths(door):
    for value in (-1, 6):
        lengths = changed(TARGET_LENGTHS, 2, value)
        refuse(door, {"target_lengths": lengths}, ValueError, "target_lengths[2]", value, "0 to 5", (3, 5))
    name = lengths_of(door)
    for value in (0, -1, 7 if door == "ids_to_frames" else 2**24 + 1):
        words = f"{name}[1] is {value}, expected 1 to", 6 if door == "ids_to_frames" else 2**24
        refuse(door, {name: changed(LENGTHS, 1, value)}, ValueError, *words)


@pytest.mark.parametrize("door", GIVEN)
def test_more_labels_than_columns(door):
    for name in ("frames", "targets"):
        if name in GIVEN[door]:
            refuse(door, {name: lambda x: x[:, :3]}, ValueError, name, "target_lengths[1]", 4, 3)


def test_frames_that_joint_paths_read_have_columns_for_every_label():
    from lattice.inputs.alignments import read_frames

    with pytest.raises(ValueError, match=says("frames", (3, 3), "at least 4 labels")):
        read_frames(FRAMES[:, :3], LENGTHS, TARGET_LENGTHS, monotonic=True, owner="encoder")
    with pytest.raises(ValueError, match=says("frames", (2, 5), "(3, any)", "for encoder")):
        read_frames(FRAMES[:2], LENGTHS, TARGET_LENGTHS, monotonic=True, owner="encoder")


def test_frames_out_of_range():
    for door in OF_FRAMES:
        for value in (6, 2**31 - 1, -2):
            frames = changed(FRAMES, (1, 3), value)
            refuse(door, {"frames": frames}, ValueError, "frames[1, 3]", value, "0 to 5", f"{lengths_of(door)}[1]")
        for at in ((1, 0), (2, 1)):
            words = f"frames{list(at)}", -1, "no alignment", f"example {at[0]} is to be left out"
            refuse(door, {"frames": changed(FRAMES, at, -1)}, ValueError, *words)
        refuse(door, {lengths_of(door): changed(LENGTHS, 1, 5)}, ValueError, "frames[1, 3]", 5, "0 to 4")


def test_frames_out_of_order():
    decreasing, equal = changed(FRAMES, (1, 2), 1), changed(FRAMES, (1, 2), 2)
    for topology in ("rnnt", "monotonic"):
        rest = {"topology": topology}
        refuse(
            "shift_frames",
            rest | {"frames": decreasing},
            ValueError,
            "frames[1, 2] is 1",
            "at least 2",
            "frames[1, 1] = 2",
        )
        lattice.shift_frames(equal, LENGTHS, TARGET_LENGTHS, 0, **rest)
    words = "frames[1, 2] is 1", "at least 2", "frames[1, 1] = 2", "never decrease"
    refuse("alignment_bounds", {"frames": decreasing}, ValueError, *words)
    lattice.alignment_bounds(equal, TARGET_LENGTHS, LENGTHS, left=0, right=0)
    for frames, value in ((decreasing, 1), (equal, 2)):
        words = f"frames[1, 2] is {value}", "at least 3", "frames[1, 1] = 2", "a label takes a frame of its own"
        refuse("alignment_bounds", {"frames": frames, "topology": "monotonic"}, ValueError, *words)
        for topology in ("monotonic", "ctc"):
            refuse("frames_to_ids", {"frames": frames, "topology": topology}, ValueError, *words)


def test_more_labels_than_frames():
    few = changed(LENGTHS, 1, 3)
    for door in OF_FRAMES:
        words = "target_lengths[1] is 4", "at most 3", f"{lengths_of(door)}[1]", "a frame of its own"
        refuse(door, {lengths_of(door): few, "topology": "monotonic", "frames": FRAMES * 0}, ValueError, *words)
    for door in ("alignment_bounds", "shift_frames"):
        given = GIVEN[door] | {lengths_of(door): few, "topology": "rnnt", "frames": FRAMES * 0}
        getattr(lattice, door)(**given)


def test_equal_labels_that_ctc_would_merge():
    frames = changed(FRAMES, (1, 0), 1)
    words = "frames[1, 1] is 2", "at least 3", "frames[1, 0] = 1", "both labels are 3", "a blank must part them"
    refuse("frames_to_ids", {"frames": frames, "topology": "ctc"}, ValueError, *words)
    lattice.frames_to_ids(**GIVEN["frames_to_ids"] | {"frames": changed(frames, (1, 0), 0), "topology": "ctc"})


def test_choices():
    for topology in ("ctc", "transducer", None, 1):
        for door in ("alignment_bounds", "shift_frames"):
            refuse(door, {"topology": topology}, ValueError, "topology", repr(topology), "rnnt", "monotonic")
    for topology in ("rnnt", "hmm", None, 1):
        refuse(OF_LABELS, {"topology": topology}, ValueError, "topology", repr(topology), "ctc", "monotonic")
    for keep in ("middle", None, True):
        for topology in ("ctc", "monotonic"):
            refuse(
                "ids_to_frames", {"keep": keep, "topology": topology}, ValueError, "keep", repr(keep), "first", "last"
            )


def test_blank_and_target_ids():
    for blank in (-1, -5, 2**31):
        refuse(OF_LABELS, {"blank": blank}, ValueError, "blank", blank, "expected 0 to", "vocabulary's size")
    for blank in (0.0, None, "0", True, [0]):
        refuse(OF_LABELS, {"blank": blank}, TypeError, "blank")
    for value in (-1, 2**31):
        refuse(
            OF_LABELS,
            {"targets": changed(TARGETS, (1, 2), value)},
            ValueError,
            "targets[1, 2]",
            value,
            "0 to 2147483647",
        )
    refuse(OF_LABELS, {"targets": changed(TARGETS, (1, 2), 0)}, ValueError, "targets[1, 2]", 0, "the blank")
    for value in (-1, 2**31):
        refuse("ids_to_frames", {"ids": changed(IDS, (1, 2), value)}, ValueError, "ids[1, 2]", value, "0 to 2147483647")


def test_margins_and_shift():
    for name in ("left", "right"):
        for value in (-1, -(10**30)):
            refuse("alignment_bounds", {name: value}, ValueError, name, value, "at least 0")
        for value in (1.0, None, "1", True):
            refuse("alignment_bounds", {name: value}, TypeError, name, "an integer")
    for value in (1.0, None, "1", True):
        refuse("shift_frames", {"shift": value}, TypeError, "shift", "an integer")


def test_ids_that_do_not_spell_the_target():
    def refuse_ids(at, value, *words, topology="ctc"):
        changes = {"ids": changed(IDS, at, value), "topology": topology}
        refuse("ids_to_frames", changes, ValueError, f"ids[{at[0]}] do not spell the target", *words)

    refuse_ids((1, 4), 2, "label 2 is 2, in frame 5", "targets[1, 2] = 1")  # one label for two
    refuse_ids((0, 4), 7, "label 2 is 7, in frame 4", "targets[0, 2] = 3")
    refuse_ids((0, 4), 0, "found 2 labels", "expected 3", "target_lengths[0]")  # the last one is missing
    refuse_ids((2, 2), 3, "label 1 is 3, in frame 2", "targets[2, 1] = 1")  # one too many
    refuse_ids((1, 2), 3, "label 1 is 1, in frame 4", "targets[1, 1] = 3")  # nothing parts the two
    refuse_ids(
        (0, 3), 3, "found 4 labels", "expected 3", "target_lengths[0]", topology="monotonic"
    )  # a run is not one label
    words = "ids[2] do not spell the target", "found 1 labels", "expected 2"
    refuse("ids_to_frames", {"lengths": changed(LENGTHS, 2, 3)}, ValueError, *words)  # what it ends in is padding
