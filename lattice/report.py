"""What a call of the fused joint costs: the cells it computes, the cells it visits again, and what it skips."""

from typing import Any, NamedTuple

import numpy as np

from .annotations import Activation, Array, Bounds, Dropout, Precision, TopologyLike
from .inputs import checks
from .inputs.joint import DEFAULT_POSTERIOR_FLOOR, read_joint
from .tiles import full_sum
from .tiles.certificate import BoundedGroups, Cost
from .tiles.pullback import Pullback
from .tiles.tiler import Tiler


class LatticeReport(NamedTuple):
    """What `joint_transducer_loss_and_grad` does with the same arguments.

    The fields are NumPy arrays of (B,), or (N,) with `encoder_index`.

    Attributes
    ----------
    cells : int64
        Cells of each lattice that an alignment may visit.
    certified : int64
        Cells whose logits the forward pass computes, because they (with HAT, their label arcs) could not be shown to be
        negligible. All cells in a dense lattice.
    occupied : int64
        Cells whose posterior reaches `posterior_floor`, and 2**-100. The backward pass computes their logits once more.
        With HAT these are the cells whose label posterior does. Of other cells it computes the blank's logit at most.
    rounds : int64
        How often cells were added to the computed ones, the probe included. 0 with `posterior_floor=0`, and in a group
        whose cells were all computed without a look, because bounds left no cell out in a group before it.
    certificate : float64
        The loss is at most this many nats above the loss over all cells, rounding apart. 0 in a dense lattice.
    skipped_posterior : float64
        Upper bound on the posterior of all cells that are not visited, summed over cells. It allows for alignments that
        leave the computed cells and pass through any of the cells that are not visited. With HAT a row that is left out
        counts by its label posterior, and a blank's logit by what its gradient is at most. The l1 error of the logits'
        gradient is at most kappa times this number, and a term for the certificate: kappa is 2, with HAT 3, with
        "tdt" 4 (`docs/certified.md`).
    exit_posterior : float64
        At most this share of the probability of all alignments is of those that leave the cells that were computed, or
        with `bounds` the cells that exist. So with `bounds` the loss is at most -log1p(-exit_posterior) nats above the
        loss without. 1 where that cannot be said, as with `bounds` where arcs take several frames, and where float64
        rounds to 1, above 36 nats. It allows for all cells that are not computed, so in float32 it is not below about
        1e-7 (`transducer_exit_posterior` is).
    workspace_bytes : int
        Scratch memory of the whole call, at most `memory_limit`.
    """

    cells: np.ndarray
    certified: np.ndarray
    occupied: np.ndarray
    rounds: np.ndarray
    certificate: np.ndarray
    skipped_posterior: np.ndarray
    exit_posterior: np.ndarray
    workspace_bytes: int


def joint_transducer_report(
    encoder: Array, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR, fastemit_lambda: float = 0.0, grad_loss: Array | None = None,
    overwrite: bool = False, precision: Precision = "default",
    near: Array | None = None, dropout: Dropout = None,
) -> LatticeReport:  # fmt: skip
    """Count the cells that `joint_transducer_loss_and_grad` would compute and visit with the same arguments.

    Runs the forward pass, and allocates what this pass needs. Nothing is overwritten.

    Parameters
    ----------
    encoder, ..., posterior_floor
        As in `joint_transducer_loss`.
    fastemit_lambda, grad_loss, overwrite
        Taken so that one call can be swapped for the other. They change nothing that is reported.
    precision, near, dropout
        As in `joint_transducer_loss`.

    Returns
    -------
    report : LatticeReport
        Cells, nats and bytes.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss_and_grad`.

    Notes
    -----
    Allocates `workspace_bytes`, at most `memory_limit`, and twice the report, which has 48 bytes a target.

    References
    ----------
    The upper bounds and what follows from them are the library's own. The proof: `docs/certified.md`.

    Examples
    --------
    >>> report = lattice.joint_transducer_report(*arguments)  # doctest: +SKIP
    >>> report.certified.sum() / report.cells.sum()  # doctest: +SKIP
    0.043
    """
    given = encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
    problem = read_joint(
        *given, blank=blank, activation=activation, topology=topology, vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths, bounds=bounds, encoder_index=encoder_index, memory_limit=memory_limit,
        posterior_floor=posterior_floor, precision=precision, near=near, dropout=dropout,
    )  # fmt: skip
    # For its checks only, so that the report refuses what the call itself would refuse.
    pullback = Pullback(problem, encoder, predictor, fastemit_lambda=fastemit_lambda, overwrite=overwrite)
    # `gradients`: in the workspace and the groups of that call.
    work = full_sum.plan(problem, gradients=True, limit=problem.memory_limit, bands=not pullback.overwrite)
    checks.read_grad_loss(grad_loss, len(work.order), work.dtype, problem.device)
    ledger: list[Cost] = []
    shares: list[np.ndarray] = []
    # A walk along what leaves bounds knows two arcs a cell.
    leaves, unknown = problem.targets.bounds is not None, problem.targets.topology.steps.size > 0
    bounded, exits = BoundedGroups(), leaves and not unknown
    with problem.device.active():
        log_z, tiler = problem.device.empty(len(work.order), np.float64), Tiler(work)  # (N,) in the order of work
        for index in range(len(work.plan.groups)):
            with tiler.group(index) as group:
                visited, _, cost, left = full_sum.forward(tiler, group, log_z, bounded, exits=exits)
                # The next group uses the same memory, so this one is fetched now. On a GPU each fetch waits.
                ledger.append(cost.on_host(np.diff(visited.first_cell)))
                # Without bounds an alignment leaves what was computed, or nothing.
                left = -np.expm1(-ledger[-1].certificate) if left is None else left
                shares.append(np.ones(len(group.examples)) if leaves and unknown else left)
    columns: dict[str, Any] = {}
    for name, kind in zip(LatticeReport._fields[:-1], ("i8", "i8", "i8", "i8", "f8", "f8", "f8"), strict=True):
        column = np.empty(len(work.order), kind)
        found = shares if name == "exit_posterior" else [getattr(cost, name) for cost in ledger]
        # From the order of work to the order of the targets; an empty batch has no groups.
        column[work.order] = np.concatenate(found) if found else 0
        columns[name] = column
    told, labels = LatticeReport(**columns, workspace_bytes=work.plan.size), problem.targets
    # (N,) arcs of an alignment, each of which may have a posterior that is off by the certificate. A pair is two.
    alone = labels.moves.monotonic and not labels.moves.paired
    arcs = labels.frame_lengths + (0 if alone else labels.target_lengths)
    return told._replace(skipped_posterior=told.skipped_posterior + arcs * told.certificate)
