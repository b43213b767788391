"""The two numbers the caller sets: how much memory, and which cells are not worth a visit."""

import gc
import re
import tracemalloc

import numpy as np
import pytest

import lattice
from tests import compare
from tests.problems import HALF_ENCODER, HALF_PREDICTOR, TOPOLOGIES, joint_problem
from tests.test_joint import check, slack_of

PYTHON = 48 << 10  # objects of the interpreter, not arrays


def call(problem, **extra):
    return lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, **extra)


def least_limit(problem, door=lattice.joint_transducer_loss_and_grad, **extra):
    """The bytes that the error asks for."""
    with pytest.raises(ValueError, match="memory_limit") as error:
        door(*problem.args, **problem.options, memory_limit=1, **extra)
    return max(int(number) for number in re.findall(r"\d+", str(error.value)))


def extra_bytes(function):
    """Peak of NumPy's allocations during a call, beyond what was there before, and the call's result."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = function()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


def size_of(loss, grads=(), *, overwrite=False):
    return loss.nbytes + sum(grad.nbytes for grad in (grads[2:] if overwrite else grads) if grad is not None)


KINDS = [
    {},
    {"topology": "monotonic", "use_bias": False},
    {"vocabulary": "lengths"},
    {"bounded": True, "activation": "relu"},
    {"hypotheses": 9},
    {"sharpness": 8.0},
    {"dtype": np.float64},
    {"dtype": np.float16},
    {"dtype": np.float16, "weight_dtype": np.float32},
    HALF_ENCODER,
    HALF_PREDICTOR,
]
LONG = {"lengths": ([3] * 8, [200] * 8), "vocab": 16, "width": 200}
"""Rows of the predictor take most of the memory."""


@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_limit_gives_the_same(kind, posterior_floor):
    problem = joint_problem(1, batch=6, frames=25, labels=9, vocab=70, width=12, **kind)
    least = least_limit(problem, posterior_floor=posterior_floor)
    loss, grads = call(problem, posterior_floor=posterior_floor)
    slack = 2 * slack_of(problem, posterior_floor)
    for limit in (least, 3 * least // 2, 6 * least, 1 << 30):
        new_loss, new_grads = call(problem, posterior_floor=posterior_floor, memory_limit=limit)
        compare.assert_same(new_loss, loss, per_example=True, slack=slack, what=f"loss at {limit}")
        for name, ours, other in zip(grads._fields, new_grads, grads, strict=True):
            if other is not None:
                compare.assert_same(ours, other, scale=loss.max(), slack=slack, what=f"{name} at {limit}")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_smallest_limit_against_the_oracle(topology):
    problem = joint_problem(2, batch=5, frames=15, labels=7, vocab=33, topology=topology, vocabulary="endings")
    least = least_limit(problem, posterior_floor=0)
    grad_loss = np.array([1, -2, 0, 0.5, 3], np.float32)
    check(problem, memory_limit=least, grad_loss=grad_loss, fastemit_lambda=0.1)
    check(problem, memory_limit=least_limit(problem), posterior_floor=2.0**-24)


def test_the_least_limit_is_for_the_largest_example_not_for_the_batch():
    sizes = []
    for batch in (2, 16):
        lengths = ([40] + [10] * (batch - 1), [12] + [3] * (batch - 1))
        sizes.append(least_limit(joint_problem(3, batch=batch, lengths=lengths, vocab=64, width=16)))
    assert sizes[1] < 2 * sizes[0]


def test_one_byte_less_is_refused():
    problem = joint_problem(4, frames=20, labels=8, vocab=50)
    least = least_limit(problem)
    call(problem, memory_limit=least)
    with pytest.raises(ValueError, match=rf"memory_limit.*{least}|{least}.*memory_limit"):
        call(problem, memory_limit=least - 1)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
@pytest.mark.parametrize(
    "kind",
    [{}, {"sharpness": 8.0}, {"vocabulary": "lengths"}, {"dtype": np.float16}, HALF_ENCODER, HALF_PREDICTOR],
    ids=str,
)
def test_measured_memory_stays_below_the_limit(kind, posterior_floor, overwrite):
    """16 examples of up to 40 x 15 cells and 256 ids: several MB of logits, and a limit far below."""
    options = {"batch": 16, "frames": 40, "labels": 15, "vocab": 256, "width": 24, **kind}
    call(joint_problem(5, **options), posterior_floor=posterior_floor)  # compiled, imported, cached
    for limit in (1 << 18, 1 << 20):
        problem = joint_problem(5, **options)
        used, result = extra_bytes(
            lambda problem=problem, limit=limit: call(
                problem, posterior_floor=posterior_floor, memory_limit=limit, overwrite=overwrite
            )
        )
        assert used - size_of(*result, overwrite=overwrite) <= limit + PYTHON


@pytest.mark.parametrize("kind", [{}, HALF_ENCODER, LONG | HALF_PREDICTOR], ids=str)
@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
def test_the_least_limit_is_kept(posterior_floor, kind):
    sizes = {"frames": 60, "labels": 20, "vocab": 256, "width": 24, "sharpness": 8.0}
    problem = joint_problem(6, batch=8, **(sizes | kind))
    least = least_limit(problem, posterior_floor=posterior_floor)
    options = {"posterior_floor": posterior_floor, "memory_limit": least}
    # What the interpreter keeps of one call for the next, until a collection, is not the call's. The last calls need no
    # such memory.
    gc.disable()
    try:
        measured = [extra_bytes(lambda: call(problem, **options)) for _ in range(4)]
    finally:
        gc.enable()
    assert min(used - size_of(*result) for used, result in measured) <= least + PYTHON


@pytest.mark.parametrize("kind", [{}, HALF_ENCODER, HALF_PREDICTOR], ids=str)
def test_overwriting_in_small_groups(kind):
    """An example's encoder must not be overwritten while it is still needed, however the batch is cut."""
    problem = joint_problem(2, batch=7, frames=40, labels=15, vocab=64, width=24, **kind)
    loss, expected = call(problem, posterior_floor=0)
    least = least_limit(problem, posterior_floor=0)
    for limit in (least, 2 * least, 8 * least):
        victim = joint_problem(2, batch=7, frames=40, labels=15, vocab=64, width=24, **kind)
        new_loss, grads = call(victim, posterior_floor=0, overwrite=True, memory_limit=limit)
        compare.assert_same(new_loss, loss, per_example=True)
        for name, ours, other in zip(grads._fields, grads, expected, strict=True):
            compare.assert_same(ours, other, scale=loss.max(), what=name)


@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
def test_loss_alone_and_vjp_stay_below_the_limit(posterior_floor):
    problem = joint_problem(7, batch=16, frames=40, labels=15, vocab=256, width=24)
    limit = 1 << 18
    options = {**problem.options, "posterior_floor": posterior_floor, "memory_limit": limit}
    ones = np.ones(16, np.float32)
    loss, vjp = lattice.joint_transducer_loss_vjp(*problem.args, **options)
    grads = vjp(ones)
    lattice.joint_transducer_loss(*problem.args, **options)
    used, loss = extra_bytes(lambda: lattice.joint_transducer_loss(*problem.args, **options))
    assert used - size_of(loss) <= limit + PYTHON

    def forward_and_back():
        loss, vjp = lattice.joint_transducer_loss_vjp(*problem.args, **options)
        return loss, vjp(ones)

    used, (loss, grads) = extra_bytes(forward_and_back)
    assert used - size_of(loss, grads) <= limit + PYTHON


@pytest.mark.parametrize("kind", [{}, {"bounded": True}, {"vocabulary": "lengths"}, {"activation": "relu"}], ids=str)
@pytest.mark.parametrize("sharpness", [0.0, 4.0, 10.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_floor_costs_at_most_what_it_skips(kind, sharpness, topology):
    """In float64, so that rounding hides nothing."""
    options = {"frames": 40, "labels": 15, "vocab": 24, "width": 8, "dtype": np.float64, "topology": topology}
    problem = joint_problem(8, batch=3, sharpness=sharpness, **options, **kind)
    dense_loss, dense = call(problem, posterior_floor=0)
    for floor in (1e-12, 2.0**-24, 1e-5):
        slack = slack_of(problem, floor)
        loss, grads = call(problem, posterior_floor=floor)
        alone = lattice.joint_transducer_loss(*problem.args, **problem.options, posterior_floor=floor)
        compare.assert_same(loss, dense_loss, slack=slack, per_example=True, what="loss")
        compare.assert_same(alone, dense_loss, slack=slack, per_example=True, what="loss alone")
        for name, ours, other in zip(grads._fields, grads, dense, strict=True):
            compare.assert_same(ours, other, scale=1e3, slack=slack, what=name)


def test_a_high_floor_does_skip():
    """Seen from outside: the gradient of what is never visited is exactly 0."""
    problem = joint_problem(9, batch=1, lengths=([40], [15]), width=8, vocab=24, sharpness=8.0, dtype=np.float64)
    _, dense = call(problem, posterior_floor=0)
    _, grads = call(problem, posterior_floor=1e-3)
    difference = np.abs(grads.weight - dense.weight).max()
    assert 0 < difference < 1e-3


def test_long_audio_stays_below_the_limit_between_loss_and_gradient():
    """12,000 frames by 4 hypotheses: what is held between the calls, and index arrays, beside a workspace."""
    problem = joint_problem(
        6, batch=1, frames=12_000, labels=3, vocab=8, width=16, hypotheses=4, lengths=([12_000] * 4, [3] * 4)
    )

    def both():
        loss, vjp = lattice.joint_transducer_loss_vjp(*problem.args, **problem.options, memory_limit=6 << 20)
        return loss, vjp(), vjp

    both()
    used, (loss, grads, _) = extra_bytes(both)
    assert used - size_of(loss, grads) <= (6 << 20) + PYTHON
