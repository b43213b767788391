"""Minimum Bayes risk over N-best lists."""

from .annotations import A, Array
from .device import arrays
from .inputs.risk import read_risk
from .kernels.risk import expected_risk


def minimum_bayes_risk(scores: A, risks: Array, lengths: Array, *, scale: float = 1.0) -> tuple[A, A]:
    """Expected risk of N-best lists, and its gradient with respect to their scores.

    The hypotheses of a list have the probabilities `p = softmax(scale * scores)`, taken over this list only. The risk
    of the list is the sum of `p * risks` (Prabhavalkar et al. 2018, Shannon 2017). It is the third stage of training in
    Zhou et al. 2022.

    Parameters
    ----------
    scores : (B, N) float32, float64, float16 or bfloat16
        Log-scores of the hypotheses in nats: minus their losses, plus what an external language model adds. -inf stands
        for a hypothesis that is not possible. A layout that is not C-contiguous is copied.
    risks : (B, N) integers or reals
        What each hypothesis costs, for example its edit distance from the reference. Finite (up to 1e300), of any sign,
        on the host or on a device.
    lengths : (B,) int32 or int64
        1 <= N_b <= N. Entries beyond a list's length may hold anything and are never read.
    scale : float
        How sharp the probabilities are; above 0.

    Returns
    -------
    risk : (B,) float64 for float64 scores, else float32
        In the unit of `risks`. It is inf where all scores of a list are -inf, and NaN where a score is NaN or +inf.
    grad_scores : (B, N), as `risk`
        `scale * p * (risks - risk)`, which sums to 0 over a list. 0 for scores of -inf, beyond the list, and where the
        risk is inf. NaN throughout a list whose risk is NaN. Entries below 2**-100 are 0.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    See Also
    --------
    beam_decode : Where the hypotheses come from.
    joint_transducer_loss_vjp : Their losses, and the way back.

    Notes
    -----
    Sums are float64. Allocates about 14 bytes for each hypothesis beside the results (10 in float64). Scores on a GPU
    take 8 bytes for each hypothesis there. The host waits for a GPU once, and only if risks or lengths lie there.

    A score is minus a loss, so the gradient goes back with its sign turned. Let all hypotheses stand one after another,
    with the encoder row of each in index::

        loss, vjp = joint_transducer_loss_vjp(encoder, predictor, weight, bias, hypotheses, encoder_lengths,
        hypothesis_lengths,
                                              encoder_index=index)
        real = np.arange(N) < lengths[:, None]
        scores = np.zeros((B, N), loss.dtype)
        scores[real] = -loss + lm_scale * lm_score
        risk, grad_scores = minimum_bayes_risk(scores, risks, lengths)
        gradients = vjp(-grad_scores[real])

    References
    ----------
    Prabhavalkar et al. 2018, arXiv 1712.01818. Shannon 2017, arXiv 1706.02776. Zhou et al. 2022, arXiv 2204.10586.
    """
    problem = read_risk(scores, risks, lengths, scale)
    device = problem.device
    with device.active():
        risk = device.empty(len(problem.scores), problem.dtype)  # (B,)
        grad_scores = device.empty(problem.scores.shape, problem.dtype)  # (B, N)
        risks, lengths = device.upload(None, problem.risks, problem.lengths)
        expected_risk(problem.scores, risks, lengths, problem.scale, risk, grad_scores)
        # A GPU may still read them when this returns, and memory that is let go may be used again.
        device.hold_until_read(scores, problem.scores, risks, lengths)
        return arrays.give_back(risk, scores), arrays.give_back(grad_scores, scores)
