"""Laws of the loss from given logits: layout, padding, batches, bounds, poison. Mostly bit by bit."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from tests import compare, oracle
from tests.problems import DTYPES, GARBAGE_IDS, TOPOLOGIES, band, logits_problem, name_of, random_frames


def both(problem, **extra):
    return lattice.transducer_loss_and_grad(*problem.args, **problem.options, **extra)


def assert_equal(pair, other):
    for ours, theirs in zip(pair, other, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def frozen(problem):
    """The same problem in memory that refuses to be written."""
    for array in problem.args:
        array.setflags(write=False)
    return problem


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("bounded", [False, True])
def test_packed_is_padded(dtype, topology, bounded):
    problem = logits_problem(1, topology=topology, dtype=dtype, bounded=bounded)
    loss, grad = both(problem)
    packed = replace(problem, logits=problem.pack(problem.logits))
    packed_loss, packed_grad = both(packed)
    assert packed_grad.shape == packed.logits.shape
    assert_equal((packed_loss, packed_grad), (loss, problem.pack(grad)))
    np.testing.assert_array_equal(lattice.transducer_loss(*packed.args, **packed.options), loss)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_in_place_is_out_of_place(dtype, packed, topology):
    problem = logits_problem(2, topology=topology, dtype=dtype)
    if packed:
        problem = replace(problem, logits=problem.pack(problem.logits))
    problem = frozen(problem)
    expected = both(problem)
    logits = problem.logits.copy()
    loss, grad = both(replace(problem, logits=logits), out=logits)
    assert np.shares_memory(grad, logits)
    assert_equal((loss, grad), expected)
    np.testing.assert_array_equal(logits, grad)
    if not packed:
        assert not logits[~problem.real].any()
    out = np.full_like(problem.logits, 7)
    loss, grad = both(problem, out=out)
    assert np.shares_memory(grad, out)
    assert_equal((loss, out), expected)


def test_the_result_is_fresh_contiguous_and_of_the_same_kind():
    problem = frozen(logits_problem(3))
    loss, grad = both(problem)
    assert type(loss) is type(grad) is np.ndarray
    assert loss.shape == (4,)
    assert grad.shape == problem.logits.shape
    assert grad.flags.c_contiguous
    assert not np.shares_memory(grad, problem.logits)
    grad[...] = 1  # and may be written


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_batch_is_its_examples(topology):
    problem = logits_problem(4, batch=5, frames=11, labels=6, topology=topology, bounded=True)
    loss, grad = both(problem)
    for b in range(5):
        one_loss, one_grad = both(problem.single(b))
        compare.assert_same(one_loss, loss[b : b + 1])
        compare.assert_same(one_grad, grad[b : b + 1])


def test_the_same_bits_twice():
    problem = logits_problem(5, batch=6, frames=30, labels=12, vocab=50)
    assert_equal(both(problem), both(problem))


def test_padding_is_never_read():
    """Other padding, longer padding: the same bits. (Everywhere else the padding is NaN and ids out of range.)"""
    problem = logits_problem(6, slack=(0, 0))
    loss, grad = both(problem)
    depth, width = grad.shape[1:3]
    long = logits_problem(6, slack=(9, 7))
    np.testing.assert_array_equal(long.logits[:, :depth, :width], problem.logits)
    long_loss, long_grad = both(long)
    assert_equal((long_loss, long_grad[:, :depth, :width]), (loss, grad))
    assert not long_grad[:, depth:].any()
    assert not long_grad[:, :, width:].any()
    long.logits[np.isnan(long.logits)] = np.inf
    long.targets[np.isin(long.targets, GARBAGE_IDS)] = 0  # the blank's id
    assert_equal(both(long), (long_loss, long_grad))


def test_integers_of_either_width():
    expected = both(logits_problem(7))
    problem = logits_problem(7, integer=np.int32)
    assert problem.targets.dtype == problem.logit_lengths.dtype == np.int32
    assert_equal(both(problem), expected)
    assert_equal(both(replace(problem, targets=problem.targets.astype(np.int64))), expected)


def test_strided_inputs():
    problem = logits_problem(8, bounded=True)
    expected = both(problem)
    logits = problem.logits
    for strided in (np.asfortranarray(logits), np.repeat(logits, 2, axis=-1)[..., ::2], logits[::-1].copy()[::-1]):
        assert not strided.flags.c_contiguous
        assert_equal(both(replace(problem, logits=strided)), expected)
    targets = np.repeat(problem.targets, 3, axis=1)[:, ::3]
    lengths = np.repeat(problem.logit_lengths, 2)[::2]
    bounds = tuple(np.asfortranarray(bound) for bound in problem.bounds)
    assert_equal(both(replace(problem, targets=targets, logit_lengths=lengths, bounds=bounds)), expected)


def test_an_empty_batch():
    empty = np.zeros(0, np.int64)
    loss, grad = lattice.transducer_loss_and_grad(
        np.zeros((0, 3, 2, 5), np.float32), np.zeros((0, 1), int), empty, empty
    )
    assert loss.shape == (0,)
    assert grad.shape == (0, 3, 2, 5)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relabelling_commutes(topology, dtype):
    problem = logits_problem(9, vocab=11, blank=2, topology=topology, dtype=dtype)
    loss, grad = both(problem)
    order = np.random.default_rng(9).permutation(11)  # new id of each old id
    targets = problem.targets.copy()
    real = (targets >= 0) & (targets < 11)
    targets[real] = order[targets[real]]
    logits = problem.logits[..., np.argsort(order)]
    new_loss, new_grad = both(replace(problem, logits=logits, targets=targets, blank=int(order[2])))
    compare.assert_same(new_loss, loss)
    # The sum over ids has another order. In float64 the sums over alignments are as large as the loss, and are
    # rounded no finer.
    compare.assert_same(new_grad[..., order], grad, scale=loss.max() if dtype == np.float64 else None)


def test_a_negative_blank_counts_from_the_end():
    for blank in (-1, -3, -7):
        problem = logits_problem(10, blank=blank)
        assert_equal(both(problem), both(replace(problem, blank=blank + 7)))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_infeasible_examples(dtype):
    problem = logits_problem(11, lengths=([2, 5, 3], [2, 2, 3]), topology="monotonic", dtype=dtype, slack=(2, 2))
    loss, grad = both(problem)
    target_lengths = np.array([3, 2, 4])  # one more than frames, twice
    targets = problem.targets.copy()
    targets[0, 2] = targets[2, 3] = 1
    logits = problem.logits.copy()
    logits[0, :2, 3] = logits[2, :3, 4] = 0
    short = replace(problem, logits=logits, targets=targets, target_lengths=target_lengths)
    for extra in ({}, {"grad_loss": np.array([-2, 1, np.float32(1e30)], loss.dtype), "fastemit_lambda": 0.0}):
        new_loss, new_grad = both(short, **extra)
        assert np.isposinf(new_loss[[0, 2]]).all()
        assert not new_grad[[0, 2]].any()
        assert_equal((new_loss[1], new_grad[1]), (loss[1], grad[1]))
    assert_equal([lattice.transducer_loss(*short.args, **short.options)], [new_loss])


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_poison_stays_in_its_example(bad, topology, dtype):
    problem = logits_problem(12, lengths=([5, 6, 4], [3, 3, 2]), topology=topology, dtype=dtype)
    loss, grad = both(problem)
    label = problem.targets[1, 1]
    for entry in (0, label, 1 + label % 6):  # blank, label, another id
        logits = problem.logits.copy()
        logits[1, 2, 1, entry] = bad
        new_loss, new_grad = both(replace(problem, logits=logits))
        assert np.isnan(new_loss[1])
        assert np.isnan(new_grad[1, 2, 1]).all()
        assert np.isnan(new_grad[1, 0, 0]).all()  # and all the others that the alignments visit
        assert np.isnan(new_grad[1, 5, 3]).all()
        assert not new_grad[1][~problem.real[1]].any()
        assert_equal((new_loss[[0, 2]], new_grad[[0, 2]]), (loss[[0, 2]], grad[[0, 2]]))
        assert_equal([lattice.transducer_loss(*replace(problem, logits=logits).args, topology=topology)], [new_loss])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_full_bounds_are_none(topology, dtype):
    problem = logits_problem(13, topology=topology, dtype=dtype)
    expected = both(problem)
    shape = problem.logits.shape[:2]
    for below, above in ((0, problem.target_lengths[:, None]), (-3, 99)):
        bounds = (np.full(shape, below, np.int32), np.broadcast_to(np.int32(above), shape).copy())
        assert_equal(both(replace(problem, bounds=bounds)), expected)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_bounds_of_width_zero_leave_one_alignment(topology):
    problem = logits_problem(14, lengths=([9], [5]), topology=topology, dtype=np.float64, slack=(0, 0))
    emitted = random_frames(np.random.default_rng(14), 9, 5, topology)
    bounds = tuple(bound[None].astype(np.int32) for bound in band(emitted, 9, 0, 0, topology))
    (arcs,) = [
        arcs
        for arcs in oracle.alignments(9, 5, topology)
        if [t for t, _, is_label in arcs if is_label] == emitted.tolist()
    ]
    _, blank_score, label_score = oracle.arc_scores(problem.logits[0], problem.targets[0])
    expected = np.array([-sum(label_score[t, u] if is_label else blank_score[t, u] for t, u, is_label in arcs)])
    loss, grad = both(replace(problem, bounds=bounds))
    compare.assert_close(loss, expected, expected)
    visited = {(t, u) for t, u, _ in arcs}
    assert {tuple(cell) for cell in np.argwhere(grad[0].any(axis=-1)).tolist()} == visited


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_empty_bounds_are_infeasible(topology):
    problem = logits_problem(15, lengths=([6, 6, 5], [3, 2, 2]), topology=topology)
    loss, grad = both(problem)
    shape = problem.logits.shape[:2]
    first, last = np.zeros(shape, np.int32), np.full(shape, 9, np.int32)
    first[1, 3] = 2
    last[1, 3] = 1
    new_loss, new_grad = both(replace(problem, bounds=(first, last)))
    assert np.isposinf(new_loss[1])
    assert not new_grad[1].any()
    assert_equal((new_loss[[0, 2]], new_grad[[0, 2]]), (loss[[0, 2]], grad[[0, 2]]))


def test_what_is_outside_the_bounds_does_not_matter():
    """A cell outside has no outgoing arcs: like padding, it is not part of the lattice."""
    problem = logits_problem(16, lengths=([6, 6], [4, 4]), bounded=True)
    expected = both(problem)
    logits = problem.logits.copy()
    for b in range(2):
        inside = oracle.cell_exists(6, 4, oracle.row_of(problem.bounds, b))
        assert not inside.all()
        logits[b, :6, :5][~inside] = 1e4
    assert_equal(both(replace(problem, logits=logits)), expected)
