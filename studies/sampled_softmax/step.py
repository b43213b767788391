"""One training step: encoder, CTC losses, a drawn vocabulary, the joint, and all gradients."""

import time
from typing import NamedTuple

import numpy as np

import lattice
from studies.speech.encoder import Arrays, encoder_backward, encoder_forward
from studies.speech.predictor import label_contexts, predictor_backward, predictor_forward
from studies.speech.units import BLANK

from .rows import Row, draw_vocabulary

CTC_WEIGHT = 0.5  # what all CTC losses together count beside the transducer loss
MEMORY_LIMIT = 8 << 20  # bytes of workspace for the joint


class StepResult(NamedTuple):
    """What a step found.

    loss, ctc_loss : float, the transducer loss and what the CTC losses add to it, in nats a label.
    joint_seconds : float, for drawing the vocabularies and for the joint.
    grads : dict of arrays.
    """

    loss: float
    ctc_loss: float
    joint_seconds: float
    grads: Arrays


def fused_joint(encoder, predictor, weight, bias, batch, vocabulary, grad_loss):
    """Loss and gradients of the joint in a workspace of fixed size."""
    ids, lengths = (None, None) if vocabulary is None else (vocabulary.ids, vocabulary.lengths)
    return lattice.joint_transducer_loss_and_grad(
        encoder,
        predictor,
        weight,
        bias,
        batch.targets,
        batch.frame_lengths,
        batch.target_lengths,
        blank=BLANK,
        vocabulary=ids,
        vocabulary_lengths=lengths,
        grad_loss=grad_loss,
        memory_limit=MEMORY_LIMIT,
    )


def ctc_loss_and_grads(encoded, batch, grad_loss):
    """What the CTC losses add to the objective, and its gradients: for the last logits, then for the middle ones."""
    all_logits = (encoded.ctc_logits, *encoded.intermediate_logits)
    share = grad_loss * grad_loss.dtype.type(CTC_WEIGHT / len(all_logits))
    lengths = batch.frame_lengths, batch.target_lengths
    found = [lattice.ctc_loss_and_grad(x, batch.targets, *lengths, blank=BLANK, grad_loss=share) for x in all_logits]
    return float(sum(loss @ share for loss, _ in found)), (found[0][1], tuple(grad for _, grad in found[1:]))


def training_step(parameters: Arrays, batch, row: Row, seed: int, *, joint=fused_joint) -> StepResult:
    """Loss and gradients of a batch.

    Parameters
    ----------
    parameters : dict of arrays
    batch : speech.batches.Batch
    row : Row
    seed : int
        Of the drawn vocabulary: another one for every step.
    joint : callable
        `fused_joint`, or one with its arguments and results.
    """
    encoded, encoder_saved = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode=row.mode)
    predictor, predictor_saved = predictor_forward(parameters, label_contexts(batch.targets))
    grad_loss = np.full(len(batch.frames), 1 / batch.target_lengths.sum(), encoded.encoder.dtype)
    started = time.perf_counter()
    vocabulary = draw_vocabulary(row, batch, encoded, seed)
    output = parameters["output.weight"], parameters["output.bias"]
    loss, grads = joint(encoded.encoder, predictor, *output, batch, vocabulary, grad_loss)
    joint_seconds = time.perf_counter() - started
    ctc_loss, through_ctc = ctc_loss_and_grads(encoded, batch, grad_loss)
    all_grads = {
        **encoder_backward(parameters, encoder_saved, grads.encoder, *through_ctc),
        **predictor_backward(parameters, predictor_saved, grads.predictor),
        "output.weight": grads.weight,
        "output.bias": grads.bias,
    }
    return StepResult(float(loss @ grad_loss), ctc_loss, joint_seconds, all_grads)
