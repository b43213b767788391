"""The rounds in which the library decides which cells of a lattice it computes, with what each of them finds kept."""

from typing import NamedTuple

import numpy as np

# Internals of the library: its public report counts rounds and cells. Which cell joins in which round, and what the
# bounds of all cells sum to, no public function tells.
from lattice.inputs.joint import read_joint
from lattice.kernels.certify import PROBE as PROBE  # passed on to the drawing
from lattice.kernels.state import CellState
from lattice.tiles import full_sum
from lattice.tiles.certificate import bound_group, first_brackets, rounds, tolerance_of
from lattice.tiles.tiler import Tiler

from .problem import BLANK, FLOOR, Joint

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
    problem = read_joint(*joint, blank=BLANK, activation="tanh", topology="rnnt", posterior_floor=FLOOR)
    work = full_sum.plan(problem, gradients=False, limit=problem.memory_limit)
    tiler, tolerance = Tiler(work), tolerance_of(work.dtype, FLOOR)
    with tiler.group(0) as group:
        count = group.frames.cells
        brackets = first_brackets(np.array([count]), FLOOR)
        state = CellState.take(np.empty, count, work.dtype)
        bound_group(tiler, group, state)
        # Not in one piece of memory, as in the library: the sums of the probe are wanted beside the cells it finds.
        alpha, cells, first_cell = np.empty(count), np.empty(count, np.int64), np.empty(2, np.int64)
        visits, round_of_cell = None, np.full(count, NEVER)
        scratch = state, alpha, None, cells, first_cell, None
        lattices = group.device_frames, problem.targets.moves
        for number, found in enumerate(rounds(*lattices, *scratch, brackets, tolerance)):
            if number == 0:
                visits = alpha - brackets.upper
            round_of_cell[cells[: found[-1]]] = number
            tiler.score_listed(group, state, cells, found)
    shape = joint.encoder.shape[1], joint.predictor.shape[1]
    return Rounds(visits.reshape(shape), round_of_cell.reshape(shape))
