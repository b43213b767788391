"""Loss and gradient over scores of arcs, which may be of any sign and need not be log-probabilities."""

from .annotations import A, Array, Bounds, TopologyLike
from .device import arrays
from .inputs import checks
from .inputs.scores import read_scores
from .lattices import sum_scores


def scores_loss_and_grad(
    blank_scores: A, label_scores: Array, frame_lengths: Array, target_lengths: Array, *,
    topology: TopologyLike = "rnnt", bounds: Bounds | None = None, grad_loss: Array | None = None,
) -> tuple[A, A, A]:  # fmt: skip
    """Minus the log-sum over all alignments of their scores, and its gradient with respect to the score of each arc.

    The score of an alignment is the sum of the scores of its arcs. Nothing is normalised. With log-probabilities it is
    `transducer_loss`. With others it is what a scorer of one's own needs, or a mixture of several.

    Parameters
    ----------
    blank_scores, label_scores : (B, T, U+1) float32, float64, float16 or bfloat16
        One dtype for both. Scores of the blank arc of each cell (t, u), and of the arc that emits label u in frame t,
        in nats and of any sign. -inf closes an arc. Padding is never read, nor is the label score at u = U_b. Layouts
        that are not C-contiguous are copied.
    frame_lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T and 0 <= U_b <= U.
    topology : {"rnnt", "monotonic", "constrained"} or Topology
        Which arcs leave a cell, and a `delay_penalty` that is added to the label scores. Not with `hat`, nor with
        "tdt" and "multiblank".
    bounds : pair of (B, T) integer arrays, optional
        First and last label position, inclusive, that exist at each frame. A cell outside has no outgoing arcs.
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default.

    Returns
    -------
    loss : (B,) float64 for float64 scores, else float32
        In nats, of any sign. It is inf where no alignment exists, and NaN where a cell that alignments can visit holds
        NaN or +inf. It is not multiplied by `grad_loss`.
    grad_blank, grad_label : (B, T, U+1), as the scores
        Minus the posterior of each arc, times `grad_loss`. 0 on padding and in examples without an alignment, NaN where
        the loss is NaN. Entries below 2**-100 are 0.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    See Also
    --------
    transducer_loss_and_grad : From logits, whose rows are normalised.
    transducer_posteriors : The posteriors of arcs, from logits.

    Notes
    -----
    Allocates the results and 16 bytes a cell (24 in float64), on a GPU 24 (32 in float64). Half precision takes 8 bytes
    more for each entry, and on the host 16. Sums over alignments are float64. Where the scores of an
    alignment add up to 1e12 and more, float64 holds few digits behind the point, and the posteriors of a frame's arcs
    no longer add up to 1. With "constrained" a label is followed by a blank, and the posterior of a blank arc includes
    that one.

    References
    ----------
    Graves 2012, arXiv 1211.3711. `delay_penalty`: Kang et al. 2022, arXiv 2211.00490. `bounds`: Mahadeokar et al. 2021,
    arXiv 2011.03072.
    """
    problem = read_scores(blank_scores, label_scores, frame_lengths, target_lengths, topology=topology, bounds=bounds)
    device, dtype = problem.device, arrays.computing_dtype(problem.dtype)
    grad_loss = checks.read_grad_loss(grad_loss, len(problem.frame_lengths), dtype, device)  # (B,)
    with device.active():
        loss, grad_blank, grad_label = sum_scores(problem, grad_loss)
        # A GPU may still read them when this returns, and memory that is let go may be used again.
        device.hold_until_read(blank_scores, problem.blank_scores, problem.label_scores, grad_loss)
        loss, grad_blank = arrays.give_back(loss, blank_scores), arrays.give_back(grad_blank, blank_scores)
        return loss, grad_blank, arrays.give_back(grad_label, blank_scores)
