"""The numbers of each epoch: columns for the picture, a line to print, a line of JSON to keep."""

import json
import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm


class Step(NamedTuple):
    """Loss of a training step in nats a label, its seconds, and the seconds of the call into `lattice` within it."""

    loss: float
    seconds: float
    joint_seconds: float


class LearningCurve(NamedTuple):
    """Columns with one number an epoch; `occupied` and `certified` begin with epoch 0, before the training.

    loss : mean training loss in nats a label; error_rate : of held-out labels, in 0..1.
    occupied, certified : shares of the cells of held-out lattices, in 0..1, from `cell_shares`.
    step_ms, joint_ms : median milliseconds of a training step, and of the call into `lattice` within a step.
    """

    loss: list[float]
    error_rate: list[float]
    occupied: list[float]
    certified: list[float]
    step_ms: list[float]
    joint_ms: list[float]


def add_epoch(curve: LearningCurve, steps: list[Step], error_rate: float) -> None:
    """Complete an epoch of training; its shares of computed cells come from `tell_epoch`."""
    losses, seconds, joint_seconds = zip(*steps)
    curve.loss.append(float(np.mean(losses)))
    curve.error_rate.append(error_rate)
    # Medians: the first step may compile kernels, and others may use the machine.
    curve.step_ms.append(1e3 * statistics.median(seconds))
    curve.joint_ms.append(1e3 * statistics.median(joint_seconds))


def tell_epoch(curve: LearningCurve, shares: tuple[float, float], log: Path | None) -> None:
    """Add the shares of occupied and certified cells, print the newest epoch, and write it to `log` if there is one."""
    occupied, certified = shares
    curve.occupied.append(occupied)
    curve.certified.append(certified)
    tqdm.write(epoch_line(curve))
    if log is not None:
        log_epoch(log, curve)


def newest_epoch(curve: LearningCurve) -> dict[str, float]:
    """The last number of each column by its name; epoch 0 has only those that need no training."""
    return {"epoch": len(curve.loss), **{name: column[-1] for name, column in curve._asdict().items() if column}}


def epoch_line(curve: LearningCurve) -> str:
    """The newest epoch for people."""
    numbers = newest_epoch(curve)
    line = "epoch {epoch:2d}  loss {loss:.3f} nats a label  errors {error_rate:.2%}  "
    line += "occupied {occupied:.0%}  certified {certified:.0%}  step {step_ms:.1f} ms (joint {joint_ms:.1f})"
    untrained = "epoch {epoch:2d}  untrained; of the lattice cells: occupied {occupied:.0%}  certified {certified:.0%}"
    return (line if numbers["epoch"] else untrained).format(**numbers)


def log_epoch(path: Path, curve: LearningCurve) -> None:
    """Write the newest epoch as one line of JSON: epoch 0 begins the file anew, the others are appended to it."""
    numbers = newest_epoch(curve)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file is closed after each epoch, so that a run that is interrupted leaves whole lines behind.
    with path.open("a" if numbers["epoch"] else "w") as log:
        log.write(json.dumps(numbers) + "\n")
