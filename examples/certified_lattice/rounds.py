"""The rounds in which the library decides which cells of a lattice it computes, with what each of them finds kept."""

from typing import NamedTuple

import numpy as np

from lattice.inputs.joint import read_joint
from lattice.joint import DEFAULT_POSTERIOR_FLOOR
from lattice.tiles.certificate import bound_group, opening, rounds, tolerance_of
from lattice.tiles.tiler import JointTiles

from .problem import BLANK, Joint

NEVER = -1
"""In place of the round of a cell that is never computed."""


class Rounds(NamedTuple):
    """What is found on the way; both (T, U+1).

    bound : float64, alpha + beta over the bounds of all cells minus their total, in nats: before anything is computed.
    round : int, the round in which a cell is computed, 0 for the probe, or NEVER.
    """

    bound: np.ndarray
    round: np.ndarray


def rounds_of(joint: Joint) -> Rounds:
    """Run the forward pass of one lattice as far as its certificate."""
    problem = read_joint(*joint, BLANK, "tanh", "rnnt", None, None, None, None, None, DEFAULT_POSTERIOR_FLOOR)
    tiles = JointTiles(problem, gradients=False, limit=problem.memory_limit)
    tiles.open()
    group = tiles.group(0)
    count = group.frames.cells
    state = tuple(np.empty(count, tiles.dtype) for _ in range(4))
    bound_group(tiles, group, state)
    # Not in one piece of memory, as in the library: the sums of the probe are wanted beside the cells it finds.
    alpha, cells, edges = np.empty(count), np.empty(count, np.int64), np.empty(2, np.int64)
    floor = problem.posterior_floor
    brackets, tolerance = opening(1, floor), tolerance_of(tiles.dtype, floor)
    visits, round_of_cell = None, np.full(count, NEVER)
    found_by_round = rounds(group.index, False, state, alpha, None, cells, edges, None, brackets, tolerance)
    for number, found in enumerate(found_by_round):
        if number == 0:
            visits = alpha - brackets.upper
        round_of_cell[cells[: found[-1]]] = number
        tiles.compute(group, state, cells, found)
    shape = joint.encoder.shape[1], joint.predictor.shape[1]
    return Rounds(visits.reshape(shape), round_of_cell.reshape(shape))
