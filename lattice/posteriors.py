"""Posteriors of arcs: how probable it is that an alignment takes them, given that it spells the targets."""

from typing import Generic, NamedTuple

import numpy as np

from .annotations import A, Activation, Array, Bounds, Dropout, Precision, TopologyLike
from .device import arrays
from .inputs.joint import DEFAULT_POSTERIOR_FLOOR, read_joint
from .inputs.logits import read_logits
from .lattices import Lattices
from .tiles import full_sum
from .tiles.plan import per_target
from .tiles.tiler import Tiler


class Posteriors(NamedTuple, Generic[A]):
    """Posteriors of the arcs of each lattice, in the kind of the first argument.

    Attributes
    ----------
    loss : (B,)
        In nats.
    blank : (B, T, U+1)
        The probability that an alignment takes the blank arc of cell (t, u), with "tdt" and "multiblank" any of its
        blank arcs.
    label : (B, T, U+1)
        The probability that an alignment emits label u in frame t, with any duration; 0 at u = U_b, where no label is
        left.
    """

    loss: A
    blank: A
    label: A


def transducer_posteriors(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *,
    blank: int = 0, topology: TopologyLike = "rnnt", bounds: Bounds | None = None, banded: bool = False,
) -> Posteriors[A]:  # fmt: skip
    """Posteriors of the arcs of `transducer_loss`.

    The labels' posteriors sum to 1 over the frames, for each label. So `label` says when a label is emitted, and how
    sure the model is of that. With arrays of NumPy::

        expected_frames = (np.arange(T)[:, None] * label).sum(axis=1)  # (B, U+1)
        confidence = label.max(axis=1)  # (B, U+1), in the most probable frame

    Parameters
    ----------
    logits, targets, logit_lengths, target_lengths, blank, topology, bounds, banded
        As in `transducer_loss`.

    Returns
    -------
    posteriors : Posteriors
        `loss` as `transducer_loss` gives it. `blank` and `label` are (B, T, U+1) with the axes of the logits, float64
        for float64 logits, else float32. For packed logits T is the largest T_b, and U is the size of `targets`, as
        it is for banded logits. They are 0 on padding and in examples without an alignment, NaN where the loss is NaN.
        Entries below 2**-100 are 0.

    Raises
    ------
    ValueError, TypeError
        As in `transducer_loss`.

    See Also
    --------
    joint_transducer_posteriors : The same without logits, from encoder, predictor and output layer.
    transducer_alignment : The most probable alignment alone.

    Notes
    -----
    Allocates the result, and what `transducer_loss` does. A GPU takes 8 bytes a cell more, for beta. With "constrained"
    a label is followed by a blank, and the posterior of a blank arc includes that one.

    References
    ----------
    As in `transducer_loss`.
    """
    problem = read_logits(
        logits, targets, logit_lengths, target_lengths, blank=blank, topology=topology, bounds=bounds, banded=banded
    )
    with problem.device.active():
        found = Lattices(problem).arc_posteriors(problem.lattice_shape)
        # A GPU may still read the logits when this returns, and memory that is let go may be used again.
        problem.device.hold_until_read(logits, problem.logits)
        return Posteriors(*(arrays.give_back(array, logits) for array in found))


def joint_transducer_posteriors(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR, precision: Precision = "default",
    near: Array | None = None, dropout: Dropout = None,
) -> Posteriors[A]:  # fmt: skip
    """Posteriors of the arcs of `joint_transducer_loss`, without the logits.

    Parameters
    ----------
    encoder, ..., dropout
        As in `joint_transducer_loss`. A cell whose posterior is below `posterior_floor` may be left at 0.

    Returns
    -------
    posteriors : Posteriors
        `loss` as `joint_transducer_loss` gives it. `blank` and `label` are (B, T, U+1) with the axes of encoder and
        predictor, (N, T, U+1) with `encoder_index`, float64 for float64 inputs, else float32. They are 0 on padding, in
        cells that are skipped and in examples without an alignment, and NaN where the loss is NaN. Entries below
        2**-100 are 0.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss`.

    See Also
    --------
    transducer_posteriors : From logits, with what such posteriors are good for.
    joint_transducer_report : How much posterior is skipped in all.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the result, which is two arrays of N * T * (U+1) numbers. With
    "constrained" a label is followed by a blank, and the posterior of a blank arc includes that one.

    References
    ----------
    As in `joint_transducer_loss`.
    """
    given = encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
    problem = read_joint(
        *given, blank=blank, activation=activation, topology=topology, vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths, bounds=bounds, encoder_index=encoder_index, memory_limit=memory_limit,
        posterior_floor=posterior_floor, precision=precision, near=near, dropout=dropout,
    )  # fmt: skip
    # A plan is made of integers, so a limit that is too small is refused before anything is allocated.
    work = full_sum.plan(problem, gradients=False, limit=problem.memory_limit)
    with problem.device.active():
        log_z = problem.device.empty(len(work.order), np.float64)  # (N,) in the order of work
        found = full_sum.arc_posteriors(Tiler(work), log_z)  # two of (N, T, U+1)
        loss = per_target(work, log_z, encoder, negated=True)
        return Posteriors(loss, *(arrays.give_back(array, encoder) for array in found))
