"""What a call of the fused joint costs: the cells it computes, the cells it visits again, and what is known of the rest."""

from typing import Any, NamedTuple

import numpy as np

from .annotations import Activation, Array, Bounds, Topology
from .inputs import checks
from .inputs.joint import read_joint
from .joint import DEFAULT_POSTERIOR_FLOOR
from .tiles.certificate import Cost
from .tiles.pullback import Pullback
from .tiles.tiler import JointTiles


class LatticeReport(NamedTuple):
    """What `joint_transducer_loss_and_grad` does with the same arguments. NumPy arrays of (B,), or (N,) with `encoder_index`.

    Attributes
    ----------
    cells : int64
        Cells of each lattice that an alignment may visit.
    certified : int64
        Cells whose logits the forward pass computes, because they could not be shown to be negligible; all in a dense lattice.
    occupied : int64
        Cells whose posterior reaches `posterior_floor`: the backward pass computes their logits once more.
    rounds : int64
        How often cells were added to those that are computed: the probe, and what followed; 0 with `posterior_floor=0`.
    certificate : float64
        The loss is above the loss over all cells by so many nats at most, rounding apart; 0 in a dense lattice.
    skipped_posterior : float64
        The posterior of all cells that are not visited, at most, summed over cells. That alignments which leave the computed
        cells may pass through any of them is allowed for.
    workspace_bytes : int
        Scratch memory of the whole call, at most `memory_limit`.
    """

    cells: np.ndarray
    certified: np.ndarray
    occupied: np.ndarray
    rounds: np.ndarray
    certificate: np.ndarray
    skipped_posterior: np.ndarray
    workspace_bytes: int


def joint_transducer_report(
    encoder: Array, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: Topology = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR, fastemit_lambda: float = 0.0, grad_loss: Array | None = None,
    overwrite: bool = False,
) -> LatticeReport:  # fmt: skip
    """What `joint_transducer_loss_and_grad` would do with the same arguments, cell by cell counted.

    Runs the forward pass and allocates what that needs; nothing is overwritten.

    Parameters
    ----------
    encoder, ..., posterior_floor
        As in `joint_transducer_loss`.
    fastemit_lambda, grad_loss, overwrite
        Taken so that the call can be swapped for the other; they change nothing that is reported.

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
    The bounds and what follows from them are the library's own: `docs/certified.md`.

    Examples
    --------
    >>> report = lattice.joint_transducer_report(*arguments)  # doctest: +SKIP
    >>> report.certified.sum() / report.cells.sum()  # doctest: +SKIP
    0.043
    """
    problem = read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
                                topology, vocabulary, vocabulary_lengths, bounds, encoder_index, memory_limit,
                                posterior_floor)  # fmt: skip
    Pullback(problem, encoder, predictor, fastemit_lambda, overwrite)
    tiles = JointTiles(problem, gradients=True, limit=problem.memory_limit)
    checks.read_grad_loss(grad_loss, len(tiles.order), tiles.dtype, problem.device)
    ledger: list[Cost] = []
    with problem.device.active():
        log_z = problem.device.empty(len(tiles.order), np.float64)
        tiles.open()
        for index in range(len(tiles.plan.groups)):
            tiles.forward(tiles.group(index), log_z, posteriors=True, ledger=ledger)
    columns: dict[str, Any] = {}
    for name, kind in zip(LatticeReport._fields[:-1], ("i8", "i8", "i8", "i8", "f8", "f8"), strict=True):
        column = np.empty(len(tiles.order), kind)
        column[tiles.order] = np.concatenate([getattr(cost, name) for cost in ledger]) if ledger else 0
        columns[name] = column
    told, labels = LatticeReport(**columns, workspace_bytes=tiles.plan.size), problem.targets
    visited = labels.frame_lengths + (0 if labels.monotonic else labels.target_lengths)
    return told._replace(skipped_posterior=told.skipped_posterior + visited * told.certificate)
