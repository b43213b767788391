"""The oracle against itself: enumeration, recursion, closed forms, finite differences are four ways to one number."""

from math import comb, log

import numpy as np
import pytest

from tests import joint_oracle, oracle, problems
from tests.problems import TOPOLOGIES, VARIANTS, consumes, name_of

NAMES = ["rnnt", "monotonic", "constrained"]


def shapes(topology, limit=4):
    return [(t, u) for t in range(1, limit + 1) for u in range(limit + 1) if u <= t or not consumes(topology)]


def one_example(seed, frames, labels, *, vocab=5, bounded=False, topology="rnnt"):
    options = {"vocab": vocab, "bounded": bounded, "topology": topology, "slack": (0, 0), "dtype": np.float64}
    problem = problems.logits_problem(seed, lengths=([frames], [labels]), **options)
    return problem.logits[0], problem.targets[0], oracle.row_of(problem.bounds, 0)


@pytest.mark.parametrize("topology", NAMES)
def test_alignments_are_counted_and_connected(topology):
    for frames, labels in shapes(topology):
        found = list(oracle.alignments(frames, labels, topology))
        count = comb(frames + labels - 1, labels) if topology == "rnnt" else comb(frames, labels)
        assert len(found) == len({tuple(arcs) for arcs in found}) == count
        for arcs in found:
            t = u = 0
            for arc_t, arc_u, is_label in arcs:
                assert (arc_t, arc_u) == (t, u)
                t, u = t + (topology == "monotonic" or not is_label), u + is_label
            assert (t, u) == (frames, labels)
            assert topology == "monotonic" or not arcs[-1][2]
            if topology == "constrained":
                assert all(not behind[2] for (_, _, is_label), behind in zip(arcs, arcs[1:]) if is_label)


@pytest.mark.parametrize("topology", [topology for topology in VARIANTS if consumes(topology)], ids=name_of)
def test_too_few_frames_have_no_alignment(topology):
    assert list(oracle.alignments(2, 3, topology)) == []
    logits = np.zeros((2, 4, 5))
    loss, grad = oracle.loss_and_grad(logits, [1, 2, 3], topology=topology)
    assert loss == np.inf == oracle.loss_by_enumeration(logits, [1, 2, 3], topology=topology)
    assert not grad.any()


def test_constrained_alignments_are_those_of_rnnt_with_a_label_a_frame():
    every = [tuple(arcs) for arcs in oracle.alignments(4, 3, "rnnt")]
    few = [arcs for arcs in every if all(sum(t == frame for t, _, label in arcs if label) < 2 for frame in range(4))]
    assert few == [tuple(arcs) for arcs in oracle.alignments(4, 3, "constrained")]
    assert 1 < len(few) < len(every)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_recursion_is_enumeration(topology, bounded):
    for seed, (frames, labels) in enumerate(shapes(topology)):
        logits, targets, bounds = one_example(seed, frames, labels, bounded=bounded, topology=topology)
        expected = oracle.loss_by_enumeration(logits, targets, topology=topology, bounds=bounds)
        assert np.isfinite(expected)
        loss, _ = oracle.loss_and_grad(logits, targets, topology=topology, bounds=bounds)
        np.testing.assert_allclose(loss, expected, rtol=1e-13)


@pytest.mark.parametrize("topology", NAMES)
def test_bounds_filter_the_alignments(topology):
    """With equal logits the loss counts the alignments that stay inside."""
    vocab, frames, labels = 5, 4, 3
    rng = np.random.default_rng(0)
    closed = 0
    for _ in range(100):
        first = rng.integers(-1, 3, frames)  # frames without a cell and bounds beyond [0, U] are among them
        last = rng.integers(0, 5, frames)
        inside = [
            len(arcs)
            for arcs in oracle.alignments(frames, labels, topology)
            if all(first[t] <= u <= last[t] for t, u, _ in arcs)
        ]
        expected = inside[0] * log(vocab) - log(len(inside)) if inside else np.inf
        closed += not inside
        logits = np.zeros((frames, labels + 1, vocab))
        loss, grad = oracle.loss_and_grad(logits, [1, 2, 3], topology=topology, bounds=(first, last))
        np.testing.assert_allclose(loss, expected, rtol=1e-13)
        outside = ~oracle.cell_exists(frames, labels, (first, last))
        assert not grad[outside].any()
    assert 10 < closed < 95


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
@pytest.mark.parametrize(("frames", "labels", "vocab"), [(1, 0, 2), (1, 1, 3), (7, 5, 4), (5, 5, 3), (60, 25, 3)])
def test_recursion_is_the_closed_form(topology, frames, labels, vocab):
    logits = np.full((frames, labels + 1, vocab), 3.0)
    logits[..., 0] -= 3 * topology.hat  # where a blank and a label are as likely
    loss, _ = oracle.loss_and_grad(logits, [1] * labels, topology=topology)
    np.testing.assert_allclose(loss, oracle.uniform_loss(frames, labels, vocab, topology), rtol=1e-12)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
@pytest.mark.parametrize(("frames", "labels"), [(1, 0), (1, 1), (3, 2), (4, 4), (5, 3)])
def test_gradient_is_finite_differences(topology, frames, labels, bounded):
    logits, targets, bounds = one_example(7, frames, labels, bounded=bounded, topology=topology)
    for blank in (0, 4):
        targets = np.where(targets == blank, 1, targets)
        options = {"blank": blank, "topology": topology, "bounds": bounds}
        _, grad = oracle.loss_and_grad(logits, targets, grad_loss=-0.7, **options)
        expected = oracle.finite_differences(
            lambda x, targets=targets, options=options: -0.7 * oracle.loss_and_grad(x, targets, **options)[0], logits
        )
        np.testing.assert_allclose(grad, expected, atol=1e-8)


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_fastemit_gradient_is_finite_differences(topology):
    """FastEmit's gradient is that of loss + lambda * the labels' cross-entropy, weighted with posteriors held fixed."""
    logits, targets, _ = one_example(3, 4, 3, topology=topology)
    _, blank_score, label_score = oracle.arc_scores(logits, targets, topology=topology)
    _, _, gamma_label = oracle.arc_posteriors(blank_score, label_score, topology)

    def surrogate(x):
        loss, _ = oracle.loss_and_grad(x, targets, topology=topology)
        return loss - 0.3 * np.sum(gamma_label[:, :-1] * oracle.arc_scores(x, targets, topology=topology)[2][:, :-1])

    loss, grad = oracle.loss_and_grad(logits, targets, topology=topology, fastemit_lambda=0.3)
    assert loss == oracle.loss_and_grad(logits, targets, topology=topology)[0]
    np.testing.assert_allclose(grad, oracle.finite_differences(surrogate, logits), atol=1e-8)


@pytest.mark.parametrize("bounded", [False, True])
def test_posteriors_crossing_a_cut_sum_to_one(bounded):
    for topology in VARIANTS:
        logits, targets, bounds = one_example(5, 6, 4, bounded=bounded, topology=topology)
        _, blank_score, label_score = oracle.arc_scores(logits, targets, topology=topology, bounds=bounds)
        _, gamma_blank, gamma_label = oracle.arc_posteriors(blank_score, label_score, topology)
        both = gamma_blank + gamma_label
        if topology.name == "monotonic":  # each arc crosses one frame
            crossing = both.sum(axis=1)
        else:  # each arc crosses one anti-diagonal
            flipped = both[:, ::-1]
            crossing = np.array([flipped.trace(offset) for offset in range(-5, 5)])
            np.testing.assert_allclose(gamma_blank.sum(axis=1), 1, rtol=1e-12)  # which a frame ends with
        np.testing.assert_allclose(crossing, 1, rtol=1e-12)
        np.testing.assert_allclose(gamma_label.sum(axis=0), [1] * 4 + [0], rtol=1e-12)


def test_rows_of_minus_infinity_are_closed_and_other_rows_sum_to_zero():
    logits, targets, _ = one_example(2, 4, 3)
    logits[1, 1] = -np.inf
    logits[2, 0, 3] = -np.inf
    loss, grad = oracle.loss_and_grad(logits, targets)
    assert np.isfinite(loss)
    assert np.isfinite(grad).all()
    assert not grad[1, 1].any()
    assert grad[2, 0, 3] == 0
    np.testing.assert_allclose(grad.sum(axis=-1), 0, atol=1e-14)
    for bad in (np.nan, np.inf):
        logits[3, 2, 1] = bad
        assert np.isnan(oracle.loss_and_grad(logits, targets)[0])


def test_float32_is_float32_throughout():
    problem = problems.logits_problem(0, dtype=np.float64)
    joint = problems.joint_problem(0, dtype=np.float64)
    (loss, grad), (loss32, grad32) = oracle.truth_and_naive(
        oracle.batch_loss_and_grad, np.float32, *problem.args, **problem.options
    )
    assert loss.dtype == grad.dtype == np.float64
    assert loss32.dtype == grad32.dtype == np.float32
    assert 1e-9 < np.abs(grad - grad32).max() < 1e-5
    loss32, grads = joint_oracle.joint_loss_and_grad(*joint.args, **joint.options, dtype=np.float32)
    assert loss32.dtype == np.float32
    assert all(grad.dtype == np.float32 for grad in grads)


JOINT_CASES = [
    {},
    {"activation": "relu", "topology": "monotonic"},
    {"activation": "identity", "use_bias": False, "blank": -1},
    {"vocabulary": "lengths", "bounded": True},
    {"vocabulary": "endings", "hypotheses": 5, "topology": "monotonic"},
    {"sharpness": 4.0, "vocabulary": "full"},
    {"vocabulary": "lengths", "blank": 2, "topology": oracle.Rules("constrained", True, 0.3)},
]


@pytest.mark.parametrize("case", JOINT_CASES, ids=str)
def test_joint_gradients_are_finite_differences(case):
    problem = problems.joint_problem(11, batch=3, frames=3, labels=2, vocab=4, width=3, dtype=np.float64, **case)
    rng = np.random.default_rng(0)
    upstream = rng.standard_normal(len(problem.targets))
    loss, grads = joint_oracle.joint_loss_and_grad(*problem.args, **problem.options, grad_loss=upstream)
    assert np.isfinite(loss).all()
    for position in range(4):
        array = problem.args[position]
        if array is None:
            assert grads[position] is None
            continue

        def weighted(x, position=position):
            args = [*problem.args[:position], x, *problem.args[position + 1 :]]
            return upstream @ joint_oracle.joint_loss_and_grad(*args, **problem.options)[0]

        expected = np.zeros_like(array)
        real = ~np.isnan(array)
        expected[real] = oracle.finite_differences(weighted, array)[real]
        np.testing.assert_allclose(grads[position], expected, atol=1e-7)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_joint_is_the_loss_of_its_logits(topology):
    problem = problems.joint_problem(4, topology=topology, dtype=np.float64)
    loss, _ = joint_oracle.joint_loss_and_grad(*problem.args, **problem.options)
    logits = np.tanh(problem.encoder[:, :, None] + problem.predictor[:, None]) @ problem.weight.T + problem.bias
    expected, _ = oracle.batch_loss_and_grad(logits, *problem.args[4:], topology=topology)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_sharp_problems_are_trained_like():
    """A few cells hold the posterior: otherwise nothing would test what is done with the others."""
    for topology in TOPOLOGIES:
        options = {"lengths": ([40], [20]), "topology": topology, "dtype": np.float64}
        problem = problems.logits_problem(1, sharpness=10, **options)
        joint = problems.joint_problem(1, batch=1, sharpness=8, **options)
        hidden = np.tanh(joint.encoder[0, :40, None] + joint.predictor[0, None, :21])
        for logits, targets in (
            (problem.logits[0, :40, :21], problem.targets[0, :20]),
            (hidden @ joint.weight.T + joint.bias, joint.targets[0, :20]),
        ):
            _, grad = oracle.loss_and_grad(logits, targets, topology=topology)
            occupied = (np.abs(grad).max(axis=-1) > 2**-24).mean()
            assert 0.02 < occupied < 0.5, (topology, occupied)
