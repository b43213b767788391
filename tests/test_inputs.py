"""What the doors refuse for its type, dtype or shape, and that they say which argument and what would do."""

import inspect
import re

import ml_dtypes
import numpy as np
import pytest

import lattice
from tests.problems import joint_problem, logits_problem
from tests.signatures import signature

LENGTHS = ([5, 6, 4], [3, 4, 2])
LOGITS = logits_problem(1, lengths=LENGTHS, vocab=11)  # logits (3, 7, 7, 11), targets (3, 6)
JOINT = joint_problem(1, batch=3, lengths=LENGTHS, vocab=11, width=5, slack=(1, 2), vocabulary="lengths")
SHARED = joint_problem(1, batch=4, hypotheses=3, vocab=11)  # encoder (4, ...), everything else 3 rows
LOGITS_DOORS = ["transducer_loss", "transducer_loss_and_grad"]
JOINT_DOORS = ["joint_transducer_loss", "joint_transducer_loss_and_grad", "joint_transducer_loss_vjp"]
ROWS = re.compile(r"(predictor|encoder\b)")  # what has the N rows that others must have
WRONG = (TypeError, ValueError)  # where either is as good as the other


def says(*words):
    """A pattern for `match`: all words, in any order. A number must stand by itself."""

    def part(word):
        if isinstance(word, re.Pattern):
            return word.pattern
        return rf"(?<![\d.]){word}(?![\d])" if isinstance(word, int) else re.escape(str(word))

    return "(?s)" + "".join(f"(?=.*{part(word)})" for word in words)


def arguments(problem):
    door = JOINT_DOORS[0] if problem.__class__.__name__ == "JointProblem" else LOGITS_DOORS[0]
    names = list(inspect.signature(getattr(lattice, door)).parameters)
    return dict(zip(names, problem.args)) | problem.options


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def refuse(doors, problem, changes, exception, *words):
    given = arguments(problem)
    given |= {name: change(given[name]) if callable(change) else change for name, change in changes.items()}
    for door in doors:
        with pytest.raises(exception, match=says(*words)):
            getattr(lattice, door)(**given)


SIGNATURES = {
    "transducer_loss": "logits targets logit_lengths target_lengths * blank=0 topology='rnnt' bounds=None banded=False",
    "transducer_loss_and_grad": (
        "logits targets logit_lengths target_lengths * blank=0 topology='rnnt' bounds=None banded=False "
        "fastemit_lambda=0.0 grad_loss=None out=None"
    ),
    "joint_transducer_loss": (
        "encoder predictor weight bias targets encoder_lengths target_lengths * "
        "blank=0 activation='tanh' topology='rnnt' vocabulary=None vocabulary_lengths=None bounds=None "
        f"encoder_index=None memory_limit=None posterior_floor={2.0**-24}"
    ),
}
for name, options in (
    ("joint_transducer_loss_and_grad", " fastemit_lambda=0.0 grad_loss=None overwrite=False"),
    ("joint_transducer_loss_vjp", " fastemit_lambda=0.0 overwrite=False"),
    ("joint_transducer_loss", ""),
):
    SIGNATURES[name] = f"{SIGNATURES['joint_transducer_loss']}{options} precision='default' near=None dropout=None"


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    """Names, order and defaults are the contract."""
    assert signature(getattr(lattice, name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", ["logits", "targets", "logit_lengths", "target_lengths"])
@pytest.mark.parametrize("wrong", [lambda x: x.tolist(), None, "text"], ids=["list", "None", "str"])
def test_logits_not_an_array(name, wrong):
    refuse(LOGITS_DOORS, LOGITS, {name: wrong}, TypeError, name)


@pytest.mark.parametrize(
    "name",
    [
        "encoder",
        "predictor",
        "weight",
        "targets",
        "encoder_lengths",
        "target_lengths",
        "vocabulary",
        "vocabulary_lengths",
    ],
)
@pytest.mark.parametrize("wrong", [lambda x: x.tolist(), None], ids=["list", "None"])
def test_joint_not_an_array(name, wrong):
    if name.startswith("vocabulary") and wrong is None:
        wrong = 3  # None is a value here
    refuse(JOINT_DOORS, JOINT, {name: wrong}, TypeError, name)
    refuse(JOINT_DOORS, JOINT, {"bias": JOINT.bias.tolist()}, TypeError, "bias")


@pytest.mark.parametrize(
    ("problem", "name", "ndim"),
    [
        (LOGITS, "logits", 4),
        (LOGITS, "targets", 2),
        (LOGITS, "logit_lengths", 1),
        (LOGITS, "target_lengths", 1),
        (JOINT, "encoder", 3),
        (JOINT, "predictor", 3),
        (JOINT, "weight", 2),
        (JOINT, "bias", 1),
        (JOINT, "targets", 2),
        (JOINT, "encoder_lengths", 1),
        (JOINT, "target_lengths", 1),
        (JOINT, "vocabulary", 2),
        (JOINT, "vocabulary_lengths", 1),
        (SHARED, "encoder_index", 1),
    ],
)
def test_dimensions(problem, name, ndim):
    doors = LOGITS_DOORS if problem is LOGITS else JOINT_DOORS
    shape = getattr(problem, name).shape
    assert len(shape) == ndim
    refuse(doors, problem, {name: lambda x: x[None]}, ValueError, name, (1, *shape))
    refuse(doors, problem, {name: lambda x: x[0]}, WRONG, name)


@pytest.mark.parametrize("dtype", [np.int64, np.complex64, bool, np.longdouble])
def test_dtypes_of_reals(dtype):
    words = "dtype", np.dtype(dtype).name
    with np.errstate(invalid="ignore"):
        refuse(LOGITS_DOORS, LOGITS, {"logits": np.zeros((3, 7, 7, 11), dtype)}, TypeError, "logits", *words)
        for name in ("encoder", "predictor", "weight", "bias"):
            refuse(JOINT_DOORS, JOINT, {name: lambda x: np.nan_to_num(x).astype(dtype)}, TypeError, name, *words)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8, bool])
def test_dtypes_of_integers(dtype):
    for name in ("targets", "logit_lengths", "target_lengths"):
        refuse(LOGITS_DOORS, LOGITS, {name: lambda x: x.astype(dtype)}, TypeError, name, np.dtype(dtype).name)
    for name in ("targets", "encoder_lengths", "target_lengths", "vocabulary", "vocabulary_lengths"):
        refuse(JOINT_DOORS, JOINT, {name: lambda x: x.astype(dtype)}, TypeError, name, np.dtype(dtype).name)
    refuse(JOINT_DOORS, SHARED, {"encoder_index": lambda x: x.astype(dtype)}, TypeError, "encoder_index")


def test_mixed_dtypes():
    """float64 goes with float64 alone; whatever is narrower goes with whatever is narrower."""
    f16, f32, f64, b16 = np.float16, np.float32, np.float64, ml_dtypes.bfloat16
    names = ("encoder", "predictor", "weight", "bias")
    narrow = "expected float32, float16 or bfloat16: float64 goes with float64 alone"
    for dtypes, name in [
        ((f32, f64, f32, f32), "predictor"),
        ((b16, f32, f64, f64), "weight"),
        ((f16, b16, f32, f64), "bias"),
        ((f64, f32, f64, f64), "predictor"),
        ((f64, f64, b16, f64), "weight"),
        ((f64, f64, f64, f16), "bias"),
    ]:
        changes = {name: lambda x, dtype=dtype: x.astype(dtype) for name, dtype in zip(names, dtypes, strict=True)}
        is_wide, first = dict(zip(names, dtypes))[name] == f64, np.dtype(dtypes[0])
        own = f"{name} is {np.dtype(dtypes[names.index(name)])} and encoder is {first}"
        expected = narrow if is_wide else "expected float64: float64 goes with float64 alone"
        refuse(JOINT_DOORS, JOINT, changes, TypeError, f"{own}, {expected}")


@pytest.mark.parametrize("name", ["targets", "logit_lengths", "target_lengths"])
def test_logits_shapes_that_disagree(name):
    """Both names, both sizes."""
    refuse(LOGITS_DOORS, LOGITS, {name: lambda x: x[:2]}, ValueError, name, "logits", 2, 3)


@pytest.mark.parametrize(
    ("problem", "name", "cut", "words"),
    [
        (JOINT, "targets", np.s_[:2], (ROWS, 2, 3)),
        (JOINT, "encoder_lengths", np.s_[:2], (ROWS, 2, 3)),
        (JOINT, "target_lengths", np.s_[:2], (ROWS, 2, 3)),
        (JOINT, "predictor", np.s_[:2], ("encoder", 2, 3)),
        (JOINT, "predictor", np.s_[:, :, :4], ("encoder", 4, 5)),
        (JOINT, "weight", np.s_[:, :4], ("encoder", 4, 5)),
        (JOINT, "bias", np.s_[:10], ("weight", 10, 11)),
        (JOINT, "vocabulary", np.s_[:2], (ROWS, 2, 3)),
        (JOINT, "vocabulary_lengths", np.s_[:2], (2, 3)),
        (SHARED, "encoder_index", np.s_[:2], (ROWS, 2, 3)),
    ],
)
def test_joint_shapes_that_disagree(problem, name, cut, words):
    refuse(JOINT_DOORS, problem, {name: lambda x: x[cut]}, ValueError, name, *words)


def test_packed_logits_have_as_many_rows_as_the_lengths_say():
    packed = LOGITS.pack(LOGITS.logits)
    rows = len(packed)
    assert rows == 5 * 4 + 6 * 5 + 4 * 3
    words = "logits", "logit_lengths", "target_lengths", rows
    refuse(LOGITS_DOORS, LOGITS, {"logits": packed[1:]}, ValueError, *words, rows - 1)
    refuse(LOGITS_DOORS, LOGITS, {"logits": np.concatenate([packed, packed[:1]])}, ValueError, *words, rows + 1)
