"""The oracle of alignments against itself.

The tests are of enumeration, recursion, finite differences, and the sum over one alignment.
"""

import numpy as np
import pytest

from tests import oracle, path_oracle
from tests.problems import VARIANTS, band, joint_problem, name_of, random_frames
from tests.test_oracle import one_example, shapes

LOSSES = [
    {},
    {"label_smoothing": 0.3},
    {"label_scale": 5.0},
    {"focal": 0.5},
    {"focal": 1.0, "label_smoothing": 0.1},
    {"focal": 2.0, "label_smoothing": 0.2, "label_scale": 0.7},
]


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_the_best_alignment_by_recursion_is_that_of_the_enumeration(topology, bounded):
    for seed, (frames, labels) in enumerate(shapes(topology)):
        logits, targets, bounds = one_example(seed, frames, labels, bounded=bounded, topology=topology)
        expected = path_oracle.best_by_enumeration(logits, targets, topology=topology, bounds=bounds)
        _, *scores = oracle.arc_scores(logits, targets, topology=topology, bounds=bounds)
        score, emitted = path_oracle.best_by_recursion(*scores, topology)
        assert emitted == expected[1]
        np.testing.assert_allclose(score, expected[0], rtol=1e-14)
        assert expected[0] <= -oracle.loss_by_enumeration(logits, targets, topology=topology, bounds=bounds) + 1e-12


def test_of_equal_alignments_the_one_with_the_blank_at_the_end():
    for topology, expected in (("rnnt", [0, 0]), ("monotonic", [0, 1]), ("constrained", [0, 1])):
        score, frames = path_oracle.best_by_enumeration(np.zeros((4, 3, 5)), [1, 2], topology=topology)
        assert frames == expected
        np.testing.assert_allclose(score, -(4 if topology == "monotonic" else 6) * np.log(5))


def test_no_alignment_and_one_with_nan():
    assert path_oracle.best_by_enumeration(np.zeros((2, 4, 5)), [1, 2, 3], topology="monotonic") == (-np.inf, None)
    logits = np.zeros((2, 2, 5))
    logits[1, 1, 2] = np.nan
    score, frames = path_oracle.best_by_enumeration(logits, [1])
    assert np.isnan(score) and frames is None


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_gradient_is_finite_differences(topology, loss):
    logits, targets, _ = one_example(5, 4, 3, topology=topology)
    frames = random_frames(np.random.default_rng(5), 4, 3, topology)
    options = {"topology": topology, **loss}
    _, grad = path_oracle.path_loss_and_grad(logits, targets, frames, grad_loss=-0.7, **options)
    expected = oracle.finite_differences(
        lambda x: -0.7 * path_oracle.path_loss_and_grad(x, targets, frames, **options)[0], logits
    )
    np.testing.assert_allclose(grad, expected, atol=1e-8)


@pytest.mark.parametrize("topology", VARIANTS, ids=name_of)
def test_without_options_it_is_the_sum_over_one_alignment(topology):
    logits, targets, _ = one_example(6, 5, 3, topology=topology)
    frames = random_frames(np.random.default_rng(6), 5, 3, topology)
    loss, grad = path_oracle.path_loss_and_grad(logits, targets, frames, topology=topology)
    bounds = band(frames, 5, 0, 0, topology)
    expected, expected_grad = oracle.loss_and_grad(logits, targets, topology=topology, bounds=bounds)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-13)


def test_a_smoothed_row_in_numbers():
    """Two ids with probabilities 3/4 and 1/4, worked out by hand."""
    row = np.log([3.0, 1.0])
    loss, grad = path_oracle.row_loss_and_grad(row, 0, label_smoothing=0.2, focal=2.0)
    cross_entropy = -0.8 * np.log(0.75) - 0.2 * np.log(0.25)
    np.testing.assert_allclose(loss, cross_entropy / 16)
    slope = -2 * 0.25 * 0.75 * 0.25 * cross_entropy
    np.testing.assert_allclose(grad, [(0.75 - 0.8) / 16 + slope, -((0.75 - 0.8) / 16 + slope)])


def test_a_factorised_row_in_numbers():
    """A blank of 1/5, and of the rest 3/4 and 1/4."""
    row, hat = np.log([0.25, 3.0, 1.0]), oracle.Rules("rnnt", hat=True)
    loss, _ = path_oracle.row_loss_and_grad(row, 1, topology=hat, label_smoothing=0.2, focal=2.0)
    np.testing.assert_allclose(loss, 0.4**2 * -(0.8 * np.log(0.6) + 0.1 * np.log(0.2) + 0.1 * np.log(0.2)))
    loss, grad = path_oracle.row_loss_and_grad(row, 0, topology=hat, focal=1.0)
    np.testing.assert_allclose(loss, 0.8 * -np.log(0.2))
    np.testing.assert_allclose(grad, [-0.8 * 0.8 + 0.2 * 0.8 * np.log(0.2), 0, 0])
    row[1:] = -np.inf  # what the blank leaves is nobody's
    np.testing.assert_allclose(path_oracle.row_loss_and_grad(row, 0, topology=hat, focal=1.0)[1], grad)


@pytest.mark.parametrize("focal", [0.5, 1.0, 2.0])
def test_a_certain_row_has_no_gradient(focal):
    for hat in (False, True):
        topology, row = oracle.Rules("rnnt", hat=hat), np.array([1e4, 0.0, -1e4])
        loss, grad = path_oracle.row_loss_and_grad(row, 0, topology=topology, label_smoothing=0.1, focal=focal)
        assert loss == 0 and not grad.any()


@pytest.mark.parametrize("loss", LOSSES[::5], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        {"topology": "monotonic"},
        {"use_bias": False, "blank": -1},
        {"vocabulary": "endings"},
        {"topology": oracle.Rules("constrained", True, -0.2), "vocabulary": "lengths", "blank": 3},
    ],
    ids=str,
)
def test_joint_gradients_are_finite_differences(case, loss):
    problem = joint_problem(11, batch=3, frames=3, labels=2, vocab=5, width=3, dtype=np.float64, **case)
    rng = np.random.default_rng(0)
    lengths = zip(problem.encoder_lengths, problem.target_lengths, strict=True)
    frames = [np.resize(random_frames(rng, t, u, problem.topology), 3) if u else np.zeros(3) for t, u in lengths]
    names = ("blank", "activation", "topology", "vocabulary", "vocabulary_lengths")
    options = {name: problem.options[name] for name in names} | loss
    upstream = rng.standard_normal(3)

    def weighted(*args):
        return path_oracle.joint_path_loss_and_grad(
            *args[:5], np.array(frames), *args[5:], grad_loss=upstream, **options
        )

    _, grads = weighted(*problem.args)
    for position, grad in enumerate(grads):
        array = problem.args[position]
        if array is None:
            assert grad is None
            continue
        expected = oracle.finite_differences(
            lambda x, position=position: (
                upstream @ weighted(*problem.args[:position], x, *problem.args[position + 1 :])[0]
            ),
            array,
        )
        np.testing.assert_allclose(grad, np.where(np.isnan(array), 0, expected), atol=1e-7)


def test_float32_is_float32_throughout():
    logits, targets, _ = one_example(3, 4, 2)
    options = {"topology": "rnnt", "dtype": np.float32, **LOSSES[-1]}
    loss, grad = path_oracle.path_loss_and_grad(logits, targets, [1, 3], **options)
    score, _ = path_oracle.best_by_enumeration(logits, targets, dtype=np.float32)
    assert loss.dtype == grad.dtype == score.dtype == np.float32
