"""The doors from end to end on the simulated device, against the CPU: every path of the walk, memory, and waits."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice.tiles import plan
from tests import compare
from tests.on_device import OnDevice
from tests.problems import (
    BFLOAT16,
    DTYPES,
    HALF_ENCODER,
    HALF_PREDICTOR,
    TOPOLOGIES,
    joint_problem,
    logits_problem,
    name_of,
)

SMALL = {"batch": 3, "frames": 4, "labels": 3}
F4 = np.dtype(np.float32)


@pytest.fixture(params=[False, True], ids=["host-ids", "device-ids"])
def there(request, device):
    return OnDevice(device.asarray, device.asnumpy, integers=request.param).module()


def assert_alike(ours, host, dtype, *, operands=None):
    """The device's result and the host's.

    Where a device multiplies bfloat16, the comparison lets its rounding of the operands pass.
    """
    names = ("loss", *lattice.JointGradients._fields)[: len(host)]
    for name, one, other in zip(names, ours, host, strict=True):
        if other is None:
            assert one is None
            continue
        slack = 0.0
        if operands == BFLOAT16:
            finite = np.abs(other.astype(np.float64))
            slack = 2.0**-8 * max(1.0, finite[np.isfinite(finite)].max(initial=0))
        assert one.dtype == other.dtype, name
        compare.assert_same(one, other, slack=slack, k=64, what=name)


def both(there, problem, **options):
    host = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, **options)
    ours = there.joint_transducer_loss_and_grad(*problem.args, **problem.options, **options)
    weight = problem.weight.dtype
    assert_alike((ours[0], *ours[1]), (host[0], *host[1]), problem.encoder.dtype, operands=weight)
    return ours


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_from_logits(there, dtype, topology):
    problem = logits_problem(0, dtype=dtype, topology=topology, **SMALL)
    host = lattice.transducer_loss_and_grad(*problem.args, **problem.options, fastemit_lambda=0.25)
    ours = there.transducer_loss_and_grad(*problem.args, **problem.options, fastemit_lambda=0.25)
    assert_alike(ours, host, dtype)
    assert_alike([there.transducer_loss(*problem.args, **problem.options)], host[:1], dtype)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16], ids=name_of)
def test_banded(there, dtype, topology):
    problem = logits_problem(1, bounded=True, dtype=dtype, topology=topology, **SMALL)
    arguments = problem.band(problem.logits, spare=1), *problem.args[1:]
    options = problem.options | {"banded": True}
    host = lattice.transducer_loss_and_grad(*arguments, **options)
    assert host[1].any() and np.isfinite(host[0]).all()
    assert_alike(there.transducer_loss_and_grad(*arguments, **options), host, dtype)
    in_place = arguments[0].copy()
    assert_alike(there.transducer_loss_and_grad(in_place, *arguments[1:], **options, out=in_place), host, dtype)
    frames, score = there.transducer_alignment(*arguments, **options)
    host_frames, host_score = lattice.transducer_alignment(*arguments, **options)
    np.testing.assert_array_equal(frames, host_frames)
    compare.assert_same(score, host_score, what="score")


def test_packed_bounded_and_in_place(there):
    problem = logits_problem(1, bounded=True, **SMALL)
    packed = problem.pack(problem.logits)
    host = lattice.transducer_loss_and_grad(packed, *problem.args[1:], **problem.options)
    out = packed.copy()
    loss, grad = there.transducer_loss_and_grad(out, *problem.args[1:], **problem.options, out=out)
    assert grad is out
    assert_alike((loss, grad), host, np.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_joint(there, topology, dtype):
    both(there, joint_problem(2, topology=topology, dtype=dtype, **SMALL), posterior_floor=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_joint_of_factors(there, dtype, monkeypatch):
    monkeypatch.setattr(plan, "CELLS_A_ROW", 0)
    problem = joint_problem(2, dtype=dtype, **SMALL)
    # Cells of this frame are made of the inputs.
    problem.encoder[1, 0] *= 100
    with_few = both(there, problem)
    monkeypatch.setattr(plan, "CELLS_A_ROW", 10**9)
    without = there.joint_transducer_loss_and_grad(*problem.args, **problem.options)
    assert_alike((with_few[0], *with_few[1]), (without[0], *without[1]), dtype, operands=dtype)


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_joint_without_bias_and_with_skipped_cells(there, activation):
    problem = joint_problem(
        3, frames=8, labels=3, batch=2, activation=activation, use_bias=False, sharpness=8.0, blank=-1
    )
    both(there, problem, posterior_floor=2.0**-10, grad_loss=np.array([0.5, -2.0], np.float32))


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=name_of)
@pytest.mark.parametrize("vocabulary", ["full", "lengths", "endings"])
def test_joint_with_vocabularies(there, vocabulary, dtype):
    both(there, joint_problem(4, vocabulary=vocabulary, bounded=True, dtype=dtype, **SMALL))


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
def test_half_precision_meets_float32_weights(there, dtype):
    both(there, joint_problem(5, dtype=dtype, weight_dtype=np.float32, **SMALL))


@pytest.mark.parametrize("kind", [HALF_ENCODER, HALF_PREDICTOR, {"dtypes": (BFLOAT16, F4, BFLOAT16, F4)}], ids=str)
def test_dtypes_in_any_mix(there, kind):
    problem = joint_problem(5, **kind, **SMALL)
    both(there, problem)
    expected = lattice.joint_transducer_alignment(*problem.args, **problem.options)
    frames, score = there.joint_transducer_alignment(*problem.args, **problem.options)
    np.testing.assert_array_equal(frames, expected[0])
    assert_alike((score,), expected[1:], score.dtype, operands=problem.weight.dtype)


@pytest.mark.parametrize("vocabulary", [None, "lengths"])
@pytest.mark.parametrize("weight", [np.float32, np.float16], ids=name_of)
def test_three_products_in_tf32_stand_for_one_in_float32(there, vocabulary, weight):
    """The stand-in rounds operands to TF32, which one product alone would show."""
    problem = joint_problem(10, vocabulary=vocabulary, dtype=weight, **SMALL)
    both(there, problem, precision="tf32x3", posterior_floor=0.0)
    host, _ = both(there, problem, precision="tf32x3", grad_loss=np.array([0.5, -2.0, 1.0], np.float32))
    given = {**problem.options, "precision": "tf32x3"}
    loss, vjp = there.joint_transducer_loss_vjp(*problem.args, **given)
    assert_alike((loss, *vjp()), (host, *both(there, problem)[1]), weight)
    assert_alike([there.joint_transducer_loss(*problem.args, **given)], [host], weight)
    assert there.joint_transducer_report(*problem.args, **given).workspace_bytes > (
        there.joint_transducer_report(*problem.args, **problem.options).workspace_bytes
    )


@pytest.mark.parametrize("dtype", [np.float64, BFLOAT16], ids=name_of)
def test_what_is_not_multiplied_in_float32_is_multiplied_as_ever(there, dtype):
    problem = joint_problem(11, dtype=dtype, **SMALL)
    plain, asked = (
        there.joint_transducer_loss_and_grad(*problem.args, **problem.options, precision=precision)
        for precision in ("default", "tf32x3")
    )
    for one, other in zip((plain[0], *plain[1]), (asked[0], *asked[1]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=name_of)
def test_shared_encoder_rows(there, dtype):
    both(there, joint_problem(6, hypotheses=5, batch=3, frames=4, labels=3, dtype=dtype))


def test_infeasible_and_nan_examples_touch_no_other(there):
    problem = joint_problem(7, topology="monotonic", batch=3, frames=4, labels=3, lengths=([4, 2, 3], [3, 0, 3]))
    problem = replace(problem, encoder_lengths=np.array([4, 2, 2]))
    problem.encoder[1, 0] = np.nan
    loss, gradients = both(there, problem)
    assert np.isfinite(loss[0]) and np.isnan(loss[1]) and np.isinf(loss[2])
    assert not gradients.encoder[2].any()


def test_gradients_in_place(there):
    problem = joint_problem(8, **SMALL)
    host = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options)
    encoder, predictor = problem.encoder.copy(), problem.predictor.copy()
    loss, gradients = there.joint_transducer_loss_and_grad(
        encoder, predictor, *problem.args[2:], **problem.options, overwrite=True
    )
    assert gradients.encoder is encoder and gradients.predictor is predictor
    assert_alike((loss, *gradients), (host[0], *host[1]), np.float32)


@pytest.mark.parametrize("limit", [None, 1 << 20])
def test_vjp_with_and_without_held_posteriors(there, limit, device):
    problem = joint_problem(9, **SMALL)
    options = {} if limit is None else {"memory_limit": least(there, problem)}
    upstream = np.array([1.0, -0.5, 2.0], np.float32)
    host = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options, grad_loss=upstream)
    loss, vjp = there.joint_transducer_loss_vjp(*problem.args, **problem.options, **options)
    for _ in range(2):
        assert_alike((loss, *vjp(upstream)), (host[0], *host[1]), np.float32)


def least(there, problem, **options) -> int:
    """The smallest memory limit that an error text names."""
    with pytest.raises(ValueError, match="memory_limit is 1 bytes, expected at least") as caught:
        there.joint_transducer_loss_and_grad(*problem.args, **problem.options, **options, memory_limit=1)
    return int(str(caught.value).split("at least ")[1].split(":")[0])


@pytest.mark.parametrize("vocabulary", [None, "lengths"])
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [(np.float32, "default"), (np.float16, "default"), (BFLOAT16, "default"), (np.float32, "tf32x3")],
    ids=lambda value: value if isinstance(value, str) else name_of(value),
)
@pytest.mark.parametrize("hypotheses", [None, 5])
def test_the_smallest_workspace_does_and_is_not_left(there, device, dtype, precision, vocabulary, hypotheses):
    problem = joint_problem(10, dtype=dtype, vocabulary=vocabulary, hypotheses=hypotheses, **SMALL)
    options = {"precision": precision, "memory_limit": least(there, problem, precision=precision)}
    placed = [device.asarray(x) if x is not None and x.dtype.kind not in "iu" else x for x in problem.args]
    before = device.live_bytes
    device.peak_bytes = before
    loss, gradients = lattice.joint_transducer_loss_and_grad(*placed, **problem.options, **options)
    outputs = sum(array.nbytes for array in (loss, *gradients))
    # Losses in float64, their order, the bias under way, the upstream gradient: some bytes an example (docs/memory.md).
    small = 64 * (8 + len(problem.targets) + len(problem.weight))
    assert device.peak_bytes - before <= options["memory_limit"] + outputs + small
    host = lattice.joint_transducer_loss_and_grad(*problem.args, **problem.options)
    assert_alike(
        (device.asnumpy(loss), *map(device.asnumpy, gradients)),
        (host[0], *host[1]),
        dtype,
        operands=problem.weight.dtype,
    )


@pytest.mark.slow
@pytest.mark.parametrize("there", [True], ids=["device-ids"], indirect=True)
def test_the_smallest_workspace_of_a_lattice_that_fills_it(there):
    """Where the ids come from is all the same to a workspace, and other tests try both."""
    problem = joint_problem(13, batch=1, frames=60, labels=25, vocab=3, width=2, blank=0)
    host = lattice.joint_transducer_loss_and_grad(*problem.args)
    ours = there.joint_transducer_loss_and_grad(*problem.args, memory_limit=least(there, problem))
    assert_alike((ours[0], *ours[1]), (host[0], *host[1]), np.float32)


def test_a_batch_without_examples(there):
    problem = joint_problem(11, **SMALL)
    empty = [x[:0] if position not in (2, 3) else x for position, x in enumerate(problem.args)]
    loss, gradients = there.joint_transducer_loss_and_grad(*empty)
    assert loss.shape == (0,) and not gradients.weight.any() and gradients.encoder.shape == empty[0].shape
    logits = logits_problem(11, **SMALL)
    loss, grad = there.transducer_loss_and_grad(*(x[:0] for x in logits.args))
    assert loss.shape == (0,) and grad.shape == (0, *logits.logits.shape[1:])


def test_strided_inputs_are_copied(there):
    problem = joint_problem(12, **SMALL)
    host = lattice.joint_transducer_loss_and_grad(*problem.args)
    turned = [np.asfortranarray(x) for x in problem.args]
    ours = there.joint_transducer_loss_and_grad(*turned)
    assert_alike((ours[0], *ours[1]), (host[0], *host[1]), np.float32)
