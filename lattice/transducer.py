"""Transducer loss and gradient from given logits."""

from typing import Any

import numpy as np

from . import layout
from .annotations import A, Array, Bounds, Topology
from .device import arrays
from .inputs import checks
from .inputs.logits import LogitsProblem, read_logits, read_out
from .kernels.best_path import best_path, extend, keep
from .kernels.emissions import emit
from .kernels.forward_backward import forward_backward
from .kernels.gradient import gradient
from .kernels.locate import locate
from .kernels.rows import NO_IDS
from .staging import clear_others, staged


def transducer_loss(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *, blank: int = 0, topology: Topology = "rnnt",
    bounds: Bounds | None = None,
) -> A:  # fmt: skip
    """Negative log-probability of targets summed over all alignments (Graves 2012).

    Parameters
    ----------
    logits : (B, T, U+1, V) or (sum_b T_b * (U_b + 1), V), float32, float64, float16 or bfloat16
        Unnormalised scores, padded or packed. Rows of padding are never read. A layout that is not C-contiguous is copied.
    targets : (B, U) int32 or int64
        Label ids, never `blank`; entries beyond a target's length may hold anything.
    logit_lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T and 0 <= U_b <= U.
    blank : int
        -V <= blank < V; negative ids count from the end.
    topology : {"rnnt", "monotonic"}
        A label arc stays on its frame, or consumes it (then U_b <= T_b is needed).
    bounds : pair of (B, T) integer arrays, optional
        First and last label position, inclusive, that exist at each frame. A cell outside has no outgoing arcs.

    Returns
    -------
    loss : (B,) float64 for float64 logits, else float32
        In nats; inf where no alignment exists, NaN where a cell that alignments can visit holds NaN or +inf.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    See Also
    --------
    joint_transducer_loss : The same without logits, from encoder, predictor and output layer.

    Notes
    -----
    Allocates about 40 bytes a cell beside the logits (56 in float64), and up to 6 MiB for half precision, of which the host
    widens a few rows at a time. alpha and the total are float64.

    References
    ----------
    Graves 2012, arXiv 1211.3711. "monotonic": Sak et al. 2017. `bounds`: Mahadeokar et al. 2021, arXiv 2011.03072.
    """
    problem = read_logits(logits, targets, logit_lengths, target_lengths, blank, topology, bounds)
    with problem.device.active():
        loss = Lattices(problem).forward(posteriors=False)
        problem.device.keep(logits, problem.logits)
        return arrays.give_back(loss, logits)


def transducer_loss_and_grad(
    logits: A, targets: Array, logit_lengths: Array, target_lengths: Array, *, blank: int = 0, topology: Topology = "rnnt",
    bounds: Bounds | None = None, fastemit_lambda: float = 0.0, grad_loss: Array | None = None, out: A | None = None,
) -> tuple[A, A]:  # fmt: skip
    """`transducer_loss` and its gradient with respect to the logits.

    Parameters
    ----------
    logits, targets, logit_lengths, target_lengths, blank, topology, bounds
        As in `transducer_loss`.
    fastemit_lambda : float
        At least 0. The posterior of label arcs counts 1 + fastemit_lambda times in the gradient; the loss is unchanged
        (FastEmit, Yu et al. 2021).
    grad_loss : (B,) real, optional
        Upstream gradient of any sign; ones by default.
    out : array like `logits`, optional
        Where the gradient goes. `out=logits` overwrites the logits, and no second array of their size exists.

    Returns
    -------
    loss : (B,)
        In nats, as in `transducer_loss`; not multiplied by `grad_loss`.
    grad_logits : like logits
        0 on padding and in examples without an alignment, NaN where the loss is NaN. float32 and float64 gradients hold no
        subnormal numbers. `out` itself if that is given.

    Raises
    ------
    ValueError, TypeError
        As in `transducer_loss`; `out` of another shape, dtype or device, read-only, or overlapping the logits in part.

    See Also
    --------
    joint_transducer_loss_and_grad : The same without logits, from encoder, predictor and output layer.

    Notes
    -----
    Allocates the gradient, unless `out` is given, and what `transducer_loss` does; on a GPU 8 bytes a cell more, for beta.

    References
    ----------
    As in `transducer_loss`. FastEmit: Yu et al. 2021, arXiv 2010.11148.
    """
    problem = read_logits(logits, targets, logit_lengths, target_lengths, blank, topology, bounds)
    fastemit_lambda = checks.read_factor(fastemit_lambda, "fastemit_lambda")
    device = problem.device
    grad_loss = checks.read_grad_loss(grad_loss, len(problem.base), arrays.computing_dtype(problem.logits.dtype), device)
    target: Any = None if out is None else read_out(out, problem)
    with device.active():
        if out is None:
            target = device.empty(problem.logits.shape, problem.logits.dtype)
        lattices = Lattices(problem)
        loss = lattices.forward(posteriors=True)
        lattices.backward(target, fastemit_lambda, grad_loss)
        device.keep(logits, problem.logits, grad_loss)
        grad_logits = arrays.give_back(target.reshape(problem.shape), logits) if out is None else out
        return arrays.give_back(loss, logits), grad_logits


class Lattices:
    """The cells of a batch of logits and what is known of each: two scores, later two posteriors, and the normaliser."""

    def __init__(self, problem: LogitsProblem):
        self.problem, self.device = problem, problem.device
        targets, empty = problem.targets, self.device.empty
        examples = np.arange(len(problem.base))
        frames = layout.frames_of(examples, targets.frame_lengths, targets.target_lengths, targets.monotonic, targets.bounds)
        count, example = frames.cells, frames.example
        frame_base = problem.base[example] + frames.t * problem.step[example]
        label_base = np.zeros(len(examples), np.int64)
        self.frames, (self.examples, positions, frame_base, label_base, self.none) = frames.on(
            self.device, None, examples, targets.positions, frame_base, label_base, NO_IDS
        )
        self.row, self.label, self.owner = empty(count, np.int64), empty(count, np.int32), empty(count, np.int32)
        slot = empty(count, np.int64)
        locate(0, self.none, self.frames, positions, frame_base, label_base, self.row, slot, self.label, self.owner)
        self.row += slot
        self.dtype = arrays.computing_dtype(problem.logits.dtype)
        self.blank_id = int(targets.blank[0]) if len(examples) else 0
        self.no_bias = empty(0, self.dtype)
        self.blank, self.label_score, self.maximum, self.rest = (empty(count, self.dtype) for _ in range(4))

    def _staged(self):
        return staged(self.problem.logits, self.row, self.dtype, self.device)

    def _emit(self) -> None:
        for cells, logits, row in self._staged():
            emit(logits, self.no_bias, row, self.none, self.label[cells], self.blank_id, self.blank[cells],
                 self.label_score[cells], self.maximum[cells], self.rest[cells])  # fmt: skip

    def forward(self, *, posteriors: bool):
        """Losses, in the dtype that is computed in."""
        self._emit()
        log_z = self.device.empty(len(self.problem.base), np.float64)
        alpha = self.device.empty(len(self.row), np.float64)
        beta = self.device.empty(len(self.row), np.float64) if self.device.on_gpu and posteriors else None
        forward_backward(self.frames, self.problem.targets.monotonic, self.blank, self.label_score, alpha, log_z, beta,
                         posteriors=posteriors)  # fmt: skip
        return self.device.convert(-log_z, self.dtype)

    def path(self):
        """Scores of the best alignments, in the dtype that is computed in, and their frames."""
        empty, frames, targets = self.device.empty, self.frames, self.problem.targets
        count = len(self.problem.base)
        self._emit()
        left, moves = keep(empty, count, frames.widest, len(self.row), len(frames.example))
        score, best = empty(count, np.float64), empty((count, targets.label_axis), np.int32)
        best.fill(-1)
        if count:
            extend(frames, 0, len(frames.example), 0, count, targets.monotonic, self.blank, self.label_score, left, moves)
        best_path(frames, targets.monotonic, left, moves, self.examples, score, best)
        return self.device.convert(score, self.dtype), best

    def backward(self, target, fastemit_lambda: float, grad_loss) -> None:
        for cells, logits, row in self._staged():
            widened = logits is not self.problem.logits
            gradient(logits, logits if widened else target, row, self.no_bias, self.label[cells], self.owner[cells],
                     self.blank_id, self.blank[cells], self.label_score[cells], self.maximum[cells], self.rest[cells],
                     fastemit_lambda, grad_loss, anew=False)  # fmt: skip
            if widened:
                target[self.row[cells]] = logits[: len(row)]
        clear_others(self.device, self.row, target, self.dtype)
