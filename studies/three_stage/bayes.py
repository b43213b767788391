"""One run of stage 3: from the parameters after stage 2, lists of hypotheses, training on them, and what it changed."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from examples.digit_strings.adam import Adam, warmup_cosine
from studies.sampled_softmax.train import clip
from studies.speech.batches import batches
from studies.speech.corpus import Utterances
from studies.speech.encoder import Arrays

from .checkpoint import load
from .decoding import error_rate, greedy
from .language_model import LanguageModel, crossed_models
from .risk import Hypotheses, decode_lists, rescore, risk_step
from .stages import CLIP, Corpus, check_settings

FOLDS = 4


def quality(
    parameters: Arrays, corpus: Corpus, fixed: dict[str, list[Hypotheses]], model: LanguageModel, options: dict
) -> dict[str, float]:
    """Expected edits a label over the fixed lists, and held-out error rates of three searches.

    The searches are greedy, beam, and the language model's choice from the beam's list.
    """
    train_set, held_out, _ = corpus
    scales = {"lm_scale": options["lm_scale"], "scale": options["risk_scale"]}
    risk = {
        name: rescore(parameters, part, fixed[name], **scales)[0]
        for name, part in (("training", train_set), ("held-out", held_out))
    }
    lists = decode_lists(parameters, held_out, options["beam"], [model])
    chosen = {place: list(found.labels[0]) for place, found in enumerate(lists)}
    _, with_model = rescore(parameters, held_out, lists, **scales)
    return {
        "training_risk": risk["training"],
        "held_out_risk": risk["held-out"],
        "greedy": error_rate(greedy(parameters, held_out), held_out),
        "beam": error_rate(chosen, held_out),
        "beam_and_model": error_rate(with_model, held_out),
    }


def train_on_lists(
    parameters: Arrays, train_set: Utterances, lists: list[Hypotheses], seed: int, options: dict, report: Callable
) -> float:
    """Train in place; the seconds it took."""
    adam, seconds = None, 0.0
    epochs = (
        batches(train_set, options["batch"], np.random.default_rng([seed, 3, epoch])) for epoch in itertools.count()
    )
    steps = options["risk_steps"]
    for step, data in enumerate(itertools.islice(itertools.chain.from_iterable(epochs), steps)):
        started = time.process_time()
        result = risk_step(
            parameters,
            data,
            [lists[place] for place in data.rows],
            lm_scale=options["lm_scale"],
            scale=options["risk_scale"],
            full_sum_weight=options["risk_full_sum"],
        )
        adam = adam or Adam(parameters)
        clip(result.grads, CLIP)
        adam.step(result.grads, warmup_cosine(step, steps, options["risk_rate"]))
        seconds += time.process_time() - started
        report(result.loss)
    return seconds


def risk_once(
    path: Path, source: Path, seed: int, corpus: Corpus, options: dict, report: Callable[[float], None]
) -> dict:
    """Stage 3 from the parameters in `source`, unless `path` already holds the result.

    The training lists are decoded once. Their sentences are scored by language models that were not trained on them, as
    every held-out sentence is.
    """
    settings = {"seed": seed, **options}
    if path.exists():
        return check_settings(path, json.loads(path.read_text()), settings)
    train_set, held_out, _ = corpus
    parameters = load(source).parameters
    started = time.process_time()
    model = LanguageModel(options["order"], train_set.targets)
    models = crossed_models(options["order"], train_set.targets, FOLDS)
    fitted = time.process_time()
    fixed = {"training": decode_lists(parameters, train_set, options["beam"], models)}
    decoded = time.process_time()
    fixed["held-out"] = decode_lists(parameters, held_out, options["beam"], [model])
    before = quality(parameters, corpus, fixed, model, options)
    training = train_on_lists(parameters, train_set, fixed["training"], seed, options, report)
    result = {
        "settings": settings,
        "before": before,
        "after": quality(parameters, corpus, fixed, model, options),
        "seconds": {"language models": fitted - started, "training lists": decoded - fitted, "training": training},
        "hypotheses": float(np.mean([len(found.labels) for found in fixed["training"]])),
    }
    np.savez(path.with_suffix(".npz"), **parameters)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return result
