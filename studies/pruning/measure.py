"""How wrong a band is, beside what the library says of it without a look at the rest: loss, gradient, bound."""

import numpy as np

from examples.digit_strings.network import Arrays, forward
from examples.digit_strings.strings import BLANK, DigitStrings
from lattice import (
    alignment_bounds,
    joint_transducer_alignment,
    joint_transducer_loss_and_grad,
    joint_transducer_report,
    transducer_exit_posterior,
)

from .bands import pruned_bounds, smoothed_loss
from .model import simple_logits

SIZES = (3, 5, 8)
"""S of k2's prune ranges: label positions that a frame keeps."""
BESIDE = 5
"""Frames on both sides of an alignment."""
ALIGNED = f"alignment ±{BESIDE}"
BANDS = (*(f"S = {size}" for size in SIZES), ALIGNED)


def in_float64(parameters: Arrays) -> Arrays:
    """A copy in which the smallest errors can be told from rounding."""
    return {name: value.astype(np.float64) for name, value in parameters.items()}


def joint_of(parameters: Arrays, strings: DigitStrings):
    """The arguments of the fused joint for some strings."""
    encoder, predictor, _ = forward(parameters, strings)
    integers = strings.targets, strings.encoder_lengths, strings.target_lengths
    return encoder, predictor, parameters["output.weight"], parameters["output.bias"], *integers


def bands_of(parameters: Arrays, strings: DigitStrings, before: Arrays | None) -> dict[str, tuple]:
    """Name -> bounds. The alignment is that of the parameters `before`, where there are any."""
    joint = joint_of(parameters, strings)
    logits = simple_logits(parameters, *joint[:2])
    *_, posteriors = smoothed_loss(*logits, *joint[4:], blank=BLANK)
    lengths = strings.encoder_lengths, strings.target_lengths
    found = {f"S = {size}": pruned_bounds(posteriors, *lengths, size) for size in SIZES}
    if before is not None:
        frames, _ = joint_transducer_alignment(*joint_of(before, strings))
        found[ALIGNED] = alignment_bounds(
            frames, strings.target_lengths, strings.encoder_lengths, left=BESIDE, right=BESIDE
        )
    return found


def banded_logits(joint, bounds) -> np.ndarray:
    """(B, T, R, V): the logits of a pruned recipe, which makes no others."""
    encoder, predictor, weight, bias = joint[:4]
    first, last = bounds
    positions = first[..., None] + np.arange((last - first).max() + 1)  # (B, T, R)
    rows = predictor[np.arange(len(encoder))[:, None, None], np.clip(positions, 0, predictor.shape[1] - 1)]
    return np.tanh(encoder[:, :, None] + rows) @ weight.T + bias


def cells_of(joint, bounds) -> np.ndarray:
    """(B,) cells of each lattice inside the bounds."""
    lengths, labels = joint[5][:, None], joint[6][:, None]
    first, last = np.maximum(0, bounds[0]), np.minimum(labels, bounds[1])
    real = np.arange(first.shape[1]) < lengths
    return (np.maximum(0, last - first + 1) * real).sum(1)


def errors_of(parameters: Arrays, strings: DigitStrings, before: Arrays | None) -> dict[str, dict[str, np.ndarray]]:
    """What is measured of each band: name -> (B,) each.

    loss : over all alignments, in nats. cells : share of the lattice's cells.
    bias : the loss in the band minus the loss, in nats.
    bound, joint_bound : what no bias passes, in nats; from banded logits alone, and of the joint, which looks at what
    leaves.
    gradient : l2 distance of the encoder's gradient from the one without bounds, as a share of that one's norm.
    """
    joint, found = joint_of(parameters, strings), {}
    loss, grads = joint_transducer_loss_and_grad(*joint)
    cells = strings.encoder_lengths * (strings.target_lengths + 1)
    for name, bounds in bands_of(parameters, strings, before).items():
        near, near_grads = joint_transducer_loss_and_grad(*joint, bounds=bounds)
        share = transducer_exit_posterior(banded_logits(joint, bounds), *joint[4:], bounds=bounds, banded=True)
        told = joint_transducer_report(*joint, bounds=bounds).exit_posterior
        with np.errstate(divide="ignore"):
            found[name] = {
                "loss": loss,
                "cells": cells_of(joint, bounds) / cells,
                "bias": near - loss,
                "bound": -np.log1p(-share),
                "joint_bound": -np.log1p(-told),
                "gradient": norms(near_grads.encoder - grads.encoder) / norms(grads.encoder),
            }
    return found


def norms(x: np.ndarray) -> np.ndarray:
    """(B,) l2 norms of the rows of (B, T, H)."""
    return np.sqrt((x**2).sum((1, 2)))


def summary(values: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(values)), "max": float(values.max())}
