"""Frames of CTC from given logits: what is known of each, the sum over alignments, the best one, and the gradient."""

import numpy as np

from .device.arrays import computing_dtype
from .inputs.ctc import CtcProblem
from .kernels.ctc_path import ctc_path
from .kernels.ctc_rows import ctc_emit, ctc_gradient
from .kernels.ctc_sums import ctc_forward_backward, ctc_sums
from .kernels.state import ArcPosteriors
from .staging import clear_others, staged


def repeats(targets, lengths):
    """Find where labels occur again in their target.

    Parameters
    ----------
    targets : (B, U) int32
    lengths : (B,) int64

    Returns
    -------
    distinct : (B, U) int32
        The label at its first position, -1 at all others and beyond the target.
    following : (B, U) int32
        The next position with the same label, or -1.
    """
    real = np.arange(targets.shape[1]) < lengths[:, None]  # (B, U)
    distinct, following = np.where(real, targets, -1).astype(np.int32), np.full_like(targets, -1)
    # Equal labels side by side, in the order of their positions, because the sort is stable.
    order = np.argsort(distinct, axis=1, kind="stable")
    label = np.take_along_axis(distinct, order, axis=1)
    # (pairs,) each: a label at `position` is followed by the same one at `again`.
    example, k = np.nonzero((label[:, 1:] == label[:, :-1]) & (label[:, 1:] >= 0))
    position, again = order[example, k], order[example, k + 1]
    following[example, position] = again
    distinct[example, again] = -1
    return distinct, following


class CtcFrames:
    """The frames of a batch: the scores of blank and labels in each, and the normaliser.

    Label scores are numbered frame by frame, U_b to a frame, and frames example by example. States are numbered alike,
    2 U_b + 1 to a frame.
    """

    def __init__(self, problem: CtcProblem):
        self.problem, self.device = problem, problem.device
        T, U = problem.frame_lengths, problem.target_lengths
        self.dtype, self.widest = computing_dtype(problem.logits.dtype), int(U.max(initial=0))
        starts = np.append(0, np.cumsum(T))  # (B + 1,) first frame of each example
        example = np.repeat(np.arange(len(T)), T)  # (frames,)
        offset = np.append(0, np.cumsum(U[example]))  # (frames + 1,) first label score of each frame
        # (frames,) row b * T + t of the logits
        row = np.arange(len(example)) + (np.arange(len(T)) * problem.shape[1] - starts[:-1])[example]
        self.states = int(2 * offset[-1] + starts[-1])
        numbering = starts, example.astype(np.int32), offset, row
        labels = problem.targets, *repeats(problem.targets, U)
        self.starts, self.example, self.offset, self.row, *labels = self.device.upload(None, *numbering, *labels)
        self.targets, self.distinct, self.following = labels  # (B, U) each
        empty = self.device.empty
        self.no_bias = empty(0, self.dtype)
        self.blank_score, self.maximum, self.rest = (empty(len(row), self.dtype) for _ in range(3))  # (frames,) each
        self.label_score = empty(int(offset[-1]), self.dtype)  # (sum of T_b * U_b,)
        frames = self.example, self.offset, self.targets, problem.blank_id
        outputs = self.blank_score, self.label_score, self.maximum, self.rest
        for part, logits, rows in self._staged():
            ctc_emit(part.start, logits, self.no_bias, rows, *frames, *outputs)

    def _staged(self):
        return staged(self.problem.logits, self.row, self.dtype, self.device)

    def _two_frames(self):
        """Scratch for alpha where a frame is forgotten once the next one has been made: two frames, by turns."""
        return self.device.empty(2 * self.problem.shape[0] * (2 * self.widest + 1), np.float64)

    def loss(self):
        """Losses (B,), in the dtype that is computed in."""
        log_z = self.device.empty(self.problem.shape[0], np.float64)
        scores = self.blank_score, self.label_score
        ctc_sums(self.starts, self.offset, self.targets, self.widest, *scores, self._two_frames(), log_z)
        return self.device.convert(-log_z, self.dtype)

    def forward(self):
        """Losses as `loss` gives them, and the posteriors, which take the place of the scores."""
        empty = self.device.empty
        log_z, alpha = empty(self.problem.shape[0], np.float64), empty(self.states, np.float64)
        # A GPU sweeps both ways at once. A CPU keeps beta only of two frames.
        beta = empty(self.states, np.float64) if self.device.on_gpu else None
        lattices = self.starts, self.example, self.offset, self.targets, self.distinct, self.following, self.widest
        posteriors = ctc_forward_backward(*lattices, self.blank_score, self.label_score, alpha, log_z, beta)
        return self.device.convert(-log_z, self.dtype), posteriors

    def backward(self, posteriors: ArcPosteriors, target, grad_loss) -> None:
        """Write the gradient of the logits into `target` (B * T, V), which may be the logits; zeros on padding."""
        arcs = self.example, self.offset, self.distinct, self.problem.blank_id, *posteriors
        for part, logits, rows in self._staged():
            widened = logits is not self.problem.logits
            # Widened rows become their own gradient, and are rounded into the target.
            own = logits if widened else target
            ctc_gradient(part.start, logits, own, self.no_bias, rows, *arcs, self.maximum, self.rest, grad_loss)
            if widened:
                target[self.row[part]] = logits[: len(rows)]
        clear_others(self.device, self.row, target, self.dtype)

    def path(self, last: bool):
        """Frames (B, U) int32, -1 for none, and scores (B,) of the best alignments.

        Of each label it is the last frame of its run with `last`, else the first.
        """
        B, empty = self.problem.shape[0], self.device.empty
        frames, score = empty((B, self.problem.label_axis), np.int32), empty(B, np.float64)
        frames.fill(-1)
        moves = empty(self.states, np.uint8)  # how many states on each state was entered from: 0 to 2
        lattices = self.starts, self.offset, self.targets, self.widest, self.blank_score, self.label_score
        ctc_path(*lattices, self._two_frames(), moves, last, score, frames)
        return frames, self.device.convert(score, self.dtype)
