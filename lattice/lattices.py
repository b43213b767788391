"""Lattices of given logits or scores: what is known of each cell, the sum over alignments, the best one, gradients."""

import numpy as np

from . import layout
from .device.arrays import computing_dtype
from .exits import exit_posterior
from .inputs.logits import LogitsProblem
from .inputs.scores import ScoresProblem
from .kernels.best_path import best_path, extend, path_memory
from .kernels.delay import delay
from .kernels.emissions import emit
from .kernels.forward_backward import forward_backward, forward_sums
from .kernels.gradient import gradient
from .kernels.heads import emit_steps
from .kernels.heads_gradient import gradient_steps
from .kernels.locate import locate
from .kernels.padded import lay_out, read_scores
from .kernels.rows import NO_IDS
from .kernels.state import ArcPosteriors, CellState
from .kernels.step_path import best_step_path
from .kernels.step_sums import StepScores
from .staging import clear_others, staged


class Lattices:
    """The cells of a batch of logits: where each one's row lies, and its state.

    Parameters
    ----------
    problem : LogitsProblem
        All its examples are worked on at once.
    """

    def __init__(self, problem: LogitsProblem):
        self.problem, self.device = problem, problem.device
        self.dtype = computing_dtype(problem.logits.dtype)
        targets, empty = problem.targets, self.device.empty
        examples = np.arange(len(problem.base))
        frames = layout.frames_of(
            examples, targets.frame_lengths, targets.target_lengths, targets.moves, targets.bounds
        )
        count, example = frames.cells, frames.example
        frame_base = problem.frame_rows(example, frames.t)  # (frames,)
        label_base = np.zeros(len(examples), np.int64)  # a slot is the label position itself
        self.frames, (self.examples, positions, frame_base, label_base, self.none) = frames.on(
            self.device, None, examples, targets.positions, frame_base, label_base, NO_IDS
        )
        # (cells,) row of the logits, position of the label in it or -1, example
        self.row, self.label_id, self.owner = empty(count, np.int64), empty(count, np.int32), empty(count, np.int32)
        slot = empty(count, np.int64)
        locate(0, self.none, self.frames, positions, frame_base, label_base, self.row, slot, self.label_id, self.owner)
        self.row += slot
        self.topology = targets.topology
        if self.topology.delay_penalty:
            # (cells,) the number of the frame: `locate` with the frames' own numbers in the place of their rows.
            self.frame, numbers = empty(count, np.int64), self.device.upload(None, np.arange(len(example)))[0]
            places = self.frame, slot, self.label_id, self.owner
            locate(0, self.none, self.frames, positions, numbers, label_base, *places)
        # One blank for all: vocabularies exist in the joint only.
        self.blank_id = int(targets.blank_id[0]) if len(examples) else 0
        self.no_bias = empty(0, self.dtype)
        self.state = CellState.take(empty, count, self.dtype)
        # Of arcs that take several frames, and None for topologies with two arcs a cell.
        self.steps, table = None, self.topology.steps
        if table.shape[1]:
            blanks = targets.blank_ids[0] if len(examples) else np.zeros(1, np.int64)
            table, self.blank_ids = self.device.upload(None, table, blanks)
            self.steps = StepScores(table, empty((table.shape[1], count), self.dtype))

    def _staged(self):
        return staged(self.problem.logits, self.row, self.dtype, self.device)

    def _emit(self) -> None:
        # No list of places is given: the cells of a part follow one another in the state.
        for cells, logits, row in self._staged():
            rows, label_id, here = (logits, self.no_bias, row, self.none), self.label_id[cells], self.state.at(cells)
            if self.steps is not None:
                heads = self.blank_ids, self.topology.tail, self.topology.sigma
                emit_steps(*rows, cells.start, label_id, *heads, *here, self.steps.score)
            else:
                emit(*rows, label_id, self.blank_id, *here, hat=self.topology.hat)
        if self.topology.delay_penalty:
            numbers = self.none, self.topology.delay_penalty, self.state.label_score
            delay(self.frame, self.owner, self.frames.starts, *numbers, bounds=False)

    def _log_z(self, log_z):
        """Sums over alignments (B,) of the kernels' scores -> those of the topology, as they are given back."""
        if self.topology.delay_penalty:
            log_z = log_z + self.device.upload(None, self.problem.targets.owed)[0]
        return self.device.convert(log_z, self.dtype)

    def _sums(self):
        """(alpha (cells,), log_z (B,)), float64, not filled in."""
        return self.device.empty(len(self.row), np.float64), self.device.empty(len(self.problem.base), np.float64)

    def loss(self):
        """Losses (B,), in the dtype that is computed in."""
        self._emit()
        alpha, log_z = self._sums()
        moves = self.problem.targets.moves
        forward_sums(self.frames, moves, *self.state.scores, alpha, log_z, steps=self.steps)
        return -self._log_z(log_z)

    def exit_posterior(self):
        """(B,) float64 on the host: at most this share of the probability of all alignments leaves the cells."""
        self._emit()
        return exit_posterior(self.device, self.problem.targets, self.frames, self.state)

    def forward(self):
        """Losses as `loss` gives them, and the posteriors, which take the place of the scores."""
        self._emit()
        alpha, log_z = self._sums()
        # (cells,) on a GPU, which sweeps both ways at once. A CPU keeps beta only of two frames.
        beta = self.device.empty(len(self.row), np.float64) if self.device.on_gpu else None
        moves = self.problem.targets.moves
        posteriors = forward_backward(self.frames, moves, *self.state.scores, alpha, log_z, beta, self.steps)
        return -self._log_z(log_z), posteriors

    def arc_posteriors(self, shape: tuple[int, int, int]):
        """Losses as `loss` gives them, and posteriors of blank and label arcs, two arrays of `shape` (B, T, U+1)."""
        loss, posteriors = self.forward()
        padded = self.device.zeros(shape, self.dtype), self.device.zeros(shape, self.dtype)
        # No factor: there is no upstream gradient.
        lay_out(self.frames, self.examples, self.none, *posteriors, self.no_bias, *padded)
        return loss, *padded

    def path(self):
        """Scores (B,) of the best alignments, in the dtype that is computed in, and their frames (B, U) int32.

        Frames are -1 beyond a target's length, and throughout where there is no alignment.
        """
        empty, frames, targets = self.device.empty, self.frames, self.problem.targets
        count = len(self.problem.base)
        self._emit()
        score, best = empty(count, np.float64), empty((count, targets.label_axis), np.int32)
        best.fill(-1)
        if self.steps is not None:
            alpha = empty(len(self.row), np.float64)
            best_step_path(frames, self.steps, *self.state.scores, alpha, self.examples, score, best)
            return self._log_z(score), best
        left, bits = path_memory(empty, count, frames.widest, len(self.row), len(frames.example))
        if count:
            extend(frames, 0, len(frames.example), 0, count, targets.moves, *self.state.scores, left, bits)
        best_path(frames, targets.moves, left, bits, self.examples, score, best)
        return self._log_z(score), best

    def backward(self, posteriors: ArcPosteriors, target, fastemit_lambda: float, grad_loss) -> None:
        """Write the gradient of the logits into `target` (rows, V), zeros where no alignment passes.

        Parameters
        ----------
        posteriors : ArcPosteriors
            From `forward`.
        target : (rows, V)
            May be the logits themselves.
        fastemit_lambda : float
        grad_loss : (B,)
            Upstream gradients, in the dtype that is computed in.
        """
        for cells, logits, row in self._staged():
            widened = logits is not self.problem.logits
            # Widened rows become their own gradient, and are rounded into the target.
            rows = logits, logits if widened else target, row, self.no_bias
            places, norms = (self.label_id[cells], self.owner[cells]), self.state.at(cells)[2:]
            known, factors = tuple(array[cells] for array in posteriors), (*norms, fastemit_lambda, grad_loss)
            if self.steps is not None:
                heads, steps = (self.blank_ids, self.topology.tail), (self.steps.score, cells.start)
                gradient_steps(*rows, *places, *heads, *known, *steps, *factors, anew=False)
            else:
                gradient(*rows, *places, self.blank_id, *known, *factors, anew=False, hat=self.topology.hat)
            if widened:
                target[self.row[cells]] = logits[: len(row)]
        clear_others(self.device, self.row, target, self.dtype)


def sum_scores(problem: ScoresProblem, grad_loss):
    """Sum over all alignments of scores that are given.

    Parameters
    ----------
    problem : ScoresProblem
    grad_loss : (B,)
        Upstream gradients, in the dtype that is computed in.

    Returns
    -------
    loss : (B,) float32 or float64
    grad_blank, grad_label : (B, T, U+1), in the dtype of the scores
    """
    device, given, count = problem.device, problem.blank_scores, len(problem.frame_lengths)
    dtype, moves = computing_dtype(given.dtype), problem.topology.moves
    examples = np.arange(count)
    frames = layout.frames_of(examples, problem.frame_lengths, problem.target_lengths, moves, problem.bounds)
    cells = frames.cells
    frames, (examples, none) = frames.on(device, None, examples, NO_IDS)
    blank_score, label_score = device.empty(cells, dtype), device.empty(cells, dtype)
    read_scores(frames, given, problem.label_scores, problem.topology.delay_penalty, blank_score, label_score)
    alpha, log_z = device.empty(cells, np.float64), device.empty(count, np.float64)
    # (cells,) on a GPU, which sweeps both ways at once. A CPU keeps beta only of two frames.
    beta = device.empty(cells, np.float64) if device.on_gpu else None
    posteriors = forward_backward(frames, moves, blank_score, label_score, alpha, log_z, beta)
    padded = device.zeros(given.shape, dtype), device.zeros(given.shape, dtype)
    # A higher score of an arc lowers the loss by the arc's posterior.
    lay_out(frames, examples, none, *posteriors, -grad_loss, *padded)
    grad_blank, grad_label = (device.convert(array, problem.dtype) for array in padded)
    return device.convert(-log_z, dtype), grad_blank, grad_label
