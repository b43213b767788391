"""What the doors of alignments refuse, and that they say which argument, where, which value and what would do."""

import inspect

import numpy as np
import pytest

import lattice
from tests.path_problems import path_problem
from tests.signatures import signature
from tests.test_inputs import (
    JOINT,
    JOINT_DOORS,
    LENGTHS,
    LOGITS,
    LOGITS_DOORS,
    SHARED,
    SIGNATURES,
    WRONG,
    changed,
    refuse,
    says,
)
from tests.test_inputs_values import NeedsGradient

ALIGN_LOGITS, ALIGN_JOINT, LOSS = "transducer_alignment", "joint_transducer_alignment", "joint_path_loss_and_grad"
PATH = path_problem(1, batch=3, lengths=LENGTHS, vocab=11, slack=(1, 2), vocabulary="lengths")  # frames (3, 6)
EXPECTED = {
    ALIGN_LOGITS: SIGNATURES[LOGITS_DOORS[0]],
    ALIGN_JOINT: SIGNATURES[JOINT_DOORS[0]].rpartition(" posterior_floor")[0] + " near=None",
    LOSS: (
        "encoder predictor weight bias targets frames encoder_lengths target_lengths * blank=0 activation='tanh' "
        "topology='monotonic' label_smoothing=0.0 label_scale=0.0 focal=0.0 vocabulary=None vocabulary_lengths=None "
        "grad_loss=None memory_limit=None dropout=None"
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_signatures(name):
    """Names, order and defaults are the contract."""
    assert signature(getattr(lattice, name)) == EXPECTED[name]
    assert name in lattice.__all__


def refuse_path(changes, exception, *words, problem=PATH):
    given = dict(zip(inspect.signature(lattice.joint_path_loss_and_grad).parameters, problem.args)) | problem.options
    given |= {name: change(given[name]) if callable(change) else change for name, change in changes.items()}
    with pytest.raises(exception, match=says(*words)):
        lattice.joint_path_loss_and_grad(**given)


def refuse_everywhere(changes, exception, *words):
    """By all three doors, as far as they take the arguments."""
    if set(changes) <= set(inspect.signature(lattice.transducer_alignment).parameters):
        refuse([ALIGN_LOGITS], LOGITS, changes, exception, *words)
    if set(changes) <= set(inspect.signature(lattice.joint_transducer_alignment).parameters):
        refuse([ALIGN_JOINT], JOINT, changes, exception, *words)
    if set(changes) <= set(inspect.signature(lattice.joint_path_loss_and_grad).parameters):
        refuse_path(changes, exception, *words)


def test_frames_are_integers_of_the_right_shape():
    for wrong in (None, "text", PATH.frames.tolist()):
        refuse_path({"frames": wrong}, TypeError, "frames")
    for dtype in (np.float32, np.int16, np.uint8, bool):
        refuse_path({"frames": PATH.frames.astype(dtype)}, TypeError, "frames", np.dtype(dtype).name)
    refuse_path({"frames": PATH.frames[None]}, ValueError, "frames", (1, 3, 6))
    refuse_path({"frames": PATH.frames[0]}, ValueError, "frames", (6,))
    refuse_path({"frames": PATH.frames[:2]}, ValueError, "frames", 2, 3)
    refuse_path({"frames": PATH.frames[:, :3]}, ValueError, "frames", (3, 3), 4)


def test_frames_in_range():
    for value in (6, 10**6, -2):
        refuse_path(
            {"frames": changed(PATH.frames, (1, 3), value)},
            ValueError,
            "frames",
            "1, 3",
            value,
            5,
            "encoder_lengths[1]",
        )
    text = "stands for no alignment", "example 0"
    refuse_path({"frames": changed(PATH.frames, (0, slice(None)), -1)}, ValueError, "frames", "0, 0", -1, *text)


def test_frames_in_order():
    for topology, bound in (("monotonic", 4), ("rnnt", 3)):
        frames = changed(PATH.frames, (1, slice(4)), [0, 3, bound - 1, 5])
        words = "frames", "1, 2", bound - 1, "at least", bound, "1, 1", 3
        refuse_path({"frames": frames, "topology": topology}, ValueError, *words)
    same = changed(PATH.frames, (1, slice(4)), [0, 3, 3, 5])
    refuse_path({"frames": same}, ValueError, "frames", "1, 2", 3, "a label takes a frame of its own")
    lattice.joint_path_loss_and_grad(*PATH.args[:5], same, *PATH.args[6:], **PATH.options | {"topology": "rnnt"})


def test_more_labels_than_frames():
    lengths = changed(PATH.encoder_lengths, 1, 3)
    words = "target_lengths", 1, 4, "at most", 3, "encoder_lengths[1]"
    refuse_path({"encoder_lengths": lengths}, ValueError, *words)
    frames = changed(PATH.frames, (1, slice(4)), [0, 0, 1, 2])
    args = *PATH.args[:5], frames, lengths, PATH.target_lengths
    loss, _ = lattice.joint_path_loss_and_grad(*args, **PATH.options | {"topology": "rnnt"})
    assert np.isfinite(loss).all()


@pytest.mark.parametrize("name", ["label_smoothing", "label_scale", "focal"])
def test_numbers_of_the_loss(name):
    for value in (-0.1, np.nan, np.inf, -np.inf):
        refuse_path({name: value}, ValueError, name, str(value))
    for value in ("0", None, [0.5], np.ones(1), True):
        refuse_path({name: value}, TypeError, name)
    for value in (0, np.float32(0.5), np.int64(0)):
        lattice.joint_path_loss_and_grad(*PATH.args, **PATH.options, **{name: value})


def test_all_of_the_target_cannot_be_smoothed_away():
    for value in (1.0, 1, 1.5):
        refuse_path({"label_smoothing": value}, ValueError, "label_smoothing", value, "below 1")


def test_upstream_gradient():
    for shape in ((2,), (4,), (3, 1), ()):
        refuse_path({"grad_loss": np.ones(shape, np.float32)}, ValueError, "grad_loss", str(shape))
    refuse_path({"grad_loss": np.ones(3, int)}, TypeError, "grad_loss", "int64")
    refuse_path({"grad_loss": [1.0] * 3}, TypeError, "grad_loss")


def test_what_other_doors_refuse():
    """The checks are those of the losses; one of each kind shows that they are asked."""
    refuse_everywhere({"topology": "ctc"}, ValueError, "topology", "ctc", "rnnt", "monotonic")
    refuse_everywhere({"activation": "swish"}, ValueError, "activation", "swish")
    for blank in (11, -12):
        refuse_everywhere({"blank": blank}, ValueError, "blank", blank, 11)
    refuse_everywhere({"targets": lambda x: changed(x, (2, 1), 0)}, ValueError, "targets", "2, 1", 0, "blank")
    refuse_everywhere({"target_lengths": lambda x: changed(x, 2, 7)}, ValueError, "target_lengths", 2, 7, 6)
    refuse_everywhere({"encoder_lengths": lambda x: changed(x, 1, 8)}, ValueError, "encoder_lengths", 1, 8, 7)
    refuse_everywhere({"encoder": lambda x: x.astype(np.float64)}, TypeError, "encoder", "predictor", "float64")
    refuse_everywhere({"weight": lambda x: x[:, :4]}, ValueError, "weight", "encoder", 4, 5)
    refuse_everywhere({"vocabulary_lengths": lambda x: changed(x, 1, 0)}, ValueError, "vocabulary_lengths", 1, 0)
    refuse_everywhere({"vocabulary": None}, ValueError, "vocabulary_lengths", "without vocabulary")
    bounds = np.zeros((3, 5), np.int32), np.zeros((3, 5), np.int32)
    refuse_everywhere({"bounds": bounds}, ValueError, "bounds", 5, 6)
    refuse([ALIGN_JOINT], SHARED, {"encoder_index": lambda x: x + 9}, ValueError, "encoder_index", 3)
    for value in (0, -5):
        refuse_everywhere({"memory_limit": value}, ValueError, "memory_limit", value)
    refuse_everywhere({"memory_limit": 77}, ValueError, "memory_limit", 77, "bytes")
    refuse_everywhere({"memory_limit": "1 GB"}, TypeError, "memory_limit")


def test_tensors_that_require_a_gradient_get_advice():
    refuse_everywhere({"logits": NeedsGradient()}, WRONG, "logits", ".detach()")
    refuse_everywhere({"encoder": NeedsGradient()}, WRONG, "encoder", ".detach()")
