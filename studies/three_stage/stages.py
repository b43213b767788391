"""The stages of a run, one after another, on a clock that stops for evaluation; an interrupted run goes on."""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import lattice
from examples.digit_strings.adam import Adam
from studies.sampled_softmax.train import clip
from studies.speech.batches import Batch, batches, pad
from studies.speech.corpus import Utterances, take
from studies.speech.masking import mask
from studies.speech.network import initial_parameters
from studies.speech.units import Units

from .align import align
from .checkpoint import State, load, save
from .chunks import chunk_batches
from .decoding import ctc_greedy, error_rate, greedy
from .objectives import TOPOLOGY, StepResult, ctc_step, full_sum_step, viterbi_step
from .recipe import CTC, VITERBI, Row, Stage, band_width, learning_rate

CLIP = 5.0
VITERBI_OPTIONS = ("label_smoothing", "label_scale", "focal", "encoder_weight")
EVALUATIONS = 10  # of a run, and one more at the end of each stage
Corpus = tuple[Utterances, Utterances, Units]


def stream(stage: Stage, state: State, train_set: Utterances, seed: int, options: dict) -> Iterator:
    """The batches of a stage from its first, whatever was trained before: epoch after epoch, each in another order."""
    for epoch in itertools.count():
        rng = np.random.default_rng([seed, state.progress["stage"], epoch])
        if stage.kind == VITERBI:
            frames = options["batch"] * float(np.mean([len(frames) for frames in train_set.features]))
            yield from chunk_batches(
                train_set,
                state.alignment,
                chunk=options["chunk"],
                hop=max(1, options["chunk"] // 2),
                frames=round(frames),
                rng=rng,
            )
        else:
            yield from batches(train_set, options["batch"], rng)


def bounds_of(stage: Stage, state: State, data: Batch):
    """The cells within a band around the alignment, which grows with the steps; None where the stage has no band."""
    if not stage.band:
        return None
    width = band_width(stage, state.progress["step"])
    frames, _ = pad([state.alignment[place] for place in data.rows], -1)
    return lattice.alignment_bounds(
        frames, data.target_lengths, data.frame_lengths, left=width, right=width, topology=TOPOLOGY
    )


def training_step(stage: Stage, state: State, data, options: dict) -> StepResult:
    """Loss and gradients of a batch by the objective of a stage."""
    if stage.kind == CTC:
        return ctc_step(state.parameters, data)
    if stage.kind == VITERBI:
        return viterbi_step(state.parameters, data, **{name: options[name] for name in VITERBI_OPTIONS})
    return full_sum_step(state.parameters, data, ctc_weight=stage.ctc_weight, bounds=bounds_of(stage, state, data))


def masked(data, seed: int, state: State, options: dict):
    """The batch with stretches of it taken out, other ones in every step."""
    if not options["mask"]:
        return data
    rng = np.random.default_rng([seed, state.progress["stage"], state.progress["step"]])
    return data._replace(frames=mask(data.frames, data.frame_lengths, rng))


def open_stage(stage: Stage, state: State, train_set: Utterances, seed: int, options: dict) -> State:
    """Align where the stage begins with that; the clock counts it.

    The first alignment and the first step of a process read compiled code, which is no part of what they cost. So
    each is done once before.
    """
    if stage.align is not None and state.adam is None:
        align(state.parameters, take(train_set, [0]), stage.align)
        started = time.process_time()
        state = state._replace(alignment=align(state.parameters, train_set, stage.align))
        state.progress["align_seconds"] = time.process_time() - started
        state.progress["seconds"] += state.progress["align_seconds"]
    first = training_step(stage, state, next(stream(stage, state, train_set, seed, options)), options)
    if state.adam is None:
        state = state._replace(adam=Adam({name: state.parameters[name] for name in first.grads}))
    return state


def evaluate(stage: Stage, state: State, held_out: Utterances) -> None:
    """Add a point to the curve: of a CTC model the likeliest symbol of each frame, of a transducer greedy search."""
    found = (ctc_greedy if stage.kind == CTC else greedy)(state.parameters, held_out)
    progress = state.progress
    point = {"stage": progress["stage"], "step": progress["step"], "seconds": progress["seconds"]}
    loss, rate = statistics.fmean(progress["losses"]), error_rate(found, held_out)
    progress["curve"].append({**point, "loss": loss, "error_rate": rate})
    progress["losses"] = []


def train_stage(
    stage: Stage, state: State, corpus: Corpus, seed: int, options: dict, every: int, keep: Callable, report: Callable
) -> State:
    """Train in place from where `state` stands to the end of a stage."""
    train_set, held_out, _ = corpus
    state = open_stage(stage, state, train_set, seed, options)
    progress, started = state.progress, time.process_time()
    for data in itertools.islice(stream(stage, state, train_set, seed, options), progress["step"], stage.steps):
        result = training_step(stage, state, masked(data, seed, state, options), options)
        clip(result.grads, CLIP)
        state.adam.step(result.grads, learning_rate(stage, progress["step"]))
        progress["seconds"] += time.process_time() - started
        progress["step"] += 1
        progress["losses"].append(result.loss)
        report(result.loss)
        if progress["step"] % every == 0 or progress["step"] == stage.steps:
            evaluate(stage, state, held_out)
            keep(state)
        started = time.process_time()
    return state


def begin(corpus: Corpus, seed: int, options: dict) -> State:
    """Random parameters that depend on the seed alone."""
    train_set, _, units = corpus
    parameters = initial_parameters(
        np.random.default_rng(seed),
        features=train_set.features[0].shape[1],
        vocab_size=units.vocab_size,
        channels=options["channels"],
        blocks=options["blocks"],
        joint=options["joint"],
    )
    progress = {"stage": 0, "step": 0, "seconds": 0.0, "align_seconds": 0.0, "curve": [], "stages": [], "losses": []}
    return State(parameters, None, None, progress)


def run_once(path: Path, row: Row, seed: int, corpus: Corpus, options: dict, report: Callable[[float], None]) -> dict:
    """Train by all stages of a row, unless `path` holds the result; parameters after stage k lie in `-stagek.npz`.

    Raises
    ------
    ValueError
        What `path` or a checkpoint holds came from other settings.
    """
    settings = {"row": [row.name, [list(stage) for stage in row.stages]], "seed": seed, **options}
    if path.exists():
        return check_settings(path, json.loads(path.read_text()), settings)
    checkpoint = path.with_suffix(".checkpoint.npz")
    if checkpoint.exists():
        state = load(checkpoint)
        check_settings(checkpoint, state.progress, settings)
    else:
        state = begin(corpus, seed, options)
        state.progress["settings"] = settings
    every = max(1, sum(stage.steps for stage in row.stages) // EVALUATIONS)
    while (k := state.progress["stage"]) < len(row.stages):
        before = sum(stage["seconds"] for stage in state.progress["stages"])
        state = train_stage(
            row.stages[k], state, corpus, seed, options, every, lambda now: save(checkpoint, now), report
        )
        save(parameters_path(path, k), state._replace(adam=None, alignment=None))
        seconds = state.progress["seconds"] - before
        done = {"kind": row.stages[k].kind, "steps": row.stages[k].steps, "seconds": seconds}
        state.progress["stages"].append({**done, "align_seconds": state.progress["align_seconds"]})
        state.progress.update(stage=k + 1, step=0, align_seconds=0.0)
        state = state._replace(adam=None)
        save(checkpoint, state)
    result = {name: state.progress[name] for name in ("settings", "seconds", "stages", "curve")}
    path.write_text(json.dumps(result, indent=1) + "\n")
    checkpoint.unlink()
    return result


def check_settings(path: Path, found: dict, settings: dict) -> dict:
    if found["settings"] != json.loads(json.dumps(settings)):
        raise ValueError(
            f"{path} was made with {found['settings']}, not {settings}: choose another --out, or remove it"
        )
    return found


def parameters_path(path: Path, stage: int) -> Path:
    """Where the parameters after a stage of a run are kept."""
    return path.with_name(f"{path.stem}-stage{stage}.npz")
