"""The rounds in which the library decides which cells of a lattice it computes, with what each of them finds kept.

This is the loop of `lattice.certificate.certify` over one example, on the host; every stage is the library's own.
"""

import math
from typing import NamedTuple

import numpy as np

from lattice import inputs
from lattice.certificate import MARGIN, ROUNDS, TOLERANCE
from lattice.groups import Group
from lattice.joint import DEFAULT_MEMORY_LIMIT, DEFAULT_POSTERIOR_FLOOR
from lattice.kernels.bounds import WANTED, bound, measure, rounding_of
from lattice.kernels.certify import Brackets, select
from lattice.kernels.occupied import list_cells
from lattice.tiles import JointTiles

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
    problem = inputs.read_joint(
        *joint, BLANK, "tanh", "rnnt", None, None, None, None, DEFAULT_MEMORY_LIMIT, DEFAULT_POSTERIOR_FLOOR
    )
    tiles = JointTiles(problem, gradients=False, limit=problem.memory_limit)
    tiles.open()
    group = tiles.group(0)
    count = group.frames.cells
    state = bounds_of(tiles, group)
    alpha, cells, edges = np.empty(count), np.empty(count, np.int64), np.empty(2, np.int64)
    brackets = Brackets(
        lower=np.zeros(1),
        upper=np.zeros(1),
        certificate=np.full(1, -1.0),
        log_floor=np.full(1, math.log(MARGIN * problem.posterior_floor)),
        exact=np.zeros(1, np.int64),
        skipped=np.zeros(1),
    )
    visits, round_of_cell = None, np.full(count, NEVER)
    for number in range(ROUNDS + 1):
        probing, last = number == 0, number == ROUNDS - 1
        tolerance = TOLERANCE[tiles.dtype]
        select(group.index, False, *state, alpha, None, brackets, probing=probing, last=last, tolerance=tolerance)
        if probing:
            visits = alpha - brackets.upper
        found = list_cells(group.index, state[3], WANTED, cells, edges)
        if not found[-1]:
            break
        round_of_cell[cells[: found[-1]]] = number
        tiles.compute(group, state, cells, found)
    shape = joint.encoder.shape[1], joint.predictor.shape[1]
    return Rounds(visits.reshape(shape), round_of_cell.reshape(shape))


def bounds_of(tiles: JointTiles, group: Group) -> tuple[np.ndarray, ...]:
    """The state of a lattice with bounds alone: closed blank and label scores, and in place of maxima and totals the bounds."""
    count = group.frames.cells
    state = tuple(np.empty(count, tiles.dtype) for _ in range(4))
    norm, ceiling = np.empty(len(tiles.weight), tiles.dtype), np.empty(3, tiles.dtype)
    measure(tiles.weight, tiles.bias, norm, ceiling)
    frame, slot, label, _ = tiles.place(group, 0, tiles.none, count)
    rounding = rounding_of(tiles.weight.shape[1], tiles.dtype, tiles.device.on_gpu)
    bound(
        tiles.problem.activation,
        group.encoder,
        group.predictor,
        group.encoder_row,
        group.predictor_row,
        frame,
        slot,
        label,
        BLANK,
        tiles.weight,
        tiles.bias,
        norm,
        ceiling,
        rounding,
        *state,
    )
    return state
