"""The oracle's HAT, delay penalty and internal language model, by other ways to the same numbers."""

import numpy as np
import pytest

from tests import joint_oracle, language_model_oracle, oracle, problems
from tests.test_oracle import NAMES, one_example


@pytest.mark.parametrize("topology", NAMES)
def test_hat_makes_logits_of_which_the_softmax_is_itself(topology):
    """The rows' probabilities sum to 1, so their logarithms score as logits without `hat`."""
    hat = oracle.Rules(topology, hat=True)
    logits, targets, _ = one_example(8, 4, 3, topology=topology)
    log_probs = oracle.log_distribution(logits, 0, hat)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.exp(log_probs[..., 0]), 1 / (1 + np.exp(-logits[..., 0])), rtol=1e-14)
    loss, grad = oracle.loss_and_grad(logits, targets, topology=hat)
    np.testing.assert_allclose(loss, oracle.loss_and_grad(log_probs, targets, topology=topology)[0], rtol=1e-14)
    np.testing.assert_allclose(grad[..., 1:].sum(axis=-1), 0, atol=1e-15)


def test_a_sure_blank_leaves_labels_their_digits():
    hat = oracle.Rules("rnnt", hat=True)
    found = oracle.log_distribution(np.array([[40.0, 1, 2], [-40.0, 1, 2], [-np.inf, 1, 2]]), 0, hat)
    labels = [1, 2] - np.log(np.exp(1) + np.exp(2))
    np.testing.assert_allclose(found[0], [-np.exp(-40), *(labels - 40)], rtol=1e-15)
    np.testing.assert_allclose(found[1], [-40, *labels], rtol=1e-15)
    np.testing.assert_allclose(found[2], [-np.inf, *labels], rtol=1e-15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hat", [False, True])
def test_the_slope_over_the_delay_penalty_is_the_expected_delay(name, hat):
    logits, targets, _ = one_example(9, 5, 3, topology=name)

    def loss(penalty):
        return oracle.loss_by_enumeration(logits, targets, topology=oracle.Rules(name, hat, float(penalty)))

    _, *scores = oracle.arc_scores(logits, targets, topology=oracle.Rules(name, hat))
    _, _, gamma_label = oracle.arc_posteriors(*scores, name)
    expected = -(gamma_label * (2 - np.arange(5))[:, None]).sum()
    np.testing.assert_allclose(oracle.finite_differences(loss, np.array(0.0)), expected, atol=1e-9)


def test_minus_infinity_and_poison_with_hat():
    hat = oracle.Rules("rnnt", hat=True)
    logits, targets, _ = one_example(2, 4, 3)
    logits[1, 1, 0] = -np.inf  # no blank
    logits[2, 1, 1:] = -np.inf  # no label
    logits[2, 2] = -np.inf
    loss, grad = oracle.loss_and_grad(logits, targets, topology=hat)
    np.testing.assert_allclose(loss, oracle.loss_by_enumeration(logits, targets, topology=hat), rtol=1e-13)
    assert np.isfinite(loss) and np.isfinite(grad).all()
    assert grad[1, 1, 0] == 0 and not grad[2, 1, 1:].any() and not grad[2, 2].any()
    for entry in range(5):
        for bad in (np.nan, np.inf):
            poisoned = logits.copy()
            poisoned[0, 0, entry] = bad
            loss, grad = oracle.loss_and_grad(poisoned, targets, topology=hat)
            assert np.isnan(loss) and np.isnan(grad[0, 0]).all()


@pytest.mark.parametrize(("blank", "activation"), [(0, "tanh"), (2, "relu"), (-1, "identity")])
def test_language_model_gradients_are_finite_differences(blank, activation):
    problem = problems.joint_problem(12, batch=3, vocab=5, width=3, blank=blank, dtype=np.float64)
    upstream = np.array([1.0, -0.7, 0.4])
    given = problem.predictor, problem.weight, problem.bias
    rest = problem.targets, problem.target_lengths
    options = {"blank": blank, "activation": activation}
    door = language_model_oracle.internal_language_model_loss_and_grad
    loss, (encoder, *grads) = door(*given, *rest, **options, grad_loss=upstream)
    assert encoder is None
    function, _ = joint_oracle.ACTIVATIONS[activation]
    for b, labels in enumerate(problem.target_lengths):
        rows = np.delete(function(problem.predictor[b, :labels]) @ problem.weight.T + problem.bias, blank, axis=1)
        places = [v - (v > blank % 5) for v in problem.targets[b, :labels]]
        terms = [np.exp(row[place]) / np.exp(row).sum() for row, place in zip(rows, places, strict=True)]
        np.testing.assert_allclose(loss[b], -np.log(terms).sum(), rtol=1e-13)
    for position, grad in enumerate(grads):

        def weighted(x, position=position):
            return upstream @ door(*given[:position], x, *given[position + 1 :], *rest, **options)[0]

        real = ~np.isnan(given[position])
        expected = np.where(real, oracle.finite_differences(weighted, given[position]), 0)
        np.testing.assert_allclose(grad, expected, atol=1e-8)
    assert not grads[1][blank].any() and grads[2][blank] == 0
    assert not grads[0][np.arange(len(loss)), problem.target_lengths].any()  # no label is left to be told
