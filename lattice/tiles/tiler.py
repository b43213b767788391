"""The bottom of the fused joint: a workspace, and tiles of cells whose hidden vectors and scores are made in it.

Neither the hidden vectors nor the logits of a batch ever exist. A tile of them is made and reduced to a few numbers a
cell. The backward pass makes it again for the cells that carry probability. All scratch memory is one `Workspace` under
`memory_limit`. Computation is sample-wise in Braun, McDermott and Hsiao 2022. Here the unit is a tile of cells, so that
no array of all cells by H or by V exists, not even for one example.

A `Tiler` knows cells and rows, and nothing of sums over alignments. Sums are functions over it, in full_sum.py,
certificate.py and path.py.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..device.workspace import Workspace
from ..kernels.activations import Activation
from ..kernels.delay import delay
from ..kernels.emissions import emit
from ..kernels.halves import Halves, split, terms
from ..kernels.heads import emit_steps
from ..kernels.hidden import compute_hidden
from ..kernels.locate import locate
from ..kernels.rows import NO_IDS, cast, gather
from ..kernels.state import CellState
from ..kernels.step_sums import StepScores
from .groups import Group, Segment, make_group, segments
from .plan import Work


class Layer(NamedTuple):
    """The output layer of a segment.

    Attributes
    ----------
    weight, bias : (S, H), (S,)
        Rows in the dtype of matrix products.
    blank_id : int
        The blank's position.
    operand : (S, H)
        The rows as `Tiler.product` takes them.
    blank_ids : (1 + K,) int64
        Positions of all blanks, where arcs take several frames.
    """

    weight: np.ndarray
    bias: np.ndarray
    blank_id: int
    operand: np.ndarray | Halves
    blank_ids: np.ndarray | None = None


class Tile(NamedTuple):
    """Where n cells lie, and their hidden vectors.

    Attributes
    ----------
    frame, slot : (n,) int64
        Number of the frame and of the label position of each cell within the group.
    label_id : (n,) int32
        Position of its label in the output layer, -1 where no label is left.
    owner : (n,) int32
        Its example within the group.
    hidden : (n, H)
        In the dtype of matrix products.
    operand : (n, H)
        The same as `Tiler.product` takes them.
    """

    frame: np.ndarray
    slot: np.ndarray
    label_id: np.ndarray
    owner: np.ndarray
    hidden: np.ndarray
    operand: np.ndarray | Halves


class Tiler:
    """Workspace, segments, hidden vectors and scores of the tiles of one pass over a problem.

    Parameters
    ----------
    work : Work
        The workspace that it plans is allocated here, and lives as long as this object.
    """

    def __init__(self, work: Work):
        self.work, self.problem, self.device = work, work.problem, work.device
        self.topology = work.problem.targets.topology
        problem, plan = work.problem, work.plan
        self.space = Workspace(plan.space, work.device, plan.least)
        take, ones = self.space.take, np.ones(plan.tile, work.operand)
        # (tile,) 0, 1, ... for rows in order, (tile,) ones to sum rows by a product, (0,) for cells without a list.
        self.count_up, self.ones, self.none = self.device.upload(self.space, np.arange(plan.tile), ones, NO_IDS)
        # (2, D) of arcs that take several frames; D is 0 for topologies with two arcs a cell.
        self.step_table = self.topology.steps
        if self.step_table.shape[1]:
            (self.step_table,) = self.device.upload(self.space, self.step_table)
        if self.topology.hat:
            (self.blank_row,) = self.device.upload(self.space, problem.blank_rows)  # (1,) or (0,), without targets
        # (V, H), (V,) the arguments themselves where their dtypes allow it, or copies for the whole pass.
        self.weight = self.device.view(problem.weight)
        self.bias = None if problem.bias is None else self.device.view(problem.bias)
        if problem.weight.dtype != work.operand:
            self.weight = take(problem.weight.shape, work.operand)
            cast(problem.weight, self.weight)
        if problem.bias is None or problem.bias.dtype != work.dtype:
            self.bias = take(len(self.weight), work.dtype)
            if problem.bias is None:
                self.bias.fill(0)
            else:
                cast(problem.bias, self.bias)
        # (V, H) for the whole pass. Rows of a vocabulary are split as they are gathered.
        self.whole = self.weight if problem.vocabulary is not None else self.operand(self.weight)

    @contextlib.contextmanager
    def group(self, index: int) -> Iterator[Group]:
        """Number the cells of a group. What is taken of the workspace for a group is free once the group is done."""
        with self.space.borrowed():
            work = self.work
            yield make_group(self.problem, work.order, *work.plan.groups[index], work.factored, self.space)

    @contextlib.contextmanager
    def layer(self, segment: Segment) -> Iterator[Layer]:
        """The output layer of a segment. The rows of a vocabulary are gathered for as long as the segment is in use."""
        if segment.ids is None:
            yield Layer(self.weight, self.bias, segment.blank_id, self.whole, segment.blank_ids)
            return
        with self.space.borrowed():
            weight = self.space.take((len(segment.ids), self.weight.shape[1]), self.weight.dtype)
            bias = self.space.take(len(segment.ids), self.bias.dtype)
            gather(self.weight, segment.ids, weight)
            # Seen as rows of one number, since `gather` moves rows.
            gather(self.bias.reshape(-1, 1), segment.ids, bias.reshape(-1, 1))
            yield Layer(weight, bias, segment.blank_id, self.operand(weight), segment.blank_ids)

    def layers(self, group: Group, span: tuple[int, int] | None = None) -> Iterator[tuple[Segment, Layer]]:
        """Each segment of a group, or of a span of its cells, with its output layer, one after the other."""
        for segment in segments(group, self.problem, span):
            with self.layer(segment) as layer:
                yield segment, layer

    def blank_layer(self, group: Group) -> Iterator[tuple[Segment, Layer]]:
        """The whole group with the blank's row of the output layer alone, at position 0. Only with HAT."""
        segment = Segment(0, len(group.examples), self.blank_row, 0)
        with self.layer(segment) as layer:
            yield segment, layer

    def tiles(self, first: int, last: int) -> Iterator[slice]:
        """Cut a run of cells, or of places in a list of cells, into tiles. What a tile takes is free behind it."""
        for begin in range(first, last, self.work.plan.tile):
            with self.space.borrowed():
                yield slice(begin, min(begin + self.work.plan.tile, last))

    def place(self, group: Group, start: int, cells, count: int):
        """(frame, slot, label_id, owner) of `count` cells, as in `Tile`.

        `cells` (count,) int64 lists them, ascending. If it is empty, they are a run from `start` on.
        """
        take = self.space.take
        placed = take(count, np.int64), take(count, np.int64), take(count, np.int32), take(count, np.int32)
        locate(start, cells, group.device_frames, group.positions, group.frame_base, group.label_base, *placed)
        return placed

    def hidden(self, group: Group, start: int, cells, count: int) -> Tile:
        """Locate cells as `place` does, and make their hidden vectors (n, H)."""
        frame, slot, label_id, owner = self.place(group, start, cells, count)
        hidden = self.space.take((count, self.weight.shape[1]), self.work.operand)
        compute_hidden(self.problem.activation, *group.inputs, frame, slot, hidden)
        return Tile(frame, slot, label_id, owner, hidden, self.operand(hidden))

    def slopes(self, group: Group, tile: Tile) -> Activation:
        """What leads from a tile's hidden vectors to the slopes of the activation.

        Where its slope does not follow from its value, `tile.hidden` is filled with slopes. Nobody may want its values
        any more.
        """
        activation = self.problem.activation
        if activation.slope is None:
            return activation
        compute_hidden(activation.slope, *group.inputs, tile.frame, tile.slot, tile.hidden)
        return activation.slope

    def operand(self, matrix, high=None):
        """A matrix as `product` takes it: itself, or split in two, in memory that is taken here.

        The upper half goes into `high`, if that is given. It may be the matrix.
        """
        if not self.work.halved:
            return matrix
        high = self.space.take(matrix.shape, matrix.dtype) if high is None else high
        return split(matrix, high, self.space.take(matrix.shape, matrix.dtype))

    def product(self, a, b, out, *, add: bool = False) -> None:
        """out = a @ b, or out += a @ b, of matrices from `operand`, their transposed views, or ones."""
        if self.work.halved:
            for number, (one, other) in enumerate(terms(a, b)):
                self.device.matmul(one, other, out, add or number > 0, tf32=True)
        elif add:
            self.device.add_matmul(a, b, out, self.space, self.work.plan.block)
        else:
            self.device.matmul(a, b, out)

    def logits(self, tile: Tile, layer: Layer):
        """(n, S) the logits of a tile, without the bias, which is added where they are read."""
        logits = self.space.take((len(tile.hidden), len(layer.weight)), self.work.dtype)
        self.product(tile.operand, layer.operand.T, logits)
        return logits

    def steps(self, count: int) -> StepScores | None:
        """Memory for the scores of steps of so many cells; None for topologies with two arcs a cell."""
        D = self.step_table.shape[1]
        return StepScores(self.step_table, self.space.take((D, count), self.work.dtype)) if D else None

    def score_run(
        self, group: Group, state: CellState, span: tuple[int, int] | None = None, steps: StepScores | None = None
    ) -> None:
        """Compute all cells of a group, or a run of them.

        Parameters
        ----------
        group : Group
        state : CellState
            Filled here. Its arrays begin at the first cell of the run.
        span : pair of int, optional
            First cell of the run and the cell behind its last. All cells by default.
        steps : StepScores, optional
            Filled like `state`.
        """
        low, high = span or (0, group.frames.cells)
        for segment, layer in self.layers(group, span):
            first, last = group.frames.cells_of(segment.begin, segment.end)
            # Of a segment that the span cuts, only the part inside.
            for run in self.tiles(max(first, low), min(last, high)):
                here = state.at(slice(run.start - low, run.stop - low))
                self._score(group, layer, run.start, self.none, run.stop - run.start, here, steps, run.start - low)

    def score_listed(self, group: Group, state: CellState, cells, first_cell, steps: StepScores | None = None) -> None:
        """Compute listed cells of a group.

        Parameters
        ----------
        group : Group
        state : CellState
            Of all cells of the group, as `bound_group` has filled it. Filled in where a cell is listed, and left as it
            is elsewhere.
        cells, first_cell : (n,) int64, (examples + 1,) int64
            From `list_cells`.
        steps : StepScores, optional
            As `state`.
        """
        for segment, layer in self.layers(group):
            for part in self.tiles(int(first_cell[segment.begin]), int(first_cell[segment.end])):
                self._score(group, layer, 0, cells[part], part.stop - part.start, state, steps, bounded=True)

    def _score(
        self, group: Group, layer: Layer, start: int, cells, count: int, state: CellState, steps: StepScores | None,
        column: int = 0, *, bounded: bool = False,
    ) -> None:  # fmt: skip
        """Compute one tile of cells, as `place` takes them. Listed cells go to their own places in `state`.

        Those of a run go to the columns of `steps` from `column` on. `bounded` tells that the state holds what
        `bound_group` has made of the cells.
        """
        tile = self.hidden(group, start, cells, count)
        logits = self.logits(tile, layer)
        rows, hat = (logits, layer.bias, self.count_up[:count]), self.topology.hat
        # The CPU adds the bias to the logits in place. They are scratch, and nobody reads them again.
        if steps is not None:
            heads = layer.blank_ids, self.topology.tail, self.topology.sigma
            emit_steps(*rows, cells, column, tile.label_id, *heads, *state, steps.score)
        else:
            emit(*rows, cells, tile.label_id, layer.blank_id, *state, hat=hat, blank_known=hat and bounded)
        self.delay(group, tile.frame, tile.owner, cells, state.label_score, bounds=False)

    def delay(self, group: Group, frame, owner, cells, target, *, bounds: bool) -> None:
        """Take the delay penalty off the label scores in `target`, or off the rests of bounded cells."""
        if self.topology.delay_penalty:
            starts = group.device_frames.starts
            delay(frame, owner, starts, cells, self.topology.delay_penalty, target, bounds=bounds)
