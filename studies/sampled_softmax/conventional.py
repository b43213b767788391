"""The joint as it is usually computed, for comparison: hidden vectors, logits and gradients of all padded cells."""

import numpy as np

import lattice
from studies.speech.units import BLANK


def positions_of(vocabulary, targets: np.ndarray, target_lengths: np.ndarray) -> np.ndarray:
    """Where each target stands in its example's vocabulary: (B, U) int32, 1 beyond a target's length."""
    real = np.arange(targets.shape[1]) < target_lengths[:, None]
    found = (vocabulary.ids[:, None, :] == targets[:, :, None]).argmax(axis=2)
    return np.where(real, found, 1).astype(np.int32)


def dense_logits(encoder, predictor, weight, bias, vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Hidden vectors (B, T, U+1, H) and logits (B, T, U+1, V), or (B, T, U+1, S) with a vocabulary."""
    hidden = np.tanh(encoder[:, :, None] + predictor[:, None])
    if vocabulary is None:
        return hidden, hidden @ weight.T + bias
    B, T, rows, H = hidden.shape
    logits = np.matmul(hidden.reshape(B, T * rows, H), weight[vocabulary.ids].transpose(0, 2, 1)).reshape(
        B, T, rows, -1
    )
    logits += bias[vocabulary.ids][:, None, None]
    return hidden, logits


def conventional_joint(encoder, predictor, weight, bias, batch, vocabulary, grad_loss, *, topology="rnnt", bounds=None):
    """Loss and gradients over dense logits: arguments and results of `step.fused_joint`, then topology and bounds."""
    hidden, logits = dense_logits(encoder, predictor, weight, bias, vocabulary)
    targets, blank = batch.targets, BLANK
    if vocabulary is not None:
        targets, blank = positions_of(vocabulary, batch.targets, batch.target_lengths), 0
    loss, grad_logits = lattice.transducer_loss_and_grad(
        logits,
        targets,
        batch.frame_lengths,
        batch.target_lengths,
        blank=blank,
        topology=topology,
        bounds=bounds,
        grad_loss=grad_loss,
    )
    B, H = len(hidden), hidden.shape[-1]
    flat, cells = grad_logits.reshape(B, -1, grad_logits.shape[-1]), hidden.reshape(B, -1, H)
    if vocabulary is None:
        grad_hidden = grad_logits @ weight
        grad_weight, grad_bias = flat.reshape(-1, len(weight)).T @ cells.reshape(-1, H), grad_logits.sum(axis=(0, 1, 2))
    else:
        grad_hidden = np.matmul(flat, weight[vocabulary.ids]).reshape(hidden.shape)
        grad_weight, grad_bias = np.zeros_like(weight), np.zeros_like(bias)
        for ids, grad_row, cell_row in zip(vocabulary.ids, flat, cells):
            grad_weight[ids] += grad_row.T @ cell_row
            grad_bias[ids] += grad_row.sum(axis=0)
    grad_before = grad_hidden * (1 - hidden * hidden)
    return loss, lattice.JointGradients(grad_before.sum(axis=2), grad_before.sum(axis=1), grad_weight, grad_bias)
