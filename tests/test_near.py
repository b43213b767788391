"""near=frames: what the doors of the joint refuse, and that frames decide where is looked first and nothing else."""

import numpy as np
import pytest

import lattice
from lattice.tiles import band, full_sum
from lattice.tiles.band import near_band
from tests import compare
from tests.band_problems import call, first_group, force, many, spied
from tests.problems import TOPOLOGIES
from tests.test_certified import check_report, compare_with_dense

DOORS = ["loss", "loss_and_grad", "loss_vjp", "report", "posteriors"]
PROBLEM = many(1, "rnnt", 8.0, batch=3, lengths=([26, 20, 9], [8, 5, 0]))  # targets (3, 9)
FRAMES = np.zeros((3, 9), np.int64)


def changed(index, value):
    near = FRAMES.copy()
    near[index] = value
    return near


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "near, error, text",
    [
        (FRAMES.astype(np.float32), TypeError, r"near.*float32"),
        (FRAMES.astype(np.int16), TypeError, r"near.*int16"),
        (FRAMES[:2], ValueError, r"near has shape \(2, 9\), expected \(3, .*\(N, U\) for predictor \(3, "),
        (FRAMES[0], ValueError, r"near has shape \(9,\)"),
        (FRAMES[:, :7], ValueError, r"near has shape \(3, 7\), expected at least 8 labels, the longest target"),
        (
            changed((0, 7), -2),
            ValueError,
            r"near\[0, 7\] is -2, expected -1, or 0 to 25, encoder_lengths\[0\] less one",
        ),
        (
            changed((1, 4), 20),
            ValueError,
            r"near\[1, 4\] is 20, expected -1, or 0 to 19, encoder_lengths\[1\] less one",
        ),
    ],
)
def test_refused(door, near, error, text):
    with pytest.raises(error, match=text):
        call(door, PROBLEM, near=near)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_padding_may_hold_anything(dtype):
    near = np.full((3, 12), 10**6, dtype)
    near[0, :8], near[1, :5] = 25, -1
    assert np.isfinite(call("loss", PROBLEM, near=near)).all()
    # As wide as the longest target is enough.
    assert np.isfinite(call("loss", PROBLEM, near=near[:, :8])).all()


def test_an_empty_batch():
    empty = [x[:0] if position not in (2, 3) else x for position, x in enumerate(PROBLEM.args)]
    assert lattice.joint_transducer_loss(*empty, near=FRAMES[:0]).shape == (0,)


def frames_of_every_kind(rng, problem):
    """Likely ones, nonsense in any order, all at one end or the other, none at all, and some of each."""
    likely = call("alignment", problem)[0].astype(np.int64)
    T = problem.encoder_lengths[:, None]
    random = rng.integers(-1, T, likely.shape)
    late = np.broadcast_to(T - 1, likely.shape)
    mixed = np.where(rng.random(likely.shape) < 0.5, likely, random)
    return likely, random, np.zeros_like(likely), late, np.full_like(likely, -1), mixed, np.minimum(likely + 9, T - 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_frames_never_change_the_result(topology, dtype, monkeypatch):
    force(monkeypatch)
    bands, rng, narrow = spied(monkeypatch), np.random.default_rng(7), 0
    for sharpness in (0.0, 5.0, 30.0):
        options = {"hypotheses": 8} if sharpness == 5.0 else {"bounded": True} if sharpness == 0.0 else {}
        problem = many(4, topology, sharpness, batch=6, frames=50, labels=20, dtype=dtype, **options)
        for near in frames_of_every_kind(rng, problem):
            check_report(compare_with_dense(problem, near=near), problem)
            narrow += any(cells and cells[0] < 0.6 * 50 * 21 for cells in bands)
            bands.clear()
    assert narrow > 6


def test_frames_say_where_is_looked_first(monkeypatch):
    """The band of good frames is tried, and is enough. That of bad ones is tried, and another is found."""
    force(monkeypatch)
    problem = many(4, "rnnt", 30.0, batch=1, lengths=([60], [20]))
    tried, certify = [], full_sum._certify

    def spy(tiler, group, *rest):
        tried.append(group.frames)
        return certify(tiler, group, *rest)

    monkeypatch.setattr(full_sum, "_certify", spy)
    likely = call("alignment", problem)[0]
    call("loss", problem, near=likely)
    (own,) = tried
    for f in range(60):
        # Some frames on both sides, and label positions more.
        low, high = ((likely[0, :20] < f - band.BESIDE).sum(), (likely[0, :20] <= f + band.BESIDE).sum())
        assert own.first[f] == max(0, low - band.BEHIND)
        assert own.first[f] + own.offset[f + 1] - own.offset[f] - 1 == min(20, high + band.AHEAD)
    loss = call("loss", problem, posterior_floor=0.0)
    for wrong in (np.full_like(likely, 59), np.zeros_like(likely)):
        tried.clear()
        compare.assert_same(call("loss", problem, near=wrong), loss, what="loss")
        first, *_, last = tried
        assert len(tried) > 1 and first.cells != last.cells


def test_labels_without_a_frame_go_with_the_one_before():
    """So some frames may be named and others not, and frames out of order count as the latest before."""
    problem = many(4, "rnnt", 30.0, batch=1, lengths=([60], [20]))
    named = np.full((1, 21), -1)
    named[0, [3, 9, 12]] = 10, 30, 20
    ordered = np.repeat([0, 10, 30], [3, 6, 11])[None]

    found = []
    for near in (named, ordered):
        tiler, context = first_group(problem, near=near)
        with tiler.device.active(), context as group:
            found.append(near_band(tiler, group).frames)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
