"""Which cells of a group are computed at all: upper bounds, a probe, and rounds until the others are proven negligible.

The proof and the algorithm are in `docs/certified.md`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..kernels.certify import Brackets, select
from ..kernels.hat_bounds import bound_hat
from ..kernels.layer import measure
from ..kernels.occupied import list_cells
from ..kernels.state import CellState
from ..kernels.step_bounds import bound_steps
from ..kernels.step_sums import StepScores
from ..kernels.upper_bounds import bound, rounding_of
from ..topology import Moves
from .groups import Group
from .tiler import Tiler

ROUNDS = 8
"""Rounds, the probe included, after which the cells that an example still lacks are computed without more proofs."""
TOLERANCE = {np.dtype(np.float32): 5e-7, np.dtype(np.float64): 1e-12}
"""Largest certificate of a loss, in nats, by the dtype that is computed in.

The doors promise 1e-6 for float32, of which the other half is for rounding.
"""
MARGIN = 2.0**-6
"""The floor of the first rounds, in units of `posterior_floor`. With 1, certificates came out a little too large."""
VOUCHED = 7
"""Most groups that are computed without bounds after one whose bounds left no cell out."""
WITNESSES = 4
"""Examples of which bounds left no cell out, for each group behind them that is computed without."""
CELL_BYTES = 32
"""Bytes that a cell takes of a tile's memory while its scores are bounded: its place, and no row of H or S numbers."""


class Cost(NamedTuple):
    """What the examples of a group cost, (examples,) each; `LatticeReport` says what the fields mean.

    `occupied` is None until `on_host`. Until then `certificate` and `skipped_posterior` are on the device, and so is
    `certified` of a group that was certified, unless every cell was computed.
    """

    cells: np.ndarray
    certified: np.ndarray
    occupied: np.ndarray | None
    rounds: np.ndarray
    certificate: np.ndarray
    skipped_posterior: np.ndarray

    @property
    def everything(self) -> bool:
        """Whether every cell of the group was computed."""
        return self.certified is self.cells

    def on_host(self, occupied):
        """With the numbers (examples,) of visited cells, and with what lay on a device fetched from it."""
        fetched = (
            array if isinstance(array, np.ndarray) else array.get() for array in self._replace(occupied=occupied)
        )
        return Cost(*fetched)


class BoundedGroups:
    """Which groups of a pass are bounded before they are computed. It is decided as they come, in the order of work.

    Where every cell of a group was computed, its bounds were made for nothing, and so may be those of the groups behind
    it. A few examples may be dense by chance. So `WITNESSES` examples in a row, of which bounds left no cell out, vouch
    for one group, twice as many for two groups, and so on up to `VOUCHED` groups. All cells of these are computed,
    and the next one is bounded again. A group that comes a second time is treated as it was the first time.
    """

    def __init__(self):
        self._decided: dict[int, bool] = {}  # by the group's first example in the order of work
        self._dense = 0  # examples in a row that were bounded in vain
        self._vouched = 0  # groups to come that are not bounded
        self._sought: dict[int, bool] = {}  # by the group's first example, whether a band is looked for
        self._vain = 0  # examples in a row that have none
        self._unsought = 0  # groups to come for which none is looked for

    def wanted(self, group: Group) -> bool:
        """Whether the group is bounded."""
        if group.begin not in self._decided:
            self._decided[group.begin] = not self._vouched
            self._vouched = max(0, self._vouched - 1)
        return self._decided[group.begin]

    def seeks(self, group: Group) -> bool:
        """Whether a band is looked for in a group that is bounded."""
        if group.begin not in self._sought:
            self._sought[group.begin] = not self._unsought
            self._unsought = max(0, self._unsought - 1)
        return self._sought[group.begin]

    def learn_band(self, group: Group, found: bool) -> None:
        """Whether any of the group's examples has a band, of a group that was looked at."""
        self._vain = 0 if found else self._vain + len(group.examples)
        self._unsought = min(VOUCHED, self._vain // WITNESSES)

    def learn(self, group: Group, cost: Cost) -> None:
        """What a group that was bounded has cost."""
        self._dense = self._dense + len(group.examples) if cost.everything else 0
        self._vouched = min(VOUCHED, self._dense // WITNESSES)


def dense(tiler: Tiler, group: Group) -> Cost:
    """The account of a group whose cells are all computed."""
    cells = cells_of(group)
    skipped, certificate = tiler.device.upload(tiler.space, np.zeros(len(cells)), np.zeros(len(cells)))
    return Cost(cells, cells, None, np.zeros(len(cells), np.int64), certificate, skipped)


def cells_of(group: Group) -> np.ndarray:
    """(examples,) cells of each lattice."""
    return np.diff(group.frames.offset[group.frames.starts])


def certify(
    tiler: Tiler,
    group: Group,
    state: CellState,
    cells,
    first_cell,
    beta,
    counts,
    *,
    lattice: Group,
    tolerance: float,
    probe: Callable[..., bool] | None = None,
    steps: StepScores | None = None,
) -> Cost | None:
    """Compute the cells of a group that may matter, and close all others.

    The sums over the computed cells are below the sums over all cells by `certificate` nats at most. On a GPU every
    round waits for the device once. If cells are left out, the last round is one that finds none.

    Parameters
    ----------
    tiler : Tiler
    group : Group
    state : CellState
        Filled, with scores where a cell is computed, and elsewhere with closed arcs and upper bounds.
    cells : (cells,) int64
        Scratch, which alpha uses as well.
    first_cell, beta, counts
        Scratch, as in `list_cells` and `select`.
    lattice : Group
        All cells of the lattices, of which `group` may hold a band.
    tolerance : float
        Largest certificate, in nats.
    probe : callable, optional
        `probe(cells, first_cell)` computes the cells that are listed first, in the place of `Tiler.score_listed`, or
        tells that it is not worth while. Then None is returned.
    steps : StepScores, optional
        Filled like `state`, where arcs take several frames.
    """
    bound_group(tiler, group, state, steps)
    count, floor = len(group.examples), tiler.problem.posterior_floor
    brackets = Brackets(*tiler.device.upload(tiler.space, *first_brackets(cells_of(lattice), floor)))
    added, listed = np.zeros(count, np.int64), 0  # (examples,) rounds that added cells; cells of all rounds
    # One memory for alpha and the list of cells. A round lists cells when it has read alpha, and the next sums anew.
    scratch = cells.view(np.float64), beta, cells, first_cell, counts
    moves, by_label = tiler.problem.targets.moves, tiler.topology.hat
    options: dict[str, Any] = {"by_label": by_label, "steps": steps}
    for found in rounds(group.device_frames, moves, state, *scratch, brackets, tolerance, **options):
        added += np.diff(found) > 0
        listed += int(found[-1])
        # The next round expects scores where this one has marked cells.
        if probe is None:
            tiler.score_listed(group, state, cells, found, steps)
        elif not probe(cells, found):
            return None
        probe = None
    own = cells_of(lattice)
    # What was listed is known on the host. `exact` may lie on a device.
    certified = own if 0 < listed == lattice.frames.cells else brackets.exact
    return Cost(own, certified, None, added, brackets.certificate, brackets.skipped)


def first_brackets(cells: np.ndarray, posterior_floor: float) -> Brackets:
    """Brackets of examples with so many cells (examples,), of which nothing is known yet, on the host."""
    count = len(cells)
    # A sum of logarithms, since the product may be 0.
    floor = math.log(MARGIN) + math.log(posterior_floor)
    return Brackets(
        lower=np.zeros(count),
        upper=np.zeros(count),
        # A negative one is not found yet.
        certificate=np.full(count, -1.0),
        log_floor=np.full(count, floor),
        exact=np.zeros(count, np.int64),
        skipped=np.zeros(count),
        cells=cells.astype(np.int64),
    )


def tolerance_of(dtype: np.dtype, posterior_floor: float) -> float:
    """Largest certificate in nats.

    Alignments that leave the computed cells may then weigh no more than one cell that is left out.
    """
    return min(TOLERANCE[dtype], posterior_floor)


def rounds(
    frames,
    moves: Moves,
    state: CellState,
    alpha,
    beta,
    cells,
    first_cell,
    counts,
    brackets: Brackets,
    tolerance: float,
    *,
    by_label: bool = False,
    steps: StepScores | None = None,
) -> Iterator[np.ndarray]:
    """Round by round, list the `cells` that are to be computed, and yield the `first_cell` (examples + 1,) of the list.

    The rounds are those of `marked_rounds`. An example whose cells are all listed has its certificate already, which
    is 0. The other parameters are as in `select` and `list_cells`.
    """

    def mark(number):
        probing, last = number == 0, number == ROUNDS - 1
        limits = {"probing": probing, "last": last, "tolerance": tolerance}
        select(frames, moves, state, alpha, beta, brackets, **limits, by_label=by_label, steps=steps)

    # One more round than marks cells. Where some are left out, only a round that finds none tells that no more join.
    return marked_rounds(mark, ROUNDS + 1, frames, state, cells, first_cell, counts)


def marked_rounds(
    mark: Callable[[int], None], most: int, frames, state: CellState, cells, first_cell, counts
) -> Iterator[np.ndarray]:
    """Mark cells and list them in turn, until every cell has been listed, or a round marks none.

    The caller computes the listed cells before it asks for the next round. On a GPU each round waits for the device.

    Parameters
    ----------
    mark : callable
        `mark(number)` marks the cells of `state` that round `number` is to compute.
    most : int
        Rounds after which it ends anyway.
    cells : (cells,) int64
        Filled in each round. It may be the memory of `alpha`, which `mark` makes anew.
    frames, first_cell, counts
        As in `list_cells`.

    Yields
    ------
    first_cell : (examples + 1,) int64, on the host
        Of the list, which holds one cell at least.
    """
    unlisted = len(cells)
    for number in range(most):
        mark(number)
        found = list_cells(frames, state.rest, cells, first_cell, counts, wanted=True)
        if not found[-1]:
            return
        yield found
        # A cell is listed once.
        unlisted -= int(found[-1])
        if not unlisted:
            return


def bound_group(tiler: Tiler, group: Group, state: CellState, steps: StepScores | None = None) -> None:
    """Fill the state of a group's cells with upper bounds on their scores, and mark cells that cannot be bounded."""
    space, problem, dtype = tiler.space, tiler.problem, tiler.work.dtype
    H = tiler.weight.shape[1]
    rounding = rounding_of(H, dtype, tiler.device.on_gpu)
    # Bounds make neither logits nor hidden vectors, so a run has as many cells as fit where those would lie.
    run = tiler.work.plan.tile * max(1, H * tiler.work.operand.itemsize // CELL_BYTES)
    for segment, layer in tiler.layers(group):
        with space.borrowed():
            norm, ceiling = space.take(len(layer.weight), dtype), space.take(3, dtype)  # (S,), (3,)
            measure(layer.weight, layer.bias, norm, ceiling)
            first, last = group.frames.cells_of(segment.begin, segment.end)
            for begin in range(first, last, run):
                with space.borrowed():
                    count = min(run, last - begin)
                    frame, slot, label_id, owner = tiler.place(group, begin, tiler.none, count)
                    cells = problem.activation, *group.inputs, frame, slot, label_id
                    output = layer.weight, layer.bias, norm, ceiling, rounding
                    here = state.at(slice(begin, begin + count))
                    if steps is not None:
                        heads = layer.blank_ids, tiler.topology.tail, begin
                        bound_steps(*cells, *heads, *output, tiler.topology.sigma, *here, steps.score)
                    else:
                        find = bound_hat if tiler.topology.hat else bound
                        find(*cells, layer.blank_id, *output, *here)
                    tiler.delay(group, frame, owner, tiler.none, here.rest, bounds=True)
