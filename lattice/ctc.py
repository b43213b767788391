"""CTC from given logits: loss, gradient, and best alignment."""

from typing import Any

import numpy as np

from .annotations import A, Array, Keep
from .device import arrays
from .inputs import checks
from .inputs.ctc import KEEPS, CtcProblem, read_ctc
from .inputs.logits import read_out
from .kernels.ctc_path import ctc_path
from .kernels.ctc_rows import ctc_emit, ctc_gradient
from .kernels.ctc_sums import ctc_sums
from .staging import clear_others, staged


def ctc_loss(logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *, blank: int = 0) -> A:
    """Negative log-probability of targets summed over all CTC alignments (Graves et al. 2006).

    Each frame emits a label or the blank; runs of one label are then merged and blanks removed. So equal labels that follow
    one another are parted by a blank, and a target needs at least as many frames as it has labels and such pairs.

    Parameters
    ----------
    logits : (B, T, V) float32, float64, float16 or bfloat16
        Unnormalised scores: the softmax is taken here. Padding frames are never read. A layout that is not C-contiguous is
        copied.
    targets : (B, U) int32 or int64
        Label ids, never `blank`; entries beyond a target's length may hold anything.
    logit_lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T and 0 <= U_b <= U.
    blank : int
        -V <= blank < V; negative ids count from the end.

    Returns
    -------
    loss : (B,) float64 for float64 logits, else float32
        In nats; inf where no alignment exists, NaN where a frame that is no padding holds NaN or +inf.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    Notes
    -----
    Allocates about 4 bytes for each frame and label of the target, and 40 a frame, beside the logits (8 and 52 in float64);
    the sums over alignments are float64. Half precision is widened on the host, which takes up to 6 MiB more.

    References
    ----------
    Graves et al. 2006.
    """
    problem = read_ctc(logits, targets, logit_lengths, target_lengths, blank)
    with problem.device.active():
        loss = _Frames(problem).sums(posteriors=False)
        problem.device.keep(logits, problem.logits)
        return arrays.give_back(loss, logits)


def ctc_loss_and_grad(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *, blank: int = 0,
    grad_loss: Array | None = None, out: A | None = None,
) -> tuple[A, A]:  # fmt: skip
    """`ctc_loss` and its gradient with respect to the logits.

    Parameters
    ----------
    logits, targets, logit_lengths, target_lengths, blank
        As in `ctc_loss`.
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default.
    out : array like `logits`, optional
        Where the gradient goes. `out=logits` overwrites the logits, and no second array of their size exists.

    Returns
    -------
    loss : (B,)
        In nats, as in `ctc_loss`; not multiplied by `grad_loss`.
    grad_logits : like logits
        0 on padding and in examples without an alignment, NaN in all frames of an example whose loss is NaN. float32 and
        float64 gradients hold no subnormal numbers. `out` itself if that is given.

    Raises
    ------
    ValueError, TypeError
        As in `ctc_loss`; `out` of another shape, dtype or device, read-only, or overlapping the logits in part.

    Notes
    -----
    Allocates about 20 bytes for each frame and label of the target, and 40 a frame, beside the logits and their gradient (24
    and 52 in float64; on a GPU 16 and 8 more; half precision as in `ctc_loss`).

    References
    ----------
    As in `ctc_loss`.
    """
    problem = read_ctc(logits, targets, logit_lengths, target_lengths, blank)
    device = problem.device
    grad_loss = checks.read_grad_loss(grad_loss, problem.shape[0], arrays.computing_dtype(problem.logits.dtype), device)
    target: Any = None if out is None else read_out(out, problem)
    with device.active():
        if out is None:
            target = device.empty(problem.logits.shape, problem.logits.dtype)
        frames = _Frames(problem)
        loss = frames.sums(posteriors=True)
        frames.gradient(target, grad_loss)
        device.keep(logits, problem.logits, grad_loss)
        grad_logits = arrays.give_back(target.reshape(problem.shape), logits) if out is None else out
        return arrays.give_back(loss, logits), grad_logits


def ctc_alignment(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *, blank: int = 0, keep: Keep = "first",
) -> tuple[Any, A]:  # fmt: skip
    """The most probable CTC alignment of targets.

    Parameters
    ----------
    logits, targets, logit_lengths, target_lengths, blank
        As in `ctc_loss`.
    keep : {"first", "last"}
        The frame of its run that stands for a label. The last ones make the peaky alignments of Viterbi training (Zhou et al.
        2022).

    Returns
    -------
    frames : (B, U) int32
        That frame of each label, increasing; -1 beyond a target's length, and in examples whose score is not finite. Of
        alignments that score the same it is the one that, seen from the last frame back, is further on in the target at the
        first frame where they differ.
    score : (B,) float64 for float64 logits, else float32
        Log-probability of that alignment in nats; -inf where there is none, NaN where the loss is NaN.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    See Also
    --------
    ids_to_frames : The same for the frame-wise ids of another aligner.
    joint_path_loss_and_grad : Training along the alignment.

    Notes
    -----
    Allocates about 6 bytes for each frame and label of the target, and 40 a frame, beside the logits (10 and 52 in float64; half
    precision as in `ctc_loss`).

    References
    ----------
    Graves et al. 2006, with the largest in the place of the sum. `keep="last"`: Zhou et al. 2022, arXiv 2204.10586.
    """
    problem = read_ctc(logits, targets, logit_lengths, target_lengths, blank)
    last = checks.read_choice(keep, "keep", KEEPS) == "last"
    with problem.device.active():
        frames, score = _Frames(problem).path(last)
        problem.device.keep(logits, problem.logits)
        return arrays.give_back(frames, logits), arrays.give_back(score, logits)


def repeats(targets, lengths):
    """Where labels occur again in their target.

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
    real = np.arange(targets.shape[1]) < lengths[:, None]
    distinct, following = np.where(real, targets, -1).astype(np.int32), np.full_like(targets, -1)
    order = np.argsort(distinct, axis=1, kind="stable")
    label = np.take_along_axis(distinct, order, axis=1)
    example, k = np.nonzero((label[:, 1:] == label[:, :-1]) & (label[:, 1:] >= 0))
    position, again = order[example, k], order[example, k + 1]
    following[example, position] = again
    distinct[example, again] = -1
    return distinct, following


class _Frames:
    """The frames of a batch and what is known of each: the scores of blank and labels, later posteriors, and the normaliser.

    Label scores are numbered frame by frame, U_b to a frame, frames example by example; a frame's states likewise, 2 U_b + 1.
    """

    def __init__(self, problem: CtcProblem):
        self.problem, self.device = problem, problem.device
        T, U = problem.frame_lengths, problem.target_lengths
        self.dtype, self.widest = arrays.computing_dtype(problem.logits.dtype), int(U.max(initial=0))
        starts, example = np.append(0, np.cumsum(T)), np.repeat(np.arange(len(T)), T)
        offset = np.append(0, np.cumsum(U[example]))
        row = np.arange(len(example)) + (np.arange(len(T)) * problem.shape[1] - starts[:-1])[example]
        self.states = int(2 * offset[-1] + starts[-1])
        self.starts, self.example, self.offset, self.row, self.targets, self.distinct, self.following = self.device.upload(
            None, starts, example.astype(np.int32), offset, row, problem.targets, *repeats(problem.targets, U)
        )
        empty = self.device.empty
        self.no_bias = empty(0, self.dtype)
        self.blank, self.maximum, self.rest = (empty(len(row), self.dtype) for _ in range(3))
        self.label = empty(int(offset[-1]), self.dtype)
        for part, logits, rows in self._staged():
            ctc_emit(part.start, logits, self.no_bias, rows, self.example, self.offset, self.targets, problem.blank, self.blank,
                     self.label, self.maximum, self.rest)  # fmt: skip

    def _staged(self):
        return staged(self.problem.logits, self.row, self.dtype, self.device)

    def sums(self, *, posteriors: bool):
        """Losses, in the dtype that is computed in."""
        B, empty = self.problem.shape[0], self.device.empty
        log_z = empty(B, np.float64)
        alpha = empty(self.states if posteriors else 2 * B * (2 * self.widest + 1), np.float64)
        beta = empty(self.states, np.float64) if self.device.on_gpu and posteriors else None
        ctc_sums(self.starts, self.example, self.offset, self.targets, self.distinct, self.following, self.widest, self.blank,
                 self.label, alpha, log_z, beta, posteriors=posteriors)  # fmt: skip
        return self.device.convert(-log_z, self.dtype)

    def gradient(self, target, grad_loss) -> None:
        for part, logits, rows in self._staged():
            widened = logits is not self.problem.logits
            ctc_gradient(part.start, logits, logits if widened else target, self.no_bias, rows, self.example,
                         self.offset, self.distinct, self.problem.blank, self.blank, self.label, self.maximum,
                         self.rest, grad_loss)  # fmt: skip
            if widened:
                target[self.row[part]] = logits[: len(rows)]
        clear_others(self.device, self.row, target, self.dtype)

    def path(self, last: bool):
        """Frames and scores of the best alignments; of each label the `last` frame, or else the first."""
        B, empty = self.problem.shape[0], self.device.empty
        frames, score = empty((B, self.problem.label_axis), np.int32), empty(B, np.float64)
        frames.fill(-1)
        alpha, moves = empty(2 * B * (2 * self.widest + 1), np.float64), empty(self.states, np.uint8)
        ctc_path(self.starts, self.offset, self.targets, self.widest, self.blank, self.label, alpha, moves, last, score, frames)
        return frames, self.device.convert(score, self.dtype)
