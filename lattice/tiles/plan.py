"""What the work on a joint problem takes of its workspace, and how it is shared out."""

import numpy as np

from .. import layout
from ..device.arrays import ALIGNMENT, computing_dtype
from ..inputs.joint import JointProblem
from .groups import widens

ARRAYS = 64
"""More pieces than the workspace is ever cut into: each may lose up to `ALIGNMENT` bytes."""
MIN_BLOCK = 16
"""Rows of the weight gradient that the host works on at once, at least."""


def plan_joint(problem: JointProblem, order: np.ndarray, lattice_bytes, *, gradients: bool, limit: int) -> layout.Plan:
    """Groups of examples, tiles of cells and blocks of the weight gradient for a limit.

    Parameters
    ----------
    problem : JointProblem
    order : (N,) int64
        The order of work.
    lattice_bytes : callable
        Bytes held of each of the lattices of so many cells, (N,) to (N,), both in the order of work, and bytes for all of them.
    gradients : bool
        Whether a backward pass will follow.
    limit : int
        Bytes of the workspace.

    Raises
    ------
    ValueError
        Naming the bytes that the smallest workspace needs.
    """
    targets, device, dtype = problem.targets, problem.device, computing_dtype(problem.weight.dtype)
    operand = device.operand_dtype(problem.weight.dtype)
    H, V = problem.weight.shape[1], problem.weight.shape[0]
    S = V if problem.vocabulary is None else max((len(ids) for ids in problem.vocabulary), default=0)
    real, row, operand_row = dtype.itemsize, H * dtype.itemsize, H * operand.itemsize
    cells = layout.count_cells(order, targets.frame_lengths, targets.target_lengths, targets.monotonic, targets.bounds)
    rows = (targets.frame_lengths + targets.target_lengths + 1)[order]
    copies = int(widens(problem)) + int(gradients)
    state, fixed = lattice_bytes(cells)
    outside = rows * layout.FRAME_BYTES * (not device.on_gpu)
    state = state + rows * (copies * row + layout.FRAME_BYTES) + 8 + real
    fixed += (2 + ARRAYS) * ALIGNMENT + 2 * V * real + (problem.weight.dtype != operand) * V * operand_row
    fixed += (problem.weight.dtype != dtype) * gradients * V * row
    if problem.vocabulary is not None:
        fixed += S * (operand_row + real) + gradients * S * (row + real)
    if gradients and problem.encoder_index is not None:
        fixed += problem.encoder.shape[1] * row
    tile_cell = 32 + 2 * real + S * real + operand_row + gradients * row
    if device.on_gpu:
        # The index arrays and brackets of an example, which the host does not keep in the workspace.
        state += 5 * ALIGNMENT + 4 * targets.positions.shape[1] + 8 * S * (problem.vocabulary is not None)
        fixed += S * real
        tile_cell += gradients * (operand != dtype) * S * operand.itemsize
    return layout.plan(
        cells, state, outside, tile_cell_bytes=tile_cell, block_row_bytes=row, block_rows=S if gradients else 0,
        min_block=S if device.on_gpu else MIN_BLOCK, fixed_bytes=fixed, tile_bytes=device.tile_bytes,
        reserve=device.reserve, limit=limit,
    )  # fmt: skip
