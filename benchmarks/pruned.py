"""Time of the pruned loss from banded logits, joint left out, against one copy of the logits and k2's pruned loss."""

import importlib
from typing import NamedTuple

import numpy as np

import lattice

from . import peers, record, shapes

SHAPES = {
    "default": (8, 200, 40, 1024, 5),
    "librispeech-100": (16, 343, 71, 500, 5),
    "smoke": (2, 20, 5, 32, 3),
}
"""B, T, U, V, R. R is what recipes of k2's authors use."""

MODULES = ("fast_rnnt", "k2")
OURS = "lattice, new gradient"


class Banded(NamedTuple):
    """Logits of R label positions a frame, and what goes with them; no padding."""

    logits: np.ndarray  # (B, T, R, V) float32
    targets: np.ndarray  # (B, U)
    ranges: np.ndarray  # (B, T, R), the label position of each row
    logit_lengths: np.ndarray  # (B,)
    target_lengths: np.ndarray  # (B,)

    @property
    def bounds(self):
        return self.ranges[..., 0], self.ranges[..., -1]


def banded(B: int, T: int, U: int, V: int, R: int) -> Banded:
    """A band from the first cell to the last, and the logits of an untrained joint on it."""
    joint = shapes.untrained(B, T, U, V, 16)
    first = np.arange(T) * (U + 1 - R) // (T - 1)  # (T,)
    ranges = np.broadcast_to(first[:, None] + np.arange(R), (B, T, R)).copy()
    hidden = np.tanh(joint.encoder[:, :, None] + joint.predictor[np.arange(B)[:, None, None], ranges])
    return Banded(hidden @ joint.weight.T, joint.targets, ranges, joint.encoder_lengths, joint.target_lengths)


def ours(problem: Banded, out=None):
    integers = problem.targets, problem.logit_lengths, problem.target_lengths
    return lattice.transducer_loss_and_grad(problem.logits, *integers, bounds=problem.bounds, banded=True, out=out)


def theirs(module: str, problem: Banded):
    """Call of a module's `rnnt_loss_pruned`, forward and backward, on the same memory."""
    import torch

    pruned = importlib.import_module(module).rnnt_loss_pruned
    leaf = torch.from_numpy(problem.logits).requires_grad_()
    targets, ranges = (torch.from_numpy(x.astype(np.int64)) for x in (problem.targets, problem.ranges))
    lengths = problem.target_lengths, problem.logit_lengths
    boundary = torch.from_numpy(np.stack([0 * lengths[0], 0 * lengths[0], *lengths], 1).astype(np.int64))

    def run():
        loss = pruned(leaf, targets, ranges, 0, boundary=boundary, reduction="none")
        (gradient,) = torch.autograd.grad(loss, leaf, torch.ones_like(loss))
        return loss.detach().numpy(), gradient.numpy()

    return run


def imported() -> tuple[list[str], dict[str, str]]:
    """The modules that have a pruned loss here, and why the others have none."""
    found, reasons = [], {}
    for name in MODULES:
        try:
            importlib.import_module(name)
            found.append(name)
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            reasons[name] = f"{type(error).__name__}: {peers.FOLDERS.sub('', line)}"
    return found, reasons


def check() -> float:
    """Largest deviation of the gradient from the float64 oracle on a small problem."""
    from tests import oracle

    problem = banded(2, 12, 5, 20, 3)
    b, t = np.arange(2)[:, None, None], np.arange(12)[:, None]
    padded = np.zeros((2, 12, 6, 20))
    padded[b, t, problem.ranges] = problem.logits
    integers = problem.targets, problem.logit_lengths, problem.target_lengths
    _, truth = oracle.batch_loss_and_grad(padded, *integers, bounds=problem.bounds)
    worst = float(np.abs(ours(problem)[1] - truth[b, t, problem.ranges]).max())
    if worst > 1e-5:
        raise RuntimeError(f"gradient is {worst:.1e} from the oracle: not worth timing")
    return worst


def measure(shape: str, rounds: int, modules: list[str]) -> dict:
    """Rows of the table for one shape; `pruned` is the ratio to the first module's pruned loss."""
    problem = banded(*SHAPES[shape])
    work, copy = problem._replace(logits=problem.logits.copy()), np.zeros_like(problem.logits)
    integers = problem.targets, problem.logit_lengths, problem.target_lengths
    calls = {
        "numpy.copyto": lambda: np.copyto(copy, problem.logits),
        "lattice, out=logits": lambda: ours(work, out=work.logits),
        OURS: lambda: ours(problem),
        "lattice, loss only": lambda: lattice.transducer_loss(
            problem.logits, *integers, bounds=problem.bounds, banded=True
        ),
    }
    calls |= {f"{name}, pruned": theirs(name, problem) for name in modules}
    prepare = {
        "numpy.copyto": lambda: np.copyto(copy, problem.logits),
        "lattice, out=logits": lambda: np.copyto(work.logits, problem.logits),
    }
    seconds = record.interleaved(calls, rounds, prepare)
    table = record.ratios(seconds, "numpy.copyto")
    for name in modules[:1]:
        for row, against in record.ratios(seconds, f"{name}, pruned").items():
            table[row]["pruned"] = against["ratio"]
    return table


def main(options) -> None:
    worst, (modules, missing) = check(), imported()
    modules = [] if "all" in options.without else [name for name in modules if name not in options.without]
    table = measure(options.shape, options.rounds, modules)
    B, T, U, V, R = SHAPES[options.shape]
    record.show(
        f"from banded logits, B={B} T={T} U={U} V={V} R={R} float32 (gradient within {worst:.0e} of the oracle)",
        table,
        ("seconds", "ratio", "ratio_min", "ratio_max", "pruned"),
    )
    record.write(
        options.json, {"benchmark": "pruned", "shape": SHAPES[options.shape], "rows": table, "not_measured": missing}
    )
