"""Where bounds leave no cell out, the groups behind are not bounded: which ones, and that it changes no result."""

import itertools

import numpy as np
import pytest

import lattice
from lattice.inputs.joint import read_joint
from lattice.tiles import certificate, full_sum
from lattice.tiles.tiler import Tiler
from tests import compare
from tests.problems import joint_problem

PLAIN = {"blank": 0, "activation": "tanh", "topology": "rnnt"}
COUNT, SIZE = 90, {"vocab": 12, "width": 6}


def batch(sharp=(), count=COUNT, dtype=np.float32):
    """Examples of one size. Those that are named are as of a trained model, the others know nothing."""
    problem = joint_problem(3, batch=count, sharpness=30.0, dtype=dtype, lengths=([12] * count, [5] * count), **SIZE)
    flat = np.setdiff1d(np.arange(count), list(sharp))
    problem.encoder[flat] *= 0.001
    problem.predictor[flat] *= 0.001
    return problem


def limit_for(problem, examples, *, gradients=True):
    """The largest memory limit by which groups have so many examples, and the groups."""
    read = read_joint(*problem.args, **PLAIN | problem.options)
    for limit in range(12_000, 4_000_000, 2_000):
        try:
            groups = full_sum.plan(read, gradients=gradients, limit=limit).plan.groups
        except ValueError:
            continue
        if groups[0][1] == examples:
            return limit, groups
    raise AssertionError(f"no limit gives groups of {examples} examples")


@pytest.fixture
def bounded(monkeypatch):
    """The first example of each group that is bounded, in the order in which this is done."""
    found, bound_group = [], certificate.bound_group

    def spy(tiler, group, state, steps):
        found.append(group.begin)
        bound_group(tiler, group, state, steps)

    monkeypatch.setattr(certificate, "bound_group", spy)
    return found


def begins(groups, step):
    return [begin for begin, _ in groups[::step]]


def test_untrained_groups_are_bounded_once_in_eight(bounded):
    problem = batch(count=10 * 30)
    limit, groups = limit_for(problem, 30)
    assert len(groups) > 9
    one, truth = lattice.joint_transducer_loss_and_grad(*problem.args, posterior_floor=0)
    bounded.clear()
    loss, grads = lattice.joint_transducer_loss_and_grad(*problem.args, memory_limit=limit)
    assert bounded == begins(groups, 8)
    compare.assert_same(loss, one, per_example=True, what="loss")
    for name, ours, other in zip(grads._fields, grads, truth):
        compare.assert_same(ours, other, k=64, what=name)
    bounded.clear()
    told = lattice.joint_transducer_report(*problem.args, memory_limit=limit)
    assert bounded == begins(groups, 8)
    np.testing.assert_array_equal(told.certified, told.cells)
    assert not told.certificate.any()
    looked = np.concatenate([np.full(end - begin, begin in bounded) for begin, end in groups])
    np.testing.assert_array_equal(told.rounds > 0, looked)
    limit, groups = limit_for(problem, 30, gradients=False)
    bounded.clear()
    alone = lattice.joint_transducer_loss(*problem.args, memory_limit=limit)
    assert bounded == begins(groups, 8)
    compare.assert_same(alone, one, per_example=True, what="loss alone")


@pytest.mark.parametrize(
    "examples, looked_at",
    [(1, [0, 1, 2, 3, 5, 7, 9, 11, 14, 17, 20, 23]), (2, [0, 1, 3, 5, 8]), (6, [0, 2, 6, 11]), (8, [0, 3, 8])],
)
def test_few_examples_vouch_for_few_groups(bounded, examples, looked_at):
    """Four examples in a row for each group: more and more while none of those that are looked at leaves a cell out."""
    problem = batch(count=26 if examples == 1 else 22 if examples == 2 else COUNT)
    limit, groups = limit_for(problem, examples)
    lattice.joint_transducer_loss_and_grad(*problem.args, memory_limit=limit)
    assert bounded == [groups[number][0] for number in looked_at]


def test_one_example_does_not_vouch_for_others(bounded):
    flat = range(0, 12, 2)
    problem = batch(sharp=set(range(12)) - set(flat), count=12)
    limit, groups = limit_for(problem, 1)
    lattice.joint_transducer_loss_and_grad(*problem.args, memory_limit=limit)
    assert bounded == begins(groups, 1) and len(groups) == 12


def test_a_mixed_batch_is_certified_throughout(bounded):
    """One example of each group that leaves cells out is enough."""
    limit, groups = limit_for(batch(), 8)
    problem = batch(sharp=[begin for begin, _ in groups])
    told = lattice.joint_transducer_report(*problem.args, memory_limit=limit)
    assert bounded == begins(groups, 1)
    whole = lattice.joint_transducer_report(*problem.args)
    for name in ("cells", "certified", "occupied", "rounds"):
        np.testing.assert_array_equal(getattr(told, name), getattr(whole, name), err_msg=name)
    assert (told.certified < told.cells).sum() == len(groups)


def test_what_is_sharp_behind_flat_groups_is_found_again(bounded):
    """Groups that were vouched for are computed whole. Then it is looked at again, and goes on as before."""
    limit, groups = limit_for(batch(), 8)
    sharp = range(groups[1][0], groups[-1][1])
    told = lattice.joint_transducer_report(*batch(sharp).args, memory_limit=limit)
    assert bounded == [begin for number, (begin, _) in enumerate(groups) if number == 0 or number >= 3]
    whole = groups[3][0]
    np.testing.assert_array_equal(told.certified[:whole], told.cells[:whole])
    assert (told.certified[whole:] < told.cells[whole:]).all() and not told.rounds[groups[0][1] : whole].any()


@pytest.mark.parametrize("sharp_from", [8, 40, COUNT])
@pytest.mark.parametrize("room", ["none", "some"])
def test_a_vjp_computes_the_cells_of_the_forward_pass(bounded, monkeypatch, sharp_from, room):
    """Groups that are not held are bounded again if they were, and not if they were not, as often as it is called."""
    problem = batch(range(sharp_from, COUNT))
    limit, _ = limit_for(problem, 8)
    kept, planned, hold = [], [], full_sum.hold

    def holding(work, log_z, left):
        held = hold(work, log_z, 0 if room == "none" else left)
        planned.extend(work.plan.groups)
        for index in list(held.visited)[::2] if room == "some" else ():
            del held.visited[index]
        kept.extend(held.visited)
        return held

    monkeypatch.setattr(full_sum, "hold", holding)
    loss, vjp = lattice.joint_transducer_loss_vjp(*problem.args, memory_limit=2 * limit)
    forward, groups = list(bounded), planned
    assert 1 < len(forward) < len(groups) and bool(kept) == (room == "some")
    again = set(forward) - {groups[index][0] for index in kept}
    calls = []
    for _ in range(2):
        bounded.clear()
        calls.append(vjp())
        assert bounded == sorted(again)
    for one, other in zip(*calls):
        np.testing.assert_array_equal(one, other)
    whole, truth = lattice.joint_transducer_loss_and_grad(*problem.args, posterior_floor=0)
    compare.assert_same(loss, whole, per_example=True, slack=1e-6, what="loss")
    for name, ours, other in zip(truth._fields, calls[0], truth):
        compare.assert_same(ours, other, k=64, slack=1e-4, what=name)


def test_that_all_cells_were_computed_is_known_from_the_lists():
    """Also where the last cells join in a later round than the first."""
    met = set()
    for seed, sharpness in itertools.product(range(4), (0.5, 2.0, 3.0)):
        problem = joint_problem(seed, batch=2, sharpness=sharpness, lengths=([30, 22], [9, 7]), vocab=12, width=6)
        read = read_joint(*problem.args, **PLAIN | problem.options, posterior_floor=2.0**-24)
        tiler, log_z = Tiler(full_sum.plan(read, gradients=True, limit=1 << 20)), np.empty(2)
        with tiler.group(0) as group:
            cost = full_sum.forward(tiler, group, log_z, certificate.BoundedGroups()).cost
            assert cost.everything == bool((cost.certified == cost.cells).all())
            met.add((cost.everything, int(cost.rounds.max())))
    assert met == {(True, 1), (True, 2), (False, 2)}
