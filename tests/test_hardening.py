"""What fuzzing found, each once.

Errors were unclear, memory was read beyond its end, numbers overflowed, and inputs were overwritten.
"""

import collections
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import lattice
import samplers
from benchmarks.stress import growth
from benchmarks.stress.fuzz_hostile import Gives, Wrapped, misnamed_capsule
from tests.path_problems import path_problem
from tests.problems import DTYPES, joint_problem, logits_problem, name_of

ROOT = Path(__file__).resolve().parent.parent
LOGITS = logits_problem(1)
JOINT = joint_problem(1)


def loss(**changes):
    names = ("logits", "targets", "logit_lengths", "target_lengths")
    return lattice.transducer_loss(**(dict(zip(names, LOGITS.args)) | changes))


def name_of_value(value) -> str:
    """What a value looks like without its address, so that every process calls its test alike."""
    return re.sub(r" at 0x\w+", "", repr(value))


@pytest.mark.parametrize("name", ["logits", "targets", "logit_lengths"])
@pytest.mark.parametrize("given", [None, 5, "text", b"dltensor", misnamed_capsule()], ids=name_of_value)
def test_what_is_no_capsule_is_refused_by_name(name, given):
    with pytest.raises(TypeError, match=rf"{name} of type Gives cannot be read by DLPack: __dlpack__ gave"):
        loss(**{name: Gives(given)})


@pytest.mark.parametrize("device", [None, 7, (1,), (1, 0, 0), ("cpu", 0)])
@pytest.mark.parametrize("name", ["logits", "targets"])
def test_what_is_no_device_is_refused_by_name(name, device):
    with pytest.raises(TypeError, match=rf"{name} of type Wrapped.*has no device"):
        loss(**{name: Wrapped(getattr(LOGITS, name), device)})


def test_lengths_are_called_what_the_caller_calls_them():
    frames, one = np.zeros((1, 1), np.int64), np.ones(1, np.int64)
    with pytest.raises(TypeError, match=r"^encoder_lengths of type Wrapped"):
        lattice.alignment_bounds(frames, one, Wrapped(one, None), left=0, right=0)
    with pytest.raises(TypeError, match=r"^lengths of type Wrapped"):
        lattice.shift_frames(frames, Wrapped(one, None), one, 0)


def test_masked_arrays_are_refused_and_other_subclasses_read():
    with pytest.raises(TypeError, match="target_lengths is a masked array"):
        loss(target_lengths=np.ma.array(LOGITS.target_lengths, mask=False))
    packed = LOGITS.pack(LOGITS.logits)
    expected = loss(logits=packed)
    assert np.array_equal(loss(logits=packed.view(np.memmap)), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        assert np.array_equal(loss(logits=np.matrix(packed)), expected)


def test_bounds_as_a_named_pair():
    problem = logits_problem(3, bounded=True)
    pair = collections.namedtuple("Pair", "first last")(*problem.bounds)
    expected = lattice.transducer_loss(*problem.args, **problem.options)
    assert np.array_equal(lattice.transducer_loss(*problem.args, **problem.options | {"bounds": pair}), expected)


def test_bounds_whose_difference_overflows_leave_no_cell():
    """last - first + 1 was 2 in int64, for cells that do not exist."""
    shape = len(LOGITS.logits), LOGITS.logits.shape[1]
    bounds = np.full(shape, 2**63 - 1), np.full(shape, -(2**63))
    assert np.isposinf(loss(bounds=bounds)).all()
    found, gradients = lattice.joint_transducer_loss_and_grad(
        *JOINT.args, bounds=tuple(np.resize(x, (4, 8)) for x in bounds)
    )
    assert np.isposinf(found).all() and not gradients.weight.any()


FACTORS = {
    "fastemit_lambda": lambda value: lattice.transducer_loss_and_grad(*LOGITS.args, fastemit_lambda=value),
    "label_scale": lambda value: lattice.joint_path_loss_and_grad(*path_problem(1).args, label_scale=value),
    "focal": lambda value: lattice.joint_path_loss_and_grad(*path_problem(1).args, focal=value),
    "scale": lambda value: lattice.minimum_bayes_risk(np.zeros((1, 2)), np.ones((1, 2)), np.ones(1, int), scale=value),
    "weights": lambda value: samplers.mixture([samplers.uniform(3)] * 2, [value, value]),
}


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize(
    "value", [1e38, 3.5e38, 1e308, 10**400, np.longdouble("1e4000")], ids=lambda value: repr(value)[:12]
)
def test_factors_that_overflow_float32_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name}.* is .*expected .*at most 1e\+30"):
        FACTORS[name](value)


@pytest.mark.parametrize("name", [name for name in FACTORS if name != "scale"])
def test_the_largest_factors_leave_the_result_finite(name):
    result = FACTORS[name](1e30)
    arrays = [result] if name == "weights" else [result[1]] if name == "fastemit_lambda" else [result[1].weight]
    assert all(np.isfinite(array[~np.isnan(array)]).all() for array in arrays)


@pytest.mark.parametrize("value", ["False", 1, None, np.array([True, False])], ids=repr)
def test_overwrite_is_true_or_false(value):
    with pytest.raises(TypeError, match=r"overwrite is .*expected True or False"):
        lattice.joint_transducer_loss_and_grad(*JOINT.args, overwrite=value)


@pytest.mark.parametrize("one, other", [("encoder", "weight"), ("predictor", "weight"), ("encoder", "bias")])
def test_what_is_overwritten_lies_apart_from_the_output_layer(one, other):
    problem = joint_problem(2, vocab=5, width=5, frames=8, batch=2)
    names = ("encoder", "predictor", "weight", "bias", "targets", "encoder_lengths", "target_lengths")
    given = {name: np.nan_to_num(x) if x.dtype.kind == "f" else x for name, x in zip(names, problem.args)}
    given[other] = given[one].reshape(-1)[: given[other].size].reshape(given[other].shape)
    with pytest.raises(ValueError, match=rf"overwrite=True: {one} and {other} share memory"):
        lattice.joint_transducer_loss_and_grad(**given, overwrite=True)
    lattice.joint_transducer_loss_and_grad(**given)


@pytest.mark.parametrize("kind", [object, "S3", "V3"])
def test_a_state_that_cannot_be_moved_is_refused_by_name(kind):
    rows, weight, one = np.zeros((1, 2, 4), np.float32), np.zeros((3, 4), np.float32), np.ones(1, int)

    def predict(labels, state):
        return np.zeros((len(labels), 4), np.float32), (np.zeros(len(labels), kind),)

    with pytest.raises(TypeError, match=r"state\[0\] that predict returned has dtype"):
        lattice.greedy_decode(rows, one, predict, weight, None)


def test_sizes_that_are_garbage_are_refused_before_memory_is_asked_for():
    one, frames = np.ones(1, np.int64), np.zeros((1, 1), np.int64)
    for door in (samplers.uniform, samplers.log_uniform):
        for size in (2**24 + 1, 2**31 - 1, 2**63, np.uint64(2**63)):
            with pytest.raises(ValueError, match="vocab_size is"):
                door(size)
    with pytest.raises(ValueError, match=r"encoder_lengths\[0\] is 2147483647"):
        lattice.alignment_bounds(frames, one, one * (2**31 - 1), left=0, right=0)
    with pytest.raises(ValueError, match=r"lengths\[0\] is 2147483647"):
        lattice.frames_to_ids(frames, frames + 1, one * (2**31 - 1), one)


def test_sequences_and_sums_of_the_samplers():
    with pytest.raises(TypeError, match="distributions is int, expected a sequence"):
        samplers.mixture(5, [1.0])
    with pytest.raises(TypeError, match="weights is NoneType, expected a sequence"):
        samplers.mixture([samplers.uniform(3)], None)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="counts add up to more"):
        warnings.simplefilter("error")
        samplers.unigram(np.full(3, 1e308))


@pytest.mark.parametrize("kind", ["garbage", 1.0, object(), ">f4", [1, 2], np.complex64], ids=name_of_value)
def test_warm_up_names_its_dtype(kind):
    with pytest.raises(TypeError, match=r"dtypes\[0\] is"):
        lattice.warm_up(kind)


def test_a_call_while_the_interpreter_shuts_down():
    """The pool takes no more work then: the calling thread does it."""
    script = """
import atexit, numpy as np, lattice
logits, targets = np.zeros((4, 100, 11, 40), np.float32), np.ones((4, 10), int)
call = lambda: print(lattice.transducer_loss(logits, targets, np.full(4, 100), np.full(4, 10))[0])
atexit.register(call)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert float(done.stdout) > 0 and not done.stderr, done.stderr


@pytest.mark.slow
def test_memory_does_not_grow():
    """150 calls of each door, refused ones and dropped closures among them; 10,000 under `benchmarks stress growth`."""
    grown = {
        name: growth.growth(call, 50, 200)["growth"]
        for name, call in growth.every_call().items()
        if "decode" not in name
    }
    assert max(grown.values()) < growth.BOUND, grown


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_nan_of_either_sign_is_seen_in_a_row_that_is_closed_but_for_it(sign, dtype):
    """Which sign inf - inf has is the machine's to choose."""
    nan = np.copysign(np.nan, sign)
    one, targets = np.array([2]), np.array([[1]])
    logits = np.full((1, 2, 2, 3), -np.inf).astype(dtype)
    logits[0, 0, 0, 2] = nan
    loss, grad = lattice.transducer_loss_and_grad(logits, targets, one, one - 1)
    assert np.isnan(loss).all() and np.isnan(grad[0, 0, 0].astype(np.float64)).all()
    loss, grad = lattice.ctc_loss_and_grad(logits[:, :, 0], targets, one, one - 1)
    assert np.isnan(loss).all() and np.isnan(grad[0, 0].astype(np.float64)).all()
    # The row of the only frame: biases of -inf close all ids, and NaN in the weight of one of them shows.
    encoder, weight = np.ones((1, 1, 1), dtype), np.array([[0], [0], [nan]]).astype(dtype)
    bias, frames = np.full(3, -np.inf).astype(dtype), np.zeros((1, 1), np.int32)
    loss, _ = lattice.joint_path_loss_and_grad(
        encoder, np.ones((1, 2, 1), dtype), weight, bias, targets, frames, one - 1, one - 1
    )
    assert np.isnan(loss).all()
