"""From the gradients of every group to the gradients of the four arguments, in the kinds they were passed in."""

from collections.abc import Callable
from itertools import combinations
from typing import Any, Generic, NamedTuple

import numpy as np

from ..annotations import A
from ..device import arrays
from ..inputs import checks
from ..inputs.joint import JointProblem
from ..kernels.rows import share, unpack
from .gradients import Outputs
from .plan import Work
from .tiler import Tiler


class JointGradients(NamedTuple, Generic[A]):
    """Gradients of a fused joint loss, each in its input's shape and dtype, in the kind of the first argument.

    Attributes
    ----------
    encoder : (B, T, H), or None where there is none
    predictor : (B, U+1, H)
    weight : (V, H)
    bias : (V,), or None if the bias was
    """

    encoder: A
    predictor: A
    weight: A
    bias: A | None


class Pullback:
    """Runs the backward pass of every group and puts the gradients where they belong.

    Parameters
    ----------
    problem : JointProblem
    encoder, predictor : array
        The arguments as they were given; gradients are of the encoder's kind.
    fastemit_lambda, overwrite
        As in `joint_transducer_loss_and_grad`, unchecked.
    """

    def __init__(self, problem: JointProblem, encoder, predictor, *, fastemit_lambda=0.0, overwrite=False):
        self.problem, self.encoder, self.predictor = problem, encoder, predictor
        self.overwrite = checks.read_flag(overwrite, "overwrite")
        self.fastemit_lambda = checks.read_factor(fastemit_lambda, "fastemit_lambda")
        self.used = False
        if self.overwrite:
            if problem.encoder_index is not None:
                raise ValueError(
                    "overwrite=True and encoder_index cannot be combined: several targets share an encoder row"
                )
            # Read anew: the problem's arrays may be copies, or views without the mark that tells read-only memory.
            arguments = {"encoder": encoder, "predictor": predictor}
            to_write = {name: checks.read_writable(x, name) for name, x in arguments.items()}
            shared = {**to_write, "weight": problem.weight, "bias": problem.bias}
            # A pair of which one is written to. Weight and bias may share memory, as both are only read.
            for one, other in combinations(shared, 2):
                if one in to_write and shared[other] is not None and arrays.overlap(shared[one], shared[other]):
                    raise ValueError(
                        f"overwrite=True: {one} and {other} share memory, expected arrays apart from one another"
                    )

    def check_unused(self) -> None:
        """Refuse a second use after the first one overwrote the inputs."""
        if self.used:
            raise RuntimeError(
                "vjp was called a second time, but with overwrite=True the first call overwrote the inputs"
            )
        self.used = self.overwrite

    def run(self, work: Work, of_group: Callable) -> JointGradients:
        """Run a backward pass in a workspace of its own.

        Parameters
        ----------
        work : Work
        of_group : callable
            `of_group(tiler, index, group, outputs)` adds the gradients of weight and bias to the outputs. It returns
            the gradients of the group's frames and slots, (frames, H) and (slots, H).
        """
        problem, tiler = self.problem, Tiler(work)
        outputs = self._outputs(tiler)
        total: Any = None
        starts_row: Any = None
        if problem.encoder_index is not None:
            # (T, H) of the encoder row in work. The targets that share it follow one another, maybe in several groups.
            total = tiler.space.take(problem.encoder.shape[1:], work.dtype)
            total.fill(0)
            starts_row = np.diff(problem.encoder_index[work.order], prepend=-1) != 0  # (N,) the first target of its row
        for index in range(len(work.plan.groups)):
            with tiler.group(index) as group:
                grad_encoder, grad_predictor = of_group(tiler, index, group, outputs)
                # With `overwrite` this replaces input rows. Each belongs to one example, so no later group reads it.
                unpack(grad_predictor, group.label_base, group.device_examples, outputs.predictor)
                starts = group.device_frames.starts
                if problem.encoder_index is None:
                    unpack(grad_encoder, starts, group.device_examples, outputs.encoder)
                else:
                    # Rounded after each target, and at last with the sum over all of them.
                    starts_here = starts_row[group.begin : group.end].astype(np.uint8)
                    starts_here = tiler.device.upload(tiler.space, starts_here)[0]
                    share(grad_encoder, starts, group.source, starts_here, total, outputs.encoder)
        return self._give_back(outputs)

    def run_finite(self, work: Work, log_z, grad_loss, along: Callable) -> JointGradients:
        """`run`, and where a loss is not finite a second time.

        Parameters
        ----------
        work : Work
        log_z : (N,) float64
        grad_loss : (N,)
        along : callable
            `along(grad_loss)` gives `of_group` for these upstream gradients. It fills `log_z` with minus the losses.
            Rows of logits know nothing of the others of their example.
        """
        gradients = self.run(work, along(grad_loss))
        (found,) = arrays.to_host(log_z=log_z)
        if np.isfinite(found).all():
            return gradients
        # The gradients of an example are written by the time that its loss is known. In a second pass all rows of an
        # example without probability count 0 times, and those of an example with NaN become NaN.
        factor = np.where(np.isfinite(found), 1, np.where(np.isnan(found), np.nan, 0)).astype(work.dtype)  # (N,)
        del gradients  # their memory is free for the second pass
        return self.run(work, along(grad_loss * self.problem.device.upload(None, factor)[0]))

    def _outputs(self, tiler: Tiler) -> Outputs:
        """Where gradients go; those that are added to begin with 0."""
        problem, empty, dtype = self.problem, tiler.device.empty, tiler.work.dtype
        if self.overwrite:
            encoder, predictor = problem.encoder, problem.predictor
        else:
            encoder = empty(problem.encoder.shape, problem.encoder.dtype)
            predictor = empty(problem.predictor.shape, problem.predictor.dtype)
        if problem.encoder_index is not None:
            # Rows that no target uses.
            encoder.fill(0)
        if problem.weight.dtype == dtype:
            weight = empty(problem.weight.shape, dtype)
        else:
            # Summed up in the workspace, and rounded once at the end.
            weight = tiler.space.take(problem.weight.shape, dtype)
        weight.fill(0)
        bias = empty(len(weight), dtype)
        bias.fill(0)
        return Outputs(encoder, predictor, weight, bias)

    def _give_back(self, outputs: Outputs) -> JointGradients:
        """Each gradient in its input's dtype and in the kind of the encoder. Overwritten arguments are handed back."""
        problem, device = self.problem, self.problem.device
        if self.overwrite:
            encoder, predictor = self.encoder, self.predictor
        else:
            encoder, predictor = (
                arrays.give_back(array, self.encoder) for array in (outputs.encoder, outputs.predictor)
            )
        weight = arrays.give_back(device.convert(outputs.weight, problem.weight.dtype), self.encoder)
        bias = None
        if problem.bias is not None:
            bias = arrays.give_back(device.convert(outputs.bias, problem.bias.dtype), self.encoder)
        return JointGradients(encoder, predictor, weight, bias)
