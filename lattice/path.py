"""Alignments of transducers: the best one, and the loss along a given one. Tools for their integers are in alignments.py."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from .alignments import alignment_bounds, around, frames_to_ids, ids_to_frames, shift_frames
from .annotations import A, Activation, Array, Bounds, Topology
from .device import arrays
from .inputs import checks
from .inputs.alignments import read_frames
from .inputs.joint import read_joint
from .inputs.logits import read_logits
from .inputs.targets import Targets
from .tiles.path import AlignmentTiles, LongAlignmentTiles, PathTiles
from .tiles.pullback import JointGradients, Pullback, per_target
from .transducer import Lattices

__all__ = [
    "alignment_bounds",
    "frames_to_ids",
    "ids_to_frames",
    "joint_path_loss_and_grad",
    "joint_transducer_alignment",
    "shift_frames",
    "transducer_alignment",
]


def transducer_alignment(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *, blank: int = 0, topology: Topology = "rnnt",
    bounds: Bounds | None = None,
) -> tuple[Any, A]:  # fmt: skip
    """The most probable alignment of targets.

    Parameters
    ----------
    logits, targets, logit_lengths, target_lengths, blank, topology, bounds
        As in `transducer_loss`.

    Returns
    -------
    frames : (B, U) int32
        The frame in which each label is emitted; -1 beyond a target's length, and in examples whose score is not finite. Of
        alignments that score the same it is the one that, seen from the last frame back, takes the blank where they differ.
    score : (B,) float64 for float64 logits, else float32
        Log-probability of that alignment in nats; -inf where there is none, NaN where the loss is NaN.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    Notes
    -----
    Allocates about 40 bytes a cell beside the logits (56 in float64), and up to 6 MiB for half precision; scores are added up in
    float64.

    References
    ----------
    Graves 2012, arXiv 1211.3711, with the largest in the place of the sum (Viterbi); `docs/math.md`.
    """
    problem = read_logits(logits, targets, logit_lengths, target_lengths, blank, topology, bounds)
    with problem.device.active():
        score, frames = Lattices(problem).path()
        problem.device.keep(logits, problem.logits)
        return arrays.give_back(frames, logits), arrays.give_back(score, logits)


def joint_transducer_alignment(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: Topology = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
) -> tuple[Any, A]:  # fmt: skip
    """`transducer_alignment` of the joint's logits, without the logits.

    Parameters
    ----------
    encoder, ..., memory_limit
        As in `joint_transducer_loss`; with `encoder_index` there are N alignments.

    Returns
    -------
    frames : (B, U) int32
    score : (B,)
        Nats; as in `transducer_alignment`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss`.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the results. Of a trained model few cells are computed: bounds prove that the
    best alignment visits none of the others (`docs/certified.md`). That takes 32 bytes a cell (48 in float64) of the workspace.
    Where there is no room for them every cell is computed, scores exist for some frames at a time, and one bit is kept of every
    cell: 90,000 frames (an hour) by 15,000 labels take 170 MB; with `bounds` round a first guess far fewer.

    References
    ----------
    As in `transducer_alignment`. The bounds: `docs/certified.md`.
    """
    problem = read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
                                topology, vocabulary, vocabulary_lengths, bounds, encoder_index, memory_limit, 0.0)  # fmt: skip
    try:
        tiles = AlignmentTiles(problem)
    except ValueError:
        tiles = LongAlignmentTiles(problem)
    device, count = problem.device, len(tiles.order)
    with device.active():
        score, frames = device.empty(count, np.float64), device.empty((count, problem.targets.label_axis), np.int32)
        frames.fill(-1)
        tiles.open()
        for index in range(len(tiles.plan.groups)):
            tiles.align(tiles.group(index), score, frames)
        score = per_target(tiles, score, encoder)
        return arrays.give_back(frames, encoder), score


def joint_path_loss_and_grad(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, frames: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: Topology = "monotonic",
    label_smoothing: float = 0.0, label_scale: float = 0.0, focal: float = 0.0, vocabulary: Array | None = None,
    vocabulary_lengths: Array | None = None, grad_loss: Array | None = None, memory_limit: int | None = None,
) -> tuple[A, JointGradients[A]]:  # fmt: skip
    """Frame-wise loss along given alignments, and its gradients: Viterbi training (Zhou et al. 2022).

    Each cell that the alignment visits is a row of logits, T_b in all ("monotonic") or T_b + U_b ("rnnt"), and no other row is
    computed. With p the softmax of a row, y the label or the blank that the alignment takes there and q equal to
    `1 - label_smoothing` at y and `label_smoothing / (V - 1)` at all other ids, the row adds to the loss ::

        (1 + label_scale [y is a label]) * (1 - p[y])**focal * sum_v -q[v] log p[v].

    With the defaults that is the negative log-probability of the alignment: `joint_transducer_loss` with `bounds` of width 0.

    Parameters
    ----------
    encoder, predictor, weight, bias, targets
        As in `joint_transducer_loss`.
    frames : (B, U) int32 or int64
        The frame in which each label is emitted, 0 to T_b - 1: increasing ("monotonic"), never decreasing ("rnnt"). Entries
        beyond a target's length may hold anything. From `joint_transducer_alignment`, `ctc_alignment`, `ids_to_frames`, ...
    encoder_lengths, target_lengths, blank, activation
        As in `joint_transducer_loss`.
    topology : {"monotonic", "rnnt"}
        A label arc consumes its frame, or stays on it.
    label_smoothing : float
        0 to less than 1: what the other ids of the vocabulary in use share of the target.
    label_scale : float
        At least 0: so many times the cross-entropy of the rows that take a label is added once more.
    focal : float
        At least 0: the power of 1 - p[y] (Lin et al. 2017), which is differentiated as well.
    vocabulary, vocabulary_lengths
        As in `joint_transducer_loss`.
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default.
    memory_limit
        As in `joint_transducer_loss`.

    Returns
    -------
    loss : (B,) float64 for float64 inputs, else float32
        In nats, summed over the rows; inf, with a gradient of 0, where an arc of the alignment has no probability or, with
        `label_smoothing`, another id of its row.
    gradients : JointGradients
        As in `joint_transducer_loss_and_grad`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. Frames of -1 (no alignment) are refused: leave such examples out.

    See Also
    --------
    alignment_bounds : A band round the alignment in place of the alignment alone.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the results, and 8 for each frame and label of the alignments, padding included.

    On a GPU this waits for the device once more, at its end, to look for losses that are not finite; where there are any, the
    gradients are computed again without them.

    References
    ----------
    Zhou et al. 2022, arXiv 2204.10586. `focal`: Lin et al. 2017, arXiv 1708.02002. `vocabulary`: Lee et al. 2022,
    arXiv 2203.16868.
    """
    targets, frames, encoder_lengths, target_lengths, vocabulary, vocabulary_lengths = arrays.to_host(
        targets=targets, frames=frames, encoder_lengths=encoder_lengths, target_lengths=target_lengths, vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths,
    )  # fmt: skip
    problem = read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
                                topology, vocabulary, vocabulary_lengths, None, None, memory_limit, 0.0)  # fmt: skip
    options = {
        "label_smoothing": checks.read_number(label_smoothing, "label_smoothing", 0.0, bound="a number from 0 to below 1"),
        "label_scale": checks.read_factor(label_scale, "label_scale"),
        "focal": checks.read_factor(focal, "focal"),
    }
    if options["label_smoothing"] >= 1.0:
        raise ValueError(f"label_smoothing is {label_smoothing}, expected a number from 0 to below 1")
    problem = replace(problem, targets=_on_path(frames, problem.targets))
    pullback, device = Pullback(problem, encoder, predictor, 0.0, False), problem.device
    tiles = PathTiles(problem, **options)
    grad_loss = checks.read_grad_loss(grad_loss, len(tiles.order), tiles.dtype, device)

    def run(upstream):
        own = copy.copy(tiles)
        own.open()
        return pullback.run(own, upstream, log_z)

    with device.active():
        log_z = device.empty(len(tiles.order), np.float64)
        gradients = run(grad_loss)
        (found,) = arrays.to_host(log_z=log_z)
        if not np.isfinite(found).all():
            # A row tells nothing of the others of its example: these get a factor of 0, or NaN, before they are written.
            factor = np.where(np.isfinite(found), 1, np.where(np.isnan(found), np.nan, 0)).astype(tiles.dtype)
            del gradients
            gradients = run(grad_loss * device.upload(None, factor)[0])
        return per_target(tiles, -log_z, encoder), gradients


def _on_path(frames, targets: Targets) -> Targets:
    """Targets with bounds that leave the cells of the given alignments alone."""
    T, U = targets.frame_lengths, targets.target_lengths
    frames = read_frames(frames, T, U, targets.monotonic, owner=f"{len(U)} examples")
    return replace(targets, bounds=around(frames, T, 0, 0, targets.monotonic))
