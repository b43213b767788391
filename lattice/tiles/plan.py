"""What the work on a joint problem takes of its workspace, how that is shared out, and the order of the examples."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from .. import layout
from ..device import arrays
from ..device.arrays import ALIGNMENT, computing_dtype
from ..device.memory import Cuda, Host
from ..inputs.joint import JointProblem
from ..kernels.factors import TAIL
from ..kernels.frontier import ROWS
from ..kernels.rows import gather
from ..kernels.runs import scratch_bytes
from ..kernels.step_rows import step_scratch_bytes
from .groups import widens

ARRAYS = 64
"""More pieces than the workspace is ever cut into. Each piece may lose up to `ALIGNMENT` bytes."""
MIN_BLOCK = 16
"""The fewest rows of the weight gradient that the host works on at once."""
SMALL = 32.0
"""Cells of a frame, on average, below which bounds on all cells take less time than a band."""
SIDE_BY_SIDE = 2.0**14
"""On a GPU, cells of a group for each frame of its longest lattice below which bounds on all take less time than walks.
An estimate from instructions: bounds take 0.5 ns a cell, and walks that find and weigh a band 10 us a frame."""
BAND_FRAME = 128
"""Bytes that a band takes of each frame and label position in index arrays, while it is looked for."""
DRAWS_FRAME = 24
"""Bytes that the draws of dropout take of each frame and label position, while they are put together."""
BANDS = (48, 12)
"""Cells for each frame and label position for which there is room where there is none for all cells of a lattice: the
first that fits."""
CELLS_A_ROW = 4
"""Cells for each frame and label position from which on factors pay. A factor costs as much as two or three cells."""


class Work(NamedTuple):
    """A problem, and how it is worked off. Nothing is allocated yet, so several passes can follow one plan.

    Attributes
    ----------
    order : (N,) int64
        The targets in the order of work, in which all targets of one encoder row follow one another.
    dtype : np.dtype
        What is computed in, float32 or float64.
    operand : np.dtype
        What matrix products take: `dtype`, or on a GPU bfloat16.
    halved : bool
        Whether operands are split in two halves, of which products are made in TF32.
    plan : layout.Plan
        Groups are runs of the order of work.
    factored : bool
        Whether each group makes the factors of its rows, of which hidden vectors are made.
    room : (N,) int64, or None
        The cells of each lattice for which there is room, in the order of work. None for all.
    refusal : str
        With `room`: what all cells would need.
    """

    problem: JointProblem
    device: Host | Cuda
    order: np.ndarray
    dtype: np.dtype
    operand: np.dtype
    halved: bool
    plan: layout.Plan
    factored: bool
    room: np.ndarray | None = None
    refusal: str = ""

    @property
    def in_place(self) -> bool:
        """Whether rows of the gradients of encoder and predictor are summed where they are handed out.

        That is where every group has one example and no gradient is rounded.
        """
        problem = self.problem
        rounded = any(array.dtype != self.dtype for array in (problem.encoder, problem.predictor))
        return self.room is not None and problem.encoder_index is None and not rounded


def seeks_band(cells: np.ndarray, frames: np.ndarray, on_gpu: bool) -> bool:
    """Are lattices of so many cells and frames (examples,) wide enough for a band to pay?"""
    # A GPU bounds all cells side by side, but walks through a lattice cell after cell.
    enough = not on_gpu or cells.sum() >= SIDE_BY_SIDE * frames.max(initial=0)
    return bool(enough and 0 < SMALL * frames.sum() <= cells.sum())


def _any_wide(cells: np.ndarray, frames: np.ndarray) -> bool:
    """Whether a band may be looked for in any group: that is where one lattice at least is wide enough."""
    return bool((cells >= SMALL * frames).any())


def _wide(problem: JointProblem) -> bool:
    order, cells = _cells(problem)
    return _any_wide(cells, problem.targets.frame_lengths[order])


def _cells(problem: JointProblem) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 each: the order of work, and the cells of each lattice in that order."""
    targets, N = problem.targets, len(problem.targets.blank_id)
    order = np.arange(N) if problem.encoder_index is None else np.argsort(problem.encoder_index, kind="stable")
    given = targets.frame_lengths, targets.target_lengths, targets.moves, targets.bounds
    return order, layout.count_cells(order, *given)


def plan_bands(problem: JointProblem, lattice_bytes: Callable, *, gradients: bool, limit: int, bands: bool) -> Work:
    """`plan_work`, or where wide lattices have no room and `bands` are allowed, room for a band of each lattice.

    The rows of gradients are then written where they are handed out, if they can be.
    """
    try:
        return plan_work(problem, lattice_bytes, gradients=gradients, limit=limit)
    except layout.WorkspaceTooSmall as refused:
        if not (bands and _wide(problem)) or problem.targets.topology.steps.size:
            raise
        for band in BANDS:
            with contextlib.suppress(layout.WorkspaceTooSmall):
                options = {"refusal": str(refused), "band": band}
                return plan_work(problem, lattice_bytes, gradients=gradients, limit=limit, **options)
        raise


def plan_work(
    problem: JointProblem, lattice_bytes: Callable, *, gradients: bool, limit: int, refusal: str = "", band: int = 0
) -> Work:
    """Groups of examples, tiles of cells and blocks of the weight gradient for a limit.

    Parameters
    ----------
    problem : JointProblem
    lattice_bytes : callable
        `lattice_bytes(cells, order)` gives the bytes held for each lattice, (N,) from the cells (N,), and the bytes
        held once for all. Both arguments are in the order of work.
    gradients : bool
        Whether a backward pass will follow.
    limit : int
        Bytes of the workspace.
    refusal : str
        Why there is no room for all cells. Then there is to be room for a band of each lattice.
    band : int
        Its cells for each frame and label position.

    Raises
    ------
    WorkspaceTooSmall
        Naming the bytes that the smallest workspace needs.
    """
    targets, device, dtype = problem.targets, problem.device, computing_dtype(problem.weight.dtype)
    operand = device.operand_dtype(problem.weight.dtype)
    halved = device.on_gpu and operand == np.float32 and problem.precision == "tf32x3"
    order, cells = _cells(problem)  # (N,) each
    H, V = problem.weight.shape[1], problem.weight.shape[0]
    # Rows of the largest output layer that is in use at once.
    S = V if problem.vocabulary is None else max((len(ids) for ids in problem.vocabulary), default=0)
    # Bytes of a number, of a row of H numbers, and of such a row as an operand.
    real, row, operand_row = dtype.itemsize, H * dtype.itemsize, H * operand.itemsize
    slots = (targets.target_lengths + 1)[order]  # (N,) label positions
    rows = targets.frame_lengths[order] + slots  # (N,) frames and label positions
    work = Work(problem, device, order, dtype, operand, halved, layout.Plan([], 0, 0, 0, 0, 0), False)
    if refusal:
        work = work._replace(room=np.minimum(cells, band * rows), refusal=refusal)
        cells = work.room
    # Rows of H numbers that a group holds, widened ones and gradients.
    copies = widens(problem, problem.encoder) * (rows - slots) + widens(problem, problem.predictor) * slots
    copies = copies + rows * (gradients and not work.in_place)  # (N,)
    seeks = _any_wide(cells, targets.frame_lengths[order]) and not targets.topology.steps.size
    state, fixed = lattice_bytes(cells, order)
    # The host allocates index arrays and the scratch of a sweep by themselves. They count, but do not lie in the block.
    labels, durations = targets.target_lengths[order], targets.topology.steps[0]
    if len(durations):
        scratch = step_scratch_bytes(targets.frame_lengths[order], labels, int(durations[-1]))
    else:
        scratch = scratch_bytes(labels)
    scratch = scratch * (not device.on_gpu)
    frame_bytes = layout.FRAME_BYTES + seeks * BAND_FRAME + (problem.dropout is not None) * DRAWS_FRAME
    outside = rows * frame_bytes * (not device.on_gpu) + scratch
    # Of an example: its lattice, a widened and a gradient row for each frame and position, log_z, upstream gradient.
    state = state + copies * row + rows * frame_bytes + scratch + 8 + real
    if seeks:
        # What a walk holds, and the lengths of the rows of the whole output layer.
        state = state + 8 * (ROWS * (targets.target_lengths[order] + 2) + 4) + 4 * ALIGNMENT
        fixed += V * real
    # Throughout: what alignment loses, bias and its gradient, and the weight where it is not used as it lies.
    fixed += (2 + ARRAYS) * ALIGNMENT + 2 * V * real + (problem.weight.dtype != operand) * V * operand_row
    fixed += (problem.weight.dtype != dtype) * gradients * V * row
    if problem.vocabulary is not None:
        # The output layer of the example in work, and its gradient.
        fixed += S * (operand_row + real) + gradients * S * (row + real)
    if gradients and problem.encoder_index is not None:
        # The encoder gradient that several targets share.
        fixed += problem.encoder.shape[1] * row
    # Of a cell of a tile: where it lies, rows of ones and of sums, logits, the hidden vector, and its gradient.
    tile_cell = 32 + 2 * real + S * real + operand_row + gradients * row
    if device.on_gpu:
        # The index arrays and brackets of an example, which the host does not keep in the workspace.
        state += 5 * ALIGNMENT + 4 * targets.positions.shape[1] + 8 * S * (problem.vocabulary is not None)
        tile_cell += gradients * (operand != dtype) * S * operand.itemsize
    if halved:
        # Both halves of the output layer in use, of a hidden vector, and the lower one of a gradient row.
        fixed += 2 * S * row
        tile_cell += 2 * row + gradients * S * real
    share_out = partial(
        layout.plan,
        cells,
        outside_bytes=outside,
        tile_cell_bytes=tile_cell,
        block_row_bytes=row,
        # cuBLAS adds a product to what is there, so a GPU needs no block to make it in.
        block_rows=S if gradients and not device.on_gpu else 0,
        min_block=MIN_BLOCK,
        fixed_bytes=fixed,
        tile_bytes=device.tile_bytes,
        reserve=device.reserve,
        limit=limit,
        alone=bool(refusal),
    )
    plan, factored = share_out(state), False
    if problem.activation.rate is not None and cells.sum() >= CELLS_A_ROW * rows.sum():
        # A factor for each number of a row, where it leaves the tiles at least half as long.
        with contextlib.suppress(layout.WorkspaceTooSmall):
            larger = share_out(state + rows * (row + TAIL * real))
            if 2 * larger.tile >= plan.tile:
                plan, factored = larger._replace(least=plan.least), True
    return work._replace(plan=plan, factored=factored)


def per_target(work: Work, values, like, *, owed=None, negated: bool = False):
    """Sums over alignments, of the kernels' scores -> those of the topology, in the order of the targets.

    Parameters
    ----------
    values : (N,) float64
        In the order of work.
    like : array
        An argument, in whose kind the result is.
    owed : (N,) float64, optional
        Nats to add, in the order of the targets. By default `Targets.owed`.
    negated : bool
        Give back minus the sums.

    Returns
    -------
    values : (N,)
        Rounded to the dtype that is computed in.
    """
    device, problem = work.device, work.problem
    if problem.targets.topology.delay_penalty:
        owed = problem.targets.owed if owed is None else owed
        values = values + device.upload(None, owed[work.order])[0]
    if negated:
        values = -values
    if problem.encoder_index is not None:
        place = device.upload(None, np.argsort(work.order))[0]  # (N,) where each target was worked on
        found, values = values, device.empty(values.shape, np.float64)
        gather(found.reshape(-1, 1), place, values.reshape(-1, 1))
    # By now the whole pass is launched, and a GPU may still read the arguments.
    device.hold_until_read(like, problem.encoder, problem.predictor, problem.weight, problem.bias)
    return arrays.give_back(device.convert(values, work.dtype), like)
