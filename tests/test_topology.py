"""`Topology` by itself: what it takes, what it is equal to, and what the doors say of it."""

import inspect
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from functools import partial

import numpy as np
import pytest

import lattice
from lattice import Topology
from tests import decode_problems, oracle, problems
from tests.path_problems import path_problem
from tests.problems import TOPOLOGIES, VARIANTS, joint_problem, logits_problem, name_of

NAMES = "'rnnt', 'monotonic', 'constrained'"


def decode_call(door):
    def call(topology):
        problem = decode_problems.decode_problem(3, topology=topology)
        return getattr(lattice, door)(*problem.args, **problem.options)

    return call


def alignment_call(door, **options):
    def call(topology):
        frames, labels, lengths = np.array([[0, 2]]), np.array([2]), np.array([4])
        given = (labels, lengths) if door == "alignment_bounds" else (lengths, labels)
        return getattr(lattice, door)(frames, *given, **options, topology=topology)

    return call


def vjp(*args, **options):
    loss, pull = lattice.joint_transducer_loss_vjp(*args, **options)
    return loss, pull(np.arange(1, 1 + len(loss), dtype=loss.dtype))


def door_call(door, make):
    def call(topology):
        problem = make(3, topology="monotonic")
        return door(*problem.args, **problem.options | {"topology": topology})

    return call


DOORS = {
    "transducer_loss": door_call(lattice.transducer_loss, logits_problem),
    "transducer_loss_and_grad": door_call(lattice.transducer_loss_and_grad, logits_problem),
    "transducer_alignment": door_call(lattice.transducer_alignment, logits_problem),
    "transducer_posteriors": door_call(lattice.transducer_posteriors, logits_problem),
    "transducer_exit_posterior": door_call(lattice.transducer_exit_posterior, partial(logits_problem, bounded=True)),
    "joint_transducer_posteriors": door_call(lattice.joint_transducer_posteriors, joint_problem),
    "joint_transducer_loss": door_call(lattice.joint_transducer_loss, joint_problem),
    "joint_transducer_loss_and_grad": door_call(lattice.joint_transducer_loss_and_grad, joint_problem),
    "joint_transducer_loss_vjp": door_call(vjp, joint_problem),
    "joint_transducer_report": door_call(lattice.joint_transducer_report, joint_problem),
    "joint_transducer_alignment": door_call(lattice.joint_transducer_alignment, joint_problem),
    "joint_path_loss_and_grad": door_call(lattice.joint_path_loss_and_grad, path_problem),
    "greedy_decode": decode_call("greedy_decode"),
    "beam_decode": decode_call("beam_decode"),
    "alignment_bounds": alignment_call("alignment_bounds", left=1, right=1),
    "shift_frames": alignment_call("shift_frames", shift=1),
}
"""Each takes a topology, and nothing else that is not fixed."""
TWO_ARCS_ALONE = ("transducer_exit_posterior", "joint_path_loss_and_grad", "alignment_bounds", "shift_frames")
"""The doors that know two arcs a cell."""


def flat(results):
    """Arrays of results that hold tuples."""
    if isinstance(results, tuple):
        return [array for part in results for array in flat(part)]
    return [np.asarray(results)]


def assert_equal(ours, other):
    for one, two in zip(flat(ours), flat(other), strict=True):
        assert one.dtype == two.dtype and one.tobytes() == two.tobytes()


def test_of_defaults_it_is_rnnt():
    plain = Topology()
    assert (plain.name, plain.durations, plain.sigma, plain.hat, plain.delay_penalty) == ("rnnt", (), 0, False, 0)
    assert plain == Topology("rnnt") == Topology(name="rnnt", hat=np.False_, delay_penalty=-0.0, durations=[])
    assert plain.moves != Topology("monotonic").moves != Topology("constrained").moves != plain.moves


def test_options_are_given_by_name():
    with pytest.raises(TypeError):
        Topology("rnnt", (), 0.0, True)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"name": "rna"}, ValueError, "name is 'rna', expected one of 'rnnt', 'monotonic', 'constrained', 'tdt'"),
        ({"name": None}, ValueError, "name is None, expected one of"),
        ({"name": ["rnnt"]}, ValueError, "name is ['rnnt'], expected one of"),
        ({"hat": 1}, TypeError, "hat is 1 (int), expected True or False"),
        ({"hat": None}, TypeError, "hat is None (NoneType), expected True or False"),
        (
            {"name": "tdt", "durations": (1,), "hat": True},
            ValueError,
            "hat is True with 'tdt', expected False: it is for",
        ),
        ({"name": "multiblank", "durations": (2,), "hat": True}, ValueError, "hat is True with 'multiblank'"),
        ({"sigma": 0.05}, ValueError, "sigma is 0.05 with 'rnnt', expected 0"),
        ({"name": "constrained", "sigma": 0.05}, ValueError, "sigma is 0.05 with 'constrained', expected 0"),
        ({"name": "tdt", "durations": (1,), "sigma": -0.1}, ValueError, "sigma is -0.1, expected a number from 0"),
        ({"name": "tdt", "durations": (1,), "sigma": np.nan}, ValueError, "sigma is nan, expected a number from 0"),
        ({"delay_penalty": np.inf}, ValueError, "delay_penalty is inf, expected a number from -1e+06 to 1e+06"),
        ({"delay_penalty": -np.inf}, ValueError, "delay_penalty is -inf, expected a number"),
        ({"delay_penalty": np.nan}, ValueError, "delay_penalty is nan, expected a number"),
        ({"delay_penalty": -2e6}, ValueError, "delay_penalty is -2000000.0, expected a number from -1e+06"),
        ({"delay_penalty": 10**400}, ValueError, "delay_penalty is inf, expected a number"),
        ({"delay_penalty": "0.1"}, TypeError, "delay_penalty is '0.1' (str), expected a number"),
        ({"delay_penalty": True}, TypeError, "delay_penalty is True (bool), expected a number"),
        ({"delay_penalty": 1j}, TypeError, "delay_penalty is 1j (complex), expected a number"),
        ({"durations": (0, 1)}, ValueError, "durations is (0, 1) with 'rnnt', expected none"),
        ({"name": "monotonic", "durations": [2]}, ValueError, "durations is (2,) with 'monotonic', expected none"),
        ({"durations": 3}, TypeError, "durations is 3, expected a tuple of integers"),
        ({"name": "tdt", "durations": (0, 1.0)}, TypeError, "durations[1] is 1.0 (float), expected an integer"),
        ({"name": "tdt", "durations": "01"}, TypeError, "durations[0] is '0' (str), expected an integer"),
        ({"name": "tdt"}, ValueError, "durations is empty with 'tdt'"),
        ({"name": "tdt", "durations": (0, 2, 1)}, ValueError, "durations[2] is 1, expected at least 3"),
        ({"name": "tdt", "durations": (1, 1)}, ValueError, "durations[1] is 1, expected at least 2"),
        ({"name": "tdt", "durations": (-1, 1)}, ValueError, "durations[0] is -1, expected at least 0"),
        ({"name": "tdt", "durations": (0,)}, ValueError, "durations[0] is 0, expected at least 1"),
        ({"name": "tdt", "durations": (1, 2**70)}, ValueError, "expected at most 16777216"),
        ({"name": "tdt", "durations": (2, True)}, TypeError, "durations[1] is True (bool), expected an integer"),
        ({"name": "multiblank", "durations": (1, 2)}, ValueError, "durations[0] is 1, expected at least 2"),
    ],
    ids=str,
)
def test_errors_name_the_argument_the_value_and_the_bound(options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        Topology(**options)


def test_equal_topologies_are_one_key():
    one = Topology("tdt", durations=[0, np.int32(1), 4], sigma=np.float32(0.5), delay_penalty=1)
    two = Topology("tdt", durations=(0, 1, 4), sigma=0.5, delay_penalty=1.0)
    assert one == two and hash(one) == hash(two) and repr(one) == repr(two)
    assert {one: 1}[two] == 1
    assert len({*VARIANTS, *map(replace, VARIANTS), two}) == len(VARIANTS) + 1
    assert hash(Topology(delay_penalty=-0.0)) == hash(Topology())
    assert Topology("monotonic") != "monotonic"


@pytest.mark.parametrize("topology", [*VARIANTS[::5], Topology("multiblank", durations=(2, 4), sigma=0.1)], ids=name_of)
def test_it_is_pickled_and_shown(topology):
    assert pickle.loads(pickle.dumps(topology)) == topology
    assert eval(repr(topology), {"Topology": Topology}) == topology


def test_it_is_frozen():
    topology = Topology()
    for name in ("name", "durations", "sigma", "hat", "delay_penalty"):
        with pytest.raises(FrozenInstanceError):
            setattr(topology, name, getattr(topology, name))
    with pytest.raises(ValueError, match="delay_penalty is nan"):
        replace(topology, delay_penalty=np.nan)


@pytest.mark.parametrize("door", TWO_ARCS_ALONE)
def test_doors_refuse_arcs_that_take_several_frames(door):
    for topology in (Topology("tdt", durations=(0, 1)), Topology("multiblank", durations=(2,))):
        with pytest.raises(ValueError, match=f"topology.name is '{topology.name}', expected one of {NAMES}"):
            DOORS[door](topology)
    with pytest.raises(ValueError, match=f"topology is 'tdt', expected one of {NAMES}"):
        DOORS[door]("tdt")


@pytest.mark.parametrize("door", [name for name in DOORS if name not in TWO_ARCS_ALONE])
def test_a_name_alone_has_no_durations(door):
    for name in ("tdt", "multiblank"):
        with pytest.raises(ValueError, match=f"topology is '{name}', expected a Topology: the name alone has no dur"):
            DOORS[door](name)


@pytest.mark.parametrize("door", DOORS)
def test_doors_refuse_what_they_do_not_know(door):
    for topology, text in (
        ("Rnnt", f"topology is 'Rnnt', expected one of {NAMES}"),
        (None, f"topology is None, expected one of {NAMES}"),
        (Topology, "topology is <class 'lattice.topology.Topology'>, expected one of"),
    ):
        with pytest.raises(ValueError, match=re.escape(text)):
            DOORS[door](topology)


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("door", DOORS)
def test_a_name_and_an_object_are_the_same_bits(door, name):
    expected = DOORS[door](name)
    for penalty in (0, 0.0, -0.0):
        assert_equal(DOORS[door](Topology(name, delay_penalty=penalty)), expected)


def test_every_door_with_a_topology_is_here():
    functions = {name: value for name, value in vars(lattice).items() if inspect.isfunction(value)}
    takers = {name for name, door in functions.items() if "topology" in inspect.signature(door).parameters}
    assert takers == set(DOORS) | {"ids_to_frames", "frames_to_ids", "scores_loss_and_grad"}


def test_frame_wise_ids_and_scores_take_an_object():
    """These know other names, or take no `hat`."""
    monotonic, lengths = Topology("monotonic"), (np.array([3]), np.array([2]))
    frames, targets = np.array([[0, 2]]), np.array([[4, 5]])
    ids = lattice.frames_to_ids(frames, targets, *lengths, topology=monotonic)
    assert ids.tolist() == [[4, 0, 5]]
    assert lattice.ids_to_frames(ids, targets, *lengths, topology=monotonic).tolist() == [[0, 2]]
    for door, given in ((lattice.frames_to_ids, frames), (lattice.ids_to_frames, ids)):
        with pytest.raises(ValueError, match=r"topology\.name is 'rnnt', expected one of 'ctc', 'monotonic'"):
            door(given, targets, *lengths, topology=Topology())
    scores = np.zeros((1, 3, 3))
    expected = lattice.scores_loss_and_grad(scores, scores, *lengths, topology="monotonic")
    assert_equal(lattice.scores_loss_and_grad(scores, scores, *lengths, topology=monotonic), expected)


def test_problems_of_every_variant_have_alignments():
    for topology in VARIANTS:
        problem = problems.logits_problem(1, topology=topology, bounded=True, dtype=np.float64)
        loss, _ = oracle.batch_loss_and_grad(*problem.args, **problem.options)
        assert np.isfinite(loss).all()
