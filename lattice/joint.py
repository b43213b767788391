"""Transducer loss and gradients from encoder, predictor and output layer, in a workspace of a given size."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from .annotations import A, Activation, Array, Bounds, Topology
from .inputs import checks
from .inputs.joint import read_joint
from .tiles.pullback import JointGradients, Pullback, per_target
from .tiles.tiler import JointTiles, Visited

DEFAULT_POSTERIOR_FLOOR = 2.0**-24


def joint_transducer_loss(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: Topology = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR,
) -> A:  # fmt: skip
    """Transducer loss of `logits[b, t, u] = activation(encoder[b, t] + predictor[b, u]) @ weight.T + bias`, without the logits.

    Parameters
    ----------
    encoder : (B, T, H) float32, float64, float16 or bfloat16
    predictor : (B, U+1, H)
    weight : (V, H)
    bias : (V,) or None
        One dtype for all four; half-precision encoder and predictor may also meet float32 weight and bias. Half precision is
        computed in float32. Layouts that are not C-contiguous are copied, outside `memory_limit`.
    targets : (B, U) int32 or int64
        Label ids, never `blank`.
    encoder_lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T, 0 <= U_b <= U. Padding is never read.
    blank : int
        -V <= blank < V; negative ids count from the end.
    activation : {"tanh", "relu", "identity"}
    topology : {"rnnt", "monotonic"}
        A label arc stays on its frame, or consumes it (then U_b <= T_b is needed).
    vocabulary : (B, S) int32 or int64, optional
        The ids each example's softmax runs over, in any order, blank and targets among them (Lee et al. 2022).
    vocabulary_lengths : (B,), optional
        How many of them are real; without it, -1 ends a row.
    bounds : pair of (B, T) integer arrays, optional
        First and last label position that exist at each frame.
    encoder_index : (N,) int32 or int64, optional
        Several targets share encoder rows: all arguments but `encoder` have N rows, row n belongs to encoder[encoder_index[n]].
    memory_limit : int, optional
        Bytes of scratch memory beyond inputs and outputs, whatever B, T, U and V are; without it 256 MiB, on a GPU 1 GiB.
    posterior_floor : float
        Cells with a smaller posterior are left out of the backward pass; cells that are proven to be so before their logits are
        known, of the forward pass too, as far as the loss is off by no more than 1e-6 (float64: 1e-12, or rounding). The l1 error
        of the logits' gradient is about twice the posterior left out (`docs/certified.md`; `joint_transducer_report` tells). 0
        visits every cell; 2**-24 by default.

    Returns
    -------
    loss : (B,) float64 for float64 inputs, else float32
        In nats, unreduced; inf where no alignment exists.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound; a `memory_limit` too small names the bytes needed.
    MemoryError
        A GPU has no room for the workspace or an output, and what would do.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the result, and copies as above. The least that works holds the lattice of one
    example, 24 bytes a cell (40 in float64; on a GPU 32 and 48), and the hidden vectors and logits of 16 cells
    (`docs/memory.md`).

    References
    ----------
    Graves 2012, arXiv 1211.3711. Sample-wise computation: Braun et al. 2022, arXiv 2211.16270. `vocabulary`: Lee et al. 2022,
    arXiv 2203.16868. `bounds`: Mahadeokar et al. 2021, arXiv 2011.03072. `posterior_floor`: `docs/certified.md`.
    """
    problem = read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
                                topology, vocabulary, vocabulary_lengths, bounds, encoder_index, memory_limit,
                                posterior_floor)  # fmt: skip
    tiles = JointTiles(problem, gradients=False, limit=problem.memory_limit)
    with problem.device.active():
        log_z = problem.device.empty(len(tiles.order), np.float64)
        tiles.open()
        for index in range(len(tiles.plan.groups)):
            tiles.forward(tiles.group(index), log_z, posteriors=False)
        return per_target(tiles, -log_z, encoder)


def joint_transducer_loss_and_grad(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: Topology = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR, fastemit_lambda: float = 0.0, grad_loss: Array | None = None,
    overwrite: bool = False,
) -> tuple[A, JointGradients[A]]:  # fmt: skip
    """`joint_transducer_loss` and the gradients of encoder, predictor, weight and bias.

    Parameters
    ----------
    encoder, ..., posterior_floor
        As in `joint_transducer_loss`.
    fastemit_lambda : float
        At least 0: label arcs count 1 + fastemit_lambda times in the gradient (FastEmit, Yu et al. 2021).
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default. (N,) with `encoder_index`.
    overwrite : bool
        The gradients of encoder and predictor are written where those lie. Refused for read-only arrays and `encoder_index`.

    Returns
    -------
    loss : (B,)
        In nats, as in `joint_transducer_loss`; not multiplied by `grad_loss`.
    gradients : JointGradients
        Sums are accumulated in float32 (float64 for float64) and rounded once; 0 on padding and in examples without an alignment.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss`; `overwrite` of arrays that may not be written to or share memory, or with `encoder_index`.

    See Also
    --------
    joint_transducer_loss_vjp : The loss now and the gradients later, for autograd hosts.
    joint_transducer_report : What such a call costs.

    Notes
    -----
    Allocates at most `memory_limit` bytes beyond the loss and the gradients; `overwrite` leaves those of weight and bias.
    The workspace holds what `joint_transducer_loss` needs, and H numbers for each frame and label position of the examples that
    are worked on at once (`docs/memory.md`).

    References
    ----------
    As in `joint_transducer_loss`. FastEmit: Yu et al. 2021, arXiv 2010.11148.
    """
    problem = read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
                                topology, vocabulary, vocabulary_lengths, bounds, encoder_index, memory_limit,
                                posterior_floor)  # fmt: skip
    pullback = Pullback(problem, encoder, predictor, fastemit_lambda, overwrite)
    tiles = JointTiles(problem, gradients=True, limit=problem.memory_limit)
    grad_loss = checks.read_grad_loss(grad_loss, len(tiles.order), tiles.dtype, problem.device)
    with problem.device.active():
        log_z = problem.device.empty(len(tiles.order), np.float64)
        tiles.open()
        gradients = pullback.run(tiles, grad_loss, log_z)
        return per_target(tiles, -log_z, encoder), gradients


def joint_transducer_loss_vjp(
    encoder: A, predictor: Array, weight: Array, bias: Array | None, targets: Array, encoder_lengths: Array,
    target_lengths: Array, *, blank: int = 0, activation: Activation = "tanh", topology: Topology = "rnnt",
    vocabulary: Array | None = None, vocabulary_lengths: Array | None = None, bounds: Bounds | None = None,
    encoder_index: Array | None = None, memory_limit: int | None = None,
    posterior_floor: float = DEFAULT_POSTERIOR_FLOOR, fastemit_lambda: float = 0.0, overwrite: bool = False,
) -> tuple[A, Callable[..., JointGradients[A]]]:  # fmt: skip
    """`joint_transducer_loss` and a function that gives its gradients for an upstream gradient, for autograd hosts.

    Parameters
    ----------
    encoder, ..., fastemit_lambda, overwrite
        As in `joint_transducer_loss_and_grad`.

    Returns
    -------
    loss : (B,)
        In nats, as in `joint_transducer_loss`.
    vjp : callable
        `vjp(grad_loss) -> JointGradients`, as often as wanted while the inputs are unchanged; once with `overwrite`. `grad_loss`
        is (B,) real, ones by default.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `joint_transducer_loss_and_grad`.
    RuntimeError
        `vjp` is called a second time after `overwrite`.

    Notes
    -----
    Allocates as `joint_transducer_loss_and_grad` does, the gradients in `vjp`. Between the calls the posteriors of the occupied
    cells are held, all within `memory_limit`; what did not fit is computed again.

    References
    ----------
    As in `joint_transducer_loss_and_grad`.
    """
    problem = read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
                                topology, vocabulary, vocabulary_lengths, bounds, encoder_index, memory_limit,
                                posterior_floor)  # fmt: skip
    pullback = Pullback(problem, encoder, predictor, fastemit_lambda, overwrite)
    try:
        tiles = JointTiles(problem, gradients=True, limit=problem.memory_limit // 2)
    except ValueError:
        tiles = JointTiles(problem, gradients=True, limit=problem.memory_limit)
    left = problem.memory_limit - tiles.plan.size
    held: dict[int, Visited] = {}
    # Copies are opened, so that no workspace outlives its pass and calls from several threads do not meet in one.
    forward_pass = copy.copy(tiles)
    with problem.device.active():
        log_z = problem.device.empty(len(tiles.order), np.float64)
        forward_pass.open()
        for index in range(len(tiles.plan.groups)):
            visited: Any = forward_pass.forward(forward_pass.group(index), log_z, posteriors=True)
            cost = sum(array.nbytes for array in visited)
            if cost <= left:
                held[index] = Visited(*(array.copy() for array in visited))
                left -= cost
        loss = per_target(tiles, -log_z, encoder)
        forward_done = problem.device.mark()
    del forward_pass

    def vjp(grad_loss=None):
        upstream = checks.read_grad_loss(grad_loss, len(tiles.order), tiles.dtype, problem.device)
        pullback.check_unused()
        backward_pass = copy.copy(tiles)
        with problem.device.active():
            problem.device.follow(forward_done)
            backward_pass.open()
            gradients = pullback.run(backward_pass, upstream, problem.device.empty(len(tiles.order), np.float64), held)
            problem.device.keep(encoder, upstream)
            return gradients

    return loss, vjp
