"""The runs of the study: their corpus, where each is kept, and what a process does for one."""

import argparse
from pathlib import Path

from threadpoolctl import threadpool_limits

from studies.speech.corpus import alignable, load_corpus

from .bayes import risk_once
from .recipe import Row
from .stages import Corpus, parameters_path, run_once

SETTINGS = (
    "units",
    "utterances",
    "held_out",
    "stack",
    "channels",
    "blocks",
    "joint",
    "batch",
    "mask",
    "chunk",
    "label_smoothing",
    "label_scale",
    "focal",
    "encoder_weight",
)
RISK_SETTINGS = (
    *SETTINGS,
    "half_stage_steps",
    "rates",
    "ctc_weight",
    "band",
    "beam",
    "order",
    "lm_scale",
    "risk_scale",
    "risk_steps",
    "risk_rate",
    "risk_full_sum",
)


def load(args: argparse.Namespace) -> Corpus:
    """The corpus; utterances with more labels than frames cannot be trained on."""
    train_set, held_out, units = load_corpus(
        args.corpus,
        data=args.data,
        units=args.units,
        utterances=args.utterances,
        held_out=args.held_out,
        stack=args.stack,
    )
    return alignable(train_set), held_out, units


def path_of(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Where a run is kept: its file name tells the row and the seed, its folder the corpus and its units."""
    name = "-".join("".join(character if character.isalnum() else " " for character in name).split())
    return args.out / f"{args.corpus}-{args.units}" / f"{name}-seed{seed}.json"


def steps_left(args: argparse.Namespace, name: str, steps: int) -> int:
    """Steps of the runs of that name which are not done yet."""
    return steps * sum(not path_of(args, name, seed).exists() for seed in range(args.seeds))


def options_of(args: argparse.Namespace, names: tuple[str, ...]) -> dict:
    return {name: getattr(args, name) for name in names}


def run(args: argparse.Namespace, row: Row, seed: int, steps_done) -> dict:
    """One run of stages 0 to 2, in a process of its own that uses one core."""
    with threadpool_limits(1, user_api="blas"):
        return run_once(
            path_of(args, row.name, seed), row, seed, load(args), options_of(args, SETTINGS), steps_done.put
        )


def run_risk(args: argparse.Namespace, row: Row, seed: int, steps_done) -> dict:
    """Stage 3 after a run, in a process of its own that uses one core."""
    source = parameters_path(path_of(args, row.name, seed), len(row.stages) - 1)
    with threadpool_limits(1, user_api="blas"):
        return risk_once(
            path_of(args, "stage 3", seed), source, seed, load(args), options_of(args, RISK_SETTINGS), steps_done.put
        )
