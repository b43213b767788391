"""A band of cells instead of all: results are those of all cells, whatever lies outside of the band."""

from dataclasses import replace

import numba
import numpy as np
import pytest

import lattice
from lattice.tiles import certificate, full_sum
from tests import compare
from tests.band_problems import SHARPNESS, call, force, many, spied
from tests.problems import TOPOLOGIES, VARIANTS, name_of
from tests.test_certified import check_report, compare_with_dense
from tests.test_joint_memory import extra_bytes, least_limit, size_of

KINDS = [{}, {"vocabulary": "lengths"}, {"bounded": True}, {"hypotheses": 12}, {"vocabulary": "endings", "blank": -1}]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_losses_and_gradients_are_those_of_all_cells(topology, dtype, monkeypatch):
    """Lattices of every sharpness, 12 at a time, whose last has no label."""
    force(monkeypatch)
    bands, narrow = spied(monkeypatch), 0
    for number, sharpness in enumerate(SHARPNESS):
        kind = KINDS[(number + VARIANTS.index(topology)) % len(KINDS)]
        problem = many(number, topology, sharpness, batch=12, dtype=dtype, **kind)
        told = compare_with_dense(problem)
        check_report(told, problem)
        narrow += sum(cells is not None for cells in bands)
        bands.clear()
    assert narrow > 9


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_a_band_that_cannot_be_enough_is_given_up(topology, monkeypatch):
    """The limits are those of wide lattices."""
    force(monkeypatch, ["SMALL"])
    bands, known = spied(monkeypatch), []
    for sharpness in (1.0, 3.0, 30.0):
        problem = many(1, topology, sharpness, batch=3, lengths=([60, 44, 60], [20, 9, 0]), dtype=np.float32)
        compare_with_dense(problem)
        known.append(bands[-1])
        bands.clear()
    assert known[0] is None
    assert known[-1] is not None and known[-1][0] < 0.5 * 60 * 21


@pytest.mark.parametrize("sharpness", [0.0, 8.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_edges(topology, sharpness, monkeypatch):
    """One frame, no label, as many labels as frames."""
    force(monkeypatch)
    for lengths in (([1, 1, 1], [0, 1, 1]), ([9, 1, 9], [0, 0, 0]), ([5, 9, 2], [5, 9, 2])):
        problem = many(2, topology, sharpness, batch=3, lengths=lengths)
        told = compare_with_dense(problem)
        check_report(told, problem)
        assert not told.exit_posterior[np.array(lengths[1]) == 0].any()


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_examples_without_an_alignment_disturb_no_other(topology, bounded, monkeypatch):
    force(monkeypatch)
    bands = spied(monkeypatch)
    problem = many(1, topology, 8.0, batch=3)
    whole = call("loss", problem)
    T, width = problem.encoder.shape[1], problem.targets.shape[1]
    first, last = np.zeros((3, T), np.int64), np.full((3, T), width)
    last[1, 1] = -1 if bounded else width
    lengths = problem.encoder_lengths.copy(), problem.target_lengths.copy()
    if topology != "rnnt":
        lengths[0][1], lengths[1][1] = 3, 5
    problem = replace(
        problem,
        encoder=np.nan_to_num(problem.encoder), predictor=np.nan_to_num(problem.predictor),
        targets=np.clip(problem.targets, 1, 8), encoder_lengths=lengths[0], target_lengths=lengths[1],
        bounds=(first, last),
    )  # fmt: skip
    loss, grads = call("loss_and_grad", problem)
    assert np.isposinf(loss[1]) == (bounded or topology != "rnnt")
    np.testing.assert_array_equal(loss[[0, 2]], whole[[0, 2]])
    if np.isposinf(loss[1]):
        assert not grads.encoder[1].any() and not grads.predictor[1].any()
    assert bands[-1] is not None and bands[-1][0] < 0.7 * 26 * 9


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_nan_where_alignments_go_is_seen(topology, monkeypatch):
    """In a frame or label position, which all alignments pass, and in the output layer. No other example has NaN."""
    force(monkeypatch)
    problem = many(1, topology, 8.0, batch=3, lengths=([26, 20, 26], [8, 8, 0]))
    for name in ("encoder", "predictor"):
        rows = getattr(problem, name).copy()
        rows[0, 7, 0] = np.nan
        loss, grads = call("loss_and_grad", replace(problem, **{name: rows}))
        assert np.isnan(loss).tolist() == [True, False, False]
        assert np.isnan(grads.encoder[0, :26]).all() and not np.isnan(grads.encoder[1:]).any()
    weight = problem.weight.copy()
    weight[3, 0] = np.nan
    assert np.isnan(call("loss", replace(problem, weight=weight))).all()


def bits(loss, grads):
    return [array.tobytes() for array in (loss, *grads) if array is not None]


@pytest.mark.parametrize("topology", VARIANTS[::4], ids=name_of)
def test_the_same_whatever_the_threads_and_the_memory(topology, monkeypatch):
    """Bits do not depend on threads. Groups and tiles change roundings and no band."""
    force(monkeypatch)
    bands = spied(monkeypatch)
    problem = many(5, topology, 12.0, frames=40, labels=12, vocabulary="lengths")
    loss, grads = call("loss_and_grad", problem)
    (whole,), before = bands, numba.get_num_threads()
    assert whole is not None
    try:
        numba.set_num_threads(1)
        assert bits(*call("loss_and_grad", problem)) == bits(loss, grads)
    finally:
        numba.set_num_threads(before)
    told = call("report", problem)
    narrow = [n for n, cells in whole.items() if cells < told.cells[n]]
    assert len(narrow) > 5
    least = least_limit(problem)
    for limit in (least, 2 * least, 1 << 20):
        small = call("report", problem, memory_limit=limit)
        # A cell joins by the gap between two sums, of which little is left behind their roundings in float64.
        assert (np.abs(small.certified - told.certified)[narrow] <= 3).all()
        assert (np.abs(small.occupied - told.occupied)[narrow] <= 3).all()
        assert (small.certificate <= 2e-12).all() and (small.exit_posterior <= 2e-12).all()
        bands.clear()
        other, rows = call("loss_and_grad", problem, memory_limit=limit)
        # Of a group that was passed over nothing is known.
        found = {n: cells for group in bands for n, cells in (group or {}).items()}
        assert all(found.get(n, whole[n]) == whole[n] for n in narrow) and (len(bands) > 1 or limit > least)
        compare.assert_same(other, loss, per_example=True, slack=1e-12, what="loss")
        for name, ours, one in zip(grads._fields, rows, grads, strict=True):
            compare.assert_same(ours, one, scale=1e3, slack=1e-9, what=name)


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_all_doors_agree(topology, near, monkeypatch):
    """The pullback of a vjp, overwritten arguments, and posteriors of the arcs, by one band."""
    force(monkeypatch)
    bands = spied(monkeypatch)
    problem = many(6, topology, 12.0, batch=6)
    extra = {"near": call("alignment", problem)[0]} if near else {}
    loss, grads = call("loss_and_grad", problem, **extra)
    again, vjp = call("loss_vjp", problem, **extra)
    alone = call("loss", problem, **extra)
    assert bits(again, vjp()) == bits(again, vjp()) == bits(loss, grads)
    assert alone.tobytes() == loss.tobytes()
    copied = replace(problem, encoder=problem.encoder.copy(), predictor=problem.predictor.copy())
    over, rows = call("loss_and_grad", copied, overwrite=True, **extra)
    assert rows.encoder is copied.encoder and bits(over, rows) == bits(loss, grads)
    found, dense = call("posteriors", problem, **extra), call("posteriors", problem, posterior_floor=0.0)
    told = call("report", problem, **extra)
    for one, other in ((found.blank, dense.blank), (found.label, dense.label)):
        missing = np.abs(one - other).sum(axis=(1, 2))
        assert (missing <= 2 * told.skipped_posterior + 1e-9).all()
    assert {str(cells) for cells in bands} == {str(bands[0])} and bands[0] is not None


def test_the_report_says_which_way_each_example_went(monkeypatch):
    """Of two examples that have a band, and of one that has none: the last pays for all of its cells."""
    force(monkeypatch, ["SMALL", "FOUND_DENSE"])
    problem = many(1, "rnnt", 30.0, batch=3, lengths=([60, 44, 60], [20, 9, 20]), vocab=30, width=12)
    problem.encoder[2] *= 1e-3
    problem.predictor[2] *= 1e-3
    bands = spied(monkeypatch)
    told = call("report", problem)
    own = np.array([*bands[0].values()])[np.argsort([*bands[0]])]
    assert own[0] < told.cells[0] and own[1] < told.cells[1] and own[2] == told.cells[2]
    assert (told.certified <= own).all() and told.certified[2] == told.cells[2]
    assert (told.rounds > 0).all() and told.certificate[2] == 0
    np.testing.assert_allclose(told.exit_posterior, -np.expm1(-told.certificate), rtol=1e-12)


@pytest.mark.parametrize("room", ["none", "some"])
def test_the_second_pass_of_a_vjp_takes_the_same_decisions(room, monkeypatch):
    """Also where a band is not sought any more in the groups behind."""
    force(monkeypatch)
    asked, sum_band, hold = [], full_sum._sum_band, full_sum.hold
    kept = []

    def spy(tiler, group, *rest):
        # Half of the groups that are asked say that they have no band.
        asked.append(group.begin)
        return None if group.begin % 2 else sum_band(tiler, group, *rest)

    def holding(work, log_z, left):
        held = hold(work, log_z, left if room == "some" else 0)
        for index in list(held.visited)[1::3]:
            del held.visited[index]
        kept.extend(work.plan.groups[index][0] for index in held.visited)
        return held

    monkeypatch.setattr(full_sum, "_sum_band", spy)
    monkeypatch.setattr(full_sum, "hold", holding)
    problem = many(2, "rnnt", 8.0, batch=40)
    limit = 2 * least_limit(problem, lattice.joint_transducer_loss_vjp)
    _, vjp = call("loss_vjp", problem, memory_limit=limit)
    forward, results = list(asked), []
    assert len(forward) > 4
    for _ in range(2):
        asked.clear()
        results.append(bits(np.zeros(0), vjp()))
        assert sorted(asked) == sorted(set(forward) - set(kept))
    assert results[0] == results[1] and (room == "none") == (not kept)


class Of:
    """As much of a group as decisions are made of."""

    def __init__(self, begin, examples=1):
        self.begin, self.examples = begin, range(examples)


def sought(found, examples=1):
    """Which of the groups a band is looked for in, where `found` says which of them have one."""
    bounded = certificate.BoundedGroups()
    looked = []
    for number, has_one in enumerate(found):
        group = Of(number, examples)
        if bounded.seeks(group):
            looked.append(number)
            bounded.learn_band(group, has_one)
        assert bounded.seeks(group) == (number in looked)
    assert [number for number in range(len(found)) if bounded.seeks(Of(number, examples))] == looked
    return looked


def test_where_no_band_is_found_it_is_looked_for_less_and_less():
    """Four examples in a row for each group that is passed over, seven groups at most. A band found begins anew."""
    assert sought([False] * 16) == [0, 1, 2, 3, 5, 7, 9, 11, 14]
    assert sought([False] * 12, examples=4) == [0, 2, 5, 9]
    assert sought([False] * 20, examples=40) == [0, 8, 16]
    assert sought([True] * 9, examples=40) == list(range(9))
    assert sought([False, False, True, False, False, False, True, True], examples=4) == [0, 2, 3, 5]
    assert sought([False, False, True, True, False, True, True], examples=4) == [0, 2, 3, 4, 6]


def test_a_narrow_lattice_has_no_band(monkeypatch):
    """Bounds on all cells take less time there."""
    bands = spied(monkeypatch)
    for lengths, wide in (
        (([40], [30]), False),
        (([40], [31]), True),
        (([60, 20], [39, 4]), False),
        (([60, 20], [41, 4]), True),
        (([9], [0]), False),
    ):
        bands.clear()
        call("loss", many(0, "rnnt", 8.0, batch=len(lengths[0]), lengths=lengths))
        assert bool(bands) == wide, lengths


@pytest.mark.parametrize("near", [False, True])
def test_a_band_stays_within_the_memory(near, monkeypatch):
    problem = many(0, "rnnt", 8.0, batch=1, lengths=([3000], [40]), dtype=np.float32)
    bands, limit = spied(monkeypatch), 16 << 20
    extra = {"near": call("alignment", problem)[0]} if near else {}
    call("loss_and_grad", problem, memory_limit=limit, **extra)
    assert bands[-1] is not None
    used, (loss, grads) = extra_bytes(lambda: call("loss_and_grad", problem, memory_limit=limit, **extra))
    assert used - size_of(loss, grads) <= limit + (1 << 16)
