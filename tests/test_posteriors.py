"""Posteriors of arcs, from logits and from the joint: against the oracle, and the laws that they keep."""

import numpy as np
import pytest
from hypothesis import given

import lattice
from tests import compare, joint_oracle, oracle, problems
from tests.problems import DTYPES, TOPOLOGIES, joint_problem, logits_problem, name_of
from tests.test_joint_memory import PYTHON, extra_bytes, least_limit

FLOOR = 2.0**-24


def padded(shape, found, dtype):
    """Losses and posteriors of single examples -> loss (N,), blank and label of a shape (N, T, U+1)."""
    blank, label = np.zeros(shape, dtype), np.zeros(shape, dtype)
    for n, (_, gamma_blank, gamma_label) in enumerate(found):
        frames, width = gamma_blank.shape
        blank[n, :frames, :width], label[n, :frames, :width] = gamma_blank, gamma_label
    return np.array([loss for loss, *_ in found], dtype), blank, label


def of_logits(logits, targets, logit_lengths, target_lengths, *, blank, topology, bounds, dtype):
    """The oracle's posteriors of a batch."""
    found = []
    for b, (frames, labels) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        own = logits[b, :frames, : labels + 1].astype(dtype), targets[b, :labels]
        _, *scores = oracle.arc_scores(*own, blank=blank, bounds=oracle.row_of(bounds, b))
        found.append(oracle.arc_posteriors(*scores, topology))
    return padded(logits.shape[:3], found, dtype)


def of_joint(encoder, predictor, *rest, topology, bounds, dtype, **options):
    """The oracle's posteriors of a joint network, which makes the logits of an example at a time."""
    found = []

    def keep(n, logits, labels, blank):
        _, *scores = oracle.arc_scores(logits, labels, blank=blank, bounds=oracle.row_of(bounds, n))
        found.append(oracle.arc_posteriors(*scores, topology))
        return found[-1][0], np.zeros_like(logits)

    joint_oracle.through_joint(keep, encoder, predictor, *rest, **options, dtype=dtype)
    return padded((len(predictor), encoder.shape[1], predictor.shape[1]), found, dtype)


def scale_of(loss, dtype):
    """In float64 the sums of scores, as large as the loss, are rounded to the same dtype."""
    return np.maximum(1, np.where(np.isfinite(loss) & (dtype == np.float64), np.abs(loss), 1)).astype(float)


def check(problem):
    """The door of logits against the oracle."""
    dtype = problem.logits.dtype
    truth, naive = oracle.truth_and_naive(of_logits, dtype, *problem.args, **problem.options)
    ours = lattice.transducer_posteriors(*problem.args, **problem.options)
    compare_all(ours, truth, naive, scale_of(truth[0], dtype))
    np.testing.assert_array_equal(ours.loss, lattice.transducer_loss(*problem.args, **problem.options))
    return ours


def check_joint(problem, posterior_floor=0.0, **extra):
    """The door of the joint against the oracle; a cell is below the floor or as the oracle says."""
    truth, naive = oracle.truth_and_naive(of_joint, problem.weight.dtype, *problem.args, **problem.options)
    extra |= {"posterior_floor": posterior_floor}
    ours = lattice.joint_transducer_posteriors(*problem.args, **problem.options, **extra)
    # The arcs that are left out weigh as much as those that are not.
    cells = int(np.sum(problem.encoder_lengths * (problem.target_lengths + 1)))
    scale = 1 + np.abs(problem.weight.astype(float)).max()
    compare_all(
        ours, truth, naive, scale * scale_of(truth[0], problem.encoder.dtype), slack=2 * cells * posterior_floor
    )
    return ours


def compare_all(ours, truth, naive, scale, slack=0.0):
    assert isinstance(ours, lattice.Posteriors) and ours._fields == ("loss", "blank", "label")
    assert ours.blank.dtype == ours.label.dtype == ours.loss.dtype
    compare.assert_close(ours.loss, truth[0], naive[0], per_example=True, slack=slack, what="loss")
    for name, found, true, other in zip(ours._fields[1:], ours[1:], truth[1:], naive[1:], strict=True):
        compare.assert_close(found, true, other, per_example=True, scale=scale, slack=slack, what=name)
        # Padding and closed arcs, to the last bit of the sign.
        assert not found[true == 0].view(np.uint32).any(), name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_small_lattice_is_its_enumeration(topology, dtype):
    lengths = np.array([(t, u) for t in range(1, 5) for u in range(5) if topology == "rnnt" or u <= t]).T
    problem = logits_problem(0, lengths=lengths, vocab=5, topology=topology, dtype=dtype)
    ours = check(problem)
    for b, (t, u) in enumerate(lengths.T):
        own = problem.logits[b, :t, : u + 1].astype(np.float64), problem.targets[b, :u]
        _, *truth = oracle.scores_by_enumeration(*oracle.arc_scores(*own)[1:], topology)
        found = ours.blank[b, :t, : u + 1], ours.label[b, :t, : u + 1]
        np.testing.assert_allclose(found, truth, rtol=0, atol=100 * np.finfo(dtype).eps)


@given(problems.logits_problems())
def test_any_logits(problem):
    check(problem)


@given(problems.joint_problems())
def test_any_joint(problem):
    check_joint(problem)
    check_joint(problem, FLOOR)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_ragged_batches_padded_and_packed(topology, bounded, dtype):
    problem = logits_problem(1, frames=9, labels=5, blank=-1, topology=topology, dtype=dtype, bounded=bounded)
    ours = check(problem)
    packed = lattice.transducer_posteriors(problem.pack(problem.logits), *problem.args[1:], **problem.options)
    B, T, U1 = len(problem.targets), max(problem.logit_lengths), problem.targets.shape[1] + 1
    assert packed.blank.shape == packed.label.shape == (B, T, U1)
    for found, other in zip(packed, ours, strict=True):
        np.testing.assert_array_equal(found, other[:, :T, :U1] if other.ndim == 3 else other)
    for b in range(B):
        single = problem.single(b)
        alone = lattice.transducer_posteriors(*single.args, **single.options)
        for found, other in zip(alone, ours, strict=True):
            np.testing.assert_array_equal(found[0], other[b])


@pytest.mark.parametrize("sharpness", [0.0, 8.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_boundary_of_frames_is_crossed_once_and_a_label_emitted_once(topology, sharpness):
    problem = logits_problem(2, frames=20, labels=8, topology=topology, dtype=np.float64, sharpness=sharpness)
    _, blank, label = lattice.transducer_posteriors(*problem.args, **problem.options)
    crossing = blank + label if topology == "monotonic" else blank
    for b, (t, u) in enumerate(zip(problem.logit_lengths, problem.target_lengths)):
        np.testing.assert_allclose(crossing[b].sum(axis=-1)[:t], 1, atol=1e-12)
        np.testing.assert_allclose(label[b].sum(axis=0)[:u], 1, atol=1e-12)
        assert not label[b, :, u:].any()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_gradient_of_logits_is_made_of_them(topology):
    """Of the label: (blank + label) softmax - label; of an id without an arc: (blank + label) softmax."""
    problem = logits_problem(3, topology=topology, dtype=np.float64)
    _, blank, label = lattice.transducer_posteriors(*problem.args, **problem.options)
    _, gradient = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    softmax = np.exp(oracle.log_softmax(np.where(problem.real[..., None], problem.logits, 0)))
    expected = (blank + label)[..., None] * softmax
    expected[..., 0] -= blank
    for b, labels in enumerate(problem.target_lengths):
        for u in range(labels):
            expected[b, :, u, problem.targets[b, u]] -= label[b, :, u]
    np.testing.assert_allclose(gradient, expected, atol=1e-13)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_alignment_and_no_number(topology):
    """One example without an alignment, one with a NaN: neither touches the third."""
    problem = logits_problem(4, lengths=([5, 5, 5], [3, 3, 3]), topology=topology, bounded=True)
    bounds = tuple(np.tile(row, (3, 6, 1))[..., 0] for row in (0, 3))
    bounds[0][0, 2], bounds[1][0, 2] = 3, 1  # a frame without cells
    problem.logits[1, 2, 1, 0] = np.nan
    options = problem.options | {"bounds": bounds}
    loss, blank, label = lattice.transducer_posteriors(*problem.args, **options)
    assert loss[0] == np.inf and np.isnan(loss[1]) and np.isfinite(loss[2])
    assert not blank[0].any() and not label[0].any()
    visited = blank[2] + label[2] > 0
    assert np.isnan(blank[1, :5, :4][visited[:5, :4]]).all() and np.isnan(label[1][label[2] > 0]).all()
    assert not blank[1, 5:].any() and not blank[1, :, 4:].any() and not label[1, :, 3:].any()
    single = problem.single(2)
    alone = lattice.transducer_posteriors(*single.args, **single.options | {"bounds": None})
    np.testing.assert_array_equal(alone.blank[0], blank[2])


@pytest.mark.parametrize("posterior_floor", [0.0, FLOOR])
def test_a_nan_in_the_joint(posterior_floor):
    problem = joint_problem(5, frames=30, labels=9, batch=3, sharpness=8.0)
    expected = lattice.joint_transducer_posteriors(*problem.args, **problem.options, posterior_floor=posterior_floor)
    problem.encoder[0, 4, 0] = np.nan
    ours = lattice.joint_transducer_posteriors(*problem.args, **problem.options, posterior_floor=posterior_floor)
    t, u = problem.encoder_lengths[0], problem.target_lengths[0]
    assert (
        np.isnan(ours.loss[0]) and np.isnan(ours.blank[0, :t, : u + 1]).all() and np.isnan(ours.label[0, :t, :u]).all()
    )
    for found, other in zip(ours, expected, strict=True):
        compare.assert_same(found[1:], other[1:], per_example=True)
    assert not ours.blank[0, t:].any() and not ours.label[0, :, u:].any()


@pytest.mark.parametrize("dtype", [*DTYPES, "mixed"], ids=name_of)
@pytest.mark.parametrize("kind", [{}, {"vocabulary": "lengths"}, {"bounded": True}, {"hypotheses": 5}], ids=str)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_joint_against_the_oracle(topology, kind, dtype):
    kind = kind | ({"dtype": np.float16, "weight_dtype": np.float32} if dtype == "mixed" else {"dtype": dtype})
    problem = joint_problem(6, frames=9, labels=5, topology=topology, **kind)
    whole = check_joint(problem)
    for limit in (least_limit(problem, lattice.joint_transducer_posteriors), 1 << 16):
        few = check_joint(problem, memory_limit=limit)
        for found, other in zip(few, whole, strict=True):
            compare.assert_same(found, other, scale=max(1, whole.loss[np.isfinite(whole.loss)].max()))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_is_below_the_floor_is_0_and_the_rest_is_not(topology):
    problem = joint_problem(7, batch=3, frames=40, labels=15, dtype=np.float64, topology=topology, sharpness=6.0)
    dense = check_joint(problem)
    ours = check_joint(problem, 1e-5)
    visited = dense.blank + dense.label
    found = ours.blank + ours.label
    skipped = (found == 0) & (visited > 0)
    assert skipped.any() and (visited[skipped] < 1e-5).all()
    np.testing.assert_allclose(found[found > 0], visited[found > 0], atol=1e-4)


@pytest.mark.parametrize("posterior_floor", [0, FLOOR])
@pytest.mark.parametrize("kind", [{}, {"sharpness": 8.0}, {"vocabulary": "lengths"}, {"dtype": np.float16}], ids=str)
def test_measured_memory_stays_below_the_limit(kind, posterior_floor):
    """16 examples of up to 40 x 15 cells and 256 ids: several MB of logits, and a limit far below."""
    problem = joint_problem(8, batch=16, frames=40, labels=15, vocab=256, width=24, **kind)
    options = {**problem.options, "posterior_floor": posterior_floor}
    lattice.joint_transducer_posteriors(*problem.args, **options)  # compiled, imported, cached
    for limit in (1 << 18, 1 << 20):
        used, result = extra_bytes(
            lambda limit=limit: lattice.joint_transducer_posteriors(*problem.args, **options, memory_limit=limit)
        )
        assert used - sum(array.nbytes for array in result) <= limit + PYTHON


def test_an_empty_batch():
    none = np.zeros(0, np.int64)
    empty = lattice.transducer_posteriors(np.zeros((0, 4, 3, 5), np.float32), np.zeros((0, 2), np.int64), none, none)
    assert [array.shape for array in empty] == [(0,), (0, 4, 3), (0, 4, 3)]
    packed = lattice.transducer_posteriors(np.zeros((0, 5), np.float32), np.zeros((0, 2), np.int64), none, none)
    assert [array.shape for array in packed] == [(0,), (0, 0, 3), (0, 0, 3)]
