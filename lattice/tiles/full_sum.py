"""The sum over all alignments of a group: its loss, the cells that carry probability, and their gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..device.arrays import ALIGNMENT, computing_dtype
from ..inputs.joint import JointProblem
from ..kernels.certify import ROUNDING
from ..kernels.forward_backward import forward_sums, to_arc_posteriors
from ..kernels.gradient import gradient
from ..kernels.heads_gradient import gradient_steps
from ..kernels.locate import renumber
from ..kernels.occupied import compact
from ..kernels.occupied_hat import compact_hat
from ..kernels.padded import lay_out
from ..kernels.state import ArcPosteriors, CellState, Visited
from ..kernels.step_sums import StepScores
from .band import NARROW, Search, exit_posterior, leaving, refuse_too_large, share_of, win_back
from .certificate import BoundedGroups, Cost, cells_of, certify, dense, tolerance_of
from .gradients import Outputs, Pass, Rows, backward
from .groups import Group
from .plan import Work, plan_bands, seeks_band
from .tiler import Tiler

IN_BAND = 0.75
"""The share of a tolerance for what is left out in a band. The rest is for what leaves it."""


class Lattice(NamedTuple):
    """What is held of a group's lattices in the workspace while they are summed over.

    Attributes
    ----------
    state : CellState
    alpha : (cells,) float64
    cells : (cells,) int64
        Numbers of listed cells, in the memory of `alpha`. A list is read before the next sum fills alpha, and the last
        list is made once alpha has been read.
    first_cell : (examples + 1,) int64
        Place in the list of each example's first cell.
    beta, counts : (cells,) float64, (frames + 1,) int64
        Scratch on a GPU, None on the host.
    steps : StepScores, or None
        Of (D, cells), where arcs take several frames.
    """

    state: CellState
    alpha: np.ndarray
    cells: np.ndarray
    first_cell: np.ndarray
    beta: np.ndarray | None
    counts: np.ndarray | None
    steps: StepScores | None


class Forward(NamedTuple):
    """What a forward pass leaves: the cells that the backward pass visits, and what the forward pass cost.

    `blanks` are those of which only the blank's logit has a gradient that counts, with HAT; else None.
    `exit_posterior` (examples,) is there if it was asked for.
    """

    visited: Visited
    blanks: Visited | None
    cost: Cost
    exit_posterior: np.ndarray | None = None


def plan(problem: JointProblem, *, gradients: bool, limit: int, bands: bool = True) -> Work:
    """Share out a workspace of `limit` bytes for the sum over all alignments, with a backward pass or without.

    Where the cells of a lattice have no room, a band of them may have, if `bands` are allowed. That is known when it
    has been found, too late for a call that writes over its inputs.
    """
    real, hat = computing_dtype(problem.weight.dtype).itemsize, problem.targets.topology.hat  # bytes of a number
    steps = problem.targets.topology.steps.shape[1]

    def lattice_bytes(cells, order):
        # Of a cell: its state of four numbers, a number for each step, alpha, and on a GPU beta. `_take_lattice` takes
        # that.
        # With HAT also the blank's row of the output layer and of its gradient, and where it is.
        blank = (2 * problem.weight.shape[1] + 2) * 8 + 6 * ALIGNMENT
        return cells * ((4 + steps) * real + 8 + 8 * problem.device.on_gpu), hat * blank

    bands = bands and problem.posterior_floor > 0
    return plan_bands(problem, lattice_bytes, gradients=gradients, limit=limit, bands=bands)


def _take_lattice(tiler: Tiler, group: Group) -> Lattice:
    """Memory for a group's lattices, uninitialised; it is lent for as long as the group is worked on."""
    refuse_too_large(tiler, group)
    take, frames = tiler.space.take, group.frames
    cells, beta, counts = take(frames.cells, np.int64), None, None
    state = CellState.take(take, frames.cells, tiler.work.dtype)
    first_cell = take(len(group.examples) + 1, np.int64)
    if tiler.device.on_gpu:
        beta, counts = take(frames.cells, np.float64), take(len(frames.example) + 1, np.int64)
    return Lattice(state, cells.view(np.float64), cells, first_cell, beta, counts, tiler.steps(frames.cells))


class Summed(NamedTuple):
    """The lattices of a group behind the forward sums.

    `band` is the group with the cells that have a state, which are those of `lattice`.
    """

    band: Group
    lattice: Lattice
    cost: Cost


def _sum(tiler: Tiler, group: Group, log_z, bounded: BoundedGroups) -> Summed:
    """Fill in `log_z` of a group's examples, and compute the cells that may matter.

    All cells are computed if the floor is 0, or if bounds would hardly leave any out.
    """
    problem = tiler.problem
    # Where there is no room for all cells, a band is all that can be tried.
    must = tiler.work.room is not None
    if not (problem.posterior_floor and (bounded.wanted(group) or must)):
        lattice = _take_lattice(tiler, group)
        tiler.score_run(group, lattice.state, steps=lattice.steps)
        _sum_forward(tiler, group, lattice, log_z)
        return Summed(group, lattice, dense(tiler, group))
    tolerance = tolerance_of(tiler.work.dtype, problem.posterior_floor)
    wide = seeks_band(cells_of(group), np.diff(group.frames.starts), tiler.device.on_gpu)
    # A walk along a band knows two arcs a cell.
    if must or (wide and not tiler.step_table.size and bounded.seeks(group)):
        found = _sum_band(tiler, group, log_z, tolerance)
        bounded.learn_band(group, found is not None)
        if found is not None:
            return found
    lattice = _take_lattice(tiler, group)
    cost = _certify(tiler, group, group, lattice, tolerance)
    bounded.learn(group, cost)
    _sum_forward(tiler, group, lattice, log_z)
    return Summed(group, lattice, cost)


def _sum_band(tiler: Tiler, group: Group, log_z, tolerance: float) -> Summed | None:
    """`_sum` over a band of cells, outside of which nothing is computed. None where no example has one."""
    used, search = tiler.space.used, Search(tiler, group, tolerance)
    while search.band is not None:
        band, whole = search.band, search.whole  # (examples,)
        lattice, shares = _take_lattice(tiler, band), np.zeros(len(whole))

        def probe(listed, first_cell, lattice=lattice, whole=whole, shares=shares):
            shares[:] = win_back(tiler, search, lattice.state, listed, first_cell, NARROW)
            return bool((shares < NARROW).all())

        cost = _certify(tiler, band, group, lattice, IN_BAND * tolerance, probe if search.fresh else None)
        if cost is None:
            tiler.space.rewind(used)
            search.told(shares)
            continue
        _sum_forward(tiler, band, lattice, log_z)
        own = log_z[group.begin : group.end]  # (examples,)
        left = leaving(tiler, group, band, lattice.state, own, share_of(tolerance))  # (examples,) nats
        # A whole lattice has its bracket, and nothing leaves it.
        known = tiler.device.fetch(cost.certificate) if whole.any() else 0.0
        certificate = np.where(whole, known, np.log1p(np.exp(left)))
        # The bracket in the band knows sums no better than that.
        allowed = np.maximum(tolerance, ROUNDING * np.abs(tiler.device.fetch(own)))
        if not search.failed(left - np.log(allowed)):
            return Summed(band, lattice, cost._replace(certificate=certificate))
        tiler.space.rewind(used)
    tiler.space.rewind(used)
    return None


def _certify(tiler: Tiler, group: Group, whole: Group, lattice: Lattice, tolerance: float, probe=None):
    scratch = lattice.cells, lattice.first_cell, lattice.beta, lattice.counts
    options: dict[str, Any] = {"lattice": whole, "tolerance": tolerance, "probe": probe, "steps": lattice.steps}
    return certify(tiler, group, lattice.state, *scratch, **options)


def _sum_forward(tiler: Tiler, group: Group, lattice: Lattice, log_z) -> None:
    # A cell that was left out has -inf for both scores, so no alignment through it is in the sum.
    sums = lattice.alpha, log_z[group.begin : group.end], lattice.beta, lattice.steps
    forward_sums(group.device_frames, tiler.problem.targets.moves, *lattice.state.scores, *sums)


def loss(tiler: Tiler, group: Group, log_z, bounded: BoundedGroups) -> None:
    """Fill in `log_z` (N,) float64 of a group's examples, in the order of work. `bounded` is that of the pass."""
    _sum(tiler, group, log_z, bounded)


def _posteriors(tiler: Tiler, summed: Summed, log_z) -> ArcPosteriors:
    """Posteriors of the arcs of all cells that have a state, in the place of their scores."""
    band, lattice, _ = summed
    sums = lattice.alpha, log_z[band.begin : band.end], lattice.beta, lattice.steps
    return to_arc_posteriors(band.device_frames, tiler.problem.targets.moves, *lattice.state.scores, *sums)


def forward(tiler: Tiler, group: Group, log_z, bounded: BoundedGroups, *, exits: bool = False) -> Forward:
    """Fill in `log_z` (N,) float64 of a group's examples, in the order of work, and find their occupied cells.

    `bounded` is that of the pass, or that of an earlier pass over the same plan, whose decisions are then taken. What
    is returned lies in the workspace, and is good for as long as the group is worked on. With `exits` the alignments
    are weighed that leave the computed cells, also for cells that `bounds` close.
    """
    summed = _sum(tiler, group, log_z, bounded)
    own = log_z[group.begin : group.end]
    leave = exit_posterior(tiler, group, summed.band, summed.lattice.state, own) if exits else None
    posteriors = _posteriors(tiler, summed, log_z)
    band, lattice, cost = summed
    frames, floor, log_z = band.device_frames, tiler.problem.posterior_floor, log_z[group.begin : group.end]
    state, beta, count = lattice.state, lattice.beta, band.frames.cells
    # Alpha and beta have been read. `compact` lists cells in the memory of alpha, and moves arrays through beta's.
    spare = None if beta is None else beta.view(tiler.work.dtype)[:count]
    numbers = posteriors, state.maximum, state.rest
    places = lattice.cells, lattice.first_cell, cost.skipped_posterior, lattice.counts, spare
    if tiler.topology.hat:
        visited, blanks = compact_hat(frames, log_z, floor, *numbers, *places)
    else:
        steps = None if lattice.steps is None else lattice.steps.score
        visited, blanks = compact(frames, log_z, floor, *numbers, *places, steps), None
    if band is not group:
        # Behind this all cells are those of the whole lattice.
        for cells in (visited.cells, None if blanks is None else blanks.cells):
            if cells is not None:
                renumber(cells, frames, group.device_frames)
    return Forward(visited, blanks, cost, leave)


def arc_posteriors(tiler: Tiler, log_z):
    """Posteriors of blank and label arcs, two outputs (N, T, U+1), by a forward pass over all groups.

    Parameters
    ----------
    tiler : Tiler
    log_z : (N,) float64
        Filled in the order of work.
    """
    problem, dtype, device = tiler.problem, tiler.work.dtype, tiler.device
    shape = *problem.predictor.shape[:1], problem.encoder.shape[1], problem.predictor.shape[1]
    # Zeros for padding.
    found, bounded = (device.zeros(shape, dtype), device.zeros(shape, dtype)), BoundedGroups()
    for index in range(len(tiler.work.plan.groups)):
        with tiler.group(index) as group:
            summed, no_scale = _sum(tiler, group, log_z, bounded), tiler.space.take(0, dtype)
            posteriors = _posteriors(tiler, summed, log_z)
            # Of cells that were left out both posteriors are 0, or with HAT the label's.
            lay_out(summed.band.device_frames, group.device_examples, tiler.none, *posteriors, no_scale, *found)
    return found


class Held(NamedTuple):
    """What a forward pass hands on to backward passes over the same plan.

    Attributes
    ----------
    visited : dict
        From the number of a group to the `visited` and `blanks` of its `Forward`, copied out of the workspace. Other
        groups are computed again.
    bounded : BoundedGroups
        Has decided about every group.
    """

    visited: dict[int, tuple[Visited, Visited | None]]
    bounded: BoundedGroups


def hold(work: Work, log_z, room: int) -> Held:
    """Run a forward pass in a workspace of its own, and hold what a backward pass will ask for.

    Parameters
    ----------
    work : Work
    log_z : (N,) float64
        Filled in the order of work.
    room : int
        Bytes beyond the workspace. Groups whose visited cells do not fit are left to be computed again.
    """
    held, tiler = Held({}, BoundedGroups()), Tiler(work)
    for index in range(len(work.plan.groups)):
        with tiler.group(index) as group:
            visited, blanks, *_ = forward(tiler, group, log_z, held.bounded)
            cost = sum(array.nbytes for own in (visited, blanks) if own is not None for array in own.arrays)
            # A later group may still fit where this one does not.
            if cost <= room:
                held.visited[index] = _copied(visited), blanks and _copied(blanks)
                room -= cost
    return held


def _copied(visited: Visited) -> Visited:
    return Visited(*(array.copy() for array in visited.arrays))


def both_ways(log_z, grad_loss, fastemit_lambda: float, held: Held | None = None) -> Callable:
    """What `Pullback.run` is to do with each group: forward, unless its visited cells are held, and backward.

    Parameters
    ----------
    log_z : (N,) float64
        Filled in the order of work, except for groups that are held.
    grad_loss : (N,)
    fastemit_lambda : float
    held : Held, optional
        From a forward pass over the same plan.
    """
    visited_of, bounded = held or Held({}, BoundedGroups())

    def of_group(tiler: Tiler, index: int, group: Group, outputs: Outputs):
        rows_of, blanks_of = visited_of.get(index) or forward(tiler, group, log_z, bounded)[:2]

        def writer(visited: Visited) -> Callable[[Rows], None]:
            numbers = visited.blank_posterior, visited.label_posterior, visited.maximum, visited.rest  # (n,) each

            def write_rows(rows: Rows) -> None:
                tile, layer, known = rows.tile, rows.layer, [array[rows.part] for array in numbers]
                row = tiler.count_up[: len(tile.owner)]  # cell i of the tile has row i of its logits
                own, factors = (rows.logits, rows.target, row, layer.bias), (fastemit_lambda, rows.upstream)
                # `anew`: the logits come from another product than `rest`, over other rows, and are rounded otherwise.
                if visited.step_posterior is not None:
                    heads, steps = (layer.blank_ids, tiler.topology.tail), (visited.step_posterior, rows.part.start)
                    arcs = tile.label_id, tile.owner, *heads, *known[:2], *steps, *known[2:]
                    gradient_steps(*own, *arcs, *factors, anew=True)
                else:
                    arcs = tile.label_id, tile.owner, layer.blank_id, *known
                    gradient(*own, *arcs, *factors, anew=True, hat=tiler.topology.hat)

            return write_rows

        passes = [Pass(rows_of.first_cell, rows_of.cells, writer(rows_of))]
        if blanks_of is not None:
            passes.append(Pass(blanks_of.first_cell, blanks_of.cells, writer(blanks_of), blanks_alone=True))
        return backward(tiler, group, passes, grad_loss, outputs)

    return of_group
