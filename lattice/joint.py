"""Transducer loss and gradients from encoder, predictor and output layer, in a workspace of a given size."""

import copy
from typing import NamedTuple

import numpy as np

from . import arrays, checks, inputs
from .inputs import JointProblem
from .kernels.rows import gather, share, unpack
from .tiles import JointTiles, Outputs, Visited

DEFAULT_MEMORY_LIMIT = 256 << 20
DEFAULT_POSTERIOR_FLOOR = 2.0**-24


class JointGradients(NamedTuple):
    """Gradients of a fused joint loss, each in its input's shape and dtype; `bias` is None if the bias was."""

    encoder: object
    predictor: object
    weight: object
    bias: object


def joint_transducer_loss(
    encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, *, blank=0, activation="tanh", topology="rnnt",
    vocabulary=None, vocabulary_lengths=None, bounds=None, encoder_index=None, memory_limit=DEFAULT_MEMORY_LIMIT,
    posterior_floor=DEFAULT_POSTERIOR_FLOOR,
):  # fmt: skip
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
    activation : {"tanh", "relu", "identity"}
    topology : {"rnnt", "monotonic"}
        A label arc stays on its frame, or consumes it.
    vocabulary : (B, S) int32 or int64, optional
        The ids each example's softmax runs over, in any order, blank and targets among them (Lee et al. 2022).
    vocabulary_lengths : (B,), optional
        How many of them are real; without it, -1 ends a row.
    bounds : pair of (B, T) integer arrays, optional
        First and last label position that exist at each frame.
    encoder_index : (N,) int32 or int64, optional
        Several targets share encoder rows: all arguments but `encoder` have N rows, row n belongs to encoder[encoder_index[n]].
    memory_limit : int
        Bytes of scratch memory beyond inputs and outputs, whatever B, T, U and V are.
    posterior_floor : float
        Cells with a smaller posterior are left out of the backward pass; cells that are proven to be so before their logits are
        known, of the forward pass too, as far as the loss is off by no more than 1e-6 (float64: 1e-12, or rounding). The l1 error
        of the logits' gradient is about twice the posterior left out (docs/certified.md; `joint_transducer_report` tells). 0
        visits every cell.

    Returns
    -------
    loss : (B,) float64 for float64 inputs, else float32
        In nats, unreduced; inf where no alignment exists.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound; a `memory_limit` too small names the bytes needed.
    """
    problem = inputs.read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
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
    encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, *, blank=0, activation="tanh", topology="rnnt",
    vocabulary=None, vocabulary_lengths=None, bounds=None, encoder_index=None, memory_limit=DEFAULT_MEMORY_LIMIT,
    posterior_floor=DEFAULT_POSTERIOR_FLOOR, fastemit_lambda=0.0, grad_loss=None, overwrite=False,
):  # fmt: skip
    """`joint_transducer_loss` and the gradients of encoder, predictor, weight and bias.

    Parameters
    ----------
    encoder, ..., posterior_floor
        As in `joint_transducer_loss`.
    fastemit_lambda : float
        At least 0: label arcs count 1 + fastemit_lambda times in the gradient (FastEmit, Yu et al. 2021).
    grad_loss : (B,) real, optional
        Upstream gradient; ones by default.
    overwrite : bool
        The gradients of encoder and predictor are written where those lie. Refused for read-only arrays and `encoder_index`.

    Returns
    -------
    loss : (B,)
    gradients : JointGradients
        Sums are accumulated in float32 (float64 for float64) and rounded once; 0 on padding.
    """
    problem = inputs.read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
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
    encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, *, blank=0, activation="tanh", topology="rnnt",
    vocabulary=None, vocabulary_lengths=None, bounds=None, encoder_index=None, memory_limit=DEFAULT_MEMORY_LIMIT,
    posterior_floor=DEFAULT_POSTERIOR_FLOOR, fastemit_lambda=0.0, overwrite=False,
):  # fmt: skip
    """`joint_transducer_loss` and a function that gives its gradients for an upstream gradient, for autograd hosts.

    Parameters
    ----------
    encoder, ..., overwrite
        As in `joint_transducer_loss_and_grad`.

    Returns
    -------
    loss : (B,)
    vjp : callable
        `vjp(grad_loss) -> JointGradients`, as often as wanted while the inputs are unchanged; once with `overwrite`. Between the
        calls the posteriors of the occupied cells are held, up to `memory_limit`; what did not fit is computed again.
    """
    problem = inputs.read_joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation,
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
            visited = forward_pass.forward(forward_pass.group(index), log_z, posteriors=True)
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


def per_target(tiles: JointTiles, values, like):
    """Values (N,) float64 in the order of work, in that of the targets and in the kind of an argument."""
    device, problem = tiles.device, tiles.problem
    if problem.encoder_index is not None:
        place, found, values = device.upload(None, np.argsort(tiles.order))[0], values, device.empty(values.shape, np.float64)
        gather(found[:, None], place, values[:, None])
    device.keep(like, problem.encoder, problem.predictor, problem.weight, problem.bias)
    return arrays.give_back(device.convert(values, tiles.dtype), like)


class Pullback:
    """Runs the backward pass of every group and puts the gradients where they belong."""

    def __init__(self, problem: JointProblem, encoder, predictor, fastemit_lambda, overwrite):
        self.problem, self.encoder, self.predictor, self.overwrite = problem, encoder, predictor, overwrite
        self.fastemit_lambda = checks.read_number(fastemit_lambda, "fastemit_lambda", 0.0, bound="at least 0")
        self.used = False
        if overwrite:
            if problem.encoder_index is not None:
                raise ValueError("overwrite=True and encoder_index cannot be combined: several targets share an encoder row")
            arrays_to_write = checks.read_writable(encoder, "encoder"), checks.read_writable(predictor, "predictor")
            if arrays.overlap(*arrays_to_write):
                raise ValueError("overwrite=True: encoder and predictor share memory, expected one array for each gradient")

    def check_unused(self) -> None:
        if self.used:
            raise RuntimeError("vjp was called a second time, but with overwrite=True the first call overwrote the inputs")
        self.used = self.overwrite

    def run(self, tiles: JointTiles, grad_loss, log_z, held: dict[int, Visited] | None = None) -> JointGradients:
        problem = self.problem
        outputs = self._outputs(tiles)
        shared, opens_row = None, None
        if problem.encoder_index is not None:
            shared = tiles.hold((problem.encoder.shape[1], problem.encoder.shape[2]))
            shared.fill(0)
            opens_row = np.diff(problem.encoder_index[tiles.order], prepend=-1) != 0
        for index in range(len(tiles.plan.groups)):
            group = tiles.group(index)
            if held is not None and index in held:
                visited = held[index]
            else:
                visited = tiles.forward(group, log_z, posteriors=True)
            grad_encoder, grad_predictor = tiles.backward(group, visited, self.fastemit_lambda, grad_loss, outputs)
            unpack(grad_predictor, group.label_base, group.example, outputs.predictor)
            if shared is None:
                unpack(grad_encoder, group.index.starts, group.example, outputs.encoder)
            else:
                opens = opens_row[group.begin : group.end].astype(np.uint8)
                opens = tiles.device.upload(tiles.space, opens)[0]
                share(grad_encoder, group.index.starts, group.source, opens, shared, outputs.encoder)
        return self._give_back(outputs)

    def _outputs(self, tiles: JointTiles) -> Outputs:
        problem, empty = self.problem, tiles.device.empty
        if self.overwrite:
            encoder, predictor = problem.encoder, problem.predictor
        else:
            encoder = empty(problem.encoder.shape, problem.encoder.dtype)
            predictor = empty(problem.predictor.shape, problem.predictor.dtype)
        if problem.encoder_index is not None:
            encoder.fill(0)
        if problem.weight.dtype == tiles.dtype:
            weight = empty(problem.weight.shape, tiles.dtype)
        else:
            weight = tiles.hold(problem.weight.shape)
        weight.fill(0)
        bias = empty(len(weight), tiles.dtype)
        bias.fill(0)
        return Outputs(encoder, predictor, weight, bias)

    def _give_back(self, outputs: Outputs) -> JointGradients:
        """Each gradient in its input's dtype and in the kind of the encoder; overwritten arguments as they were passed."""
        problem, device = self.problem, self.problem.device
        if self.overwrite:
            encoder, predictor = self.encoder, self.predictor
        else:
            encoder, predictor = (arrays.give_back(array, self.encoder) for array in (outputs.encoder, outputs.predictor))
        weight = arrays.give_back(device.convert(outputs.weight, problem.weight.dtype), self.encoder)
        bias = None
        if problem.bias is not None:
            bias = arrays.give_back(device.convert(outputs.bias, problem.bias.dtype), self.encoder)
        return JointGradients(encoder, predictor, weight, bias)
