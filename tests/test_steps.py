"""Arcs that take several frames ("tdt", "multiblank"), from logits, against the oracle."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattice
from lattice import Topology
from tests import compare, oracle, steps_oracle, test_transducer
from tests.problems import DTYPES
from tests.steps_problems import (
    NEMO,
    PLACES,
    STEPS,
    blank_at,
    feasible,
    logits_problem,
    logits_problems,
    name_of,
    poisoned,
)

check = partial(test_transducer.check, truth_of=steps_oracle.batch_loss_and_grad)
of_steps = pytest.mark.parametrize("topology", STEPS, ids=name_of)
of_places = pytest.mark.parametrize("place", PLACES)


def test_the_value_of_nemo():
    """Of NeMo's test with fixed logits, which are all 0: 6 digits are given there."""
    topology = Topology("tdt", durations=(0, 1, 2), sigma=0.05)
    logits, lengths = np.zeros((1, 3, 2, 7)), (np.array([3]), np.array([1]))
    loss = lattice.transducer_loss(logits, np.array([[0]]), *lengths, blank=-1, topology=topology)
    assert abs(loss[0] - 4.155739) < 5e-7


@of_steps
@of_places
def test_every_small_lattice_is_its_enumeration(topology, place):
    pairs = [(t, u) for t in range(1, 6) for u in range(4) if feasible(t, u, topology)]
    blank = blank_at(place, 6, topology)
    problem = logits_problem(1, topology, lengths=np.array(pairs).T, vocab=6, blank=blank, dtype=np.float64)
    assert len(pairs) > 6

    def losses(dtype):
        found = []
        for b, (t, u) in enumerate(pairs):
            rows = problem.logits[b, :t, : u + 1].astype(dtype), problem.targets[b, :u]
            scores = steps_oracle.arc_scores(*rows, blank=blank, topology=topology)
            found.append(steps_oracle.by_enumeration(*scores, topology)[0])
        return np.array(found)

    loss, _ = check(problem)
    compare.assert_close(loss, *oracle.truth_and_naive(losses, np.float64), per_example=True, what="loss")


@of_steps
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("sharpness", [0.0, 10.0])
def test_ragged_batches(topology, dtype, sharpness):
    options = {"frames": 12, "labels": 5, "vocab": 8, "dtype": dtype, "sharpness": sharpness}
    for seed, place in enumerate(PLACES):
        check(logits_problem(seed, topology, blank=blank_at(place, 8, topology), **options))


@given(
    logits_problems(),
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.37, -25.0]), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.01, 1.0]),
)
def test_anything(problem, grad_loss, fastemit_lambda):
    wide = problem.logits.dtype == np.float64
    grad_loss = np.array(grad_loss[: len(problem.logits)], np.float64 if wide else np.float32)
    check(problem, grad_loss=grad_loss, fastemit_lambda=fastemit_lambda)


@of_steps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_fastemit_and_upstream_gradients(topology, dtype):
    upstream = np.array([1, -2.5, 0, 0.3], dtype)
    problem = logits_problem(2, topology, frames=12, bounded=True, dtype=dtype)
    loss, _ = check(problem, grad_loss=upstream, fastemit_lambda=0.7)
    assert np.isfinite(loss).all()
    free = lattice.transducer_loss(*problem.args, **problem.options | {"bounds": None})
    assert free[0] < loss[0] and (free <= loss * (1 + 1e-6)).all()


@of_steps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("frames", "labels", "vocab"), [(3, 1, 4), (8, 0, 3), (40, 12, 5), (300, 3, 3), (1100, 1030, 5)]
)
def test_equal_logits_have_a_closed_form(topology, dtype, frames, labels, vocab):
    """More labels and frames than a block has threads among them."""
    topology, blank = replace(topology, delay_penalty=0.0), vocab - 1
    if topology.name == "multiblank":
        vocab, blank = vocab + 2, vocab + 1
    logits = np.full((1, frames, labels + 1, vocab + topology.tail), 3.0, dtype)
    lengths = np.array([frames]), np.array([labels])
    given = logits, np.zeros((1, labels), int), *lengths
    loss, grad = lattice.transducer_loss_and_grad(*given, blank=blank, topology=topology)
    expected = np.array([steps_oracle.uniform_loss(frames, labels, vocab, topology)])
    arcs = frames + labels
    scale = max(1, arcs * (np.log(vocab) + 2)) * (arcs if dtype == np.float64 else 1)
    compare.assert_close(loss, expected, expected, k=2, scale=scale, what="loss")
    for head in np.split(grad, [vocab], axis=-1):
        zeros = np.zeros(grad.shape[:3])
        compare.assert_close(head.sum(axis=-1), zeros, zeros, what="row sum")


@of_steps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_labels_and_ids_than_any_block(topology, dtype):
    """No sizes that divide anything: blocks end in the middle."""
    lengths = [79, 43, 6], [37, 19, 0]
    check(logits_problem(3, topology, lengths=lengths, vocab=131, dtype=dtype))
    check(logits_problem(4, topology, lengths=lengths, vocab=9, sharpness=10.0, dtype=dtype))


@pytest.mark.parametrize("durations", [(1, 40), (0, 1, 7, 90), (5,), (3, 1000)])
@pytest.mark.parametrize("name", ["tdt", "multiblank"])
def test_durations_longer_than_any_example(name, durations):
    if name == "multiblank":
        durations = tuple(d for d in durations if d > 1)
    topology = Topology(name, durations=durations, sigma=0.1)
    problem = logits_problem(5, topology, frames=12, labels=2, dtype=np.float64)
    loss, grad = check(problem)
    assert np.isfinite(loss).all()
    if name == "tdt" and len(durations) > 1:  # what cannot be taken is only ever paid for
        assert (grad[..., -1] >= 0).all() and grad[..., -1].any()


@of_steps
def test_one_frame_and_no_labels(topology):
    """Of one frame there is an alignment only where some arc takes one frame."""
    check(logits_problem(6, topology, lengths=([1, 1, 4, 2], [0, 0, 0, 0]), dtype=np.float64))
    pairs = [pair for pair in ((1, 0), (1, 1), (1, 3), (2, 1)) if feasible(*pair, topology)]
    loss, _ = check(logits_problem(7, topology, lengths=np.array([*pairs, (6, 0)]).T, dtype=np.float64))
    assert np.isfinite(loss).all()
    check(logits_problem(8, topology, lengths=([5, 3], [0, 0]), slack=(0, 0)))  # targets (B, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_examples_without_an_alignment(dtype):
    """Two frames at a time never come to an odd number. NeMo's loss of such an example is finite."""
    topology = Topology("tdt", durations=(0, 2))
    problem = logits_problem(9, topology, lengths=([6, 5, 4, 1], [2, 2, 0, 1]), dtype=dtype)
    loss, grad = check(problem)
    assert np.isposinf(loss).tolist() == [False, True, False, True]
    assert not grad[[1, 3]].any() and grad[0].any() and np.isfinite(grad).all()
    labels_last = Topology("tdt", durations=(1, 2))  # and a label does not land on the last frame's end
    problem = logits_problem(10, labels_last, lengths=([3, 3, 4], [3, 2, 4]), dtype=dtype)
    loss, _ = check(problem)
    assert np.isposinf(loss).tolist() == [True, False, True]
    assert np.isfinite(check(logits_problem(9, STEPS[3], lengths=([6, 5, 1], [2, 2, 3]), dtype=dtype))[0]).all()


@of_steps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_above_ten_thousand(topology, dtype):
    """Where NeMo's -10000 for a log of 0 makes the loss too small."""
    problem = logits_problem(11, topology, frames=24, labels=6, dtype=dtype)
    problem.logits[...] *= 2e3
    loss, grad = check(problem)
    assert loss[0] > 1e4 and np.isfinite(loss).all() and np.isfinite(grad).all()


@of_steps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minus_infinity_closes_arcs(topology, dtype):
    """Tokens and steps that are never taken, a row of nothing else, and heads of nothing else."""
    problem = logits_problem(12, topology, lengths=([9, 9, 9], [2, 1, 2]), dtype=dtype)
    V = problem.logits.shape[-1] - topology.tail
    problem.logits[0, 1, 1, V - 1] = -np.inf  # no blank
    problem.logits[0, 2, 0, :V] = -np.inf
    problem.logits[0, 3, 1] = -np.inf
    problem.logits[0, 4, 1, V - 1 if topology.name == "multiblank" else V] = -np.inf  # not the first step
    problem.logits[0, 5, 1, V:] = -np.inf
    problem.logits[1, :, 0, problem.targets[1, 0]] = -np.inf  # the one label, never
    problem.logits[2, :, :, -1] = -np.inf  # the longest duration, or the blank of one frame
    loss, grad = check(problem)
    assert np.isposinf(loss[1]) and not grad[1].any() and np.isfinite(grad).all()
    assert not grad[0, 2, 0].any() and not grad[0, 3, 1].any() and not grad[2, ..., -1].any()


@of_steps
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_poison_stays_in_its_example(topology, bad):
    """Whichever entry it is: a blank's, the label's, another's, a duration's; in the last column too."""
    problem = logits_problem(13, topology, lengths=([7, 7, 6], [2, 2, 1]), dtype=np.float32)
    expected = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    label, size = problem.targets[1, 0], problem.logits.shape[-1]
    for t, u, entry in ((0, 0, label), *((3, 1, entry) for entry in range(size)), (3, 2, 0), (3, 2, size - 1)):
        logits = problem.logits.copy()
        logits[1, t, u, entry] = bad
        loss, grad = lattice.transducer_loss_and_grad(logits, *problem.args[1:], **problem.options)
        assert np.isnan(loss[1]) and np.isnan(grad[1, t, u]).all() and np.isnan(grad[1, 0, 0]).all()
        assert not grad[1][~problem.real[1]].any()
        np.testing.assert_array_equal(loss[[0, 2]], expected[0][[0, 2]])
        np.testing.assert_array_equal(grad[[0, 2]], expected[1][[0, 2]])


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    "durations, frames, labels",
    [((2,), 6, 2), ((0, 2), 4, 2), ((2, 5), 7, 1), ((0, 2, 5), 7, 1), ((1, 3), 6, 3), ((1,), 4, 2)],
)
def test_poison_where_no_alignment_passes_is_nothing(durations, frames, labels, dtype):
    """In cells that no arcs lead to, and in those from which none lead to the end."""
    problem, bad, visited = poisoned(Topology("tdt", durations=durations), frames, labels, dtype)
    assert visited.any() and not visited.all()
    loss, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    found, found_grad = lattice.transducer_loss_and_grad(*bad.args, **problem.options)
    np.testing.assert_array_equal(found, np.where(visited, np.nan, loss))
    np.testing.assert_array_equal(found_grad[~visited], grad[~visited])
    for door in (lattice.transducer_posteriors, lattice.transducer_alignment):
        for one, other in zip(door(*bad.args, **problem.options), door(*problem.args, **problem.options), strict=True):
            np.testing.assert_array_equal(one[~visited], other[~visited])


@of_steps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_far_logits_keep_the_loss_its_digits(topology, dtype, offset):
    """Each head far from 0: what its logits have in common is no matter."""
    problem = logits_problem(14, topology, dtype=dtype)
    V = problem.logits.shape[-1] - topology.tail
    problem.logits[..., :V] += offset
    problem.logits[..., V:] -= offset
    check(problem)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 3.0, 1e6])
@pytest.mark.parametrize("name", ["tdt", "multiblank"])
def test_sigma_is_off_every_arc(name, sigma):
    problem = logits_problem(15, Topology(name, durations=(2,)), lengths=([2, 4], [0, 0]), vocab=4, dtype=np.float64)
    plain, expected = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    topology = replace(problem.topology, sigma=sigma)
    loss, grad = check(replace(problem, topology=topology))
    if name == "tdt":  # by twos: one arc, and two
        np.testing.assert_allclose(loss, plain + sigma * np.array([1, 2]), rtol=1e-15)
        compare.assert_same(grad, expected, scale=1 + sigma)
    assert (loss >= plain + sigma * (1 - 1e-12)).all()


def test_fastemit_is_in_the_token_head_alone():
    problem = logits_problem(16, NEMO, dtype=np.float64)
    loss, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    faster, other = check(problem, fastemit_lambda=0.5)
    np.testing.assert_array_equal(faster, loss)
    compare.assert_same(other[..., -5:], grad[..., -5:])
    assert np.abs(other - grad)[..., :-5].max() > 0.01
