"""The walk of the fused joint: tiles of cells forward, sums over alignments, tiles of occupied cells backward.

Neither the hidden vectors nor the logits of a batch ever exist: a tile of them is made, reduced to a few numbers a cell, and made
again in the backward pass for the cells that carry probability. All scratch memory is one `Workspace` under `memory_limit`.
Sample-wise computation after Braun, McDermott and Hsiao 2022; the unit here is a tile of cells, so that the memory depends on
neither T, U nor V.
"""

from typing import NamedTuple

import numpy as np

from . import layout
from .arrays import ALIGNMENT, Workspace, computing_dtype
from .inputs import JointProblem
from .kernels.emissions import emit
from .kernels.forward_backward import forward_backward
from .kernels.gather import gather, scatter
from .kernels.gradient import gradient
from .kernels.hidden import compute_hidden, hidden_transpose
from .kernels.locate import NO_CELLS, locate
from .kernels.occupied import compact

ARRAYS = 64
"""More pieces than the workspace is ever cut into: each may lose up to `ALIGNMENT` bytes."""


class Group(NamedTuple):
    """Examples worked on at once: their frames, and the rows their cells are made of."""

    examples: np.ndarray
    frames: layout.Frames
    encoder: np.ndarray
    predictor: np.ndarray
    encoder_row: np.ndarray
    predictor_row: np.ndarray
    frame_base: np.ndarray
    label_base: np.ndarray
    positions: np.ndarray


class Segment(NamedTuple):
    """Examples `begin` to `end` of a group share an output layer; `ids` are its rows of the whole weight, None for all."""

    begin: int
    end: int
    ids: np.ndarray | None
    blank: int
    weight: np.ndarray
    bias: np.ndarray


class Visited(NamedTuple):
    """Cells the backward pass visits: their numbers, the posteriors of their arcs, the parts of their normalisers."""

    cells: np.ndarray
    blank: np.ndarray
    label: np.ndarray
    maximum: np.ndarray
    total: np.ndarray


class Outputs(NamedTuple):
    """Gradients under way: of encoder and predictor in their dtypes, of weight and bias in the dtype that is computed in."""

    encoder: np.ndarray
    predictor: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


class JointTiles:
    """The tile loop over one problem.

    Parameters
    ----------
    problem : JointProblem
    gradients : bool
        Whether a backward pass will follow.
    limit : int
        Bytes of the workspace.
    """

    def __init__(self, problem: JointProblem, *, gradients: bool, limit: int):
        self.problem = problem
        self.dtype = dtype = computing_dtype(problem.weight.dtype)
        targets = problem.targets
        N, H, V = len(targets.blank), problem.weight.shape[1], problem.weight.shape[0]
        self.order = np.arange(N) if problem.encoder_index is None else np.argsort(problem.encoder_index, kind="stable")
        self.widened = problem.encoder.dtype != dtype
        S = V if problem.vocabulary is None else max((len(ids) for ids in problem.vocabulary), default=0)
        row = H * dtype.itemsize
        cells = layout.count_cells(self.order, targets.frame_lengths, targets.target_lengths, targets.monotonic, targets.bounds)
        rows = (targets.frame_lengths + targets.target_lengths + 1)[self.order]
        copies = int(self.widened) + int(gradients)
        state = cells * (8 + 4 * dtype.itemsize) + rows * (copies * row + layout.FRAME_BYTES)
        fixed = (2 + ARRAYS) * ALIGNMENT + 2 * V * dtype.itemsize + (problem.weight.dtype != dtype) * (1 + gradients) * V * row
        if problem.vocabulary is not None:
            fixed += (1 + gradients) * S * (row + dtype.itemsize)
        if gradients and problem.encoder_index is not None:
            fixed += problem.encoder.shape[1] * row
        tile_cell = 32 + (2 + S) * dtype.itemsize + (1 + gradients) * row
        self.plan = layout.plan(cells, state, tile_cell_bytes=tile_cell, block_row_bytes=row, block_rows=S if gradients else 0,
                                fixed_bytes=fixed, limit=limit)  # fmt: skip

    def open(self) -> None:
        """Allocate the workspace and what is held throughout."""
        problem, dtype = self.problem, self.dtype
        self.space = Workspace(self.plan.size)
        self.count_up = self.space.take(self.plan.tile, np.int64)
        self.count_up[:] = np.arange(self.plan.tile)
        self.ones = self.space.take(self.plan.tile, dtype)
        self.ones[:] = 1
        self.weight, self.bias = problem.weight, problem.bias
        if problem.weight.dtype != dtype:
            self.weight = self.space.take(problem.weight.shape, dtype)
            self.weight[:] = problem.weight
        if problem.bias is None or problem.bias.dtype != dtype:
            self.bias = self.space.take(len(self.weight), dtype)
            self.bias[:] = 0 if problem.bias is None else problem.bias
        self.base = self.space.used

    def hold(self, shape) -> np.ndarray:
        """An array that stays for as long as the workspace does."""
        self.space.release(self.base)
        array = self.space.take(shape, self.dtype)
        self.base = self.space.used
        return array

    def group(self, index: int) -> Group:
        """Number the cells of a group and, for half precision, widen its rows."""
        self.space.release(self.base)
        problem, targets = self.problem, self.problem.targets
        examples = self.order[slice(*self.plan.groups[index])]
        frames = layout.frames_of(examples, targets.frame_lengths, targets.target_lengths, targets.monotonic, targets.bounds)
        source = examples if problem.encoder_index is None else problem.encoder_index[examples]
        T_max, U1 = problem.encoder.shape[1], problem.predictor.shape[1]
        encoder_row = source[frames.example] * T_max + frames.t
        counts = frames.labels.astype(np.int64) + 1
        label_base = np.cumsum(counts) - counts
        owner = np.repeat(np.arange(len(examples)), counts)
        predictor_row = examples[owner] * U1 + np.arange(len(owner)) - label_base[owner]
        H = self.weight.shape[1]
        encoder, predictor = problem.encoder.reshape(-1, H), problem.predictor.reshape(-1, H)
        if self.widened:
            encoder, encoder_row = self._widen(encoder, encoder_row, frames.starts)
            predictor, predictor_row = self._widen(predictor, predictor_row, np.append(label_base, len(owner)))
        return Group(examples, frames, encoder, predictor, encoder_row, predictor_row, np.arange(len(encoder_row)), label_base,
                     targets.positions[examples])  # fmt: skip

    def _widen(self, source, rows, starts):
        wide = self.space.take((len(rows), source.shape[1]), self.dtype)
        for begin, end in zip(starts[:-1], starts[1:]):
            wide[begin:end] = source[rows[begin] : rows[begin] + end - begin]
        return wide, np.arange(len(rows))

    def segments(self, group: Group):
        """Split a group where the vocabulary changes; the rows of a vocabulary are gathered for as long as it is in use."""
        problem = self.problem
        blanks = problem.targets.blank[group.examples]
        if problem.vocabulary is None:
            if len(blanks):
                yield Segment(0, len(group.examples), None, int(blanks[0]), self.weight, self.bias)
            return
        ids = [problem.vocabulary[n] for n in group.examples]
        begin = 0
        while begin < len(ids):
            end = begin + 1
            while end < len(ids) and np.array_equal(ids[end], ids[begin]):
                end += 1
            mark = self.space.used
            weight = self.space.take((len(ids[begin]), self.weight.shape[1]), self.dtype)
            bias = self.space.take(len(ids[begin]), self.dtype)
            gather(self.weight, ids[begin], weight)
            gather(self.bias[:, None], ids[begin], bias[:, None])
            yield Segment(begin, end, ids[begin], int(blanks[begin]), weight, bias)
            self.space.release(mark)
            begin = end

    def _hidden(self, group: Group, start: int, cells: np.ndarray, count: int):
        """(frame, slot, label, owner, hidden) of a tile."""
        take = self.space.take
        frame, slot, label, owner = take(count, np.int64), take(count, np.int64), take(count, np.int32), take(count, np.int32)
        hidden = take((count, self.weight.shape[1]), self.dtype)
        locate(start, cells, group.frames, group.positions, group.frame_base, group.label_base, frame, slot, label, owner)
        compute_hidden(self.problem.activation, group.encoder, group.predictor, group.encoder_row, group.predictor_row, frame,
                       slot, hidden)  # fmt: skip
        return frame, slot, label, owner, hidden

    def forward(self, group: Group, loss: np.ndarray, *, posteriors: bool) -> Visited | None:
        """Fill in the losses of a group and return its occupied cells, which lie in the workspace."""
        space, frames = self.space, group.frames
        cells = space.take(frames.cells, np.int64)
        state = Visited(cells, *(space.take(frames.cells, self.dtype) for _ in range(4)))
        for segment in self.segments(group):
            first, last = frames.cells_of(segment.begin, segment.end)
            for begin in range(first, last, self.plan.tile):
                mark = space.used
                tile = slice(begin, min(begin + self.plan.tile, last))
                count = tile.stop - begin
                _, _, label, _, hidden = self._hidden(group, begin, NO_CELLS, count)
                logits = space.take((count, len(segment.weight)), self.dtype)
                np.matmul(hidden, segment.weight.T, out=logits)
                emit(logits, segment.bias, self.count_up[:count], label, segment.blank, state.blank[tile], state.label[tile],
                     state.maximum[tile], state.total[tile])  # fmt: skip
                space.release(mark)
        log_z = np.empty(len(group.examples))
        forward_backward(frames, self.problem.targets.monotonic, state.blank, state.label, cells.view(np.float64), log_z,
                         posteriors=posteriors)  # fmt: skip
        loss[group.examples] = -log_z
        if not posteriors:
            return None
        count = compact(frames, log_z, self.problem.posterior_floor, *state[1:], cells)
        return Visited(*(array[:count] for array in state))

    def backward(self, group: Group, visited: Visited, fastemit_lambda: float, grad_loss: np.ndarray, outputs: Outputs):
        """Add a group's gradients to those of weight and bias; return those of its frames and of its label positions."""
        space, H = self.space, self.weight.shape[1]
        grad_encoder = space.take((len(group.encoder_row), H), self.dtype)
        grad_predictor = space.take((len(group.predictor_row), H), self.dtype)
        grad_encoder[:], grad_predictor[:] = 0, 0
        upstream = grad_loss[group.examples]
        for segment in self.segments(group):
            mark = space.used
            grad_weight, grad_bias = outputs.weight, outputs.bias
            if segment.ids is not None:
                grad_weight, grad_bias = (space.take(like.shape, self.dtype) for like in (segment.weight, segment.bias))
                grad_weight[:], grad_bias[:] = 0, 0
            first, last = np.searchsorted(visited.cells, group.frames.cells_of(segment.begin, segment.end))
            for begin in range(first, last, self.plan.tile):
                inner = space.used
                tile = Visited(*(array[begin : min(begin + self.plan.tile, last)] for array in visited))
                count = len(tile.cells)
                frame, slot, label, owner, hidden = self._hidden(group, 0, tile.cells, count)
                logits = space.take((count, len(segment.weight)), self.dtype)
                np.matmul(hidden, segment.weight.T, out=logits)
                gradient(logits, logits, self.count_up[:count], segment.bias, label, owner, segment.blank,
                         *tile[1:], fastemit_lambda, upstream)  # fmt: skip
                grad_hidden = space.take((count, H), self.dtype)
                np.matmul(logits, segment.weight, out=grad_hidden)
                self._add_weight(logits, hidden, grad_weight, grad_bias)
                hidden_transpose(self.problem.activation, hidden, grad_hidden, frame, slot, grad_encoder, grad_predictor)
                space.release(inner)
            if segment.ids is not None:
                scatter(grad_weight, segment.ids, outputs.weight)
                scatter(grad_bias[:, None], segment.ids, outputs.bias[:, None])
            space.release(mark)
        return grad_encoder, grad_predictor

    def _add_weight(self, grad_logits, hidden, grad_weight, grad_bias) -> None:
        part = self.space.take((min(self.plan.block, grad_logits.shape[1]), hidden.shape[1]), self.dtype)
        for begin in range(0, grad_logits.shape[1], self.plan.block):
            rows = slice(begin, begin + self.plan.block)
            here = part[: len(grad_weight[rows])]
            np.matmul(grad_logits[:, rows].T, hidden, out=here)
            grad_weight[rows] += here
        grad_bias += np.matmul(self.ones[: len(grad_logits)], grad_logits)
