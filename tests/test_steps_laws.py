"""Laws of arcs that take several frames ("tdt", "multiblank"): sums, batches, padding, memory, and other topologies."""

import gc
from dataclasses import fields, replace

import numpy as np
import pytest

import lattice
from lattice import Topology
from tests import compare, oracle, steps_oracle
from tests.problems import DTYPES, GARBAGE_IDS
from tests.steps_problems import PLACES, STEPS, blank_at, joint_problem, logits_problem, name_of
from tests.test_joint_laws import assert_equal, assert_same, flat, relabelled
from tests.test_joint_memory import PYTHON, call, extra_bytes, least_limit, size_of

FLOOR = 2.0**-24
of_steps = pytest.mark.parametrize("topology", STEPS, ids=name_of)
of_floors = pytest.mark.parametrize("posterior_floor", [0, FLOOR])


def both(problem, **extra):
    return lattice.transducer_loss_and_grad(*problem.args, **problem.options, **extra)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", PLACES)
def test_one_duration_is_monotonic_with_a_blank_in_the_last_frame(place, dtype):
    """Of one entry, a softmax is a constant. Bounds leave only u = U in the last frame, so that a blank ends there."""
    topology = Topology("tdt", durations=(1,))
    problem = logits_problem(1, topology, frames=9, blank=blank_at(place, 7, topology), dtype=dtype)
    T, U = problem.args[2:]
    last = np.arange(problem.logits.shape[1]) == T[:, None] - 1
    bounds = np.where(last, U[:, None], 0).astype(np.int32), np.full(last.shape, U.max(), np.int32)
    given = problem.logits[..., :7].copy(), *problem.args[1:]
    expected = lattice.transducer_loss_and_grad(*given, blank=problem.blank, topology="monotonic", bounds=bounds)
    loss, grad = both(problem)
    compare.assert_same(loss, expected[0], per_example=True)
    compare.assert_same(grad[..., :7], expected[1], scale=loss.max())
    assert not grad[..., 7].any()


@of_floors
def test_big_blanks_that_are_never_taken_leave_rnnt(posterior_floor):
    topology = Topology("multiblank", durations=(2, 5), delay_penalty=0.3)
    problem = joint_problem(2, topology, sharpness=8.0, dtype=np.float64)
    problem.bias[6:8] = -np.inf
    plain = replace(problem, topology=Topology(delay_penalty=0.3))
    options, slack = {"posterior_floor": posterior_floor}, 1e-5 * (posterior_floor > 0)
    assert_same(flat(problem, **options), flat(plain, **options), scale=50, slack=slack)


@of_steps
def test_arcs_that_cross_a_frame_boundary_sum_to_one(topology):
    """By their gradients: with a step's entry, what the duration's or the blank's softmax is multiplied by."""
    problem = logits_problem(3, topology, frames=12, dtype=np.float64)
    _, grad = both(problem)
    posteriors = lattice.transducer_posteriors(*problem.args, **problem.options)
    np.testing.assert_allclose(posteriors.label.sum(axis=1)[:, :-1], arrivals(problem), atol=1e-12)
    visited = posteriors.blank + posteriors.label
    V = grad.shape[-1] - topology.tail
    where = steps_oracle.blank_ids(problem.blank, V, topology)
    for b, (t, u) in enumerate(zip(*problem.args[2:], strict=True)):
        rows, own = problem.logits[b, :t, : u + 1], grad[b, :t, : u + 1]
        heads = steps_oracle.log_heads(rows, topology)
        if topology.name == "tdt":
            steps, taken = topology.durations, visited[b, :t, : u + 1, None] * np.exp(heads[1]) - own[..., V:]
        else:
            steps = 1, *topology.durations
            taken = visited[b, :t, : u + 1, None] * np.exp(heads[0][..., where]) - own[..., where]
        by_frame = taken.sum(axis=1)  # (T, D)
        for boundary in range(1, t + 1):
            crosses = np.arange(t)[:, None] + steps >= boundary
            np.testing.assert_allclose(by_frame[:boundary][crosses[:boundary]].sum(), 1, rtol=1e-11)


def arrivals(problem):
    """(B, U): every label is emitted once, and padding never."""
    labels = np.arange(problem.logits.shape[2] - 1)
    return (labels < problem.target_lengths[:, None]).astype(float)


@of_steps
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_each_head_of_a_row_sums_to_zero(topology, dtype):
    problem = logits_problem(4, topology, frames=12, dtype=dtype)
    _, grad = both(problem, fastemit_lambda=0.3)
    for head in np.split(grad, [7], axis=-1):
        rows = head.astype(np.float64).sum(axis=-1)
        assert np.abs(rows).max() <= 32 * float(np.spacing(dtype.type(1)))
        assert head.shape[-1] == 0 or np.abs(head).max() > 0.01


@of_steps
def test_rows_are_at_most_kappa_times_their_posterior(topology):
    """docs/certified.md: 2 for each softmax."""
    kappa, largest = oracle.most_of_a_row(topology), 0.0
    for seed in range(30):
        problem = logits_problem(seed, topology, dtype=np.float64, spread=12.0)
        _, grad = both(problem)
        _, blank, label = lattice.transducer_posteriors(*problem.args, **problem.options)
        posterior, norm = (blank + label)[problem.real], np.abs(grad).sum(axis=-1)[problem.real]
        assert (norm <= kappa * posterior * (1 + 1e-9) + 2.0**-90).all()
        some = posterior > 1e-20
        largest = max(largest, (norm[some] / posterior[some]).max())
    assert largest > kappa - 0.1


@of_steps
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_a_batch_is_its_examples(topology, dtype):
    problem = logits_problem(5, topology, bounded=True, dtype=dtype)
    loss, grad = both(problem)
    for b in range(len(loss)):
        own, row = both(problem.single(b))
        np.testing.assert_array_equal(own, loss[b : b + 1])
        np.testing.assert_array_equal(row, grad[b : b + 1])


@of_steps
@of_floors
def test_a_batch_of_the_joint_is_its_examples(topology, posterior_floor):
    problem = joint_problem(6, topology, batch=5, frames=12, vocabulary="lengths", bounded=True, sharpness=8.0)
    loss, encoder, predictor, *shared = flat(problem, posterior_floor=posterior_floor)
    summed = [np.zeros_like(part) for part in shared]
    rows_of = {"encoder", "predictor", "targets", "encoder_lengths", "target_lengths", "vocabulary"}
    for b in range(5):
        rows = slice(b, b + 1)
        names = [field.name for field in fields(problem) if field.name in {*rows_of, "vocabulary_lengths"}]
        own = {name: getattr(problem, name)[rows] for name in names}
        one = replace(problem, **own, bounds=tuple(bound[rows] for bound in problem.bounds))
        *results, weight, bias = flat(one, posterior_floor=posterior_floor)
        assert_same(results, [loss[rows], encoder[rows], predictor[rows]], slack=1e-5 * (posterior_floor > 0))
        summed[0] += weight
        summed[1] += bias
    assert_same(shared, summed, slack=1e-5 * (posterior_floor > 0), scale=5)


@of_steps
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_packed_banded_and_in_place(topology, dtype):
    problem = logits_problem(7, topology, frames=9, bounded=True, dtype=dtype)
    loss, grad = both(problem)
    packed = problem.pack(problem.logits)
    other, found = lattice.transducer_loss_and_grad(packed, *problem.args[1:], **problem.options)
    np.testing.assert_array_equal(other, loss)
    np.testing.assert_array_equal(found, problem.pack(grad))
    other, found = lattice.transducer_loss_and_grad(packed, *problem.args[1:], **problem.options, out=packed)
    assert found is packed
    np.testing.assert_array_equal(packed, problem.pack(grad))
    for spare in (0, 2):
        banded = problem.band(problem.logits, spare=spare), *problem.args[1:]
        other, found = lattice.transducer_loss_and_grad(*banded, **problem.options, banded=True)
        np.testing.assert_array_equal(other, loss)
        np.testing.assert_array_equal(found, problem.band(grad, spare=spare, fill=0))


@of_steps
def test_padding_is_never_read(topology):
    """Other padding, longer padding: the same numbers. (Everywhere else the padding is NaN and ids out of range.)"""
    short, long = (joint_problem(8, topology, slack=slack, vocabulary="lengths") for slack in ((0, 0), (9, 7)))
    expected, depth, width = flat(short), short.encoder.shape[1], short.predictor.shape[1]
    shared = {"encoder": long.encoder.copy(), "predictor": long.predictor.copy(), "targets": long.targets.copy()}
    shared["encoder"][:, :depth], shared["predictor"][:, :width] = short.encoder, short.predictor
    shared["targets"][:, : width - 1] = short.targets
    names = "weight", "bias", "encoder_lengths", "target_lengths", "vocabulary", "vocabulary_lengths"
    long = replace(long, **shared, **{name: getattr(short, name) for name in names})
    loss, encoder, predictor, *others = flat(long)
    assert_same([loss, encoder[:, :depth], predictor[:, :width], *others], expected)
    assert not encoder[:, depth:].any() and not predictor[:, width:].any()
    for array in (long.encoder, long.predictor):
        array[np.isnan(array)] = np.inf
    long.targets[np.isin(long.targets, GARBAGE_IDS)] = 0
    assert_equal(flat(long), [loss, encoder, predictor, *others])


@of_steps
@pytest.mark.parametrize("vocabulary", [None, "endings"])
def test_relabelling_commutes(topology, vocabulary):
    """Of tokens that are no blanks where the blanks' ids hang together, and of all others."""
    blank = blank_at("middle", 11, topology)
    problem = joint_problem(9, topology, vocab=11, blank=blank, vocabulary=vocabulary, dtype=np.float64)
    blanks = steps_oracle.blank_ids(blank, 11, topology)
    order, rng = np.arange(len(problem.weight)), np.random.default_rng(9)
    if topology.name == "tdt":
        order[:11] = rng.permutation(11)  # new id of each old id
    else:
        others = np.setdiff1d(order, blanks)
        order[others] = rng.permutation(others)
    other, back = relabelled(problem, order), np.argsort(order)
    loss, encoder, predictor, weight, bias = flat(problem)
    assert_same(flat(other), [loss, encoder, predictor, weight[back], bias[back]], scale=loss.max())


@of_steps
@of_floors
def test_tiles_of_any_size_are_one_tile(topology, posterior_floor):
    problem = joint_problem(10, topology, batch=6, frames=25, labels=9, vocab=70, width=12, sharpness=8.0)
    least = least_limit(problem, posterior_floor=posterior_floor)
    loss, grads = call(problem, posterior_floor=posterior_floor)
    for limit in (least, 3 * least // 2, 6 * least):
        found, others = call(problem, posterior_floor=posterior_floor, memory_limit=limit)
        slack = 1e-4 * (posterior_floor > 0)
        assert_same([found, *others], [loss, *grads], scale=loss.max(), slack=slack)
    with pytest.raises(ValueError, match="memory_limit"):
        call(problem, posterior_floor=posterior_floor, memory_limit=least - 1)


@of_steps
@of_floors
@pytest.mark.parametrize("kind", [{}, {"sharpness": 8.0}, {"vocabulary": "lengths"}, {"dtype": np.float16}], ids=str)
def test_measured_memory_stays_below_the_limit(topology, kind, posterior_floor):
    """16 examples of up to 40 x 13 cells and 256 ids: several MB of logits, and a limit far below."""
    options = {"batch": 16, "frames": 40, "labels": 12, "vocab": 256, "width": 24, **kind}
    call(joint_problem(11, topology, **options), posterior_floor=posterior_floor)  # compiled, imported, cached
    for limit in (1 << 18, 1 << 20):
        problem = joint_problem(11, topology, **options)
        given = {"posterior_floor": posterior_floor, "memory_limit": limit}
        used, result = extra_bytes(lambda problem=problem, given=given: call(problem, **given))
        assert used - size_of(*result) <= limit + PYTHON


def test_memory_of_long_durations_is_counted():
    """A sweep keeps a row of cells for each frame that an arc may come from: here 300 of them, and 190 KB."""
    topology = Topology("tdt", durations=(0, 1, 300))
    options = {"lengths": ([320], [36]), "vocab": 30, "width": 8}
    problem = joint_problem(14, topology, **options)
    given = {"posterior_floor": 0, "memory_limit": least_limit(problem, posterior_floor=0)}
    # As in test_joint_memory: what the interpreter keeps for the next call is not the call's.
    gc.disable()
    try:
        measured = [extra_bytes(lambda: call(problem, **given)) for _ in range(4)]
    finally:
        gc.enable()
    assert min(used - size_of(*result) for used, result in measured) <= given["memory_limit"] + PYTHON


@of_floors
def test_infeasible_examples_leave_the_others_alone(posterior_floor):
    topology = Topology("tdt", durations=(0, 2))
    problem = joint_problem(12, topology, lengths=([8, 7, 6], [2, 2, 1]), dtype=np.float64)
    loss, encoder, predictor, weight, bias = flat(problem, posterior_floor=posterior_floor)
    assert np.isposinf(loss).tolist() == [False, True, False]
    assert not encoder[1].any() and not predictor[1].any()
    names, rest = ("predictor", "targets", "encoder_lengths", "target_lengths"), [0, 2]
    others = {name: getattr(problem, name)[rest] for name in names}
    expected = flat(replace(problem, encoder_index=np.array(rest), **others), posterior_floor=posterior_floor)
    assert_same([loss[rest], encoder, predictor[rest], weight, bias], expected, slack=1e-5 * (posterior_floor > 0))


@of_steps
def test_full_bounds_are_none_and_the_same_bits_twice(topology):
    problem = joint_problem(13, topology)
    bounds = tuple(np.full(problem.encoder.shape[:2], u, np.int32) for u in (-3, 99))
    assert_same(flat(replace(problem, bounds=bounds)), flat(problem))
    assert_equal(flat(problem, posterior_floor=FLOOR), flat(problem, posterior_floor=FLOOR))
