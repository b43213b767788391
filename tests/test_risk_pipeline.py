"""Minimum Bayes risk end to end.

The way leads from encoder, predictor and output layer through the losses of N-best lists, and back.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import lattice
from tests import compare, oracle
from tests.problems import TOPOLOGIES
from tests.test_joint_memory import PYTHON, extra_bytes

NAMES = ("encoder", "predictor", "weight", "bias")
OPTIONS = {"posterior_floor": 0, "blank": 1}
SHARE = 0.05
"""Of the full-sum loss of the reference, beside the risk (Zhou et al. 2022)."""


@dataclass(frozen=True)
class Training:
    """Utterances with their N-best lists.

    The hypotheses follow one another and share the encoder rows of their utterances.
    """

    encoder: np.ndarray  # (B, T, H), NaN on padding
    predictor: np.ndarray  # (hypotheses, U+1, H), NaN on padding
    weight: np.ndarray  # (V, H)
    bias: np.ndarray  # (V,)
    targets: np.ndarray  # (hypotheses, U)
    target_lengths: np.ndarray  # (hypotheses,)
    frame_lengths: np.ndarray  # (B,)
    index: np.ndarray  # (hypotheses,)
    language_model: np.ndarray  # (hypotheses,)
    risks: np.ndarray  # (B, N)
    lengths: np.ndarray  # (B,)
    topology: str

    @property
    def real(self):
        return np.arange(self.risks.shape[1]) < self.lengths[:, None]

    @property
    def arguments(self):
        network = (getattr(self, name) for name in NAMES)
        return *network, self.targets, self.frame_lengths[self.index], self.target_lengths

    def risk(self, loss):
        """Risk of each list and the gradient of the scores, from the losses of all hypotheses."""
        scores = np.full(self.risks.shape, np.nan)
        scores[self.real] = -loss + 0.4 * self.language_model
        return lattice.minimum_bayes_risk(scores, self.risks, self.lengths, scale=0.7)

    def loss_of_references(self):
        """Full-sum loss of the first hypothesis of each list, standing for the reference."""
        first = np.append(0, np.cumsum(self.lengths)[:-1])
        return lattice.joint_transducer_loss_and_grad(
            self.encoder,
            self.predictor[first],
            self.weight,
            self.bias,
            self.targets[first],
            self.frame_lengths,
            self.target_lengths[first],
            topology=self.topology,
            grad_loss=np.full(len(first), SHARE),
            **OPTIONS,
        ), first


def training(topology, seed=0, frames=(6, 4, 5), lengths=(4, 1, 3), labels=3, vocab=5, width=3):
    rng = np.random.default_rng(seed)
    lengths, frames = np.array(lengths), np.array(frames)
    index, count = np.repeat(np.arange(len(lengths)), lengths), lengths.sum()
    target_lengths = rng.integers(0, labels + 1, count)
    target_lengths[[0, 1]] = labels, 0
    targets = np.array([0, 2, 3, 4])[rng.integers(0, vocab - 1, (count, labels))]
    encoder, predictor = rng.standard_normal((3, 7, width)), rng.standard_normal((count, labels + 2, width))
    for b, T in enumerate(frames):
        encoder[b, T:] = np.nan
    for n, U in enumerate(target_lengths):
        predictor[n, U + 1 :], targets[n, U:] = np.nan, -7
    risks = rng.integers(0, 6, (len(lengths), 5))
    return Training(
        encoder,
        predictor,
        rng.standard_normal((vocab, width)),
        rng.standard_normal(vocab),
        targets,
        target_lengths,
        frames,
        index,
        rng.standard_normal(count),
        risks,
        lengths,
        topology,
    )


def losses(batch):
    return lattice.joint_transducer_loss(
        *batch.arguments, topology=batch.topology, encoder_index=batch.index, **OPTIONS
    )


def gradients(batch):
    """Risks, gradients of the scores, and of everything the network is made of."""
    loss, vjp = lattice.joint_transducer_loss_vjp(
        *batch.arguments, topology=batch.topology, encoder_index=batch.index, **OPTIONS
    )
    risk, grad_scores = batch.risk(loss)
    return risk, grad_scores, vjp(-grad_scores[batch.real]), vjp


def assert_derivative(grads, batch, total):
    """The gradients are what central differences of a total find."""
    for name, grad in zip(NAMES, grads, strict=True):
        expected = oracle.finite_differences(
            lambda x, name=name: total(replace(batch, **{name: x})), getattr(batch, name)
        )
        assert np.abs(grad).max() > 1e-3
        np.testing.assert_allclose(grad, expected, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_gradients_are_those_of_the_total_risk(topology):
    batch = training(topology)
    risk, grad_scores, grads, _ = gradients(batch)
    assert np.isfinite(risk).all() and not grad_scores[1].any()  # a list of one
    assert_derivative(grads, batch, lambda changed: changed.risk(losses(changed))[0].sum())


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_interpolated_with_the_loss_of_the_reference(topology):
    """By a second call, or in one: the upstream gradients of risk and loss are added up."""
    batch = training(topology, seed=1)
    _, grad_scores, grads, vjp = gradients(batch)
    (reference_loss, more), first = batch.loss_of_references()
    joined = [grad.copy() for grad in grads]
    for own, other in zip(joined, more, strict=True):
        own[first if own is joined[1] else ...] += other

    def total(changed):
        loss = losses(changed)
        return changed.risk(loss)[0].sum() + SHARE * loss[first].sum()

    assert_derivative(joined, batch, total)
    upstream = -grad_scores[batch.real]
    upstream[first] += SHARE
    for ours, other in zip(vjp(upstream), joined, strict=True):
        compare.assert_same(ours, other)
    compare.assert_same(reference_loss, losses(batch)[first])


def test_hypotheses_that_do_not_fit_their_frames_count_nothing():
    """Labels that need more frames than there are: no alignment, a score of -inf, no gradient."""
    batch = training("monotonic", seed=2, frames=(6, 2, 2), lengths=(3, 2, 2), labels=3)
    lengths = batch.target_lengths.copy()
    lengths[3:], lengths[4] = 3, 1  # the last list has no other
    batch.predictor[:] = np.random.default_rng(3).standard_normal(batch.predictor.shape)
    batch.targets[:] = 2
    batch = replace(batch, target_lengths=lengths)
    risk, grad_scores, grads, _ = gradients(batch)
    assert risk[1] == batch.risks[1, 1] and np.isposinf(risk[2])
    assert not grad_scores[1:].any() and not grads.predictor[3:].any() and not grads.encoder[1:].any()
    assert all(np.isfinite(grad).all() for grad in grads) and grads.encoder[0].any()


def test_hypotheses_of_one_utterance_share_its_encoder_row_without_copies():
    T, H, V, N = 2000, 256, 16, 16
    rng = np.random.default_rng(4)
    encoder, predictor = rng.standard_normal((1, T, H), np.float32), rng.standard_normal((N, 4, H), np.float32)
    weight, targets = 0.1 * rng.standard_normal((V, H), np.float32), rng.integers(1, V, (N, 3))
    given = encoder, predictor, weight, None, targets, np.full(N, T), np.full(N, 3)
    options, risks = {"encoder_index": np.zeros(N, np.int32), "posterior_floor": 0}, rng.integers(0, 4, (1, N))

    def loss_alone(limit):
        return (lattice.joint_transducer_loss(*given, **options, memory_limit=limit),)

    def step(limit):
        loss, vjp = lattice.joint_transducer_loss_vjp(*given, **options, memory_limit=limit)
        risk, grad_scores = lattice.minimum_bayes_risk(-loss[None], risks, np.array([N]))
        return loss, risk, grad_scores, *vjp(-grad_scores[0])[:3]

    for function, limit in ((loss_alone, 3 << 20), (step, 10 << 20)):
        function(limit)  # compiled, and what a process pays for once
        used, outputs = extra_bytes(lambda function=function, limit=limit: function(limit))
        most = limit + sum(output.nbytes for output in outputs) + PYTHON
        assert used <= most < N * encoder.nbytes / 2
