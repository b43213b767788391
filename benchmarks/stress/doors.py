"""One small call of every door, and the bits of what it gives.

A call is larger than the threads' threshold where that is cheap.
"""

import hashlib

import numpy as np

import lattice
import samplers

from .. import shapes
from .fuzz_cases import Predict

SIZES = (3, 30, 9, 60, 24)
SMALL = (2, 12, 4, 20, 8)
"""B, T, U, V, H."""


def calls(sizes: tuple[int, ...] = SIZES) -> dict:
    """Name -> a call without arguments; calls write to nothing they share."""
    rng, (B, frame_count, label_count, V, H) = np.random.default_rng(0), sizes
    joint = shapes.trained_like(*sizes)
    encoder, predictor, weight, bias, targets, T, U = joint
    logits = rng.standard_normal((B, frame_count, label_count + 1, V), np.float32)
    frames = rng.standard_normal((B, frame_count, V), np.float32)
    posterior = samplers.ctc_posterior(frames, T)
    emitted = lattice.ctc_alignment(frames, targets, T, U)[0]

    def vjp():
        loss, back = lattice.joint_transducer_loss_vjp(*joint, memory_limit=1 << 20)
        return loss, *back(), *back(np.linspace(-1, 2, B, dtype=np.float32))

    return {
        "transducer_loss": lambda: lattice.transducer_loss(logits, targets, T, U),
        "transducer_loss_and_grad": lambda: lattice.transducer_loss_and_grad(logits, targets, T, U),
        "transducer_loss_and_grad, out": lambda: lattice.transducer_loss_and_grad(
            logits, targets, T, U, out=logits.copy()
        ),
        "transducer_alignment": lambda: lattice.transducer_alignment(logits, targets, T, U),
        "transducer_posteriors": lambda: lattice.transducer_posteriors(logits, targets, T, U),
        "transducer_exit_posterior": lambda: lattice.transducer_exit_posterior(
            logits, targets, T, U, bounds=lattice.alignment_bounds(emitted, U, T, left=1, right=1)
        ),
        "scores_loss_and_grad": lambda: lattice.scores_loss_and_grad(logits[..., 0], logits[..., 1], T, U),
        "joint_transducer_posteriors": lambda: lattice.joint_transducer_posteriors(*joint, memory_limit=1 << 20),
        "joint_transducer_loss": lambda: lattice.joint_transducer_loss(*joint),
        "joint_transducer_loss_and_grad": lambda: lattice.joint_transducer_loss_and_grad(*joint, memory_limit=1 << 20),
        "joint_transducer_loss_and_grad, dense": lambda: lattice.joint_transducer_loss_and_grad(
            *joint, posterior_floor=0
        ),
        "joint_transducer_loss_vjp": vjp,
        "joint_transducer_report": lambda: lattice.joint_transducer_report(*joint),
        "joint_transducer_alignment": lambda: lattice.joint_transducer_alignment(*joint),
        "joint_path_loss_and_grad": lambda: lattice.joint_path_loss_and_grad(
            encoder, predictor, weight, bias, targets, emitted, T, U, label_smoothing=0.1, focal=1.0
        ),
        "internal_language_model_loss_and_grad": lambda: lattice.internal_language_model_loss_and_grad(
            predictor, weight, bias, targets, U, memory_limit=1 << 20
        ),
        "ctc_loss": lambda: lattice.ctc_loss(frames, targets, T, U),
        "ctc_loss_and_grad": lambda: lattice.ctc_loss_and_grad(frames, targets, T, U),
        "ctc_alignment": lambda: lattice.ctc_alignment(frames, targets, T, U),
        "alignment_bounds": lambda: lattice.alignment_bounds(emitted, U, T, left=2, right=3),
        "frames_to_ids": lambda: lattice.frames_to_ids(emitted, targets, T, U),
        "ids_to_frames": lambda: lattice.ids_to_frames(
            lattice.frames_to_ids(emitted, targets, T, U), targets, T, U, topology="monotonic"
        ),
        "shift_frames": lambda: lattice.shift_frames(emitted, T, U, 2),
        "minimum_bayes_risk": lambda: lattice.minimum_bayes_risk(frames[:, 0], np.arange(B * V).reshape(B, V) % 7, T),
        "greedy_decode": lambda: lattice.greedy_decode(
            encoder, T, Predict(H, np.float32), weight, bias, max_labels_per_frame=2
        ),
        "beam_decode": lambda: lattice.beam_decode(
            encoder[:, :8], T * 0 + 8, Predict(H, np.float32), weight, bias, beam=3, max_labels_per_frame=2
        ),
        "ctc_posterior": lambda: samplers.ctc_posterior(frames, T),
        "mixture": lambda: samplers.mixture([posterior, samplers.uniform(V)], [0.9, 0.1]),
        "unigram, log_uniform": lambda: (samplers.unigram(np.arange(V)), samplers.log_uniform(V)),
        "sample_vocabulary": lambda: samplers.sample_vocabulary(targets, U, V // 2, distribution=posterior, seed=3),
        "allowed_vocabulary": lambda: samplers.allowed_vocabulary(posterior, V // 3),
    }


def refused() -> dict:
    """Name -> a call that ends in an error, from every door that has a text of its own for it."""
    logits, one = np.zeros((1, 2, 2, 3), np.float32), np.ones(1, np.int64)
    wrong = np.full((1, 1), 7)
    rows, weight = np.zeros((1, 2, 4), np.float32), np.zeros((3, 4), np.float32)

    def expect(door, *arguments, **options):
        try:
            door(*arguments, **options)
        except (ValueError, TypeError):
            return None
        raise AssertionError(f"{door.__name__} took what it has to refuse")

    return {
        "transducer_loss_and_grad": lambda: expect(lattice.transducer_loss_and_grad, logits, wrong, one, one),
        "joint_transducer_loss_and_grad": lambda: expect(
            lattice.joint_transducer_loss_and_grad, rows, rows, weight, None, wrong, one, one
        ),
        "joint_transducer_loss_and_grad, limit": lambda: expect(
            lattice.joint_transducer_loss_and_grad, rows, rows, weight, None, wrong - 6, one, one, memory_limit=1
        ),
        "ctc_loss_and_grad": lambda: expect(lattice.ctc_loss_and_grad, logits[0], wrong, one, one),
        "alignment_bounds": lambda: expect(lattice.alignment_bounds, wrong, one, one, left=0, right=0),
        "sample_vocabulary": lambda: expect(
            samplers.sample_vocabulary, wrong, one, 2, distribution=np.full(9, np.nan), seed=0
        ),
        "beam_decode": lambda: expect(lattice.beam_decode, rows, one, lambda labels, state: None, weight, None),
    }


def flat(result) -> list:
    return [part for entry in result for part in flat(entry)] if isinstance(result, tuple) else [result]


def digest(result) -> str:
    """A hash of the bits of a result."""
    found = hashlib.sha256()
    for array in flat(result):
        found.update(np.asarray(array).tobytes())
    return found.hexdigest()
