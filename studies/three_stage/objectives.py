"""The training step of each stage: its loss in nats a label, and all gradients."""

from typing import NamedTuple

import numpy as np

import lattice
from studies.speech.encoder import Arrays, encoder_backward, encoder_forward
from studies.speech.layers import softmax
from studies.speech.predictor import label_contexts, predictor_backward, predictor_forward
from studies.speech.units import BLANK

TOPOLOGY = "monotonic"
MEMORY_LIMIT = 8 << 20  # bytes of workspace for the joint


class StepResult(NamedTuple):
    """What a step found: loss of the transducer (of CTC where there is none) and of the encoder, in nats a label."""

    loss: float
    encoder_loss: float
    grads: Arrays


def fused_joint(encoder, predictor, weight, bias, batch, grad_loss, bounds=None):
    """Full-sum loss and gradients of the joint in a workspace of fixed size."""
    return lattice.joint_transducer_loss_and_grad(
        encoder,
        predictor,
        weight,
        bias,
        batch.targets,
        batch.frame_lengths,
        batch.target_lengths,
        blank=BLANK,
        topology=TOPOLOGY,
        bounds=bounds,
        grad_loss=grad_loss,
        memory_limit=MEMORY_LIMIT,
    )


def per_label(batch, dtype) -> np.ndarray:
    """The upstream gradient that makes losses count in nats a label: (B,)."""
    return np.full(len(batch.frames), 1 / max(1, batch.target_lengths.sum()), dtype)


def output_of(parameters: Arrays) -> tuple[np.ndarray, np.ndarray]:
    return parameters["output.weight"], parameters["output.bias"]


def ctc_loss_and_grad(logits: np.ndarray, batch, grad_loss: np.ndarray) -> tuple[float, np.ndarray]:
    """The CTC loss, and its gradient, both times `grad_loss`."""
    loss, grad = lattice.ctc_loss_and_grad(
        logits, batch.targets, batch.frame_lengths, batch.target_lengths, blank=BLANK, grad_loss=grad_loss, out=logits
    )
    return float(loss @ grad_loss), grad


def frame_loss_and_grad(logits: np.ndarray, chunks, share: float) -> tuple[float, np.ndarray]:
    """Cross-entropy of the label or blank that the alignment puts on a frame, and its gradient, both times `share`."""
    ids = lattice.frames_to_ids(
        chunks.label_frames, chunks.targets, chunks.frame_lengths, chunks.target_lengths, blank=BLANK, topology=TOPOLOGY
    )
    example, frame = np.nonzero(np.arange(logits.shape[1]) < chunks.frame_lengths[:, None])
    grad = softmax(logits)
    grad[np.arange(logits.shape[1]) >= chunks.frame_lengths[:, None]] = 0
    place = example, frame, ids[example, frame]
    # A probability that underflowed to zero counts as the smallest number there is.
    loss = -float(np.log(np.maximum(grad[place], np.finfo(grad.dtype).tiny)).sum())
    grad[place] -= 1
    grad *= grad.dtype.type(share)
    return share * loss, grad


def backward(
    parameters: Arrays, encoder_saved, predictor_saved, grads: lattice.JointGradients, grad_ctc_logits
) -> Arrays:
    """The gradients of all parameters from those of the joint and of the CTC logits."""
    return {
        **encoder_backward(parameters, encoder_saved, grads.encoder, grad_ctc_logits),
        **predictor_backward(parameters, predictor_saved, grads.predictor),
        "output.weight": grads.weight,
        "output.bias": grads.bias,
    }


def ctc_step(parameters: Arrays, batch) -> StepResult:
    """CTC alone: no gradient for predictor, output layer and the encoder's last layer."""
    encoded, saved = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    loss, grad = ctc_loss_and_grad(encoded.ctc_logits, batch, per_label(batch, encoded.encoder.dtype))
    return StepResult(loss, 0.0, encoder_backward(parameters, saved, None, grad))


def full_sum_step(parameters: Arrays, batch, *, ctc_weight: float, bounds=None, joint=fused_joint) -> StepResult:
    """The transducer loss over all alignments, or over those within `bounds`, and CTC beside it."""
    encoded, encoder_saved = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    predictor, predictor_saved = predictor_forward(parameters, label_contexts(batch.targets))
    grad_loss = per_label(batch, predictor.dtype)
    loss, grads = joint(encoded.encoder, predictor, *output_of(parameters), batch, grad_loss, bounds)
    encoder_loss, grad_ctc = 0.0, None
    if ctc_weight:
        encoder_loss, grad_ctc = ctc_loss_and_grad(
            encoded.ctc_logits, batch, grad_loss * predictor.dtype.type(ctc_weight)
        )
    all_grads = backward(parameters, encoder_saved, predictor_saved, grads, grad_ctc)
    return StepResult(float(loss @ grad_loss), encoder_loss, all_grads)


def viterbi_step(
    parameters: Arrays, chunks, *, label_smoothing: float, label_scale: float, focal: float, encoder_weight: float
) -> StepResult:
    """Frame-wise cross-entropy along the alignment: of the transducer, and of the CTC layer (Zhou et al. 2022)."""
    encoded, encoder_saved = encoder_forward(parameters, chunks.frames, chunks.frame_lengths, mode="none")
    predictor, predictor_saved = predictor_forward(parameters, chunks.contexts)
    grad_loss = per_label(chunks, predictor.dtype)
    loss, grads = lattice.joint_path_loss_and_grad(
        encoded.encoder,
        predictor,
        *output_of(parameters),
        chunks.targets,
        chunks.label_frames,
        chunks.frame_lengths,
        chunks.target_lengths,
        blank=BLANK,
        topology=TOPOLOGY,
        label_smoothing=label_smoothing,
        label_scale=label_scale,
        focal=focal,
        grad_loss=grad_loss,
        memory_limit=MEMORY_LIMIT,
    )
    encoder_loss, grad_ctc = frame_loss_and_grad(encoded.ctc_logits, chunks, encoder_weight * float(grad_loss[0]))
    all_grads = backward(parameters, encoder_saved, predictor_saved, grads, grad_ctc)
    return StepResult(float(loss @ grad_loss), encoder_loss, all_grads)
