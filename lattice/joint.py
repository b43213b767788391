"""Transducer loss and gradients from encoder, predictor and output layer, in a workspace of a given size."""

from collections.abc import Callable

import numpy as np

from .annotations import A, Activation, Array, Bounds, Dropout, Precision, TopologyLike
from .inputs import checks
from .inputs.joint import DEFAULT_POSTERIOR_FLOOR, read_joint
from .layout import WorkspaceTooSmall
from .tiles import full_sum
from .tiles.certificate import BoundedGroups
from .tiles.plan import per_target
from .tiles.pullback import JointGradients, Pullback
from .tiles.tiler import Tiler


def joint_transducer_loss(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR, precision: Precision = "default",
    near: Array | None = None, dropout: Dropout = None,
) -> A:  # fmt: skip
    """Transducer loss from encoder, predictor and output layer, without the logits.

    It is the `transducer_loss` of `logits[b, t, u] = activation(encoder[b, t] + predictor[b, u]) @ weight.T + bias`.
    With `dropout` a mask multiplies the activation.

    Parameters
    ----------
    encoder : (B, T, H) float32, float64, float16 or bfloat16
    predictor : (B, U+1, H)
    weight : (V, H)
    bias : (V,) or None
        Each of the four is float32, float16 or bfloat16, in any mix, or all are float64. Half precision is computed in
        float32. Layouts that are not C-contiguous are copied, outside `memory_limit`.
    targets : (B, U) int32 or int64
        Label ids, never `blank`.
    encoder_lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T, 0 <= U_b <= U. Padding is never read.
    blank : int
        -V <= blank < V; negative ids count from the end.
    activation : {"tanh", "relu", "identity", "sigmoid", "leaky_relu", "gelu", "silu"}
        "leaky_relu" multiplies numbers below 0 by 0.01. "gelu" is the exact one, x times the probability that a normal
        number is below x. With "gelu" and "silu" the backward pass fills hidden vectors twice, the second time with
        slopes.
    topology : {"rnnt", "monotonic", "constrained"} or Topology
        With "rnnt" a label arc stays on its frame. With "monotonic" it consumes the frame, which needs U_b <= T_b. With
        "constrained" it consumes the frame together with the blank behind it. A `Topology` may also have arcs that
        take several frames ("tdt", "multiblank"). With "tdt", weight and bias have D = len(durations) rows behind the V
        ids, which belong to every example's vocabulary.
    vocabulary : (B, S) int32 or int64, optional
        The ids that each example's softmax runs over, in any order, blank and targets among them (Lee et al. 2022).
    vocabulary_lengths : (B,) int32 or int64, optional
        How many ids of each row are real. Without it, -1 ends a row.
    bounds : pair of (B, T) integer arrays, optional
        First and last label position, inclusive, that exist at each frame.
    encoder_index : (N,) int32 or int64, optional
        Lets several targets share an encoder row. All arguments but `encoder` then have N rows, and row n belongs to
        encoder[encoder_index[n]].
    memory_limit : int, optional
        Bytes of scratch memory beyond inputs and outputs, whatever B, T, U and V are. By default 256 MiB, on a GPU 1
        GiB.
    posterior_floor : float
        Cells with a smaller posterior are skipped in the backward pass. Cells that are proven to be below it before
        their logits are computed are skipped in the forward pass as well. This moves the loss by at most 1e-6 nats. In
        float64 it moves the loss by at most 1e-12 nats, or by rounding where that is more. The l1 error of the logits'
        gradient is about twice the posterior that is skipped, three times with HAT, four times with "tdt"
        (`docs/certified.md`).
        `joint_transducer_report` tells that posterior. 0 computes every cell, and skips only those with a posterior
        below 2**-100. The default is 2**-24.
    precision : {"default", "tf32x3"}
        How a GPU multiplies float32 matrices. By default as CuPy is set, in float32 or in TF32. With "tf32x3" operands
        are split into two halves each, and three products in TF32 stand for one. They take less time. Their error
        is between that of float32 and a tenth of that of TF32 (`docs/numerics.md`). The halves lie in the workspace.
        Nothing changes on the host, nor where float64 or bfloat16 is multiplied.
    near : (B, U) int32 or int64, optional
        The frames of a first guess, those of the last epoch or of any aligner. A label with -1 goes with the one before
        it; the order is free. In wide lattices the band beside them is tried first. The loss stays within its
        certificate whatever they are, and a bad guess only costs time. Not looked at with "tdt" and "multiblank".
    dropout : (rate, seed), optional
        Inverted dropout between activation and output layer, for training. Each entry of a hidden vector is dropped
        with probability rate, a number from 0 to below 1 that is rounded to a multiple of 2**-16. What is kept is
        divided by the share that is kept on average. The mask is a function of the seed, a whole number from 0 to below
        2**64, and of (n, t, u, h), where n is the place in the batch. The same seed gives the same mask on every
        device and in every call. So each call that is trained on wants another one: each step, each part of a batch
        that is cut, and each rank. No array holds the mask.

    Returns
    -------
    loss : (B,) float64 for float64 inputs, else float32
        In nats, one for each target. It is inf where no alignment exists.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. For a `memory_limit` that is too small, the bound is
        the number of bytes needed.
    MemoryError
        A GPU has no room for the workspace or an output. The text says what would do.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the result, and copies as above. The smallest limit that always works
    holds the lattice of one example, and the hidden vectors and logits of 16 cells. A lattice takes 24 bytes a cell (40
    in float64), on a GPU 32 (48 in float64). Where that has no room, a wide lattice is worked on in a band, which takes
    memory in proportion to T + U; see `docs/memory.md`. Arcs that take several frames are not worked on in bands.
    They add numbers of 4 bytes (8 in float64) to every cell: D with D durations of "tdt", D + 2 with "multiblank".

    References
    ----------
    Graves 2012, arXiv 1211.3711. Sample-wise computation: Braun et al. 2022, arXiv 2211.16270. `vocabulary`: Lee et al.
    2022, arXiv 2203.16868. `bounds`: Mahadeokar et al. 2021, arXiv 2011.03072. `posterior_floor`: `docs/certified.md`.
    """
    given = encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
    problem = read_joint(
        *given, blank=blank, activation=activation, topology=topology, vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths, bounds=bounds, encoder_index=encoder_index, memory_limit=memory_limit,
        posterior_floor=posterior_floor, precision=precision, near=near, dropout=dropout,
    )  # fmt: skip
    # A plan is made of integers, so a limit that is too small is refused before anything is allocated.
    work = full_sum.plan(problem, gradients=False, limit=problem.memory_limit)
    with problem.device.active():
        log_z, tiler = problem.device.empty(len(work.order), np.float64), Tiler(work)  # (N,) in the order of work
        bounded = BoundedGroups()
        # Groups follow one another in one workspace, so no more than one group's lattices are held.
        for index in range(len(work.plan.groups)):
            with tiler.group(index) as group:
                full_sum.loss(tiler, group, log_z, bounded)
        return per_target(work, log_z, encoder, negated=True)


def joint_transducer_loss_and_grad(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR, fastemit_lambda: float = 0.0, grad_loss: Array | None = None,
    overwrite: bool = False, precision: Precision = "default",
    near: Array | None = None, dropout: Dropout = None,
) -> tuple[A, JointGradients[A]]:  # fmt: skip
    """`joint_transducer_loss` and the gradients of encoder, predictor, weight and bias.

    Parameters
    ----------
    encoder, ..., posterior_floor
        As in `joint_transducer_loss`.
    fastemit_lambda : float
        At least 0. Label arcs count 1 + fastemit_lambda times in the gradient (FastEmit, Yu et al. 2021).
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default. (N,) with `encoder_index`.
    overwrite : bool
        Write the gradients of encoder and predictor into these two arguments. Refused for read-only arrays and with
        `encoder_index`. Not for arrays that an autograd host keeps for its own backward pass, because the host does not
        see the write.
    precision, near, dropout
        As in `joint_transducer_loss`.

    Returns
    -------
    loss : (B,)
        In nats, as in `joint_transducer_loss`. It is not multiplied by `grad_loss`.
    gradients : JointGradients
        Sums are accumulated in float32 (float64 for float64) and rounded once. 0 on padding and in examples without an
        alignment. Entries of the logits' gradient, which they are sums of, are 0 below 2**-100. So all gradients are 0
        with a `grad_loss` of 1e-33.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss`. `overwrite` is given with `encoder_index`, or with arrays that share memory or
        may not be written to.

    See Also
    --------
    joint_transducer_loss_vjp : The loss now and the gradients later, for autograd hosts.
    joint_transducer_report : What such a call costs.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the loss and the gradients. With `overwrite` only the gradients of
    weight and bias are new arrays. The workspace holds what `joint_transducer_loss` needs, and H numbers for each frame
    and label position of the examples that are worked on at once (`docs/memory.md`).

    References
    ----------
    As in `joint_transducer_loss`. FastEmit: Yu et al. 2021, arXiv 2010.11148.
    """
    given = encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
    problem = read_joint(
        *given, blank=blank, activation=activation, topology=topology, vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths, bounds=bounds, encoder_index=encoder_index, memory_limit=memory_limit,
        posterior_floor=posterior_floor, precision=precision, near=near, dropout=dropout,
    )  # fmt: skip
    # What can be refused is refused here, before `overwrite` writes anything.
    pullback = Pullback(problem, encoder, predictor, fastemit_lambda=fastemit_lambda, overwrite=overwrite)
    work = full_sum.plan(problem, gradients=True, limit=problem.memory_limit, bands=not pullback.overwrite)
    grad_loss = checks.read_grad_loss(grad_loss, len(work.order), work.dtype, problem.device)  # (N,)
    with problem.device.active():
        log_z = problem.device.empty(len(work.order), np.float64)  # (N,) in the order of work
        gradients = pullback.run(work, full_sum.both_ways(log_z, grad_loss, pullback.fastemit_lambda))
        return per_target(work, log_z, encoder, negated=True), gradients


def joint_transducer_loss_vjp(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR, fastemit_lambda: float = 0.0, overwrite: bool = False,
    precision: Precision = "default",
    near: Array | None = None, dropout: Dropout = None,
) -> tuple[A, Callable[..., JointGradients[A]]]:  # fmt: skip
    """`joint_transducer_loss` and a function that gives its gradients for an upstream gradient, for autograd hosts.

    Parameters
    ----------
    encoder, ..., fastemit_lambda, overwrite, precision, near, dropout
        As in `joint_transducer_loss_and_grad`.

    Returns
    -------
    loss : (B,)
        In nats, as in `joint_transducer_loss`.
    vjp : callable
        `vjp(grad_loss) -> JointGradients`. It may be called as often as wanted while the inputs are unchanged, and once
        with `overwrite`. `grad_loss` is (B,) real, ones by default.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss_and_grad`.
    RuntimeError
        `vjp` is called a second time after `overwrite`.

    Notes
    -----
    Allocates as `joint_transducer_loss_and_grad` does; the gradients are allocated in `vjp`. Between the calls it holds
    the posteriors of the occupied cells. All of that stays within `memory_limit`, and what does not fit is computed
    again.

    References
    ----------
    As in `joint_transducer_loss_and_grad`.
    """
    given = encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
    problem = read_joint(
        *given, blank=blank, activation=activation, topology=topology, vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths, bounds=bounds, encoder_index=encoder_index, memory_limit=memory_limit,
        posterior_floor=posterior_floor, precision=precision, near=near, dropout=dropout,
    )  # fmt: skip
    pullback = Pullback(problem, encoder, predictor, fastemit_lambda=fastemit_lambda, overwrite=overwrite)
    try:
        # Half of the limit is for the pass, the other half for what is held between the passes.
        work = full_sum.plan(problem, gradients=True, limit=problem.memory_limit // 2, bands=False)
    except WorkspaceTooSmall:
        work = full_sum.plan(problem, gradients=True, limit=problem.memory_limit, bands=not pullback.overwrite)
    room = problem.memory_limit - work.plan.size
    with problem.device.active():
        log_z = problem.device.empty(len(work.order), np.float64)
        held = full_sum.hold(work, log_z, room)
        loss = per_target(work, log_z, encoder, negated=True)
        # An autograd host may call `vjp` on another stream, which has to wait for what is held.
        forward_done = problem.device.mark()

    def vjp(grad_loss=None):
        upstream = checks.read_grad_loss(grad_loss, len(work.order), work.dtype, problem.device)
        # This comes after all checks, so a call that is refused is not the one that `overwrite` allows.
        pullback.check_unused()
        with problem.device.active():
            problem.device.follow(forward_done)
            # Filled for groups that are computed again, which need it meanwhile. The loss has been returned before.
            log_z = problem.device.empty(len(work.order), np.float64)
            gradients = pullback.run(work, full_sum.both_ways(log_z, upstream, pullback.fastemit_lambda, held))
            # The caller may let go of this function, and with it of the arguments, as soon as it returns.
            used = problem.encoder, problem.predictor, problem.weight, problem.bias
            problem.device.hold_until_read(encoder, upstream, *used)
            return gradients

    return loss, vjp
