"""CTC from given logits: loss, gradient, and best alignment."""

from typing import Any

from .annotations import A, Array, Keep
from .ctc_frames import CtcFrames
from .device import arrays
from .inputs import checks
from .inputs.ctc import KEEPS, read_ctc
from .inputs.logits import read_out


def ctc_loss(logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *, blank: int = 0) -> A:
    """Negative log-probability of targets summed over all CTC alignments (Graves et al. 2006).

    Each frame emits a label or the blank. Then runs of one label are merged and blanks removed, so a blank must part
    equal labels that follow one another. A target needs a frame for each label and for each pair of equal neighbours.

    Parameters
    ----------
    logits : (B, T, V) float32, float64, float16 or bfloat16
        Unnormalised scores; the softmax is taken here. Padding frames are never read. A layout that is not C-contiguous
        is copied.
    targets : (B, U) int32 or int64
        Label ids, never `blank`. Entries beyond a target's length may hold anything.
    logit_lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T and 0 <= U_b <= U.
    blank : int
        -V <= blank < V; negative ids count from the end.

    Returns
    -------
    loss : (B,) float64 for float64 logits, else float32
        In nats. It is inf where no alignment exists, and NaN where a frame that is no padding holds NaN or +inf.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    Notes
    -----
    Allocates about 4 bytes for each frame and label of the target, and 40 a frame, beside the logits (8 and 52 in
    float64). The host widens half precision, which takes up to 6 MiB more. Sums over alignments are float64.

    References
    ----------
    Graves et al. 2006.
    """
    problem = read_ctc(logits, targets, logit_lengths, target_lengths, blank=blank)
    with problem.device.active():
        loss = CtcFrames(problem).loss()
        # A GPU may still read the logits when this returns, and memory that is let go may be used again.
        problem.device.hold_until_read(logits, problem.logits)
        return arrays.give_back(loss, logits)


def ctc_loss_and_grad(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *,
    blank: int = 0, grad_loss: Array | None = None, out: A | None = None,
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
        In nats, as in `ctc_loss`. It is not multiplied by `grad_loss`.
    grad_logits : like logits
        0 on padding and in examples without an alignment, NaN in all frames of an example whose loss is NaN. Entries
        below 2**-100 are 0, so with a `grad_loss` of 1e-33 all are. `out` itself if that is given.

    Raises
    ------
    ValueError, TypeError
        As in `ctc_loss`. `out` has another shape, dtype or device, is read-only, or overlaps the logits in part.

    Notes
    -----
    Allocates about 20 bytes for each frame and label of the target, and 40 a frame, beside the logits and their
    gradient (24 and 52 in float64). A GPU takes 16 and 8 more. Half precision is widened as in `ctc_loss`.

    References
    ----------
    As in `ctc_loss`.
    """
    problem = read_ctc(logits, targets, logit_lengths, target_lengths, blank=blank)
    device = problem.device
    grad_loss = checks.read_grad_loss(grad_loss, problem.shape[0], arrays.computing_dtype(problem.logits.dtype), device)
    # All checks come before the first write, so an error leaves `out` as it was.
    target: Any = None if out is None else read_out(out, problem)
    with device.active():
        if out is None:
            target = device.empty(problem.logits.shape, problem.logits.dtype)  # (B * T, V)
        frames = CtcFrames(problem)
        # Scores are all read from the logits before a row of the gradient may overwrite them.
        loss, posteriors = frames.forward()
        frames.backward(posteriors, target, grad_loss)
        device.hold_until_read(logits, problem.logits, grad_loss)
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
        The frame of its run that stands for a label. The last frames make the peaky alignments of Viterbi training
        (Zhou et al. 2022).

    Returns
    -------
    frames : (B, U) int32
        The kept frame of each label, increasing. -1 beyond a target's length, and in examples whose score is not
        finite. Of two alignments with equal scores, the one wins that is further on in the target at the last frame
        where they differ.
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
    Allocates about 6 bytes for each frame and label of the target, and 40 a frame, beside the logits (10 and 52 in
    float64). Half precision is widened as in `ctc_loss`.

    References
    ----------
    Graves et al. 2006, with the largest in the place of the sum. `keep="last"`: Zhou et al. 2022, arXiv 2204.10586.
    """
    problem = read_ctc(logits, targets, logit_lengths, target_lengths, blank=blank)
    last = checks.read_choice(keep, "keep", KEEPS) == "last"
    with problem.device.active():
        frames, score = CtcFrames(problem).path(last)
        problem.device.hold_until_read(logits, problem.logits)
        return arrays.give_back(frames, logits), arrays.give_back(score, logits)
