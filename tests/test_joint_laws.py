"""Laws of the fused joint: batches, padding, vocabularies, shared encoders, poison, relabelling."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare
from tests.problems import DTYPES, GARBAGE_IDS, TOPOLOGIES, joint_problem, name_of


def flat(problem, **extra):
    """Loss and the gradients that exist, as one list; every cell unless a floor is asked for."""
    loss, grads = lattice.joint_transducer_loss_and_grad(
        *problem.args, **problem.options, **{"posterior_floor": 0, **extra}
    )
    return [loss, *(grad for grad in grads if grad is not None)]


def assert_equal(ours, other):
    for one, two in zip(ours, other, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


def assert_same(ours, other, **options):
    for one, two in zip(ours, other, strict=True):
        compare.assert_same(one, two, **options)


def test_the_same_bits_twice():
    problem = joint_problem(1, batch=6, frames=30, labels=12, vocab=50, width=16, vocabulary="lengths")
    assert_equal(flat(problem), flat(problem))
    assert_equal(flat(problem, posterior_floor=2.0**-24), flat(problem, posterior_floor=2.0**-24))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("vocabulary", [None, "lengths"])
def test_a_batch_is_its_examples(topology, vocabulary):
    problem = joint_problem(2, batch=5, topology=topology, vocabulary=vocabulary, bounded=True)
    loss, encoder, predictor, weight, bias = flat(problem)
    summed = [np.zeros_like(weight), np.zeros_like(bias)]
    for b in range(5):
        rows = slice(b, b + 1)
        one = replace(
            problem,
            **{
                name: getattr(problem, name)[rows]
                for name in ("encoder", "predictor", "targets", "encoder_lengths", "target_lengths")
            },
            vocabulary=None if vocabulary is None else problem.vocabulary[rows],
            vocabulary_lengths=None if vocabulary is None else problem.vocabulary_lengths[rows],
            bounds=tuple(bound[rows] for bound in problem.bounds),
        )
        *own, weight_b, bias_b = flat(one)
        assert_same(own, [loss[rows], encoder[rows], predictor[rows]])
        summed[0] += weight_b
        summed[1] += bias_b
    assert_same([weight, bias], summed)


def test_padding_is_never_read():
    """Other padding, longer padding: the same numbers. (Everywhere else the padding is NaN and ids out of range.)"""
    problem = joint_problem(3, slack=(0, 0), vocabulary="lengths")
    expected = flat(problem)
    long = joint_problem(3, slack=(9, 7), vocabulary="lengths")
    depth, width = problem.encoder.shape[1], problem.predictor.shape[1]
    loss, encoder, predictor, *shared = flat(long)
    assert_same([loss, encoder[:, :depth], predictor[:, :width], *shared], expected)
    assert not encoder[:, depth:].any()
    assert not predictor[:, width:].any()
    for array in (long.encoder, long.predictor):
        array[np.isnan(array)] = np.inf
    long.targets[np.isin(long.targets, GARBAGE_IDS)] = 0
    long.vocabulary[np.isin(long.vocabulary, GARBAGE_IDS)] = 0
    assert_equal(flat(long), [loss, encoder, predictor, *shared])


def test_inputs_are_read_only():
    """Nothing but overwrite=True writes to what came in; memory that cannot be written (JAX's) is as good as any."""
    problem = joint_problem(4, vocabulary="lengths", bounded=True, hypotheses=6)
    expected = flat(problem)
    for array in (
        *problem.args,
        problem.vocabulary,
        problem.vocabulary_lengths,
        *problem.bounds,
        problem.encoder_index,
    ):
        array.setflags(write=False)
    assert_equal(flat(problem), expected)
    for array in expected:
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_strided_inputs_and_integers_of_either_width():
    problem = joint_problem(5, vocabulary="lengths", bounded=True, hypotheses=6)
    expected = flat(problem)
    narrow = {
        name: getattr(problem, name).astype(np.int32)
        for name in ("targets", "encoder_lengths", "target_lengths", "encoder_index", "vocabulary_lengths")
    }
    assert_equal(flat(replace(problem, **narrow)), expected)
    assert_equal(flat(replace(problem, vocabulary=problem.vocabulary.astype(np.int64))), expected)
    fortran = {
        name: np.asfortranarray(getattr(problem, name)) for name in ("encoder", "predictor", "weight", "targets")
    }
    fortran["bias"] = np.repeat(problem.bias, 2)[::2]
    fortran["vocabulary"] = np.asfortranarray(problem.vocabulary)
    assert_equal(flat(replace(problem, **fortran)), expected)


def test_an_empty_batch():
    empty = np.zeros(0, np.int64)
    loss, grads = lattice.joint_transducer_loss_and_grad(
        np.zeros((0, 3, 4), np.float32),
        np.zeros((0, 2, 4), np.float32),
        np.ones((5, 4), np.float32),
        None,
        np.zeros((0, 1), np.int64),
        empty,
        empty,
    )
    assert loss.shape == (0,)
    assert grads.encoder.shape == (0, 3, 4)
    assert grads.predictor.shape == (0, 2, 4)
    assert grads.weight.shape == (5, 4)
    assert not grads.weight.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_full_vocabulary_is_none(topology, dtype):
    problem = joint_problem(6, vocabulary="full", blank=3, topology=topology, dtype=dtype)
    assert not np.array_equal(problem.vocabulary[0], np.arange(9))  # in any order
    assert_same(flat(problem), flat(replace(problem, vocabulary=None)))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_order_of_a_vocabulary_does_not_matter(topology):
    problem = joint_problem(7, vocab=20, vocabulary="lengths", topology=topology)
    expected = flat(problem)
    ordered, ended = problem.vocabulary.copy(), problem.vocabulary.copy()
    for n, length in enumerate(problem.vocabulary_lengths):
        ordered[n, :length].sort()
        ended[n, length:] = -1
    assert_same(flat(replace(problem, vocabulary=ordered)), expected)
    assert_equal(flat(replace(problem, vocabulary=ended, vocabulary_lengths=None)), expected)
    negative = replace(problem, blank=-20)  # the same id, counted from the end
    assert_equal(flat(negative), expected)


def relabelled(problem, order):
    """A problem with ids renamed; `order` (rows of the weight,) has the new name of each. What is no id stays."""

    def renamed(ids):
        real = (ids >= 0) & (ids < len(order))
        return np.where(real, order[np.where(real, ids, 0)], ids)

    back = np.argsort(order)
    return replace(
        problem,
        weight=problem.weight[back],
        bias=problem.bias[back],
        targets=renamed(problem.targets),
        vocabulary=None if problem.vocabulary is None else renamed(problem.vocabulary),
        blank=int(order[problem.blank]),
    )


@pytest.mark.parametrize("vocabulary", [None, "endings"])
def test_relabelling_commutes(vocabulary):
    problem = joint_problem(8, vocab=11, blank=2, vocabulary=vocabulary, dtype=np.float64)
    loss, encoder, predictor, weight, bias = flat(problem)
    order = np.random.default_rng(8).permutation(11)  # new id of each old id
    other, back = relabelled(problem, order), np.argsort(order)
    assert_same(flat(other), [loss, encoder, predictor, weight[back], bias[back]], scale=loss.max())


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_an_index_is_repeated_rows(topology):
    problem = joint_problem(9, batch=4, hypotheses=7, topology=topology, vocabulary="lengths", bounded=True)
    index = problem.encoder_index
    assert not (np.diff(index) >= 0).all()  # mixed order
    loss, encoder, *others = flat(problem)
    loss_r, encoder_r, *others_r = flat(replace(problem, encoder=problem.encoder[index], encoder_index=None))
    summed = np.zeros_like(encoder)
    np.add.at(summed, index, encoder_r)
    assert_same([loss, encoder, *others], [loss_r, summed, *others_r])
    in_order = joint_problem(9, topology=topology)
    assert_same(flat(replace(in_order, encoder_index=np.arange(4))), flat(in_order))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_full_bounds_are_none(topology):
    problem = joint_problem(10, topology=topology)
    shape = problem.encoder.shape[:2]
    bounds = (np.full(shape, -3, np.int32), np.full(shape, 99, np.int32))
    assert_same(flat(replace(problem, bounds=bounds)), flat(problem))


@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
@pytest.mark.parametrize("how", ["too few frames", "empty bounds", "all infeasible"])
def test_infeasible_examples(how, posterior_floor):
    problem = joint_problem(11, batch=3, lengths=([5, 6, 4], [3, 2, 2]), topology="monotonic")
    bounds = np.zeros(problem.encoder.shape[:2], np.int32), np.full(problem.encoder.shape[:2], 9, np.int32)
    target_lengths = problem.target_lengths.copy()
    out = [1]
    if how == "empty bounds":
        bounds[1][1, 2] = -1
    elif how == "too few frames":
        out, target_lengths = [2], np.array([3, 2, 3])
        problem.encoder_lengths[2] = 2
        problem.targets[2, :3] = 1
        problem.predictor[2, :4] = 0.5
    else:
        out, bounds = [0, 1, 2], (bounds[1], bounds[0])
    rest = [b for b in range(3) if b not in out]
    other = replace(problem, bounds=bounds, target_lengths=target_lengths)
    loss, encoder, predictor, weight, bias = flat(other, posterior_floor=posterior_floor)
    assert np.isposinf(loss[out]).all()
    assert not encoder[out].any()
    assert not predictor[out].any()
    expected = (
        flat(
            replace(
                problem,
                encoder_index=np.array(rest, int),
                **{
                    name: getattr(problem, name)[rest]
                    for name in ("predictor", "targets", "encoder_lengths", "target_lengths")
                },
            ),
            posterior_floor=posterior_floor,
        )
        if rest
        else [np.zeros(0, np.float32), 0 * encoder, predictor[rest], 0 * weight, 0 * bias]
    )
    assert_same([loss[rest], encoder, predictor[rest], weight, bias], expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("posterior_floor", [0, 2.0**-24])
@pytest.mark.parametrize("sharpness", [0.0, 8.0])
def test_poison_stays_in_its_example(bad, dtype, posterior_floor, sharpness):
    """The output layer is everybody's and takes the poison; the other examples' loss, encoder and predictor do not."""
    problem = joint_problem(
        12, batch=3, lengths=([8, 6, 5], [3, 2, 1]), dtype=dtype, activation="identity", sharpness=sharpness
    )
    others = [0, 2]
    clean = flat(problem, posterior_floor=posterior_floor)
    for array, row in (("encoder", 0), ("encoder", problem.encoder_lengths[1] - 1), ("predictor", 0), ("predictor", 1)):
        poisoned = getattr(problem, array).copy()
        assert not np.isnan(poisoned[1, row, 3])
        poisoned[1, row, 3] = bad
        dirty = flat(replace(problem, **{array: poisoned}), posterior_floor=posterior_floor)
        assert np.isnan(dirty[0][1])
        assert np.isnan(dirty[1][1, 0]).any()
        assert np.isnan(dirty[2][1, 0]).any()
        assert_same([part[others] for part in dirty[:3]], [part[others] for part in clean[:3]])
        for part, source in zip(dirty[1:3], problem.args[:2], strict=True):
            assert not part[1][np.isnan(source[1])].any()  # padding stays 0


def test_gradients_of_one_output_row_are_the_others_negated():
    """The softmax does not see a common shift: weight rows and biases sum to zero over the vocabulary."""
    problem = joint_problem(13, dtype=np.float64)
    _, _, _, weight, bias = flat(problem, grad_loss=np.array([1.0, -2.0, 0.5, 0.0]))
    compare.assert_same(weight.sum(axis=0), np.zeros(5), scale=20, what="weight")
    compare.assert_same(bias.sum(keepdims=True), np.zeros(1), scale=20, what="bias")


def test_nothing_is_printed(capfd):
    flat(joint_problem(14, sharpness=6.0), posterior_floor=2.0**-24)
    lattice.transducer_loss(np.zeros((1, 1, 1, 3)), np.zeros((1, 0), int), np.ones(1, int), np.zeros(1, int))
    assert capfd.readouterr() == ("", "")
