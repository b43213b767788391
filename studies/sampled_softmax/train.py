"""One run of the study: train by one row from one seed, decode, and keep what came out."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from examples.digit_strings.adam import Adam, warmup_cosine
from studies.speech.batches import batches
from studies.speech.corpus import Utterances
from studies.speech.encoder import Arrays
from studies.speech.network import initial_parameters
from studies.speech.units import Units

from .evaluate import evaluate
from .rows import Row
from .step import training_step

PEAK_LEARNING_RATE = 2e-3


def clip(grads: Arrays, norm: float) -> None:
    """Shrink the gradients in place to a length of at most `norm`."""
    length = np.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads.values()))
    if length > norm:
        for grad in grads.values():
            grad *= norm / length


def train(
    parameters: Arrays,
    train_set: Utterances,
    row: Row,
    *,
    steps: int,
    batch: int,
    seed: int,
    report: Callable[[float], None],
) -> list[float]:
    """Train in place; the loss of each step in nats a label. Seed and number of steps alone decide about the data."""
    adam, losses = Adam(parameters), []
    rng = np.random.default_rng(seed)
    while len(losses) < steps:
        for data in batches(train_set, batch, rng):
            if len(losses) == steps:
                break
            result = training_step(parameters, data, row, seed * 1_000_003 + len(losses))
            clip(result.grads, 5.0)
            adam.step(result.grads, warmup_cosine(len(losses), steps, PEAK_LEARNING_RATE))
            losses.append(result.loss)
            report(result.loss)
    return losses


def run_once(
    path: Path,
    row: Row,
    seed: int,
    corpus: tuple[Utterances, Utterances, Units],
    options: dict,
    report: Callable[[float], None],
) -> dict:
    """Train and decode, unless `path` already holds the result; the parameters lie beside it.

    Raises
    ------
    ValueError
        What `path` holds came from other settings.
    """
    if path.exists():
        result = json.loads(path.read_text())
        if result["options"] != options:
            raise ValueError(
                f"{path} was made with {result['options']}, not {options}: choose another --out, or remove it"
            )
        return result
    train_set, held_out, units = corpus
    parameters = initial_parameters(
        np.random.default_rng(seed),
        features=train_set.features[0].shape[1],
        vocab_size=units.vocab_size,
        mode=row.mode,
        channels=options["channels"],
        blocks=options["blocks"],
        joint=options["joint"],
    )
    started = time.perf_counter()
    losses = train(parameters, train_set, row, steps=options["steps"], batch=options["batch"], seed=seed, report=report)
    seconds = time.perf_counter() - started
    last = losses[-max(1, len(losses) // 20) :]
    result = {
        "row": row._asdict(),
        "seed": seed,
        "options": options,
        "loss": statistics.fmean(last),
        "training_seconds": seconds,
        "losses": [statistics.fmean(part.tolist()) for part in np.array_split(np.array(losses), min(50, len(losses)))],
        "error_rates": evaluate(parameters, held_out, units, row, options["sizes"]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path.with_suffix(".npz"), **parameters)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return result
