"""The loss of the internal language model against the oracle, its laws, its memory, and what its door refuses."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from tests import compare, oracle
from tests.language_model_oracle import internal_language_model_loss_and_grad as truth_of
from tests.language_model_problems import language_model_problem, language_model_problems
from tests.problems import BFLOAT16, DTYPES, GARBAGE_IDS, HALF_PREDICTOR, name_of
from tests.signatures import signature
from tests.test_inputs import WRONG, changed, says
from tests.test_inputs_values import NeedsGradient
from tests.test_joint_laws import assert_equal, assert_same
from tests.test_joint_memory import PYTHON, extra_bytes, least_limit, size_of

NAMES = ["predictor", "weight", "bias", "targets", "target_lengths"]


def door(*args, **options):
    return lattice.internal_language_model_loss_and_grad(*args, **options)


def flat(problem, **extra):
    """Loss and the gradients that exist, as one list."""
    loss, grads = door(*problem.args, **problem.options, **extra)
    return [loss, *(grad for grad in grads if grad is not None)]


def check(problem, **extra):
    """The door against the oracle; returns what it gave."""
    (truth, true_grads), (naive, naive_grads) = oracle.truth_and_naive(
        truth_of, problem.weight.dtype, *problem.args, **problem.options, **extra
    )
    loss, grads = door(*problem.args, **problem.options, **extra)
    assert loss.dtype == (np.float64 if problem.predictor.dtype == np.float64 else np.float32)
    compare.assert_close(loss, truth, naive, per_example=True, what="loss")
    assert isinstance(grads, lattice.JointGradients) and grads.encoder is None
    upstream = np.abs(extra.get("grad_loss", 1.0)).max()
    scale = max(1.0, upstream * problem.targets.size * (1 + np.abs(problem.weight.astype(float)).max()))
    sources = None, *problem.args[:3]
    for name, grad, true, other, source in zip(grads._fields, grads, true_grads, naive_grads, sources, strict=True):
        if source is None:
            assert grad is None
            continue
        assert grad.dtype == source.dtype
        compare.assert_close(grad, true, other, scale=scale, what=name)
    assert not grads.predictor[np.isnan(problem.predictor)].any()
    assert not grads.weight[problem.blank].any() and (grads.bias is None or grads.bias[problem.blank] == 0)
    return loss, grads


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_ragged_batches(dtype):
    check(language_model_problem(1, labels=6, dtype=dtype))
    check(language_model_problem(2, activation="relu", use_bias=False, blank=-1, dtype=dtype))
    check(language_model_problem(3, activation="identity", batch=7, labels=9, blank=4, vocab=40, dtype=dtype))


@given(language_model_problems(), st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.37, -25.0]), min_size=4, max_size=4))
def test_anything(problem, grad_loss):
    wide = np.float64 if problem.predictor.dtype == np.float64 else np.float32
    check(problem, grad_loss=np.array(grad_loss[: len(problem.targets)], wide))


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
def test_half_precision_meets_float32_weights(dtype):
    loss, grads = check(language_model_problem(4, dtype=dtype, weight_dtype=np.float32))
    assert loss.dtype == np.float32
    assert [grad.dtype for grad in grads[1:]] == [dtype, np.float32, np.float32]


def test_the_gradient_is_that_of_the_loss():
    problem = language_model_problem(5, batch=2, labels=3, slack=(0, 0), dtype=np.float64)
    upstream = np.array([1.0, -0.6])
    _, grads = door(*problem.args, **problem.options, grad_loss=upstream)
    for position, grad in enumerate(grads[1:]):

        def weighted(x, position=position):
            args = [*problem.args[:position], x, *problem.args[position + 1 :]]
            return upstream @ door(*args, **problem.options)[0]

        expected = oracle.finite_differences(weighted, problem.args[position])
        np.testing.assert_allclose(grad, np.where(np.isnan(problem.args[position]), 0, expected), atol=1e-7)


def test_a_uniform_model():
    """Of V - 1 labels each is as likely."""
    problem = language_model_problem(6, vocab=9, dtype=np.float64)
    uniform = replace(problem, weight=0 * problem.weight, bias=0 * problem.bias)
    loss, grads = door(*uniform.args, **uniform.options)
    np.testing.assert_allclose(loss, problem.target_lengths * np.log(8), rtol=1e-15)
    np.testing.assert_allclose(grads.bias[1:].sum(), 0, atol=1e-12)


def test_it_is_the_share_of_labels_in_hat():
    """Of a lattice of one frame, with an encoder of zeros, HAT's labels are the language model's."""
    problem = language_model_problem(7, batch=3, lengths=([1, 1, 1], [3, 2, 1]), dtype=np.float64)
    predictor = np.nan_to_num(problem.predictor)
    frames, ones, width = np.zeros(problem.targets.shape, int), np.ones(3, int), predictor.shape[2]
    given = np.zeros((3, 1, width)), predictor, *problem.args[1:4], frames, ones, problem.target_lengths
    hat = lattice.Topology(hat=True)
    whole, _ = lattice.joint_path_loss_and_grad(*given, **problem.options, topology=hat)
    logits = np.tanh(predictor) @ problem.weight[0] + problem.bias[0]  # (3, U+1) of blanks
    u = np.arange(predictor.shape[1])
    blanks = np.where(u < problem.target_lengths[:, None], np.logaddexp(0, logits), 0).sum(axis=1)
    blanks += np.logaddexp(0, -logits[np.arange(3), problem.target_lengths])
    np.testing.assert_allclose(whole - blanks, door(*problem.args, **problem.options)[0], rtol=1e-12)


def test_the_blank_counts_for_nothing():
    problem = language_model_problem(8, blank=3)
    weight, bias = problem.weight.copy(), problem.bias.copy()
    weight[3], bias[3] = 50, -7
    assert_equal(flat(problem), flat(replace(problem, weight=weight, bias=bias)))


def test_a_batch_is_its_examples():
    problem = language_model_problem(9, batch=5)
    loss, predictor, weight, bias = flat(problem)
    summed = [np.zeros_like(weight), np.zeros_like(bias)]
    for b in range(5):
        rows = {name: getattr(problem, name)[b : b + 1] for name in ("predictor", "targets", "target_lengths")}
        *own, weight_b, bias_b = flat(replace(problem, **rows))
        assert_same(own, [part[b : b + 1] for part in (loss, predictor)])
        summed[0] += weight_b
        summed[1] += bias_b
    assert_same([weight, bias], summed, scale=4)


def test_padding_is_never_read():
    problem = language_model_problem(10, slack=(0, 0))
    expected = flat(problem)
    long = language_model_problem(10, slack=(0, 7))
    width = problem.predictor.shape[1]
    loss, predictor, *shared = flat(long)
    assert_same([loss, predictor[:, :width], *shared], expected)
    assert not predictor[:, width:].any()
    long.predictor[np.isnan(long.predictor)] = np.inf
    long.targets[np.isin(long.targets, GARBAGE_IDS)] = 0
    assert_equal(flat(long), [loss, predictor, *shared])


def test_the_same_bits_twice_strided_and_read_only():
    problem = language_model_problem(11, batch=6, labels=25, vocab=50, width=16)
    expected = flat(problem)
    strided = {name: np.asfortranarray(getattr(problem, name)) for name in ("predictor", "weight", "targets")}
    for array in problem.args:
        array.setflags(write=False)
    for other in (problem, replace(problem, **strided, bias=np.repeat(problem.bias, 2)[::2])):
        assert_equal(flat(other), expected)


def test_no_labels_and_no_examples():
    problem = language_model_problem(12, batch=2, lengths=([1, 1], [0, 0]), slack=(0, 0))
    loss, grads = check(problem)
    assert not loss.any() and not np.signbit(loss).any() and not any(grad.any() for grad in grads[1:])
    empty = {name: getattr(problem, name)[:0] for name in ("predictor", "targets", "target_lengths")}
    loss, grads = door(*replace(problem, **empty).args)
    assert loss.shape == (0,) and grads.predictor.shape == (0, *problem.predictor.shape[1:])
    assert grads.weight.shape == problem.weight.shape and not grads.weight.any()


def test_a_label_without_probability():
    """Its example has an infinite loss and no gradient, and adds nothing to that of the output layer."""
    problem = language_model_problem(13, batch=3, lengths=([1] * 3, [3, 2, 2]), vocab=12)
    used = set(problem.targets[[0, 2]][np.isin(problem.targets[[0, 2]], np.arange(12))].tolist())
    masked = next(v for v in range(1, 12) if v not in used)
    problem.targets[1, 1], problem.bias[masked] = masked, -np.inf
    value, predictor, weight, bias = flat(problem)
    assert np.isposinf(value).tolist() == [False, True, False]
    assert not predictor[1].any() and not weight[masked].any() and bias[masked] == 0
    rows = {name: getattr(problem, name)[[0, 2]] for name in ("predictor", "targets", "target_lengths")}
    assert_same([value[[0, 2]], predictor[[0, 2]], weight, bias], flat(replace(problem, **rows)), scale=4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_poison_stays_in_its_example(bad):
    problem = language_model_problem(14, batch=3, lengths=([1] * 3, [3, 2, 1]), activation="identity")
    clean = flat(problem)
    problem.predictor[1, 1, 3] = bad
    value, predictor, weight, _ = flat(problem)
    assert np.isnan(value[1]) and np.isnan(weight).any() and np.isnan(predictor[1, :2]).all()
    assert_same([part[[0, 2]] for part in (value, predictor)], [part[[0, 2]] for part in clean[:2]])


KINDS = [{}, {"use_bias": False}, {"dtype": np.float64}, {"dtype": np.float16}]
KINDS += [{"dtype": np.float16, "weight_dtype": np.float32}, HALF_PREDICTOR]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_in_tiles_of_any_size_below_the_limit(kind):
    """300 rows of 700 logits: a limit far below them, and the same results."""
    problem = language_model_problem(15, batch=16, labels=40, vocab=700, width=24, **kind)
    expected = flat(problem)
    least = least_limit(problem, door)
    for limit in (least, 5 * least // 4, 1 << 19, 1 << 20):
        limit = max(limit, least)
        used, (loss, grads) = extra_bytes(
            lambda limit=limit: door(*problem.args, **problem.options, memory_limit=limit)
        )
        assert used - size_of(loss, grads) <= limit + PYTHON + 16 * 1024
        ours = [loss, *(grad for grad in grads if grad is not None)]
        for one, other in zip(ours, expected, strict=True):
            compare.assert_same(one, other, scale=expected[0].max())
    with pytest.raises(ValueError, match=f"memory_limit is {least - 1} bytes, expected at least {least}:"):
        door(*problem.args, **problem.options, memory_limit=least - 1)


PROBLEM = language_model_problem(16, batch=3, lengths=([1] * 3, [3, 4, 2]), vocab=11, slack=(0, 2))
GIVEN = dict(zip(NAMES, PROBLEM.args)) | PROBLEM.options  # predictor (3, 7, 5), targets (3, 6)


def refuse(changes, exception, *words):
    given = GIVEN | {name: change(GIVEN[name]) if callable(change) else change for name, change in changes.items()}
    with pytest.raises(exception, match=says(*words)) as error:
        door(**given)
    assert "encoder" not in str(error.value)


def test_signature():
    expected = (
        "predictor weight bias targets target_lengths * blank=0 activation='tanh' grad_loss=None memory_limit=None "
        "dropout=None"
    )
    assert signature(lattice.internal_language_model_loss_and_grad) == expected


def test_what_is_refused_for_its_type_or_shape():
    for name in NAMES:
        refuse({name: "text"}, TypeError, name)
        refuse({name: lambda x: x[None]}, ValueError, name)
    for name in ("targets", "target_lengths"):
        refuse({name: lambda x: x.astype(np.float32)}, TypeError, name, "float32")
        refuse({name: lambda x: x[:2]}, ValueError, name, "predictor")
    refuse({"predictor": lambda x: x[:, :0]}, ValueError, "predictor", (3, 0, 5))
    refuse({"predictor": lambda x: x[:, :4]}, ValueError, "target_lengths[1]", 4, "predictor")
    refuse({"weight": lambda x: x[:, :4]}, ValueError, "weight (11, 4)", "predictor (3, 7, 5)")
    refuse({"bias": lambda x: x[:4]}, ValueError, "bias", (4,), (11,))
    for name in ("weight", "bias"):
        expected = "expected float32, float16 or bfloat16: float64 goes with float64 alone"
        wide = {name: lambda x: x.astype(np.float64)}
        refuse(wide, TypeError, f"{name} is float64 and predictor is float32, {expected}")
    wide = {"predictor": lambda x: x.astype(np.float64)}
    refuse(wide, TypeError, "weight is float32 and predictor is float64, expected float64: float64 goes")


def test_values():
    refuse({"targets": lambda x: changed(x, (2, 1), 0)}, ValueError, "targets[2, 1]", 0, "blank")
    refuse({"targets": lambda x: changed(x, (0, 2), 11)}, ValueError, "targets[0, 2]", 11, 10)
    refuse({"target_lengths": lambda x: changed(x, 2, 7)}, ValueError, "target_lengths[2]", 7, 6)
    for blank in (11, -12):
        refuse({"blank": blank}, ValueError, "blank", blank, 11)
    refuse({"activation": "swish"}, ValueError, "activation", "swish")
    for value in (0, -5, 77):
        refuse({"memory_limit": value}, ValueError, "memory_limit", value)
    for shape in ((2,), (3, 1), ()):
        refuse({"grad_loss": np.ones(shape, np.float32)}, ValueError, "grad_loss", str(shape))
    refuse({"grad_loss": np.ones(3, int)}, TypeError, "grad_loss", "int64")


def test_tensors_that_require_a_gradient_get_advice():
    for name in ("predictor", "weight"):
        refuse({name: NeedsGradient()}, WRONG, name, ".detach()")
