"""The searches on the simulated device, against the CPU: dtypes, vocabularies, the predictor's arrays, waits."""

import re
from functools import partial

import numpy as np
import pytest

import lattice
from tests import decode_on_device
from tests.decode_on_device import DOORS
from tests.decode_problems import decode_problem
from tests.problems import DTYPES, HALF_PREDICTOR, TOPOLOGIES, name_of
from tests.timed_decode_problems import timed_problem

SMALL = {"batch": 3, "frames": 3, "vocab": 6, "most": 2}


def look(array):
    """What an array of the stand-in holds, without a wait."""
    return array._array


@pytest.fixture
def both(device):
    return partial(decode_on_device.both, module=device, fetch=look)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("door", DOORS)
def test_the_device_finds_what_the_host_finds(door, topology, allowed, dtype, both):
    options = {"topology": topology, "allowed": allowed, "dtype": dtype}
    labels, *_ = both(door, decode_problem(40, blank=1, blank_lead=-2.0, **options, **SMALL))
    assert labels.shape[-1] > 1


@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("door", DOORS)
def test_a_blank_with_a_head_of_its_own(door, name, allowed, both):
    hat = lattice.Topology(name, hat=True)
    for dtype in (np.float64, np.float16):
        problem = decode_problem(47, topology=hat, allowed=allowed, dtype=dtype, blank=1, blank_lead=-2.0, **SMALL)
        labels, _, score, *_ = both(door, problem)
        plain = getattr(lattice, door)(*problem.args, **problem.options | {"topology": name}, **DOORS[door])
        assert labels.shape[-1] > 1 and (score != plain[2]).any()


@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize(
    "topology",
    [lattice.Topology("tdt", durations=(0, 1, 2), sigma=0.05), lattice.Topology("multiblank", durations=(2,))],
    ids=name_of,
)
@pytest.mark.parametrize("door", DOORS)
def test_arcs_of_several_frames(door, topology, allowed, both, device):
    """With one wait a step, as ever."""
    options = SMALL | {"frames": 4, "allowed": allowed, "blank_lead": -1.0}
    for dtype in (np.float64, np.float16):
        assert both(door, timed_problem(48, topology, dtype=dtype, **options)).labels.shape[-1] > 1
    problem = timed_problem(49, topology, batch=1, lengths=[1], vocab=4, most=0)
    device.syncs = 0
    decode_on_device.there(door, problem, device, look)
    assert device.syncs == 2


@pytest.mark.parametrize("door", DOORS)
def test_without_bias_and_with_float32_beside_half(door, both):
    both(door, decode_problem(41, use_bias=False, activation="relu", allowed="all", **SMALL), integers=False)
    problem = decode_problem(42, dtype=np.float16, weight_dtype=np.float32, activation="identity", **SMALL)
    both(door, problem)
    problem.predictor.table = problem.predictor.table.astype(np.float32) + np.float32(0.01)
    both(door, problem)
    both(door, decode_problem(42, activation="identity", **HALF_PREDICTOR, **SMALL))


@pytest.mark.parametrize("allowed", [None, "all"])
@pytest.mark.parametrize("door", DOORS)
def test_nan_and_rows_that_are_closed(door, allowed, both):
    problem = decode_problem(43, lengths=[3, 2, 3], vocab=6, most=2, allowed=allowed)
    problem.encoder[1, 1] = np.nan
    score = both(door, problem)[2]
    assert np.isnan(score[1]).all() and np.isfinite(score[[0, 2]]).all()
    problem.bias[...] = -np.inf
    both(door, problem)


def test_rows_wider_than_a_warp_reads_at_once(both):
    both("beam_decode", decode_problem(45, batch=2, frames=2, vocab=150, blank=149, most=1))


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize(
    "topology, door, waits",
    [
        ("rnnt", "beam_decode", 2 * 3),
        ("monotonic", "beam_decode", 2),
        ("monotonic", "greedy_decode", 2),
    ],
)
def test_one_wait_at_the_door_and_one_a_level(topology, door, waits, integers, device):
    """Two frames; three levels in each of them where two labels may be emitted."""
    problem = decode_problem(44, lengths=[2, 2], vocab=6, most=2, topology=topology, allowed="all", blank_lead=-3.0)
    device.syncs = 0
    decode_on_device.there(door, problem, device, look, integers=integers)
    assert device.syncs == waits + int(integers)


@pytest.mark.parametrize("name", ["predictor", "state[0]"])
def test_what_predict_returns_lies_where_the_encoder_does(name, device):
    problem = decode_problem(46, **SMALL)
    encoder, lengths, predictor, weight, bias = problem.args

    def predict(labels, state):
        vectors, state = predictor(look(labels), None)
        return vectors if name == "predictor" else device.asarray(vectors), state

    with pytest.raises(
        ValueError, match=rf"{re.escape(name)} that predict returned is on the host, expected CUDA device 0"
    ):
        lattice.greedy_decode(device.asarray(encoder), lengths, predict, device.asarray(weight), device.asarray(bias))
