"""Dropout of the fused joint: the mask is what `tests/dropout_oracle.py` says, and every pass sees the same one."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

import lattice
from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.dropout import HEAD
from lattice.kernels.hidden import compute_hidden
from tests import compare, joint_oracle, path_oracle
from tests.dropout_oracle import draws, kept, mask, threshold_of
from tests.path_problems import path_problem
from tests.problems import BFLOAT16, DTYPES, joint_problem, name_of
from tests.test_joint import check

DROPOUT = (0.3, 2**63 + 12345)
DOORS = [
    "joint_transducer_loss",
    "joint_transducer_loss_and_grad",
    "joint_transducer_loss_vjp",
    "joint_transducer_report",
    "joint_transducer_posteriors",
]


def call(name, problem, **options):
    return getattr(lattice, name)(*problem.args, **{**problem.options, **options})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 31, 32, 33, 255, 256, 257, 400, 640])
def test_the_mask_is_that_of_the_oracle(width, dtype):
    """Of large numbers too: the example, the frame, the label position and the seed are all in it."""
    n, t, u = np.array([0, 3, 2**31 - 1]), np.array([0, 5, 2**31 - 1]), np.array([0, 1, 70_000])
    given = draws(DROPOUT, n, t, u)
    assert len(given) == HEAD + 6
    frame, slot = (index.ravel() for index in np.indices((3, 3)))
    x, hidden = np.full((3, width), 3, dtype), np.empty((9, width), dtype)
    x[:, ::3] = 0
    rows = x, np.zeros((3, width), dtype), np.empty((0, width), dtype), given, np.arange(3), np.arange(3)
    compute_hidden(ACTIVATIONS["identity"], *rows, frame, slot, hidden)
    for row, f, s in zip(hidden, frame, slot):
        places = (np.full(width, number, np.uint64) for number in (n[f], t[f], u[s]))
        expected = mask(DROPOUT, *places, np.arange(width, dtype=np.uint64))
        np.testing.assert_array_equal(row, x[0] * expected.astype(dtype))
        np.testing.assert_array_equal(np.signbit(row), expected == 0)


def test_masks_have_their_rate_and_no_memory():
    """Shares of dropped entries, and products of neighbours along every axis, within five standard errors."""
    for rate in (2.0**-16, 0.1, 0.2, 0.5, 0.999):
        dropped = np.stack([kept((rate, 9), n, 40, 10, 520) == 0 for n in range(3)])
        share, count = threshold_of(rate) / 65536, dropped.size
        assert abs(dropped.mean() - share) < 5 * np.sqrt(share * (1 - share) / count)
        centred = dropped - share
        for axis in range(4):
            one, other = np.moveaxis(centred, axis, 0)[1:], np.moveaxis(centred, axis, 0)[:-1]
            assert abs((one * other).mean()) < 5 * share * (1 - share) / np.sqrt(one.size)
        other = kept((rate, 10), 0, 40, 10, 520) == 0
        assert abs((centred[0] * (other - share)).mean()) < 5 * share * (1 - share) / np.sqrt(other.size)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_against_the_oracle(activation, dtype):
    check(joint_problem(1, activation=activation, dtype=dtype, width=40, dropout=DROPOUT))


@pytest.mark.parametrize(
    "options",
    [
        {"topology": "monotonic", "vocabulary": "lengths"},
        {"topology": "constrained", "bounded": True},
        {"topology": lattice.Topology(hat=True, delay_penalty=0.1), "blank": -1},
        {"hypotheses": 6, "dtype": np.float64},
        {"use_bias": False, "dtype": np.float16, "weight_dtype": np.float32},
        {"frames": 30, "labels": 12, "sharpness": 8.0, "batch": 6},
    ],
    ids=str,
)
def test_variants_against_the_oracle(options):
    problem = joint_problem(2, width=35, dropout=(0.2, 5), **options)
    check(problem)
    check(problem, posterior_floor=2.0**-24, fastemit_lambda=0.1)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_rates_that_round_to_zero_are_none_bit_for_bit(dtype):
    problem = joint_problem(3, frames=20, labels=8, sharpness=4.0, dtype=dtype)
    for name in DOORS[:2]:
        plain = call(name, problem)
        for rate in (0, 0.0, -0.0, 2.0**-18, np.float32(0)):
            for one, other in zip(flat(plain), flat(call(name, problem, dropout=(rate, 77))), strict=True):
                assert one.tobytes() == other.tobytes()


def flat(result):
    """The arrays of a result."""
    return [result] if isinstance(result, np.ndarray) else [x for part in result for x in flat(part)]


def test_a_rate_next_to_one_keeps_one_entry_in_65536():
    problem = joint_problem(4, dropout=(1 - 2.0**-30, 1))
    check(problem)
    bias_alone = replace(problem, weight=np.zeros_like(problem.weight), dropout=None)
    expected = call(DOORS[0], bias_alone)
    np.testing.assert_allclose(call(DOORS[0], problem), expected, rtol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_gradients_are_differences_at_a_fixed_seed(activation):
    """Along a random direction of all four arguments, in float64."""
    problem = joint_problem(5, width=33, activation=activation, dtype=np.float64, dropout=DROPOUT)
    rng, step = np.random.default_rng(6), 1e-6
    names = ("encoder", "predictor", "weight", "bias")
    direction = {name: rng.standard_normal(getattr(problem, name).shape) for name in names}
    _, grads = call(DOORS[1], problem, posterior_floor=0)
    slope = sum(np.nansum(getattr(grads, name) * direction[name]) for name in names)

    def moved(by):
        moved = {name: getattr(problem, name) + by * direction[name] for name in names}
        return call(DOORS[0], replace(problem, **moved), posterior_floor=0).sum()

    assert slope == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64), BFLOAT16], ids=name_of)
def test_tiles_groups_and_limits_change_nothing_but_rounding(dtype):
    problem = joint_problem(7, batch=9, frames=40, labels=15, width=70, sharpness=5.0, dtype=dtype, dropout=DROPOUT)
    loss, grads = call(DOORS[1], problem)
    cells = int((problem.encoder_lengths * (problem.target_lengths + 1)).sum())
    for limit in (100_000 if dtype.itemsize < 8 else 200_000, 300_000):
        other, own = call(DOORS[1], problem, memory_limit=limit)
        compare.assert_same(other, loss, k=64)
        for one, two in zip(own[:3], grads[:3], strict=True):
            compare.assert_same(one, two, k=64, slack=cells * 2.0**-22)
    dense, _ = call(DOORS[1], problem, posterior_floor=0)
    compare.assert_same(dense, loss, slack=2e-6)
    later, vjp = call(DOORS[2], problem)
    compare.assert_same(later, loss, k=64)
    for one, two in zip(vjp()[:3], grads[:3], strict=True):
        compare.assert_same(one, two, k=64, slack=cells * 2.0**-22)


def test_padding_and_the_rest_of_the_batch_change_no_mask():
    """The first example is the same in a batch, alone, and in longer arrays; the second is another one alone."""
    problem = joint_problem(8, batch=3, lengths=([6, 6, 6], [3, 3, 3]), dropout=DROPOUT)
    whole = call(DOORS[0], problem)
    padded = {
        "encoder": np.pad(problem.encoder, ((0, 0), (0, 9), (0, 0)), constant_values=np.nan),
        "predictor": np.pad(problem.predictor, ((0, 0), (0, 5), (0, 0)), constant_values=np.nan),
        "targets": np.pad(problem.targets, ((0, 0), (0, 5))),
    }
    np.testing.assert_array_equal(call(DOORS[0], replace(problem, **padded)), whole)
    names = ("encoder", "predictor", "targets", "encoder_lengths", "target_lengths")
    for n in range(2):
        alone = replace(problem, **{name: getattr(problem, name)[n : n + 1] for name in names})
        assert (call(DOORS[0], alone)[0] == pytest.approx(whole[n], rel=1e-6)) == (n == 0)


def test_each_target_of_a_shared_encoder_row_has_its_own_mask():
    problem = joint_problem(9, batch=1, hypotheses=4, lengths=([5] * 4, [3] * 4), dropout=DROPOUT)
    same = {name: np.repeat(getattr(problem, name)[:1], 4, axis=0) for name in ("predictor", "targets")}
    losses = call(DOORS[0], replace(problem, **same))
    assert len(set(losses.tolist())) == 4


def test_the_mask_of_a_path_is_that_of_the_lattice():
    """Full sums over lattices of one path are the path's loss, with the same seed."""
    problem = path_problem(10, topology="monotonic", width=40, dropout=(0.4, 3))
    loss, grads = lattice.joint_path_loss_and_grad(*problem.args, **problem.options)
    truth, _ = path_oracle.joint_path_loss_and_grad(*problem.args, **problem.options)
    np.testing.assert_allclose(loss, truth, rtol=1e-5)
    names = ("frames", "target_lengths", "encoder_lengths")
    frames, labels, lengths = (getattr(problem, name) for name in names)
    first, last = lattice.alignment_bounds(frames, labels, lengths, left=0, right=0, topology="monotonic")
    pad = problem.encoder.shape[1] - first.shape[1]
    bounds = tuple(np.pad(array, ((0, 0), (0, pad))) for array in (first, last))
    given = (*problem.args[:5], *problem.args[6:])
    own, grads_own = lattice.joint_transducer_loss_and_grad(*given, **problem.options, bounds=bounds)
    np.testing.assert_allclose(own, loss, rtol=1e-5)
    for one, two in zip(grads_own, grads, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_posteriors_and_report_are_of_the_same_mask():
    problem = joint_problem(11, frames=24, labels=9, width=40, sharpness=4.0, dropout=(0.2, 8))
    loss = call(DOORS[0], problem, posterior_floor=0)
    found = call("joint_transducer_posteriors", problem, posterior_floor=0)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-6)
    plain = call("joint_transducer_posteriors", replace(problem, dropout=None), posterior_floor=0)
    assert np.abs(found.blank - plain.blank).max() > 0.01
    # A gradient of the bias is the sum over all rows: what the posteriors of labels and blanks say of the blank's.
    arcs = problem.encoder_lengths + problem.target_lengths
    np.testing.assert_allclose((found.blank + found.label).sum(axis=(1, 2)), arcs, rtol=1e-5)
    report, other = (
        call("joint_transducer_report", problem),
        call("joint_transducer_report", replace(problem, dropout=None)),
    )
    assert (report.cells == other.cells).all() and (report.occupied != other.occupied).any()


def test_dropped_entries_hide_no_nan():
    """A mask multiplies in other libraries, so NaN stays; here too."""
    problem = joint_problem(12, batch=3, activation="identity", width=3, dropout=(0.9, 1))
    problem.encoder[1, 0, 0] = np.nan
    assert np.isnan(call(DOORS[0], problem)).tolist() == [False, True, False]
    _, grads = call(DOORS[1], problem)
    assert np.isnan(grads.encoder[1]).any() and np.isfinite(grads.encoder[[0, 2]]).all()


def test_zeros_that_are_kept_have_their_slope():
    """Hidden vectors of identity are zeros of either sign here. The gradient passes those that are kept."""
    for zero in (0.0, -0.0):
        problem = joint_problem(13, batch=1, activation="identity", width=30, dtype=np.float64, dropout=DROPOUT)
        problem = replace(problem, encoder=problem.encoder * 0 + zero, predictor=problem.predictor * 0 + zero)
        check(problem)


SEEDS = 400


def results(loss, grads):
    return np.concatenate([loss, *(np.nan_to_num(grad).ravel() for grad in grads)])


def dense(problem, rng):
    """Loss and gradients of a dense joint by the oracle's chain rule, with a mask that NumPy draws."""

    def drawn(dropout, n, *shape):
        keep = 1 - threshold_of(dropout[0]) / 65536
        return (rng.random(shape) < keep) / keep

    with mock.patch.object(joint_oracle, "kept", drawn):
        return results(*joint_oracle.joint_loss_and_grad(*problem.args, **problem.options))


def test_law_over_seeds():
    """Mean and variance of the loss and of every entry of the gradients, within five standard errors."""
    problem = joint_problem(14, batch=2, lengths=([4, 3], [2, 1]), vocab=4, width=6, dtype=np.float64)
    rng, ours, theirs = np.random.default_rng(15), [], []
    for seed in range(SEEDS):
        own = replace(problem, dropout=(0.3, seed))
        ours.append(results(*call(DOORS[1], own, posterior_floor=0)))
        theirs.append(dense(own, rng))
    ours, theirs = np.stack(ours), np.stack(theirs)
    for power in (1, 2):
        centre = 0 if power == 1 else theirs.mean(axis=0)
        one, other = (ours - centre) ** power, (theirs - centre) ** power
        error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / SEEDS) + 1e-12
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 5 * error).all(), power
    assert ours.var(axis=0)[:2].min() > 1e-3


@pytest.mark.parametrize(
    ("dropout", "error", "texts"),
    [
        (0.2, TypeError, ["dropout", "0.2", "(rate, seed)"]),
        ((0.2,), TypeError, ["dropout", "(rate, seed)"]),
        ({"rate": 0.1}, TypeError, ["dropout", "(rate, seed)"]),
        ((1.0, 3), ValueError, ["dropout[0]", "rate", "1.0", "below 1"]),
        ((-0.1, 3), ValueError, ["dropout[0]", "rate", "-0.1", "at least 0"]),
        ((np.nan, 3), ValueError, ["dropout[0]", "rate", "nan"]),
        (("0.1", 3), TypeError, ["dropout[0]", "rate", "'0.1'"]),
        ((True, 3), TypeError, ["dropout[0]", "rate", "True"]),
        ((0.1, 3.0), TypeError, ["dropout[1]", "seed", "3.0", "integer"]),
        ((0.1, None), TypeError, ["dropout[1]", "seed", "None"]),
        ((0.1, np.timedelta64(6, "s")), TypeError, ["dropout[1]", "seed", "timedelta64"]),
        ((np.timedelta64(6, "s"), 1), TypeError, ["dropout[0]", "rate", "timedelta64"]),
        ((0.0, 1.5), TypeError, ["dropout[1]", "seed", "1.5"]),
        ((0.1, -1), ValueError, ["dropout[1]", "seed", "-1", "0 to"]),
        ((0.1, 2**64), ValueError, ["dropout[1]", "seed", str(2**64), str(2**64 - 1)]),
    ],
    ids=str,
)
def test_errors(dropout, error, texts):
    problem, path = joint_problem(16), path_problem(16)
    for name in DOORS:
        with pytest.raises(error) as caught:
            call(name, problem, dropout=dropout)
        assert all(text in str(caught.value) for text in texts), str(caught.value)
    with pytest.raises(error):
        lattice.joint_path_loss_and_grad(*path.args, **path.options, dropout=dropout)
    with pytest.raises(error):
        lattice.internal_language_model_loss_and_grad(*problem.args[1:5], problem.target_lengths, dropout=dropout)


def test_searches_have_none():
    problem = joint_problem(17)
    with pytest.raises(TypeError, match="dropout"):
        lattice.joint_transducer_alignment(*problem.args, **problem.options, dropout=(0.1, 1))
    for search in (lattice.greedy_decode, lattice.beam_decode):
        with pytest.raises(TypeError, match="dropout"):
            search(problem.encoder, problem.encoder_lengths, None, problem.weight, problem.bias, dropout=(0.1, 1))


def test_seeds_and_rates_of_numpy():
    problem = joint_problem(18)
    loss = call(DOORS[0], problem, dropout=(0.25, 6))
    for dropout in ([0.25, 6], (np.float32(0.25), np.int64(6)), (np.float64(0.25), np.uint64(6))):
        np.testing.assert_array_equal(call(DOORS[0], problem, dropout=dropout), loss)
