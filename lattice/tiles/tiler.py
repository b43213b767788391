"""The walk of the fused joint: tiles of cells forward, sums over alignments, tiles of occupied cells backward.

Neither the hidden vectors nor the logits of a batch ever exist: a tile of them is made, reduced to a few numbers a cell, and made
again in the backward pass for the cells that carry probability. All scratch memory is one `Workspace` under `memory_limit`.
Sample-wise computation after Braun, McDermott and Hsiao 2022; the unit here is a tile of cells, so that the memory depends on
neither T, U nor V.
"""

from typing import NamedTuple

import numpy as np

from ..device.arrays import computing_dtype
from ..device.memory import Workspace
from ..inputs.joint import JointProblem
from ..kernels.emissions import emit
from ..kernels.forward_backward import forward_backward
from ..kernels.gradient import gradient
from ..kernels.hidden import compute_hidden, hidden_transpose
from ..kernels.locate import locate
from ..kernels.occupied import compact
from ..kernels.rows import NO_IDS, cast, gather, scatter
from .certificate import Cost, certify, dense
from .groups import Group, Segment, number, segments
from .plan import plan_joint


class Visited(NamedTuple):
    """Cells the backward pass visits: their numbers, the posteriors of their arcs, the parts of their normalisers.

    The cells of example n of the group are those from `edges[n]` to `edges[n + 1]`, which are on the host.
    """

    edges: np.ndarray
    cells: np.ndarray
    blank: np.ndarray
    label: np.ndarray
    maximum: np.ndarray
    rest: np.ndarray


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
        self.problem, self.device = problem, problem.device
        self.dtype = computing_dtype(problem.weight.dtype)
        self.operand = self.device.operand_dtype(problem.weight.dtype)
        N = len(problem.targets.blank)
        self.order = np.arange(N) if problem.encoder_index is None else np.argsort(problem.encoder_index, kind="stable")
        self.plan = plan_joint(problem, self.order, self.lattice_bytes, gradients=gradients, limit=limit)

    def lattice_bytes(self, cells):
        """Bytes of each lattice of so many cells (n,), and of all: scores, normalisers and alpha, and on a GPU beta."""
        return cells * (8 + 4 * self.dtype.itemsize + 8 * self.device.on_gpu), 0

    def open(self) -> None:
        """Allocate the workspace and what is held throughout."""
        problem, dtype = self.problem, self.dtype
        self.space = Workspace(self.plan.space, self.device, self.plan.least)
        ones = np.ones(self.plan.tile, self.operand)
        self.count_up, self.ones, self.none = self.device.upload(self.space, np.arange(self.plan.tile), ones, NO_IDS)
        self.weight, self.bias = problem.weight, problem.bias
        if problem.weight.dtype != self.operand:
            self.weight = self.space.take(problem.weight.shape, self.operand)
            cast(problem.weight, self.weight)
        if problem.bias is None or problem.bias.dtype != dtype:
            self.bias = self.space.take(len(self.weight), dtype)
            if problem.bias is None:
                self.bias.fill(0)
            else:
                cast(problem.bias, self.bias)
        self.base = self.space.used

    def hold(self, shape) -> np.ndarray:
        """An array that stays for as long as the workspace does."""
        self.space.release(self.base)
        array = self.space.take(shape, self.dtype)
        self.base = self.space.used
        return array

    def group(self, index: int) -> Group:
        """Number the cells of a group; what an earlier group had in the workspace is gone."""
        self.space.release(self.base)
        return number(self.problem, self.order, *self.plan.groups[index], self.space)

    def segments(self, group: Group, span=None):
        return segments(group, self.problem, self.weight, self.bias, self.space, span)

    def place(self, group: Group, start: int, cells, count: int):
        """(frame, slot, label, owner) of a run of cells, or of listed ones."""
        take = self.space.take
        placed = take(count, np.int64), take(count, np.int64), take(count, np.int32), take(count, np.int32)
        locate(start, cells, group.index, group.positions, group.frame_base, group.label_base, *placed)
        return placed

    def _hidden(self, group: Group, start: int, cells, count: int):
        """(frame, slot, label, owner, hidden) of a tile."""
        frame, slot, label, owner = self.place(group, start, cells, count)
        hidden = self.space.take((count, self.weight.shape[1]), self.operand)
        compute_hidden(self.problem.activation, group.encoder, group.predictor, group.encoder_row, group.predictor_row, frame,
                       slot, hidden)  # fmt: skip
        return frame, slot, label, owner, hidden

    def compute(self, group: Group, state, cells=None, edges=None, span=None) -> None:
        """Exact scores and the parts of the normalisers of listed cells, or of a run of a group's cells.

        Parameters
        ----------
        state : tuple of four (cells,) arrays
            Blank and label scores, maxima and rests, filled in where a cell is computed.
        cells, edges
            From `list_cells`.
        span : pair of int, optional
            First cell of the run and the one behind its last, all by default; the arrays of `state` begin at the first.
        """
        space = self.space
        low, high = span or (0, group.frames.cells)
        for segment in self.segments(group, span):
            if cells is None:
                first, last = group.frames.cells_of(segment.begin, segment.end)
                first, last = max(first, low), min(last, high)
            else:
                first, last = int(edges[segment.begin]), int(edges[segment.end])
            for begin in range(first, last, self.plan.tile):
                mark = space.used
                tile = slice(begin, min(begin + self.plan.tile, last))
                count = tile.stop - begin
                listed, there = self.none, slice(tile.start - low, tile.stop - low)
                if cells is not None:
                    listed, there = cells[tile], slice(None)
                _, _, label, _, hidden = self._hidden(group, begin, listed, count)
                logits = space.take((count, len(segment.weight)), self.dtype)
                self.device.matmul(hidden, segment.weight.T, logits)
                into = (array[there] for array in state)
                emit(logits, segment.bias, self.count_up[:count], listed, label, segment.blank, *into)
                space.release(mark)

    def forward(self, group: Group, log_z, *, posteriors: bool, ledger: list[Cost] | None = None) -> Visited | None:
        """Fill in `log_z` (N,) of a group's examples, in the order of work; return its occupied cells, in the workspace.

        What each example cost is appended to `ledger`.
        """
        space, frames, on_gpu = self.space, group.frames, self.device.on_gpu
        log_z = log_z[group.begin : group.end]
        cells = space.take(frames.cells, np.int64)
        state = tuple(space.take(frames.cells, self.dtype) for _ in range(4))
        beta, counts, edges = None, None, space.take(len(group.examples) + 1, np.int64)
        if on_gpu:
            beta, counts = space.take(frames.cells, np.float64), space.take(len(frames.example) + 1, np.int64)
        if self.problem.posterior_floor:
            cost = certify(self, group, state, cells, edges, beta, counts)
        else:
            self.compute(group, state)
            cost = dense(self, group)
        forward_backward(group.index, self.problem.targets.monotonic, *state[:2], cells.view(np.float64), log_z, beta,
                         posteriors=posteriors)  # fmt: skip
        if not posteriors:
            return None
        scratch = (counts, beta.view(self.dtype)[: frames.cells]) if on_gpu else ()
        floor, skipped = self.problem.posterior_floor, cost.skipped_posterior
        edges, state = compact(group.index, log_z, floor, state, cells, edges, skipped, *scratch)
        if ledger is not None:
            ledger.append(cost.on_host(np.diff(edges)))
        return Visited(edges, cells[: edges[-1]], *state)

    def backward(self, group: Group, visited: Visited, fastemit_lambda: float, grad_loss, outputs: Outputs):
        """Add a group's gradients to those of weight and bias; return those of its frames and of its label positions."""
        space, H = self.space, self.weight.shape[1]
        grad_encoder = space.take((len(group.encoder_row), H), self.dtype)
        grad_predictor = space.take((len(group.predictor_row), H), self.dtype)
        grad_encoder.fill(0)
        grad_predictor.fill(0)
        upstream = space.take(len(group.examples), self.dtype)
        gather(grad_loss[:, None], group.example, upstream[:, None])
        for segment in self.segments(group):
            mark = space.used
            grad_weight, grad_bias = outputs.weight, outputs.bias
            if segment.ids is not None:
                grad_weight, grad_bias = (space.take(like.shape, self.dtype) for like in (segment.weight, segment.bias))
                grad_weight.fill(0)
                grad_bias.fill(0)
            first, last = int(visited.edges[segment.begin]), int(visited.edges[segment.end])
            for begin in range(first, last, self.plan.tile):
                inner = space.used
                cells, *known = (array[begin : min(begin + self.plan.tile, last)] for array in visited[1:])
                count = len(cells)
                frame, slot, label, owner, hidden = self._hidden(group, 0, cells, count)
                logits = space.take((count, len(segment.weight)), self.dtype)
                self.device.matmul(hidden, segment.weight.T, logits)
                grad_logits = logits if self.operand == self.dtype else space.take(logits.shape, self.operand)
                self.write_rows(logits, grad_logits, segment, label, owner, known, fastemit_lambda, upstream)
                grad_hidden = space.take((count, H), self.dtype)
                self.device.matmul(grad_logits, segment.weight, grad_hidden)
                self._add_weight(grad_logits, hidden, grad_weight, grad_bias)
                hidden_transpose(self.problem.activation, hidden, grad_hidden, frame, slot, cells, group.index, group.label_base,
                                 grad_encoder, grad_predictor)  # fmt: skip
                space.release(inner)
            if segment.ids is not None:
                scatter(grad_weight, segment.ids, outputs.weight)
                scatter(grad_bias[:, None], segment.ids, outputs.bias[:, None])
            space.release(mark)
        return grad_encoder, grad_predictor

    def write_rows(self, logits, grad_logits, segment: Segment, label, owner, known, fastemit_lambda: float, upstream) -> None:
        """The gradients of a tile's logits; `known` are the tile's parts of what `forward` returned, the cells' numbers aside."""
        gradient(logits, grad_logits, self.count_up[: len(label)], segment.bias, label, owner, segment.blank, *known,
                 fastemit_lambda, upstream, anew=True)  # fmt: skip

    def _add_weight(self, grad_logits, hidden, grad_weight, grad_bias) -> None:
        count, size = grad_logits.shape
        part = self.space.take((min(self.plan.block, size), hidden.shape[1]), self.dtype)
        for begin in range(0, size, self.plan.block):
            rows = slice(begin, begin + self.plan.block)
            here = part[: len(grad_weight[rows])]
            self.device.matmul(grad_logits[:, rows].T, hidden, here)
            grad_weight[rows] += here
        summed = self.space.take((1, size), self.dtype)
        self.device.matmul(self.ones[None, :count], grad_logits, summed)
        grad_bias += summed[0]
