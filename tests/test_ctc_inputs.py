"""What the doors of CTC refuse, and that they say which argument, where, which value and what would do."""

import inspect

import numpy as np
import pytest

import lattice
from tests.ctc_problems import ctc_problem
from tests.signatures import signature
from tests.test_inputs import WRONG, changed, says
from tests.test_inputs_values import NeedsGradient

PROBLEM = ctc_problem(1, lengths=([5, 6, 4], [3, 4, 2]), vocab=11)  # logits (3, 7, 11), targets (3, 6)
SHAPE = PROBLEM.logits.shape
DOORS = ["ctc_loss", "ctc_loss_and_grad", "ctc_alignment"]
SIGNATURE = "logits targets logit_lengths target_lengths * blank=0"


def refuse(changes, exception, *words, doors=DOORS):
    given = dict(zip(inspect.signature(lattice.ctc_loss).parameters, PROBLEM.args)) | PROBLEM.options
    given |= {name: change(given[name]) if callable(change) else change for name, change in changes.items()}
    for door in doors:
        with pytest.raises(exception, match=says(*words)):
            getattr(lattice, door)(**given)


@pytest.mark.parametrize(
    ("name", "more"), [(DOORS[0], ""), (DOORS[1], " grad_loss=None out=None"), (DOORS[2], " keep='first'")]
)
def test_signatures(name, more):
    """Names, order and defaults are the contract."""
    assert signature(getattr(lattice, name)) == SIGNATURE + more


@pytest.mark.parametrize("name", ["logits", "targets", "logit_lengths", "target_lengths"])
@pytest.mark.parametrize("wrong", [lambda x: x.tolist(), None, "text"], ids=["list", "None", "str"])
def test_not_an_array(name, wrong):
    refuse({name: wrong}, TypeError, name)


@pytest.mark.parametrize("name", ["logits", "targets", "logit_lengths", "target_lengths"])
def test_dimensions_and_sizes(name):
    refuse({name: lambda x: x[None]}, ValueError, name, (1, *getattr(PROBLEM, name).shape))
    refuse({name: lambda x: x[0]}, WRONG, name)
    if name != "logits":
        refuse({name: lambda x: x[:2]}, ValueError, name, "logits", 2, 3)


def test_dtypes_of_integers():
    for name in ("targets", "logit_lengths", "target_lengths"):
        for dtype in (np.float32, np.int16, np.uint8, bool):
            refuse({name: lambda x, dtype=dtype: x.astype(dtype)}, TypeError, name, np.dtype(dtype).name)


@pytest.mark.parametrize("dtype", [np.int64, np.complex64, bool, np.longdouble])
def test_dtypes_of_reals(dtype):
    refuse({"logits": np.zeros(SHAPE, dtype)}, TypeError, "logits", "dtype", np.dtype(dtype).name)


def test_blank():
    for blank in (11, -12, 10**12):
        refuse({"blank": blank}, ValueError, "blank", blank, 11)
    for blank in (0.0, None, "0", [0]):
        refuse({"blank": blank}, TypeError, "blank")
    refuse({"logits": np.zeros((3, 7, 0), np.float32)}, ValueError, "the vocabulary is empty")


def test_keep():
    for keep in ("middle", None, 1, True):
        refuse({"keep": keep}, ValueError, "keep", repr(keep), "first", "last", doors=DOORS[2:])


def test_target_ids():
    for value in (11, -1, 10**6):
        refuse({"targets": changed(PROBLEM.targets, (1, 2), value)}, ValueError, "targets", "1, 2", value, 10)
    refuse({"targets": changed(PROBLEM.targets, (2, 1), 0)}, ValueError, "targets", "2, 1", 0, "blank")
    refuse({"targets": changed(PROBLEM.targets, (0, 0), 10), "blank": -1}, ValueError, "targets", "0, 0", 10, "blank")


def test_lengths():
    for value in (0, -1, 8):
        refuse(
            {"logit_lengths": changed(PROBLEM.logit_lengths, 1, value)}, ValueError, "logit_lengths", 1, value, 7, SHAPE
        )
    for value in (-1, 7):
        lengths = changed(PROBLEM.target_lengths, 2, value)
        refuse({"target_lengths": lengths}, ValueError, "target_lengths", 2, value, 6, (3, 6))
    refuse({"targets": lambda x: x[:, :3]}, ValueError, "target_lengths", "targets", 1, 4, 3)


def test_upstream_gradient():
    for shape in ((2,), (4,), (3, 1), ()):
        refuse({"grad_loss": np.ones(shape, np.float32)}, ValueError, "grad_loss", str(shape), doors=DOORS[1:2])
    refuse({"grad_loss": np.ones(3, int)}, TypeError, "grad_loss", "int64", doors=DOORS[1:2])
    refuse({"grad_loss": [1.0] * 3}, TypeError, "grad_loss", doors=DOORS[1:2])


def test_out():
    def refuse_out(out, exception, *words):
        refuse({"out": out}, exception, "out", *words, doors=DOORS[1:2])

    refuse_out(np.zeros((3, 7, 10), np.float32), ValueError, (3, 7, 10), SHAPE)
    refuse_out(np.zeros(SHAPE, np.float64), WRONG, "float64", "float32")
    refuse_out(np.zeros((21, 11), np.float32), ValueError, SHAPE)
    refuse_out(np.zeros(SHAPE, np.float32).tolist(), TypeError)
    refuse_out(np.zeros(SHAPE[::-1], np.float32).T, ValueError, "strides")


def test_outputs_over_a_part_of_the_logits_are_refused():
    room = np.zeros(PROBLEM.logits.size + 11, np.float32)
    given = room[:-11].reshape(SHAPE)
    given[...] = PROBLEM.logits
    overlapping = {"logits": given, "out": room[11:].reshape(SHAPE)}
    refuse(overlapping, ValueError, "out", "overlaps logits", doors=DOORS[1:2])


def test_read_only_outputs_are_refused():
    frozen = np.zeros(SHAPE, np.float32)
    frozen.setflags(write=False)
    refuse({"out": frozen}, ValueError, "out", "read-only", doors=DOORS[1:2])


def test_tensors_that_require_a_gradient_get_advice():
    refuse({"logits": NeedsGradient()}, WRONG, "logits", ".detach()")


def test_refused_calls_leave_the_logits_alone():
    logits = PROBLEM.logits.copy()
    for changes in ({"blank": 11}, {"grad_loss": np.ones(2, np.float32)}, {"logit_lengths": np.array([5, 9, 4])}):
        refuse({"logits": logits, "out": logits, **changes}, ValueError, doors=DOORS[1:2])
        np.testing.assert_array_equal(logits, PROBLEM.logits)
