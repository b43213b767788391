"""A small call of every door on device arrays, for each dtype and each way that leads to kernels of its own."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

import lattice
import samplers
from lattice.kernels.activations import ACTIVATIONS
from tests import decode_on_device, steps_problems
from tests.ctc_problems import ctc_problem
from tests.decode_problems import decode_problem
from tests.kernel_compare import BROAD
from tests.language_model_problems import language_model_problem
from tests.on_device import OnDevice
from tests.path_problems import path_problem
from tests.problems import BFLOAT16, DTYPES, TOPOLOGIES, joint_problem, logits_problem
from tests.timed_decode_problems import timed_problem

SMALL = {"batch": 2, "frames": 4, "labels": 2}
HALF = (np.dtype(np.float16), BFLOAT16)
KINDS = {
    "plain": {},
    "dense": {"posterior_floor": 0.0},
    "vocabulary": {"vocabulary": "lengths"},
    "bounds": {"bounded": True},
    "shared": {"hypotheses": 3},
    "trained": {"sharpness": 8.0, "frames": 8, "labels": 3},
    "no bias": {"use_bias": False, "activation": "relu"},
    "identity": {"activation": "identity"},
}
"""Problems, and `posterior_floor`, of a fused joint."""
HATS = [lattice.Topology(name, hat=True, delay_penalty=0.3) for name in TOPOLOGIES]
STEPS = [
    lattice.Topology("tdt", durations=(0, 1, 2), sigma=0.05, delay_penalty=0.3),
    lattice.Topology("multiblank", durations=(2,)),
]


def every_call(cupy, dtypes, activations=ACTIVATIONS) -> Iterator[Callable[[], object]]:
    """Calls without arguments, for arrays of some dtypes; `cupy` is CuPy or its stand-in."""
    there = OnDevice(cupy.asarray, cupy.asnumpy, integers=True).module()
    kinds = {name: kind for name, kind in KINDS.items() if kind.get("activation", "tanh") in activations}
    yield partial(lattice.warm_up, *dtypes, device="cuda", activations=tuple(activations))
    for dtype in dtypes:
        for topology in TOPOLOGIES:
            yield from _scores(there, dtype, topology)
        for topology in (*TOPOLOGIES, *HATS):
            yield from _logits(there, dtype, topology)
            yield from _joint(there, dtype, dtype, topology, kinds)
        for topology in STEPS:
            yield from _steps(there, dtype, dtype, topology, kinds)
        yield from _language_models(there, dtype, dtype, activations)
        if dtype in (np.dtype(np.float32), BFLOAT16):
            yield from _dropped(there, dtype)
        yield from _lists(there, dtype)
        yield from _searches(cupy, dtype, dtype)
        yield from _samplers(cupy, dtype)
        if dtype in HALF:
            for topology in ("rnnt", HATS[0]):
                yield from _joint(there, dtype, np.dtype(np.float32), topology, kinds)
            for topology in STEPS:
                yield from _steps(there, dtype, np.dtype(np.float32), topology, kinds)
            yield from _language_models(there, dtype, np.dtype(np.float32), activations)
            yield from _searches(cupy, dtype, np.dtype(np.float32))
        if dtype == BFLOAT16:
            yield from _autocast(there)


def _upstream(count):
    """Upstream gradients of every dtype."""
    return [None, *(np.ones(count, dtype) for dtype in DTYPES)]


def _logits(there, dtype, topology):
    problem = logits_problem(0, dtype=dtype, topology=topology, **SMALL)
    bounded = logits_problem(1, dtype=dtype, topology=topology, bounded=True, **SMALL)
    for grad_loss in _upstream(2):
        yield partial(there.transducer_loss_and_grad, *problem.args, **problem.options, grad_loss=grad_loss)
    packed, banded = bounded.pack(bounded.logits), bounded.band(bounded.logits)
    yield partial(there.transducer_loss_and_grad, packed, *bounded.args[1:], **bounded.options)
    for door in (there.transducer_loss_and_grad, there.transducer_exit_posterior):
        yield partial(door, banded, *bounded.args[1:], **bounded.options, banded=True)
    for door in (there.transducer_loss, there.transducer_alignment, there.transducer_posteriors):
        yield partial(door, *problem.args, **problem.options)


def _scores(there, dtype, topology):
    problem = logits_problem(0, dtype=dtype, topology=topology, **SMALL)
    scores, options = problem.logits[..., 0], {"topology": topology}
    for grad_loss in _upstream(2):
        yield partial(there.scores_loss_and_grad, scores, -scores, *problem.args[2:], **options, grad_loss=grad_loss)


def _joint(there, dtype, weight_dtype, topology, kinds):
    for kind in kinds.values():
        kind = SMALL | kind | {"dtype": dtype, "weight_dtype": weight_dtype, "topology": topology}
        floor = {"posterior_floor": kind.pop("posterior_floor", 2.0**-24)}
        problem = joint_problem(2, **kind)
        arguments = problem.args, problem.options
        yield partial(_call, there.joint_transducer_loss_and_grad, *arguments, **floor)
        yield partial(_call, there.joint_transducer_posteriors, *arguments, **floor)
        yield partial(_call, there.joint_transducer_alignment, *arguments)
        yield partial(_call, there.joint_transducer_alignment, *arguments, memory_limit=_least(there, *arguments))
        if "hypotheses" not in kind:
            path = path_problem(3, **{name: value for name, value in kind.items() if name != "bounded"})
            weights = {"label_smoothing": 0.1, "label_scale": 0.5, "focal": 0.5}
            yield partial(_call, there.joint_path_loss_and_grad, path.args, path.options, **weights)
    problem = joint_problem(4, **SMALL, dtype=dtype, weight_dtype=weight_dtype, topology=topology)
    yield partial(_call, there.joint_transducer_loss, problem.args, problem.options)
    yield partial(_call, there.joint_transducer_report, problem.args, problem.options)
    yield partial(_call, there.joint_transducer_loss_and_grad, problem.args, problem.options, precision="tf32x3")
    yield partial(_pulled_back, there, problem)
    # A loss that is not finite sends the gradients of a path through a second pass.
    path = path_problem(5, **SMALL, dtype=dtype, weight_dtype=weight_dtype, topology=topology)
    path.encoder[0, 0] = np.nan
    yield partial(_call, there.joint_path_loss_and_grad, path.args, path.options)


def _dropped(there, dtype):
    """With dropout, which asks for kernels of their own."""
    for activation in BROAD if dtype == BFLOAT16 else ["relu"]:
        options = SMALL | {"dtype": dtype, "activation": activation, "dropout": (0.3, 2**63 + 1)}
        for topology in ("rnnt", HATS[0]):
            problem = joint_problem(10, **options, topology=topology, bounded=True)
            yield partial(_call, there.joint_transducer_loss_and_grad, problem.args, problem.options)
            yield partial(_call, there.joint_transducer_report, problem.args, problem.options)
        problem = steps_problems.joint_problem(10, STEPS[0], **options)
        yield partial(_call, there.joint_transducer_loss_and_grad, problem.args, problem.options)
        for door, problem in (
            (there.joint_path_loss_and_grad, path_problem(10, **options)),
            (there.internal_language_model_loss_and_grad, language_model_problem(10, **options)),
        ):
            yield partial(_call, door, problem.args, problem.options)


def _autocast(there):
    """What linear layers give, beside an embedding and parameters."""
    kinds = (np.dtype(kind) for kind in (BFLOAT16, np.float32, np.float32, np.float32))
    problem = joint_problem(9, **SMALL, dtypes=tuple(kinds))
    yield partial(_call, there.joint_transducer_loss_and_grad, problem.args, problem.options)


def _steps(there, dtype, weight_dtype, topology, kinds):
    """Arcs that take several frames."""
    problem = steps_problems.logits_problem(0, topology, dtype=dtype, **SMALL)
    for grad_loss in _upstream(2):
        yield partial(there.transducer_loss_and_grad, *problem.args, **problem.options, grad_loss=grad_loss)
    for door in (there.transducer_loss, there.transducer_alignment, there.transducer_posteriors):
        yield partial(door, *problem.args, **problem.options)
    for kind in (kind for name, kind in kinds.items() if name != "plain"):
        kind = SMALL | kind | {"dtype": dtype, "weight_dtype": weight_dtype}
        floor = {"posterior_floor": kind.pop("posterior_floor", 2.0**-24)}
        problem = steps_problems.joint_problem(2, topology, **kind)
        yield partial(_call, there.joint_transducer_loss_and_grad, problem.args, problem.options, **floor)
        yield partial(_call, there.joint_transducer_posteriors, problem.args, problem.options, **floor)
        yield partial(_call, there.joint_transducer_alignment, problem.args, problem.options)
    yield partial(_pulled_back, there, problem)
    yield partial(_call, there.joint_transducer_report, problem.args, problem.options)


def _language_models(there, dtype, weight_dtype, activations):
    for activation in activations:
        problem = language_model_problem(6, **SMALL, dtype=dtype, weight_dtype=weight_dtype, activation=activation)
        yield partial(_call, there.internal_language_model_loss_and_grad, problem.args, problem.options)


def _call(door, arguments, options, **more):
    return door(*arguments, **(options | more))


def _least(there, arguments, options) -> int:
    """The smallest memory limit of an alignment: its logits are made a run of frames at a time."""
    try:
        there.joint_transducer_alignment(*arguments, **options, memory_limit=1)
    except ValueError as error:
        return int(str(error).split("at least ")[1].split(":")[0])
    raise AssertionError("a memory limit of 1 byte was not refused")


def _pulled_back(there, problem):
    _, vjp = there.joint_transducer_loss_vjp(*problem.args, **problem.options)
    for grad_loss in _upstream(len(problem.targets)):
        vjp(*(() if grad_loss is None else (grad_loss,)))


def _lists(there, dtype):
    problem = ctc_problem(6, batch=2, frames=6, labels=2, dtype=dtype)
    for grad_loss in _upstream(2):
        yield partial(there.ctc_loss_and_grad, *problem.args, **problem.options, grad_loss=grad_loss)
    for door in (there.ctc_loss, there.ctc_alignment):
        yield partial(door, *problem.args, **problem.options)
    scores = np.array([[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]]).astype(dtype)
    yield partial(there.minimum_bayes_risk, scores, np.array([[0, 1, 2], [1, 0, 0]]), np.array([3, 1]))


def _searches(cupy, dtype, weight_dtype):
    for topology, allowed, door in itertools.product((*TOPOLOGIES, *HATS), (None, "some"), decode_on_device.DOORS):
        problem = decode_problem(
            7,
            batch=2,
            frames=2,
            vocab=6,
            most=2,
            dtype=dtype,
            weight_dtype=weight_dtype,
            topology=topology,
            allowed=allowed,
            blank_lead=-2.0,
        )
        yield partial(decode_on_device.there, door, problem, cupy, cupy.asnumpy)
    several = lattice.Topology("tdt", durations=(0, 1, 2)), lattice.Topology("multiblank", durations=(2,))
    for topology, door in itertools.product(several, decode_on_device.DOORS):
        problem = timed_problem(7, topology, batch=2, frames=2, most=2, dtype=dtype, weight_dtype=weight_dtype)
        yield partial(decode_on_device.there, door, problem, cupy, cupy.asnumpy)


def _samplers(cupy, dtype):
    rng = np.random.default_rng(8)
    p = rng.dirichlet(np.ones(9), 2).astype(dtype)
    targets, lengths = (cupy.asarray(values) for values in (np.array([[1, 2], [3, 3]]), np.array([2, 1])))
    for given, strategy in itertools.product((p, p[0]), ("example", "batch")):
        yield partial(
            samplers.sample_vocabulary, targets, lengths, 6, distribution=cupy.asarray(given), strategy=strategy, seed=1
        )
    yield partial(samplers.allowed_vocabulary, cupy.asarray(p), 4)
    logits = cupy.asarray(rng.standard_normal((2, 3, 9)).astype(dtype))
    yield partial(samplers.ctc_posterior, logits, lengths)
    for other in (samplers.uniform(9), samplers.uniform(9).astype(np.float32)):
        yield partial(samplers.mixture, [cupy.asarray(p), other], [1, 1])
