"""Transducer loss and gradient from given logits."""

from typing import Any

from .annotations import A, Array, Bounds, TopologyLike
from .device import arrays
from .inputs import checks
from .inputs.logits import read_logits, read_out
from .lattices import Lattices
from .topology import TWO_ARCS


def transducer_loss(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *,
    blank: int = 0, topology: TopologyLike = "rnnt", bounds: Bounds | None = None, banded: bool = False,
) -> A:  # fmt: skip
    """Negative log-probability of targets summed over all alignments (Graves 2012).

    Parameters
    ----------
    logits : (B, T, U+1, V), (sum_b T_b * (U_b + 1), V) or (B, T, R, V), float32, float64, float16 or bfloat16
        Unnormalised scores: padded, packed, or with `banded` the rows of a band. Rows of padding are never read. A
        layout that is not C-contiguous is copied.
    targets : (B, U) int32 or int64
        Label ids, never `blank`. Entries beyond a target's length may hold anything.
    logit_lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T and 0 <= U_b <= U.
    blank : int
        -V <= blank < V; negative ids count from the end.
    topology : {"rnnt", "monotonic", "constrained"} or Topology
        With "rnnt" a label arc stays on its frame. With "monotonic" it consumes the frame, which needs U_b <= T_b. With
        "constrained" it consumes the frame together with the blank behind it. A `Topology` may also have arcs that
        take several frames ("tdt", "multiblank"). With "tdt" a row has D = len(durations) entries behind its V ids.
    bounds : pair of (B, T) integer arrays, optional
        First and last label position, inclusive, that exist at each frame. A cell outside has no outgoing arcs.
    banded : bool
        Row r of frame t is for the cell (t, first[b, t] + r), as in pruned recipes, so no array of all cells exists. It
        takes `bounds` and padded logits with R rows a frame. A frame t < T_b may have up to R positions, and the bounds
        may reach beyond 0 to U_b. Rows that are for no cell are padding. U is the size of `targets` alone.

    Returns
    -------
    loss : (B,) float64 for float64 logits, else float32
        In nats. It is inf where no alignment exists, and NaN where a cell that alignments can visit holds NaN or +inf.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    See Also
    --------
    joint_transducer_loss : The same without logits, from encoder, predictor and output layer.

    Notes
    -----
    Allocates about 40 bytes a cell beside the logits (56 in float64), and 4 (8) more for each duration of
    "tdt", or for each big blank of "multiblank" and two. The host widens half precision a few rows at a time, which
    takes up to 6 MiB more. Sums over alignments are float64.

    References
    ----------
    Graves 2012, arXiv 1211.3711. "monotonic": Sak et al. 2017. `bounds`: Mahadeokar et al. 2021, arXiv 2011.03072.
    `banded`: the layout of Kuang et al. 2022, arXiv 2206.13236.
    """
    problem = read_logits(
        logits, targets, logit_lengths, target_lengths, blank=blank, topology=topology, bounds=bounds, banded=banded
    )
    with problem.device.active():
        loss = Lattices(problem).loss()
        # A GPU may still read the logits when this returns, and memory that is let go may be used again.
        problem.device.hold_until_read(logits, problem.logits)
        return arrays.give_back(loss, logits)


def transducer_exit_posterior(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *,
    blank: int = 0, topology: TopologyLike = "rnnt", bounds: Bounds, banded: bool = False,
) -> A:  # fmt: skip
    """At most this share of the probability of all alignments leaves `bounds`.

    It says how wrong a pruned or a restricted loss is, without a logit outside of the bounds::

        bias = -np.log1p(-transducer_exit_posterior(..., bounds=bounds))

    The loss with these bounds is at most so many nats above the loss without.

    Parameters
    ----------
    logits, targets, logit_lengths, target_lengths, blank
        As in `transducer_loss`. No row of a cell outside of `bounds` is read.
    topology : {"rnnt", "monotonic", "constrained"} or Topology
        As in `transducer_loss`, but for "tdt" and "multiblank", which are refused.
    bounds : pair of (B, T) integer arrays
        First and last label position, inclusive, that are kept at each frame.
    banded : bool
        As in `transducer_loss`.

    Returns
    -------
    exit_posterior : (B,) float64
        From 0 to 1, apart from the rounding of scores never below the true share. It is 1 where no alignment keeps to
        the bounds, 0 where there is none in the whole lattice either, and NaN where a cell inside that alignments can
        visit holds NaN or +inf.

    Raises
    ------
    ValueError, TypeError
        As in `transducer_loss`.

    See Also
    --------
    joint_transducer_report : The same from encoder, predictor and output layer, in its exit_posterior.
    alignment_bounds : Bounds beside an alignment.

    Notes
    -----
    What leaves is weighed by the score up to where it leaves, and is taken to come to the end for certain. So the bound
    is tight where a network is sure, and may be of no use early in training (`docs/pruning.md`), nor with a large
    `delay_penalty`, which what leaves has not paid yet. Alignments that leave and come back have left.

    Allocates what `transducer_loss` does for the cells inside the bounds, and some 120 bytes a frame and 100 a label
    position. On a GPU the call waits for its result.

    References
    ----------
    The proof is in `docs/certified.md`. Pruned losses: Kuang et al. 2022, arXiv 2206.13236.
    """
    problem = read_logits(
        logits,
        targets,
        logit_lengths,
        target_lengths,
        blank=blank,
        topology=topology,
        bounds=bounds,
        banded=banded,
        names=TWO_ARCS,
    )
    if bounds is None:
        raise TypeError("bounds is None, expected a pair (first, last): without them nothing leaves")
    with problem.device.active():
        share = Lattices(problem).exit_posterior()
        problem.device.hold_until_read(logits, problem.logits)
        return arrays.give_back(problem.device.upload(None, share)[0], logits)


def transducer_loss_and_grad(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *,
    blank: int = 0, topology: TopologyLike = "rnnt", bounds: Bounds | None = None, banded: bool = False,
    fastemit_lambda: float = 0.0, grad_loss: Array | None = None, out: A | None = None,
) -> tuple[A, A]:  # fmt: skip
    """`transducer_loss` and its gradient with respect to the logits.

    Parameters
    ----------
    logits, targets, logit_lengths, target_lengths, blank, topology, bounds, banded
        As in `transducer_loss`.
    fastemit_lambda : float
        At least 0. The posterior of label arcs counts 1 + fastemit_lambda times in the gradient. The loss is unchanged
        (FastEmit, Yu et al. 2021).
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default.
    out : array like `logits`, optional
        Where the gradient goes. `out=logits` overwrites the logits, and no second array of their size exists.

    Returns
    -------
    loss : (B,)
        In nats, as in `transducer_loss`. It is not multiplied by `grad_loss`.
    grad_logits : like logits
        0 on padding and in examples without an alignment, NaN where the loss is NaN. Entries below
        2**-100 are 0, so with a `grad_loss` of 1e-33 all are. `out` itself if that is given.

    Raises
    ------
    ValueError, TypeError
        As in `transducer_loss`. `out` has another shape, dtype or device, is read-only, or overlaps the logits in part.

    See Also
    --------
    joint_transducer_loss_and_grad : The same without logits, from encoder, predictor and output layer.

    Notes
    -----
    Allocates the gradient, unless `out` is given, and what `transducer_loss` does. A GPU takes 8 bytes a cell more, for
    beta.

    References
    ----------
    As in `transducer_loss`. FastEmit: Yu et al. 2021, arXiv 2010.11148.
    """
    problem = read_logits(
        logits, targets, logit_lengths, target_lengths, blank=blank, topology=topology, bounds=bounds, banded=banded
    )
    fastemit_lambda = checks.read_factor(fastemit_lambda, "fastemit_lambda")
    device, dtype = problem.device, arrays.computing_dtype(problem.logits.dtype)
    grad_loss = checks.read_grad_loss(grad_loss, len(problem.base), dtype, device)  # (B,)
    # All checks come before the first write, so an error leaves `out` as it was.
    target: Any = None if out is None else read_out(out, problem)
    with device.active():
        if out is None:
            target = device.empty(problem.logits.shape, problem.logits.dtype)  # (rows, V)
        lattices = Lattices(problem)
        # Scores are all read from the logits before a row of the gradient may overwrite them.
        loss, posteriors = lattices.forward()
        lattices.backward(posteriors, target, fastemit_lambda, grad_loss)
        device.hold_until_read(logits, problem.logits, grad_loss)
        grad_logits = arrays.give_back(target.reshape(problem.shape), logits) if out is None else out
        return arrays.give_back(loss, logits), grad_logits
