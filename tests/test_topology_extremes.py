"""HAT with blanks that are sure, impossible or all there is, with poison, and a delay penalty of any size."""

from dataclasses import replace

import numpy as np
import pytest

import lattice
from lattice.kernels.delay import delay
from lattice.kernels.padded import read_scores
from lattice.kernels.rows import NO_IDS
from lattice.layout import frames_of
from tests import compare, oracle
from tests.problems import joint_problem, logits_problem
from tests.test_joint import check as check_joint
from tests.test_topology_laws import of_hats, of_variants
from tests.test_transducer import check


def weights_of(problem, b):
    """What the entries of a gradient are differences of, in longdouble: (T, U+1, V), padding 0."""
    t, u = problem.logit_lengths[b], problem.target_lengths[b]
    rows = problem.logits[b, :t, : u + 1].astype(np.longdouble)
    log_probs, *scores = oracle.arc_scores(rows, problem.targets[b, :u], blank=problem.blank, topology=problem.topology)
    _, of_blank, of_label = oracle.arc_posteriors(*scores, problem.topology)
    sure = np.exp(log_probs[..., problem.blank])
    others = np.exp(log_probs) / np.exp(oracle.log_sigmoid(-rows[..., problem.blank]))[..., None]
    found = of_label[..., None] * others
    for label in range(u):
        found[:, label, problem.targets[b, label]] += of_label[:, label]
    found[..., problem.blank] = of_label * sure + of_blank * np.exp(oracle.log_sigmoid(-rows[..., problem.blank]))
    return found


@of_hats
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("logit", [40.0, -40.0, 12.0, -12.0])
def test_sure_blanks_leave_every_entry_its_digits(topology, dtype, logit):
    """Entries of 1e-18 are right to the last digits: no `1 - sigmoid`, and no clamp of a label's probability."""
    problem = logits_problem(1, lengths=([5, 3, 3], [3, 3, 0]), topology=topology, dtype=dtype, slack=(0, 0))
    problem.logits[..., 0] = logit
    problem.logits[0, 1, 1, 0] = -logit
    loss, grad = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    truth = oracle.batch_loss_and_grad(*problem.args, **problem.options, dtype=np.longdouble)
    eps = np.finfo(dtype).eps
    # A sum near 1 is known to 1e-16 (docs/numerics.md), so a loss near 0 is, too.
    np.testing.assert_allclose(loss, truth[0], rtol=16 * eps, atol=2.0**-52)
    for b, (t, u) in enumerate(zip(*problem.args[2:], strict=True)):
        error = np.abs(grad[b, :t, : u + 1] - truth[1][b, :t, : u + 1])
        # Each score on the way is rounded to its own digits, and a gradient below 2**-100 may be 0.
        slack = eps * (16 + 4 * abs(logit) * (t + u))
        assert (error <= slack * weights_of(problem, b) + 2.0**-100).all()
    last = grad[2, :3, 0, 0]
    assert (last < 0).all() and (np.abs(last) < 1e-5).all() == (logit > 0)


@of_hats
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minus_infinity_closes_blanks_and_labels(topology, dtype):
    problem = logits_problem(2, lengths=([5, 4, 4, 3], [3, 2, 1, 2]), topology=topology, dtype=dtype)
    problem.logits[0, 1, 1, 0] = -np.inf  # no blank
    problem.logits[0, 2, 0, 1:] = -np.inf  # no label
    problem.logits[1, 2, 1] = -np.inf  # neither
    problem.logits[2, :, 0, problem.targets[2, 0]] = -np.inf  # the one label, never
    problem.logits[3, 1, 0, 0] = -np.inf
    loss, grad = check(problem)
    assert np.isfinite(loss).tolist() == [True, True, False, True] and np.isposinf(loss[2])
    assert not grad[2].any() and grad[0, 1, 1, 0] == 0 and not grad[1, 2, 1].any()
    assert not grad[0, 2, 0, 1:].any() and np.isfinite(grad).all()


@of_hats
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_poison_in_logits_stays_in_its_example(topology, bad):
    """Whichever entry it is, the blank's, the label's or another's, and in the last column too."""
    problem = logits_problem(3, lengths=([5, 4, 4], [3, 2, 2]), topology=topology, dtype=np.float32)
    expected = lattice.transducer_loss_and_grad(*problem.args, **problem.options)
    label = problem.targets[1, 1]
    for u, entry in ((1, 0), (1, label), (1, 1 + label % 6), (2, 0), (2, 3)):
        logits = problem.logits.copy()
        logits[1, 2, u, entry] = bad
        loss, grad = lattice.transducer_loss_and_grad(logits, *problem.args[1:], **problem.options)
        assert np.isnan(loss[1]) and np.isnan(grad[1, 2, u]).all() and np.isnan(grad[1, 0, 0]).all()
        assert not grad[1][~problem.real[1]].any()
        np.testing.assert_array_equal(loss[[0, 2]], expected[0][[0, 2]])
        np.testing.assert_array_equal(grad[[0, 2]], expected[1][[0, 2]])


@of_variants
@pytest.mark.parametrize("floor", [0, 2.0**-24])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_poison_in_the_joint_stays_in_its_example(topology, floor, bad):
    problem = joint_problem(
        4, batch=3, lengths=([9, 7, 5], [4, 3, 1]), activation="identity", sharpness=8.0, topology=topology
    )

    def results(given):
        loss, grads = lattice.joint_transducer_loss_and_grad(*given.args, **given.options, posterior_floor=floor)
        return loss, *grads[:2]

    clean = results(problem)
    for name, row in (("encoder", 0), ("encoder", 6), ("predictor", 0)):
        poisoned = getattr(problem, name).copy()
        poisoned[1, row, 3] = bad
        dirty = results(replace(problem, **{name: poisoned}))
        assert np.isnan(dirty[0][1]) and np.isnan(dirty[1][1, 0]).any() and np.isnan(dirty[2][1, 0]).any()
        for part, expected in zip(dirty, clean, strict=True):
            compare.assert_same(part[[0, 2]], expected[[0, 2]], scale=10)


@of_hats
def test_a_bias_of_minus_infinity_masks_a_blank_or_a_label(topology):
    """Without the blank, alignments that need one are gone; without a label, examples that need it."""
    problem = joint_problem(5, batch=3, lengths=([4, 4, 4], [2, 4, 0]), topology=topology, dtype=np.float64)
    problem.bias[0] = -np.inf
    loss, _ = check_joint(problem)
    assert np.isposinf(loss).tolist() == [True, topology.name != "monotonic", True]
    problem = joint_problem(6, batch=2, lengths=([5, 4], [2, 1]), topology=topology, dtype=np.float64)
    own = problem.targets[0, :2].tolist()
    problem.targets[1, 0] = other = next(v for v in range(1, 9) if v not in own)
    problem.bias[other] = -np.inf
    loss, _ = check_joint(problem)
    assert np.isposinf(loss).tolist() == [False, True]
    problem.bias[1:] = -np.inf
    loss, grads = check_joint(problem)
    assert np.isposinf(loss).all() and not grads.encoder.any()


@of_hats
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_far_logits_keep_the_loss_its_digits(topology, dtype, offset):
    """The labels' logits far from 0: what they have in common is no matter."""
    problem = logits_problem(7, topology=topology, dtype=np.float64, blank=2)
    problem.logits[..., np.arange(7) != 2] += offset
    problem = replace(problem, logits=problem.logits.astype(dtype))
    check(problem)


@pytest.mark.parametrize("hat", [False, True])
@pytest.mark.parametrize("name", ["rnnt", "monotonic", "constrained"])
@pytest.mark.parametrize("penalty", [1e-3, 40.0, -40.0, 1e4])
def test_penalties_of_any_size(name, hat, penalty):
    """Small ones as they are used, and such as leave one alignment."""
    topology = lattice.Topology(name, hat=hat, delay_penalty=penalty)
    for dtype in (np.float32, np.float64):
        problem = logits_problem(8, lengths=([6, 3], [3, 2]), topology=topology, dtype=dtype)
        check(problem)
        joint = joint_problem(9, batch=2, lengths=([6, 3], [3, 2]), topology=topology, dtype=dtype)
        check_joint(joint, posterior_floor=2.0**-24)


@pytest.mark.parametrize("penalty", [0.01, -0.003])
def test_a_penalty_is_rounded_once_with_the_score(penalty):
    """A penalty in float32 moves all labels of 2000 frames to one side: gradients were off by 1e-6 of their size."""
    frames = 2000
    t, score = np.arange(frames), np.zeros(frames, np.float32)
    delay(t, np.zeros(frames, np.int32), np.array([0, frames]), NO_IDS, penalty, score, bounds=False)
    late = t if penalty > 0 else frames - 1 - t
    np.testing.assert_array_equal(score, (-abs(penalty) * late).astype(np.float32))
    lattices = frames_of(np.arange(1), np.array([frames]), np.array([1]), lattice.Topology().moves, None)
    given, read = np.zeros((2, 1, frames, 2), np.float32), np.zeros((2, lattices.cells), np.float32)
    read_scores(lattices, *given, penalty, *read)
    np.testing.assert_array_equal(read[1].reshape(frames, 2)[:, 0], (penalty * (999.5 - t)).astype(np.float32))
