"""From the posteriors of every group to the gradients of the four arguments, in the kinds they were passed in."""

from itertools import combinations
from typing import Any, Generic, NamedTuple

import numpy as np

from ..annotations import A
from ..device import arrays
from ..inputs import checks
from ..inputs.joint import JointProblem
from ..kernels.rows import gather, share, unpack
from .tiler import JointTiles, Outputs, Visited


class JointGradients(NamedTuple, Generic[A]):
    """Gradients of a fused joint loss, each in its input's shape and dtype, in the kind of the encoder.

    Attributes
    ----------
    encoder : (B, T, H)
    predictor : (B, U+1, H)
    weight : (V, H)
    bias : (V,), or None if the bias was
    """

    encoder: A
    predictor: A
    weight: A
    bias: A | None


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
        self.problem, self.encoder, self.predictor = problem, encoder, predictor
        self.overwrite = checks.read_flag(overwrite, "overwrite")
        self.fastemit_lambda = checks.read_factor(fastemit_lambda, "fastemit_lambda")
        self.used = False
        if self.overwrite:
            if problem.encoder_index is not None:
                raise ValueError("overwrite=True and encoder_index cannot be combined: several targets share an encoder row")
            to_write = {"encoder": checks.read_writable(encoder, "encoder"),
                        "predictor": checks.read_writable(predictor, "predictor")}  # fmt: skip
            shared = {**to_write, "weight": problem.weight, "bias": problem.bias}
            for one, other in combinations(shared, 2):
                if one in to_write and shared[other] is not None and arrays.overlap(shared[one], shared[other]):
                    raise ValueError(f"overwrite=True: {one} and {other} share memory, expected arrays apart from one another")

    def check_unused(self) -> None:
        if self.used:
            raise RuntimeError("vjp was called a second time, but with overwrite=True the first call overwrote the inputs")
        self.used = self.overwrite

    def run(self, tiles: JointTiles, grad_loss, log_z, held: dict[int, Visited] | None = None) -> JointGradients:
        problem, held = self.problem, held or {}
        outputs = self._outputs(tiles)
        shared: Any = None
        opens_row: Any = None
        if problem.encoder_index is not None:
            shared = tiles.hold((problem.encoder.shape[1], problem.encoder.shape[2]))
            shared.fill(0)
            opens_row = np.diff(problem.encoder_index[tiles.order], prepend=-1) != 0
        for index in range(len(tiles.plan.groups)):
            group = tiles.group(index)
            visited: Any = held[index] if index in held else tiles.forward(group, log_z, posteriors=True)
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
