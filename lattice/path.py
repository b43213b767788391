"""Alignments of transducers: the best one, and the loss along a given one.

Tools for alignments as whole numbers are in alignments.py.
"""

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np

from .aligned_frames import around
from .alignments import alignment_bounds, frames_to_ids, ids_to_frames, shift_frames
from .annotations import A, Activation, Array, Bounds, Dropout, TopologyLike
from .device import arrays
from .inputs import checks
from .inputs.alignments import read_frames
from .inputs.joint import read_joint
from .inputs.logits import read_logits
from .lattices import Lattices
from .layout import WorkspaceTooSmall
from .tiles import path as paths
from .tiles.plan import per_target
from .tiles.pullback import JointGradients, Pullback
from .tiles.tiler import Tiler
from .topology import TWO_ARCS

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
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *,
    blank: int = 0, topology: TopologyLike = "rnnt", bounds: Bounds | None = None, banded: bool = False,
) -> tuple[Any, A]:  # fmt: skip
    """The most probable alignment of targets.

    Parameters
    ----------
    logits, targets, logit_lengths, target_lengths, blank, topology, bounds, banded
        As in `transducer_loss`.

    Returns
    -------
    frames : (B, U) int32
        The frame in which each label is emitted. -1 beyond a target's length, and in examples whose score is not
        finite. Of two alignments with equal scores, the one wins that takes the blank at the last arc where they
        differ. With "tdt" and "multiblank" the shorter of two blanks wins, and of two labels.
        Durations are not returned, and follow from the frames in part (`docs/decoding.md`).
    score : (B,) float64 for float64 logits, else float32
        Log-probability of that alignment in nats; -inf where there is none, NaN where the loss is NaN.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    Notes
    -----
    Allocates about 40 bytes a cell beside the logits (56 in float64), and up to 6 MiB more for half precision. Arcs
    that take several frames add what they add in `transducer_loss`. Scores are added up in float64.

    References
    ----------
    Graves 2012, arXiv 1211.3711, with the largest in the place of the sum (Viterbi). The recursion: `docs/math.md`.
    """
    problem = read_logits(
        logits, targets, logit_lengths, target_lengths, blank=blank, topology=topology, bounds=bounds, banded=banded
    )
    with problem.device.active():
        score, frames = Lattices(problem).path()  # (B,), (B, U)
        problem.device.hold_until_read(logits, problem.logits)
        return arrays.give_back(frames, logits), arrays.give_back(score, logits)


def joint_transducer_alignment(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None, near: Array | None = None,
) -> tuple[Any, A]:  # fmt: skip
    """`transducer_alignment` of the joint's logits, without the logits.

    Parameters
    ----------
    encoder, ..., memory_limit, near
        As in `joint_transducer_loss`. With `encoder_index` there are N alignments. There is no dropout here.

    Returns
    -------
    frames : (B, U) int32
        As in `transducer_alignment`.
    score : (B,) float64 for float64 inputs, else float32
        In nats, as in `transducer_alignment`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss`.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the results. With a trained model it computes few cells, because upper
    bounds prove that the best alignment visits none of the others (`docs/certified.md`). This takes 32 bytes a cell (48
    in float64) of the workspace, of a band of the lattice where all cells have no room. So 90,000 frames (an hour) by
    15,000 labels of a trained model take 64 MiB. Where a band is not enough, the scores of some frames are held at a
    time. Then every cell is computed, and one bit is kept of every cell: this lattice then takes 194 MB, or an error
    says so. "tdt" and "multiblank" have no bands: the state of all cells has room (`docs/memory.md`), or an error says
    how many bytes it takes.

    References
    ----------
    As in `transducer_alignment`. The upper bounds: `docs/certified.md`.
    """
    given = encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
    problem = read_joint(
        *given,
        blank=blank,
        activation=activation,
        topology=topology,
        vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths,
        bounds=bounds,
        encoder_index=encoder_index,
        memory_limit=memory_limit,
        near=near,
    )
    for work, run in paths.plans_best(problem):
        # The last way is never too small once it is planned.
        with contextlib.suppress(WorkspaceTooSmall), problem.device.active():
            return _search(problem, work, run, encoder)
    raise AssertionError("no plan was the last one")


def _search(problem, work, run, encoder):
    """One way to the best alignments. Its workspace is gone before the next one is tried."""
    device, count = problem.device, len(work.order)
    # (N,) in the order of work, and (N, U) in the order of the targets.
    score, frames = device.empty(count, np.float64), device.empty((count, problem.targets.label_axis), np.int32)
    # A search sets only the frames of labels, and only where there is an alignment.
    frames.fill(-1)
    tiler = Tiler(work)
    for index in range(len(work.plan.groups)):
        with tiler.group(index) as group:
            paths.best(tiler, group, run, score, frames)
    score = per_target(work, score, encoder)
    return arrays.give_back(frames, encoder), score


def joint_path_loss_and_grad(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, frames: Array,
    encoder_lengths: Array, target_lengths: Array, *,
    blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "monotonic",
    label_smoothing: float = 0.0, label_scale: float = 0.0, focal: float = 0.0,
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, grad_loss: Array | None = None,
    memory_limit: int | None = None, dropout: Dropout = None,
) -> tuple[A, JointGradients[A]]:  # fmt: skip
    """Frame-wise loss along given alignments, and its gradients, for Viterbi training (Zhou et al. 2022).

    Each cell that the alignment visits is a row of logits, T_b in all ("monotonic") or T_b + U_b. No other row is
    computed. Let p be the softmax of a row, and y the label or the blank that the alignment takes there. Let q be
    `1 - label_smoothing` at y, and `label_smoothing / (V - 1)` at all other ids. Then the row adds to the loss ::

        (1 + label_scale [y is a label]) * (1 - p[y])**focal * sum_v -q[v] log p[v].

    With the defaults the sum is the negative log-probability of the alignment. It equals `joint_transducer_loss` with
    `bounds` of width 0.

    Parameters
    ----------
    encoder, predictor, weight, bias, targets
        As in `joint_transducer_loss`.
    frames : (B, U) int32 or int64
        The frame in which each label is emitted, 0 to T_b - 1. Frames increase, or never decrease ("rnnt"). Entries
        beyond a target's length may hold anything. From `joint_transducer_alignment`, `ctc_alignment`,
        `ids_to_frames`, ...
    encoder_lengths, target_lengths, blank, activation
        As in `joint_transducer_loss`.
    topology : {"monotonic", "rnnt", "constrained"} or Topology
        A label arc consumes its frame ("monotonic"), or stays on it ("rnnt"), or stays for the blank behind it and no
        other label ("constrained"). "tdt" and "multiblank" are refused: frames of labels leave open which arcs were
        taken.
    label_smoothing : float
        0 to less than 1. The share of the target that all other ids of the vocabulary in use get together.
    label_scale : float
        At least 0. Rows that take a label count 1 + label_scale times.
    focal : float
        At least 0. The power of 1 - p[y] (Lin et al. 2017), which is differentiated as well.
    vocabulary, vocabulary_lengths
        As in `joint_transducer_loss`.
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default.
    memory_limit, dropout
        As in `joint_transducer_loss`.

    Returns
    -------
    loss : (B,) float64 for float64 inputs, else float32
        In nats, summed over the rows. It is inf, with a gradient of 0, where an arc of the alignment has no
        probability. With `label_smoothing` the same holds where another id of its row has no probability.
    gradients : JointGradients
        As in `joint_transducer_loss_and_grad`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. Frames of -1 (no alignment) are refused, so leave such
        examples out.

    See Also
    --------
    alignment_bounds : A band round the alignment in place of one alignment.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the results, and 8 for each frame and label of the alignments, padding
    included.

    On a GPU this waits for the device once more, at its end, to look for losses that are not finite. Where there are
    any, the gradients are computed again without them.

    References
    ----------
    Zhou et al. 2022, arXiv 2204.10586. `focal`: Lin et al. 2017, arXiv 1708.02002. `vocabulary`: Lee et al. 2022,
    arXiv 2203.16868.
    """
    # Frames are fetched here with all other integers, in one wait for a GPU. `read_joint` then has nothing to wait for.
    targets, frames, encoder_lengths, target_lengths, vocabulary, vocabulary_lengths = arrays.to_host(
        targets=targets,
        frames=frames,
        encoder_lengths=encoder_lengths,
        target_lengths=target_lengths,
        vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths,
    )
    given = encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
    problem = read_joint(
        *given,
        blank=blank,
        activation=activation,
        topology=topology,
        vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths,
        memory_limit=memory_limit,
        dropout=dropout,
        names=TWO_ARCS,
    )
    options: dict[str, Any] = {
        # At 1 nothing of the target would be left to the arc that is taken.
        "label_smoothing": checks.read_share(label_smoothing, "label_smoothing", bound="a number from 0 to below 1"),
        "label_scale": checks.read_factor(label_scale, "label_scale"),
        "focal": checks.read_factor(focal, "focal"),
    }
    # From here on the cells that exist are those of the path.
    T, U, moves = problem.targets.frame_lengths, problem.targets.target_lengths, problem.targets.moves
    on_path = read_frames(frames, T, U, monotonic=moves.monotonic, owner=f"{len(U)} examples")  # (B, U)
    problem = replace(problem, targets=replace(problem.targets, bounds=around(on_path, T, 0, 0, moves)))
    pullback, device = Pullback(problem, encoder, predictor), problem.device
    work = paths.plan_along(problem)
    grad_loss = checks.read_grad_loss(grad_loss, len(work.order), work.dtype, device)  # (B,)
    with device.active():
        log_z = device.empty(len(work.order), np.float64)  # (B,)
        gradients = pullback.run_finite(work, log_z, grad_loss, lambda own: paths.along(log_z, own, **options))
        # What the penalty gives an alignment is the same for every network, and has no gradient.
        penalty = problem.targets.topology.delay_penalty
        owed = penalty * (0.5 * (T - 1)[:, None] - on_path).sum(axis=1, where=on_path >= 0)
        return per_target(work, log_z, encoder, owed=owed, negated=True), gradients
