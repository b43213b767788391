"""What a type checker sees of the doors: `mypy` checks this file, tests/test_types.py runs it."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import lattice
import samplers

Real = NDArray[np.float32]
Integers = NDArray[np.int64]

encoder: Real = np.zeros((1, 3, 2), np.float32)
predictor: Real = np.zeros((1, 2, 2), np.float32)
weight: Real = np.zeros((4, 2), np.float32)
targets: Integers = np.ones((1, 1), np.int64)
frames: Integers = np.array([3])
labels: Integers = np.array([1])


def reads_a_type_off(array: NDArray[Any]) -> tuple[Real, Real]:
    """Losses and gradients are of the first argument's kind; what is unknown of it stays unknown."""
    loss, gradients = lattice.joint_transducer_loss_and_grad(encoder, predictor, weight, None, targets, frames, labels)
    assert_type(loss, Real)
    assert_type(gradients, lattice.JointGradients[Real])
    assert_type(gradients.bias, Real | None)
    assert_type(lattice.transducer_loss(array, targets, frames, labels, topology="monotonic"), NDArray[Any])
    bounds = np.zeros((1, 3), np.int64), np.ones((1, 3), np.int64)
    share = lattice.transducer_exit_posterior(array, targets, frames, labels, bounds=bounds)
    assert_type(share, NDArray[Any])
    return loss, gradients.weight


def takes_what_the_others_give() -> Real:
    """Results fit where other doors want them."""
    loss, vjp = lattice.joint_transducer_loss_vjp(encoder, predictor, weight, None, targets, frames, labels)
    gradients = vjp(np.ones_like(loss))
    path, _ = lattice.joint_transducer_alignment(encoder, predictor, weight, None, targets, frames, labels)
    bounds = lattice.alignment_bounds(path, labels, frames, left=1, right=1)
    drawn = samplers.sample_vocabulary(targets, labels, 3, distribution=samplers.uniform(4), seed=0)
    assert_type(drawn, samplers.SampledVocabulary)
    near = lattice.joint_transducer_loss(
        encoder, predictor, weight, None, targets, frames, labels, bounds=bounds, vocabulary=drawn.ids
    )
    assert_type(near, Real)
    found = lattice.joint_transducer_posteriors(encoder, predictor, weight, None, targets, frames, labels)
    assert_type(found, lattice.Posteriors[Real])
    assert_type(found.label, Real)
    _, grad_blank, _ = lattice.scores_loss_and_grad(found.blank, found.label, frames, labels)
    assert_type(grad_blank, Real)
    assert_type(gradients.encoder, Real)
    hypotheses = lattice.beam_decode(encoder, frames, lambda given, state: (weight[given, :], None), weight, None)
    assert_type(hypotheses, lattice.Hypotheses[Real])
    assert_type(hypotheses.label_scores, Real)
    _, language = lattice.internal_language_model_loss_and_grad(predictor, weight, None, targets, labels)
    assert_type(language.predictor, Real)
    return near
