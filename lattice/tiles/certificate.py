"""Which cells of a group are computed at all: bounds, a probe, and rounds until every cell left out is proven negligible."""

import math
from typing import NamedTuple

import numpy as np

from ..kernels.certify import Brackets, select
from ..kernels.occupied import list_cells
from ..kernels.upper_bounds import WANTED, bound, measure, rounding_of
from .groups import Group

ROUNDS = 8
"""Rounds after which what an example still lacks is computed without a proof that it must be."""
TOLERANCE = {np.dtype(np.float32): 5e-7, np.dtype(np.float64): 1e-12}
"""Largest certificate of a loss, in nats, by the dtype that is computed in. Of the 1e-6 promised, float32 rounding gets half."""
MARGIN = 2.0**-6
"""The floor of the first rounds in units of `posterior_floor`: at the floor itself, certificates came out a little too large."""
CELL_BYTES = 32
"""What a run of cells takes of a tile's memory while their scores are bounded, per cell."""


class Cost(NamedTuple):
    """What the examples of a group cost; all (examples,)."""

    cells: np.ndarray
    certified: np.ndarray
    occupied: np.ndarray | None
    rounds: np.ndarray
    certificate: np.ndarray
    skipped_posterior: np.ndarray

    def on_host(self, occupied):
        """With the cells that are visited, and what lay on a device fetched from it."""
        fetched = (array if isinstance(array, np.ndarray) else array.get() for array in self._replace(occupied=occupied))
        return Cost(*fetched)


def dense(tiles, group: Group) -> Cost:
    """The account of a group whose cells are all computed."""
    cells = _cells(group)
    skipped, certificate = tiles.device.upload(tiles.space, np.zeros(len(cells)), np.zeros(len(cells)))
    return Cost(cells, cells, None, np.zeros(len(cells), np.int64), certificate, skipped)


def _cells(group: Group) -> np.ndarray:
    return np.diff(group.frames.offset[group.frames.starts])


def certify(tiles, group: Group, state, cells, edges, beta, counts) -> Cost:
    """Compute the cells of a group that may matter, and close all others.

    The sums over what is open are below those over all cells by `certificate` at most.

    On a GPU every round waits for the device once; if cells are left out, the last round is one that finds none.

    Parameters
    ----------
    tiles : JointTiles
    state : tuple of four (cells,) arrays
        Filled with the scores, the maxima and the rests of the cells that are computed; the arcs of all others are closed, and
        their rests negative.
    cells : (cells,) int64
        Scratch, shared with alpha.
    edges, beta, counts
        Scratch, as in `list_cells` and `select`.
    """
    bound_group(tiles, group, state)
    number, floor = len(group.examples), tiles.problem.posterior_floor
    brackets = Brackets(*tiles.device.upload(tiles.space, *opening(number, floor)))
    added = np.zeros(number, np.int64)
    scratch = cells.view(np.float64), beta, cells, edges, counts
    for found in rounds(
        group.index, tiles.problem.targets.monotonic, state, *scratch, brackets, tolerance_of(tiles.dtype, floor)
    ):
        added += np.diff(found) > 0
        tiles.compute(group, state, cells, found)
    return Cost(_cells(group), brackets.exact, None, added, brackets.certificate, brackets.skipped)


def opening(count: int, posterior_floor: float) -> Brackets:
    """Brackets of so many examples of which nothing is known yet, on the host."""
    floor = math.log(MARGIN) + math.log(posterior_floor)
    return Brackets(
        np.zeros(count), np.zeros(count), np.full(count, -1.0), np.full(count, floor), np.zeros(count, np.int64), np.zeros(count)
    )


def tolerance_of(dtype: np.dtype, posterior_floor: float) -> float:
    """Largest certificate: alignments that leave the computed cells weigh no more than a cell may that is left out."""
    return min(TOLERANCE[dtype], posterior_floor)


def rounds(frames, monotonic, state, alpha, beta, cells, edges, counts, brackets: Brackets, tolerance: float):
    """Round by round, the edges of the listed `cells` that are to be computed; whoever iterates computes them in between.

    Ends once every cell has been listed, or a round finds none. `cells` may be the memory of `alpha`. The other parameters are
    those of `select` and `list_cells`.
    """
    unlisted = len(cells)
    for number in range(ROUNDS + 1):
        select(frames, monotonic, *state, alpha, beta, brackets, probing=number == 0, last=number == ROUNDS - 1,
               tolerance=tolerance)  # fmt: skip
        found = list_cells(frames, state[3], WANTED, cells, edges, counts)
        if not found[-1]:
            return
        yield found
        # A cell is listed once. Of an example whose cells all are, the certificate was told as they were found.
        unlisted -= int(found[-1])
        if not unlisted:
            return


def bound_group(tiles, group: Group, state) -> None:
    """Bounds on the scores of all cells of a group."""
    space, problem = tiles.space, tiles.problem
    rounding = rounding_of(tiles.weight.shape[1], tiles.dtype, tiles.device.on_gpu)
    run = tiles.plan.tile * max(1, tiles.weight.shape[1] * tiles.operand.itemsize // CELL_BYTES)
    for segment in tiles.segments(group):
        mark = space.used
        norm, ceiling = space.take(len(segment.weight), tiles.dtype), space.take(3, tiles.dtype)
        measure(segment.weight, segment.bias, norm, ceiling)
        first, last = group.frames.cells_of(segment.begin, segment.end)
        for begin in range(first, last, run):
            inner, count = space.used, min(run, last - begin)
            there = slice(begin, begin + count)
            frame, slot, own, _ = tiles.place(group, begin, tiles.none, count)
            into = (array[there] for array in state)
            bound(problem.activation, group.encoder, group.predictor, group.encoder_row, group.predictor_row, frame, slot, own,
                  segment.blank, segment.weight, segment.bias, norm, ceiling, rounding, *into)  # fmt: skip
            space.release(inner)
        space.release(mark)
