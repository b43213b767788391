"""The state of a run in one file: parameters, optimiser, alignment, and how far it has come."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from examples.digit_strings.adam import Adam
from studies.speech.encoder import Arrays

from .chunks import Alignment


class State(NamedTuple):
    """What a run has come to.

    parameters : dict of arrays.
    adam : Adam or None, None between two stages.
    alignment : list of (U,) int32 or None, of the training set.
    progress : dict, what JSON can hold: stage, step, seconds, curve and more.
    """

    parameters: Arrays
    adam: Adam | None
    alignment: Alignment | None
    progress: dict


def save(path: Path, state: State) -> None:
    """Write a checkpoint; under its final name it is whole."""
    columns = {f"parameter/{name}": value for name, value in state.parameters.items()}
    if state.adam is not None:
        columns |= {f"first/{name}": value for name, value in state.adam.first.items()}
        columns |= {f"second/{name}": value for name, value in state.adam.second.items()}
        columns["adam_steps"] = np.array(state.adam.steps)
    if state.alignment is not None:
        columns["alignment"] = np.concatenate(state.alignment)
        columns["alignment_lengths"] = np.array([len(frames) for frames in state.alignment])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(unfinished, **columns, progress=json.dumps(state.progress))
    unfinished.rename(path)


def load(path: Path) -> State:
    """Read a checkpoint."""
    with np.load(path) as file:
        columns = dict(file)

    def named(kind: str) -> Arrays:
        return {name.removeprefix(kind): value for name, value in columns.items() if name.startswith(kind)}

    parameters, adam, alignment = named("parameter/"), None, None
    if "adam_steps" in columns:
        adam = Adam({name: parameters[name] for name in named("first/")})
        adam.first, adam.second, adam.steps = named("first/"), named("second/"), int(columns["adam_steps"])
    if "alignment" in columns:
        alignment = np.split(columns["alignment"], np.cumsum(columns["alignment_lengths"])[:-1])
    return State(parameters, adam, alignment, json.loads(str(columns["progress"])))
