"""The tile loop along paths: the cells of a given path with their losses and gradients, and the search for the best path."""

from typing import NamedTuple

import numpy as np

from ..device.arrays import ALIGNMENT, computing_dtype
from ..inputs.joint import JointProblem
from ..kernels.best_path import best_path, extend, keep, move_bytes
from ..kernels.narrow import narrow, open_all
from ..kernels.occupied import list_cells
from ..kernels.path_rows import path_rows, sum_rows
from ..kernels.upper_bounds import WANTED
from .certificate import bound_group
from .groups import Group, Segment
from .tiler import JointTiles, Outputs

ROUNDS = 6
"""Rounds after which what an example still lacks is computed without a proof that it must be."""


class OnPath(NamedTuple):
    """The cells of a path, as `Visited`: their numbers, whether each is left by its label, and their losses."""

    edges: np.ndarray
    cells: np.ndarray
    emits: np.ndarray
    loss: np.ndarray


class PathTiles(JointTiles):
    """The tile loop over a problem whose bounds leave the cells of one path to each example.

    There is nothing to sum over, so there is no forward pass: the backward pass finds the losses with the gradients.
    """

    def __init__(self, problem: JointProblem, *, label_smoothing: float, label_scale: float, focal: float):
        self.label_smoothing, self.label_scale, self.focal = label_smoothing, label_scale, focal
        super().__init__(problem, gradients=True, limit=problem.memory_limit)

    def lattice_bytes(self, cells):
        return cells * (9 + self.dtype.itemsize) + 3 * ALIGNMENT, 0

    def forward(self, group: Group, log_z, *, posteriors: bool) -> OnPath:
        """List the cells of the paths; `log_z` is filled in by `backward`."""
        frames = group.frames
        self.log_z = log_z[group.begin : group.end]
        edges = frames.offset[frames.starts]
        u = np.repeat(frames.first - frames.offset[:-1], np.diff(frames.offset)) + np.arange(frames.cells)
        following = np.append(u[1:], 0)
        following[edges[1:] - 1] = frames.labels
        cells, emits, self.edges = self.device.upload(self.space, np.arange(frames.cells), (following > u).view(np.uint8), edges)
        return OnPath(edges, cells, emits, self.space.take(frames.cells, self.dtype))

    def write_rows(self, logits, grad_logits, segment: Segment, label, owner, known, fastemit_lambda: float, upstream) -> None:
        emits, loss = known
        path_rows(logits, grad_logits, segment.bias, label, emits, owner, segment.blank, self.label_scale, self.label_smoothing,
                  self.focal, upstream, loss)  # fmt: skip

    def backward(self, group: Group, visited: OnPath, fastemit_lambda: float, grad_loss, outputs: Outputs):
        found = super().backward(group, visited, fastemit_lambda, grad_loss, outputs)
        sum_rows(self.edges, visited.loss, self.log_z)
        return found


class AlignmentTiles(JointTiles):
    """The tile loop of the search for the best alignment.

    The cells that it may visit are narrowed down by bounds, so most logits are never computed; the alignment is that over all.
    """

    def __init__(self, problem: JointProblem):
        super().__init__(problem, gradients=False, limit=problem.memory_limit)

    def lattice_bytes(self, cells):
        T, U = (x[self.order] for x in (self.problem.targets.frame_lengths, self.problem.targets.target_lengths))
        widest = int(U.max(initial=0))
        return cells * (16 + 4 * self.dtype.itemsize) + move_bytes(cells, T) + 32 * (widest + 1) + 16 * T + 6 * ALIGNMENT, 0

    def align(self, group: Group, score, best) -> None:
        """Fill in `score` (N,) of a group's examples, in the order of work, and their rows of `best`."""
        space, index, monotonic = self.space, group.index, self.problem.targets.monotonic
        count, frames = len(group.examples), len(group.frames.example)
        left, moves = keep(space.take, count, group.frames.widest, group.frames.cells, frames)
        blank, label, _, rest = state = tuple(space.take(group.frames.cells, self.dtype) for _ in range(4))
        alpha, beta = (space.take(group.frames.cells, np.float64) for _ in range(2))
        computed, counts, edges = (space.take(size, np.int64) for size in (count, frames + 1, count + 1))
        best_score, cells = space.take(count, np.float64), alpha.view(np.int64)
        computed.fill(0)
        bound_group(self, group, state)
        open_all(index, *state)
        unlisted = group.frames.cells
        for number in range(ROUNDS):
            narrow(index, monotonic, blank, label, rest, alpha, beta, best_score, computed, last=number == ROUNDS - 1)
            found = list_cells(index, rest, WANTED, cells, edges, counts)
            if not found[-1]:
                break
            self.compute(group, state, cells, found)
            unlisted -= int(found[-1])
            if not unlisted:
                break
        extend(index, 0, frames, 0, count, monotonic, blank, label, left, moves)
        best_path(index, monotonic, left, moves, group.example, score[group.begin : group.end], best)


class LongAlignmentTiles(AlignmentTiles):
    """The same where the workspace has no room for scores of all cells: every cell is computed.

    The search only moves forward, so scores exist for a run of frames at a time; what is kept of every cell is one bit.
    """

    def __init__(self, problem: JointProblem):
        # Long runs where there is room for them; in the smallest workspace a run is a frame.
        frame = int(problem.targets.target_lengths.max(initial=0)) + 1
        self.cell_bytes = 4 * computing_dtype(problem.weight.dtype).itemsize
        self.run = max(frame, problem.memory_limit // (8 * self.cell_bytes))
        try:
            super().__init__(problem)
        except ValueError:
            self.run = frame
            super().__init__(problem)

    def lattice_bytes(self, cells):
        targets = self.problem.targets
        left = 32 * (int(targets.target_lengths.max(initial=0)) + 1)
        state = move_bytes(cells, targets.frame_lengths[self.order]) + left + 2 * ALIGNMENT
        return state, min(self.run, int(cells.sum())) * self.cell_bytes

    def align(self, group: Group, score, best) -> None:
        space, frames, monotonic = self.space, group.frames, self.problem.targets.monotonic
        offset, low = frames.offset, 0
        left, moves = keep(space.take, len(group.examples), frames.widest, frames.cells, len(frames.example))
        while low < len(frames.example):
            high = int(np.searchsorted(offset, offset[low] + self.run, side="right")) - 1
            since, until = int(frames.example[low]), int(frames.example[high - 1]) + 1
            span, mark = (int(offset[low]), int(offset[high])), space.used
            state = tuple(space.take(span[1] - span[0], self.dtype) for _ in range(4))
            self.compute(group, state, span=span)
            extend(group.index, low, high, since, until, monotonic, *state[:2], left, moves)
            space.release(mark)
            low = high
        best_path(group.index, monotonic, left, moves, group.example, score[group.begin : group.end], best)
