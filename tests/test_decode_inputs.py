"""What the doors of the search refuse, and that they say which argument and what would do."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import lattice
from tests.decode_problems import decode_problem
from tests.signatures import signature
from tests.test_inputs import changed, says

PROBLEM = decode_problem(1, batch=3, lengths=[5, 6, 4], vocab=11, width=5, allowed="all")  # encoder (3, 7, 5)
DOORS = ["greedy_decode", "beam_decode"]
NAMES = ("encoder", "encoder_lengths", "predict", "weight", "bias")


def refuse(changes, exception, *words, doors=DOORS):
    given = dict(zip(NAMES, PROBLEM.args, strict=True)) | PROBLEM.options
    given |= {
        name: change(given[name]) if callable(change) and name != "predict" else change
        for name, change in changes.items()
    }
    for door in doors:
        with pytest.raises(exception, match=says(*words)):
            getattr(lattice, door)(**given)


@pytest.mark.parametrize(
    "name, options",
    [
        ("greedy_decode", ""),
        ("beam_decode", " beam=10 nbest=1"),
    ],
)
def test_signatures(name, options):
    """Names, order and defaults are the contract."""
    expected = "encoder encoder_lengths predict weight bias * blank=0 activation='tanh' topology='rnnt' allowed=None "
    assert signature(getattr(lattice, name)) == expected + "max_labels_per_frame=10" + options


@pytest.mark.parametrize("name", ["encoder", "encoder_lengths", "weight", "bias", "allowed"])
def test_not_an_array(name):
    refuse({name: [1.0]}, TypeError, name, "list")
    refuse({name: "text"}, TypeError, name, "str")


@pytest.mark.parametrize("name", ["encoder", "encoder_lengths", "weight", "bias", "allowed"])
def test_dimensions(name):
    own = "encoder_lengths" if name == "encoder_lengths" else name
    refuse({name: lambda x: x[None]}, ValueError, own, "1, ")
    refuse({name: lambda x: x[0]}, (ValueError, TypeError), own)


def test_dtypes():
    f16, f32, f64, b16 = np.float16, np.float32, np.float64, ml_dtypes.bfloat16
    for dtypes in ((f32, f64, f64), (f64, f32, f32), (f16, f64, b16), (f64, f16, f64)):
        changes = {
            name: lambda x, d=d: x.astype(d) for name, d in zip(("encoder", "weight", "bias"), dtypes, strict=True)
        }
        refuse(changes, TypeError, "encoder", "weight")
    refuse({"bias": lambda x: x.astype(f64)}, TypeError, "bias is float64 and encoder is float32, expected float32, ")
    refuse({"encoder": lambda x: np.nan_to_num(x).astype(int)}, TypeError, "encoder", "int64")
    for name in ("encoder_lengths", "allowed"):
        refuse({name: lambda x: x.astype(f32)}, TypeError, name, "float32", "int32 or int64")


def test_shapes_that_disagree():
    refuse({"weight": lambda x: x[:, :4]}, ValueError, "weight", "encoder", "H", 4, 5)
    refuse({"bias": lambda x: x[:10]}, ValueError, "bias", "weight", 10, 11)
    refuse({"encoder_lengths": lambda x: x[:2]}, ValueError, "encoder_lengths", "encoder", 2, 3)
    refuse({"allowed": lambda x: x[:2]}, ValueError, "allowed", "encoder", 2, 3)
    refuse({"encoder": lambda x: x[:0]}, ValueError, "encoder", "B", "at least 1")
    refuse({"weight": lambda x: x[:0]}, ValueError, "weight", "V", "at least 1")


@pytest.mark.parametrize("value", [0, -1, 9])
def test_lengths(value):
    refuse({"encoder_lengths": lambda x: changed(x, 1, value)}, ValueError, "encoder_lengths[1]", value, "1 to 8")


@pytest.mark.parametrize("value", [11, -12])
def test_blank(value):
    refuse({"blank": value}, ValueError, "blank", value, "-11 <= blank < 11")
    refuse({"blank": 1.0}, TypeError, "blank", "float")


def test_choices():
    refuse({"activation": "swish"}, ValueError, "activation", "swish", "tanh")
    refuse({"topology": "ctc"}, ValueError, "topology", "ctc", "monotonic")


def test_arcs_of_several_frames():
    tdt, big = lattice.Topology("tdt", durations=(0, 1, 2)), lattice.Topology("multiblank", durations=(2, 4))
    refuse({"topology": "tdt"}, ValueError, "tdt", "expected a Topology", "durations")
    refuse(
        {"topology": tdt, "weight": lambda x: x[:3]},
        ValueError,
        "weight",
        "(3, 5)",
        "at least 5 in place of 3",
        "durations",
    )
    # Ids are those of the tokens: 8 of 11 rows.
    refuse({"topology": tdt, "blank": 8}, ValueError, "blank", 8, "-8 <= blank < 8")
    refuse({"topology": tdt, "allowed": lambda x: x * 0 + 9}, ValueError, "allowed[0, 0]", 9, "0 to 7", "3 rows behind")
    refuse({"topology": tdt, "bias": lambda x: x[:8]}, ValueError, "bias", "(8,)", "(11,)", "weight")
    refuse({"topology": big, "weight": lambda x: x[:2]}, ValueError, "weight", "(2, 5)", "at least 3 in place of 2")
    for blank in (0, 1, -10):
        refuse({"topology": big, "blank": blank}, ValueError, f"blank is id {blank % 11}", "at least 2", "big blanks")


def test_predict():
    refuse({"predict": None}, TypeError, "predict", "NoneType")
    refuse({"predict": PROBLEM.encoder}, TypeError, "predict", "ndarray")


@pytest.mark.parametrize("value", [11, -2])
def test_allowed_ids(value):
    refuse({"allowed": lambda x: changed(x, (1, 3), value)}, ValueError, "allowed[1, 3]", value, "0 to 10")


def test_allowed_rows():
    refuse(
        {"allowed": lambda x: changed(x, (2, 0), x[2, 7])}, ValueError, "allowed[2]", int(PROBLEM.allowed[2, 7]), "once"
    )
    refuse({"allowed": lambda x: changed(x, (1, 0), -1)}, ValueError, "allowed[1]", "empty")
    refuse({"allowed": lambda x: x[:, :0]}, ValueError, "allowed[0]", "empty")


def test_limits():
    refuse({"max_labels_per_frame": -1}, ValueError, "max_labels_per_frame", -1, "at least 0")
    refuse({"max_labels_per_frame": 1.5}, TypeError, "max_labels_per_frame", 1.5)
    for beam in (0, -3):
        refuse({"beam": beam}, ValueError, "beam", beam, "at least 1", doors=DOORS[1:])
    for nbest in (0, 5):
        refuse({"beam": 4, "nbest": nbest}, ValueError, "nbest", nbest, "1 to 4", doors=DOORS[1:])
    refuse({"beam": 2.0}, TypeError, "beam", doors=DOORS[1:])
    refuse({"nbest": None}, TypeError, "nbest", doors=DOORS[1:])


WRONG_RETURNS = {
    "no pair": (lambda x, s: x, TypeError, ("ndarray", "pair")),
    "a triple": (lambda x, s: (x, *s), TypeError, ("a tuple of 3", "pair")),
    "a list": (lambda x, s: (x.tolist(), s), TypeError, ("predictor", "list")),
    "rows": (lambda x, s: (x[:-1], s), ValueError, ("predictor", "(2, 5)", "(3, 5)")),
    "width": (lambda x, s: (x[:, :4], s), ValueError, ("predictor", "(3, 4)", "(3, 5)")),
    "dimensions": (lambda x, s: (x[0], s), ValueError, ("predictor", "(5,)")),
    "dtype": (lambda x, s: (x.astype(np.float64), s), TypeError, ("predictor", "float64", "float32")),
    "state is a list": (lambda x, s: (x, list(s)), TypeError, ("state", "list", "tuple")),
    "state is an array": (lambda x, s: (x, s[0]), TypeError, ("state", "ndarray", "tuple")),
    "state of a list": (lambda x, s: (x, (s[0], s[1].tolist())), TypeError, ("state[1]", "list")),
    "state rows": (lambda x, s: (x, (s[0], s[1][:2])), ValueError, ("state[1]", "(2, 2, 3)", 3)),
    "state without rows": (lambda x, s: (x, (np.array(3), s[1])), ValueError, ("state[0]", "()", 3)),
}


@pytest.mark.parametrize("name", WRONG_RETURNS)
def test_what_predict_may_not_return(name):
    change, exception, words = WRONG_RETURNS[name]
    refuse(
        {"predict": lambda labels, state: change(*PROBLEM.predictor(labels, state))},
        exception,
        "that predict returned" if name not in ("no pair", "a triple") else "predict returned",
        *words,
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda state: None,
        lambda state: state[:1],
        lambda state: (state[0], state[1][:, :1]),
        lambda state: (state[0].astype(np.int64), state[1]),
    ],
)
def test_the_state_keeps_its_form(change):
    def predict(labels, state):
        vectors, new = PROBLEM.predictor(labels, state)
        return vectors, new if state is None else change(new)

    problem = replace(PROBLEM, bias=PROBLEM.bias - 20 * (np.arange(11) == 0).astype(np.float32))
    for door in DOORS:
        with pytest.raises(ValueError, match=r"state that predict returned is .* as in its first call"):
            getattr(lattice, door)(problem.encoder, problem.lengths, predict, problem.weight, problem.bias)
