"""Laws of the loss along given alignments: what it equals, batches, padding, poison. Mostly bit by bit."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare
from tests.path_problems import path_problem
from tests.problems import DTYPES, GARBAGE_IDS, TOPOLOGIES, name_of
from tests.test_joint_laws import assert_equal, assert_same
from tests.test_path_oracle import LOSSES

LOSS = LOSSES[-1]


def flat(problem, **extra):
    """Loss and the gradients that exist, as one list."""
    loss, grads = lattice.joint_path_loss_and_grad(*problem.args, **problem.options, **extra)
    return [loss, *(grad for grad in grads if grad is not None)]


def without_frames(problem):
    """The arguments of the doors that sum over alignments."""
    return problem.args[:5] + problem.args[6:]


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_it_is_the_loss_within_bounds_of_width_zero(topology, dtype):
    problem = path_problem(
        1, frames=14, labels=9, topology=topology, dtype=dtype, vocabulary="lengths", integer=np.int32
    )
    frames = np.where(np.isin(problem.frames, GARBAGE_IDS), -1, problem.frames)
    lengths = problem.target_lengths, problem.encoder_lengths
    bounds = lattice.alignment_bounds(frames, *lengths, left=0, right=0, topology=topology)
    upstream = np.array([1, -2, 0, 0.5], np.float64 if dtype == np.float64 else np.float32)
    loss, grads = lattice.joint_transducer_loss_and_grad(
        *without_frames(problem), **problem.options, bounds=bounds, posterior_floor=0, grad_loss=upstream
    )
    scale = loss.max() * (1 + np.abs(problem.weight.astype(float)).max())
    ours, *ours_grads = flat(problem, grad_loss=upstream)
    compare.assert_same(ours, loss, per_example=True)
    assert_same(ours_grads, grads, scale=scale)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_of_the_best_alignment_it_is_minus_the_score(topology):
    problem = path_problem(2, frames=20, labels=8, topology=topology)
    frames, score = lattice.joint_transducer_alignment(*without_frames(problem), **problem.options)
    best = flat(replace(problem, frames=frames))[0]
    compare.assert_same(best, -score, per_example=True)
    other = flat(problem)[0]
    assert (best <= other).all() and (best < other).any()


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("vocabulary", [None, "lengths"])
def test_a_batch_is_its_examples(topology, vocabulary):
    problem = path_problem(3, batch=5, topology=topology, vocabulary=vocabulary)
    loss, encoder, predictor, weight, bias = flat(problem, **LOSS)
    summed = [np.zeros_like(weight), np.zeros_like(bias)]
    for b in range(5):
        *own, weight_b, bias_b = flat(problem.single(b), **LOSS)
        assert_same(own, [part[b : b + 1] for part in (loss, encoder, predictor)])
        summed[0] += weight_b
        summed[1] += bias_b
    assert_same([weight, bias], summed, scale=4)


def test_the_same_bits_twice():
    problem = path_problem(4, batch=6, frames=60, labels=25, vocab=50, width=16, vocabulary="lengths")
    assert_equal(flat(problem, **LOSS), flat(problem, **LOSS))


def test_padding_is_never_read():
    """Other padding, longer padding: the same numbers. (Everywhere else the padding is NaN and ids out of range.)"""
    problem = path_problem(5, slack=(0, 0), vocabulary="lengths")
    expected = flat(problem, **LOSS)
    long = path_problem(5, slack=(9, 7), vocabulary="lengths")
    depth, width = problem.encoder.shape[1], problem.predictor.shape[1]
    loss, encoder, predictor, *shared = flat(long, **LOSS)
    assert_same([loss, encoder[:, :depth], predictor[:, :width], *shared], expected)
    assert not encoder[:, depth:].any() and not predictor[:, width:].any()
    for array in (long.encoder, long.predictor):
        array[np.isnan(array)] = np.inf
    for array in (long.targets, long.frames, long.vocabulary):
        array[np.isin(array, GARBAGE_IDS)] = 0
    assert_equal(flat(long, **LOSS), [loss, encoder, predictor, *shared])
    # Frames may be as wide as the longest target, or wider than the targets.
    longest = int(problem.target_lengths.max())
    for frames in (problem.frames[:, :longest], np.pad(problem.frames, ((0, 0), (0, 3)), constant_values=-5)):
        assert_equal(flat(replace(problem, frames=frames), **LOSS), expected)


def test_integers_of_either_width_strided_and_read_only_inputs():
    problem = path_problem(6, vocabulary="lengths")
    expected = flat(problem, **LOSS)
    names = ("targets", "frames", "encoder_lengths", "target_lengths", "vocabulary_lengths")
    narrow = replace(problem, **{name: getattr(problem, name).astype(np.int32) for name in names})
    strided = {
        name: np.asfortranarray(getattr(problem, name))
        for name in ("encoder", "predictor", "weight", "targets", "frames")
    }
    strided = replace(problem, **strided, bias=np.repeat(problem.bias, 2)[::2])
    for array in problem.args:
        array.setflags(write=False)
    for other in (problem, narrow, strided):
        assert_equal(flat(other, **LOSS), expected)
    assert all(type(x) is np.ndarray and x.flags.c_contiguous and x.flags.writeable for x in expected)


def test_an_empty_batch():
    problem = path_problem(7)
    args = [x if position in (2, 3) else x[:0] for position, x in enumerate(problem.args)]
    loss, grads = lattice.joint_path_loss_and_grad(*args)
    assert loss.shape == (0,) and grads.encoder.shape == args[0].shape and grads.predictor.shape == args[1].shape
    assert grads.weight.shape == problem.weight.shape and not grads.weight.any() and not grads.bias.any()


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_a_full_vocabulary_is_none(topology, dtype):
    problem = path_problem(8, vocabulary="full", blank=3, topology=topology, dtype=dtype)
    assert_same(flat(problem, **LOSS), flat(replace(problem, vocabulary=None), **LOSS), scale=4)


def test_relabelling_commutes():
    problem = path_problem(9, vocab=11, blank=2, vocabulary="endings", dtype=np.float64)
    loss, encoder, predictor, weight, bias = flat(problem, **LOSS)
    order = np.random.default_rng(9).permutation(11)  # new id of each old id
    back = np.argsort(order)

    def renamed(ids):
        real = (ids >= 0) & (ids < 11)
        return np.where(real, order[np.where(real, ids, 0)], ids)

    other = replace(
        problem,
        weight=problem.weight[back],
        bias=problem.bias[back],
        targets=renamed(problem.targets),
        vocabulary=renamed(problem.vocabulary),
        blank=int(order[2]) - 11,
    )
    assert_same(flat(other, **LOSS), [loss, encoder, predictor, weight[back], bias[back]], scale=loss.max())


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_an_impossible_alignment_is_as_if_it_were_not_there(topology, loss):
    """A bias of -inf on a label of one example.

    The loss is infinite, and the example has no gradient. Nothing of it is in the output layer's gradient.
    """
    problem = path_problem(10, batch=3, lengths=([7, 5, 6], [3, 2, 2]), vocab=12, topology=topology)
    used = set(problem.targets[[0, 2]][np.isin(problem.targets[[0, 2]], np.arange(12))].tolist())
    masked = next(v for v in range(1, 12) if v not in used)
    problem.targets[1, 1] = masked
    problem.bias[masked] = -np.inf
    if "label_smoothing" in loss:  # it asks for a share of each id, so only example 1 may have the masked one
        ids = np.array([[v for v in range(12) if v != masked] + [-1]] * 3)
        ids[1, -1] = masked
        problem = replace(problem, vocabulary=ids)
    value, encoder, predictor, weight, bias = flat(problem, **loss)
    assert np.isposinf(value).tolist() == [False, True, False]
    assert not encoder[1].any() and not predictor[1].any() and not weight[masked].any() and bias[masked] == 0
    rest = replace(
        problem,
        **{
            name: getattr(problem, name)[[0, 2]]
            for name in ("encoder", "predictor", "targets", "frames", "encoder_lengths", "target_lengths")
        },
        vocabulary=None if problem.vocabulary is None else problem.vocabulary[[0, 2]],
    )
    assert_same(
        [value[[0, 2]], encoder[[0, 2]], predictor[[0, 2]], weight, bias], flat(rest, **loss), scale=4 + 10 * len(loss)
    )


def test_where_all_are_impossible_there_is_no_gradient():
    problem = path_problem(11)
    problem.bias[...] = -np.inf
    for loss in LOSSES:
        value, *grads = flat(problem, **loss)
        assert np.isposinf(value).all() and not any(grad.any() for grad in grads)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("loss", [{}, LOSS, {"grad_loss": True}], ids=str)
def test_poison_stays_in_its_example(bad, loss, dtype):
    """The output layer is everybody's and takes the poison; the other examples' loss, encoder and predictor do not."""
    problem = path_problem(12, batch=3, lengths=([8, 6, 5], [3, 2, 1]), dtype=dtype, activation="identity")
    if "grad_loss" in loss:
        loss = {"grad_loss": np.array([1, 0, -2], np.float64 if dtype == np.float64 else np.float32)}
    others = [0, 2]
    clean = flat(problem, **loss)
    for array, row in (("encoder", 0), ("encoder", 5), ("predictor", 0), ("predictor", 1)):
        poisoned = getattr(problem, array).copy()
        poisoned[1, row, 3] = bad
        value, encoder, predictor, weight, _ = flat(replace(problem, **{array: poisoned}), **loss)
        assert np.isnan(value[1]) and np.isnan(weight).any()
        assert np.isnan(encoder[1, :6]).all() and np.isnan(predictor[1, 0]).all()
        assert not encoder[1, 6:].any() and not predictor[1, 3:].any()
        assert_same([part[others] for part in (value, encoder, predictor)], [part[others] for part in clean[:3]])


def test_nothing_is_printed(capfd):
    problem = path_problem(13)
    problem.encoder[1, 0] = np.nan
    flat(problem, **LOSS)
    assert capfd.readouterr() == ("", "")
