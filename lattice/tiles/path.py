"""Paths through the lattices of a joint problem: loss and gradients along a given one, and the search for the best."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from ..device.arrays import ALIGNMENT, computing_dtype
from ..inputs.joint import JointProblem
from ..kernels.best_path import best_path, bit_bytes, extend, path_memory
from ..kernels.marking import open_all
from ..kernels.narrow import narrow
from ..kernels.path_rows import path_rows, sum_rows
from ..kernels.rows import cast
from ..kernels.state import CellState
from ..kernels.step_path import best_step_path
from ..layout import WorkspaceTooSmall
from .band import HOPELESS, Search, leaving, refuse_too_large, win_back
from .certificate import bound_group, cells_of, marked_rounds
from .gradients import Outputs, Pass, Rows, backward
from .groups import Group
from .plan import Work, plan_bands, plan_work, seeks_band
from .tiler import Tiler

ROUNDS = 6
"""Rounds of the search after which the cells that an example still lacks are computed without more proofs."""
SURE = 1e-4
"""A band for the search ends where alignments beside it weigh about this share."""
TIE = 1e-6
"""Nats within which two alignments are taken for equal. Sums along both are known better."""


def plan_along(problem: JointProblem, *, labels_alone: bool = False) -> Work:
    """Share out the workspace for a problem whose lattices have only the cells of one path each, for `along`."""
    real = computing_dtype(problem.weight.dtype).itemsize  # bytes of a number

    def lattice_bytes(cells, order):
        # Of a cell: its number, whether the path leaves it by its label, and its loss. Once: a bias.
        bias = len(problem.weight) * real + ALIGNMENT
        return cells * (8 + 1 + real) + 3 * ALIGNMENT, labels_alone * bias

    return plan_work(problem, lattice_bytes, gradients=True, limit=problem.memory_limit)


def along(
    log_z, grad_loss, *, label_smoothing: float = 0.0, label_scale: float = 0.0, focal: float = 0.0,
    labels_alone: bool = False,
) -> Callable:  # fmt: skip
    """What `Pullback.run` is to do with each group: find the loss of each path, and its gradients.

    A path has nothing to sum over, so there is no forward pass. Losses come with the gradient rows.

    Parameters
    ----------
    log_z : (N,) float64
        Filled with minus the losses, in the order of work.
    grad_loss : (N,)
    label_smoothing, label_scale, focal : float
        As in `joint_path_loss_and_grad`.
    labels_alone : bool
        Only cells that the path leaves by a label have a row, and the blank is no id of their softmax.
    """

    def of_group(tiler: Tiler, index: int, group: Group, outputs: Outputs):
        frames = group.frames
        first_cell = frames.offset[frames.starts]  # (examples + 1,)
        # (cells,) the label position of each cell, and of the cell after it, to which the path goes on.
        u = np.repeat(frames.first - frames.offset[:-1], np.diff(frames.offset)) + np.arange(frames.cells)
        following = np.append(u[1:], 0)
        # After its last cell an example has emitted all of its labels.
        following[first_cell[1:] - 1] = frames.labels
        emits = (following > u).view(np.uint8)  # (cells,) whether the path leaves the cell by its label
        cells = np.flatnonzero(emits) if labels_alone else np.arange(frames.cells)  # (n,) cells that are listed
        first_cell, emits = np.searchsorted(cells, first_cell), emits[cells]
        # The places of first cells are needed on both sides: to cut tiles, and to sum losses.
        cells, emits, on_device = tiler.device.upload(tiler.space, cells, emits, first_cell)
        loss = tiler.space.take(len(cells), tiler.work.dtype)  # (n,) nats
        closed = _without_blank(tiler) if labels_alone else None  # (V,)

        def write_rows(rows: Rows) -> None:
            tile, layer = rows.tile, rows.layer
            arcs = tile.label_id, emits[rows.part], tile.owner, layer.blank_id
            weights = label_scale, label_smoothing, focal
            bias, hat = layer.bias if closed is None else closed, tiler.topology.hat
            path_rows(rows.logits, rows.target, bias, *arcs, *weights, rows.upstream, loss[rows.part], hat=hat)

        gradients = backward(tiler, group, [Pass(first_cell, cells, write_rows)], grad_loss, outputs)
        sum_rows(on_device, loss, log_z[group.begin : group.end])
        return gradients

    return of_group


def _without_blank(tiler: Tiler):
    """(V,) the bias of a problem without vocabularies, with -inf for the blank: no probability, and no gradient."""
    bias, blank_id = tiler.space.take(len(tiler.bias), tiler.bias.dtype), int(tiler.problem.targets.blank_id[0])
    cast(tiler.bias, bias)
    bias[blank_id : blank_id + 1].fill(-np.inf)
    return bias


def plans_best(problem: JointProblem) -> Iterator[tuple[Work, int | None]]:
    """Share out the workspace for the search of the best alignment, in one way after the other, until one has done.

    Yields
    ------
    work : Work
    run : int or None
        None where the state of all cells of an example has room, or that of a band. Else this many cells are worked on
        at once.
    """
    real = computing_dtype(problem.weight.dtype).itemsize
    T, U = problem.targets.frame_lengths, problem.targets.target_lengths
    widest, steps = int(U.max(initial=0)), problem.targets.topology.steps.shape[1]
    left = 32 * (widest + 1)  # bytes of `left` of best_path.py: 2 frames, 2 arcs, 8 bytes

    def whole(cells, order):
        # Of a cell: its state, a number for each step, alpha and beta.
        return cells * ((4 + steps) * real + 16) + bit_bytes(cells, T[order]) + left + 16 * T[order] + 8 * ALIGNMENT, 0

    if steps:
        # A walk over all cells looks back by as many frames as an arc may take.
        yield plan_work(problem, whole, gradients=False, limit=problem.memory_limit), None
        return
    # A band of which the workspace has no room, or that is not enough, is told by `WorkspaceTooSmall`.
    with contextlib.suppress(WorkspaceTooSmall):
        work = plan_bands(problem, whole, gradients=False, limit=problem.memory_limit, bands=True)
        yield work, None
        if work.room is None:
            return
    frame = widest + 1  # most cells of a frame

    def in_runs(run):
        def lattice_bytes(cells, order):
            # Of an example its bits and `left`. The state of a run is taken once for all.
            return bit_bytes(cells, T[order]) + left + 2 * ALIGNMENT, min(run, int(cells.sum())) * 4 * real

        return plan_work(problem, lattice_bytes, gradients=False, limit=problem.memory_limit), run

    # Long runs where they have room. In the smallest workspace a run has the cells of one frame.
    try:
        yield in_runs(max(frame, problem.memory_limit // (8 * 4 * real)))
    except WorkspaceTooSmall:
        yield in_runs(frame)


def best(tiler: Tiler, group: Group, run: int | None, score, frames) -> None:
    """Find the best alignments of a group. On a GPU, `run` of None waits once for each round of the search.

    Parameters
    ----------
    tiler : Tiler
    group : Group
    run : int or None
        From `plans_best`.
    score : (N,) float64
        Filled in the order of work with the log-probabilities in nats.
    frames : (N, U) int32
        Set to the frame of each label, where there is an alignment.

    Raises
    ------
    WorkspaceTooSmall
        There is room for a band only, and none is enough.
    """
    found = group.device_examples, score[group.begin : group.end], frames
    if tiler.step_table.size:
        _with_steps(tiler, group, found)
        return
    lattices = cells_of(group), np.diff(group.frames.starts)
    seeks = tiler.work.room is not None or seeks_band(*lattices, tiler.device.on_gpu)
    if run is None and seeks and _in_band(tiler, group, found):
        return
    refuse_too_large(tiler, group)
    left, bits = _memory(tiler, group)
    if run is None:
        _narrowed(tiler, group, left, bits)
    else:
        _in_runs(tiler, group, run, left, bits)
    # The walk has passed all frames, so `left` holds what the last frame hands on.
    best_path(group.device_frames, tiler.problem.targets.moves, left, bits, *found)


def _memory(tiler: Tiler, group: Group):
    own = group.frames
    return path_memory(tiler.space.take, len(group.examples), own.widest, own.cells, len(own.example))


def _in_band(tiler: Tiler, group: Group, found: tuple) -> bool:
    """Search a band, and tell whether the best alignments are found: no alignment that leaves it is as good."""
    used, search = tiler.space.used, Search(tiler, group, SURE)
    while search.band is not None:
        band = search.band
        refuse_too_large(tiler, band)
        memory, shares = _memory(tiler, band), np.zeros(len(band.examples))

        def probe(state, listed, first_cell, shares=shares):
            shares[:] = win_back(tiler, search, state, listed, first_cell, HOPELESS)
            return bool((shares < HOPELESS).all())

        # Where all cells have no room, there is nothing else to hope for.
        tries = search.fresh and tiler.work.room is None
        known = _narrowed(tiler, band, *memory, probe if tries else None)
        if known is None:
            tiler.space.rewind(used)
            search.told(shares)
            continue
        # What is let go is below a tie, with room for what it may weigh more (`reach.finish`).
        share = -TIE - 4 * float(np.finfo(tiler.work.dtype).eps) * float(group.frames.arcs.max(initial=0))
        # NaN, too, is a failure: no alignment runs inside of the band.
        if not search.failed(leaving(tiler, group, band, *known, share, largest=True) + TIE / 2):
            best_path(band.device_frames, tiler.problem.targets.moves, *memory, *found)
            return True
        tiler.space.rewind(used)
    tiler.space.rewind(used)
    return False


def _narrowed(tiler: Tiler, group: Group, left, bits, probe: Callable | None = None) -> tuple | None:
    """Walk over the cells that the best alignment may visit. Upper bounds narrow them down to a few computed ones.

    Returns
    -------
    state, best : CellState, (examples,) float64
        The scores of the best alignments. None, and nothing is walked over, where `probe` says no.
    """
    frames, moves, count = group.device_frames, tiler.problem.targets.moves, len(group.frames.example)
    known = _searched(tiler, group, probe)
    if known is None:
        return None
    state, best_score, _, _ = known
    # Cells that kept their upper bounds are walked over too, but the best alignment visits none of them.
    extend(frames, 0, count, 0, len(group.examples), moves, *state.scores, left, bits)
    return state, best_score


def _with_steps(tiler: Tiler, group: Group, found: tuple) -> None:
    """Search the best alignments where arcs take several frames."""
    state, _, alpha, steps = _searched(tiler, group, None)
    best_step_path(group.device_frames, steps, *state.scores, alpha, *found)


def _searched(tiler: Tiler, group: Group, probe: Callable | None) -> tuple | None:
    """Compute cells until the best alignment visits computed ones alone.

    Returns
    -------
    state, best, alpha, steps : CellState, (examples,) float64, (cells,) float64, StepScores or None
        The scores of all cells, which are upper bounds where a cell is not computed; the scores of the best alignments;
        scratch. None where `probe` says no.
    """
    take, cells, examples = tiler.space.take, group.frames.cells, len(group.examples)
    frames, moves, count = group.device_frames, tiler.problem.targets.moves, len(group.frames.example)
    state, steps = CellState.take(take, cells, tiler.work.dtype), tiler.steps(cells)
    alpha, beta = take(cells, np.float64), take(cells, np.float64)
    computed, counts, first_cell = take(examples, np.int64), take(count + 1, np.int64), take(examples + 1, np.int64)
    best_score = take(examples, np.float64)
    computed.fill(0)
    bound_group(tiler, group, state, steps)
    # From here on a cell that is not computed has its upper bounds for scores, and is in every sum.
    open_all(frames, state)

    def mark(number):
        narrow(frames, moves, state, alpha, beta, best_score, computed, last=number == ROUNDS - 1, steps=steps)

    # Cells are listed in the memory of alpha, which the next round makes anew.
    listed = alpha.view(np.int64)
    for found in marked_rounds(mark, ROUNDS, frames, state, listed, first_cell, counts):
        if probe is None:
            tiler.score_listed(group, state, listed, found, steps)
        elif not probe(state, listed, found):
            return None
        probe = None
    return state, best_score, alpha, steps


def _in_runs(tiler: Tiler, group: Group, run: int, left, bits) -> None:
    """Walk over all cells, some frames at a time. The walk only moves forward, and keeps one bit of every cell."""
    frames, dtype, low = group.frames, tiler.work.dtype, 0
    offset, count, moves = frames.offset, len(frames.example), tiler.problem.targets.moves
    while low < count:
        # `high` is behind the last frame whose cells still fit. One frame always fits: a run holds the widest frame.
        high = int(np.searchsorted(offset, offset[low] + run, side="right")) - 1
        # The examples of the run, which may cut the first and the last of them, and its cells.
        since, until = int(frames.example[low]), int(frames.example[high - 1]) + 1
        span = int(offset[low]), int(offset[high])
        with tiler.space.borrowed():
            state = CellState.take(tiler.space.take, span[1] - span[0], dtype)
            tiler.score_run(group, state, span)
            extend(group.device_frames, low, high, since, until, moves, *state.scores, left, bits)
        low = high
