"""Seconds and memory of a training step, row by row, from trained parameters."""

import statistics
import time
from functools import partial

import numpy as np

from studies.speech.batches import batches
from studies.speech.corpus import Utterances
from studies.speech.encoder import Arrays
from studies.speech.peak import largest, peak_bytes

from .conventional import conventional_joint
from .rows import Row
from .step import fused_joint, training_step

JOINTS = {"ours": fused_joint, "conventional": conventional_joint}


def measure_rows(
    parameters_of: dict[Row, Arrays], train_set: Utterances, batch: int, *, rounds: int = 7
) -> dict[str, dict]:
    """Medians over the same batches for every row, the rows taking turns; memory on the largest of them.

    Returns
    -------
    dict of dicts
        By the row's name: `step_seconds` and `joint_seconds`, `peak_bytes` of a step with our joint, and
        `conventional_bytes` of one with dense logits.
    """
    data = list(batches(train_set, batch, np.random.default_rng(0)))[:rounds]
    most = largest(data)
    seconds = {row: [] for row in parameters_of}
    for turn, one in enumerate([data[0], *data]):
        for row, parameters in parameters_of.items():
            started = time.perf_counter()
            result = training_step(parameters, one, row, turn)
            if turn:  # the first may compile
                seconds[row].append((time.perf_counter() - started, result.joint_seconds))
    found = {}
    for row, parameters in parameters_of.items():
        step, joint = (statistics.median(column) for column in zip(*seconds[row]))
        ours, conventional = (
            peak_bytes(partial(training_step, parameters, most, row, 0, joint=joint)) for joint in JOINTS.values()
        )
        found[row.name] = {
            "step_seconds": step,
            "joint_seconds": joint,
            "peak_bytes": ours,
            "conventional_bytes": conventional,
        }
    return found
