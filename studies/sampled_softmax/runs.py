"""The runs of the study: their corpus, where each is kept, and what a process does for one."""

import argparse
from pathlib import Path

from threadpoolctl import threadpool_limits

from studies.speech.corpus import load_corpus
from studies.speech.espeak import Voice

from .rows import Row
from .train import run_once

VOICES = (Voice("en-us", (170, 170), (50, 50)), Voice("en-us+f3", (170, 170), (50, 50)))
"""A man and a woman who never change their pace: what can be learned in a few minutes a run is the words."""
SETTINGS = ("units", "utterances", "held_out", "stack", "channels", "blocks", "joint", "steps", "batch", "sizes")


def load(args: argparse.Namespace):
    return load_corpus(
        args.corpus,
        data=args.data,
        units=args.units,
        utterances=args.utterances,
        held_out=args.held_out,
        stack=args.stack,
        voices=VOICES,
    )


def path_of(args: argparse.Namespace, row: Row, seed: int) -> Path:
    """Where a run is kept: its file name tells the row and the seed, its folder the corpus and the number of units."""
    name = "".join(character if character.isalnum() else "-" for character in row.name)
    return args.out / f"{args.corpus}-{args.units}" / f"{name}-seed{seed}.json"


def run(args: argparse.Namespace, row: Row, seed: int, steps_done) -> dict:
    """One run, in a process of its own that uses one core."""
    options = {name: getattr(args, name) for name in SETTINGS}
    with threadpool_limits(1, user_api="blas"):
        return run_once(path_of(args, row, seed), row, seed, load(args), options, steps_done.put)


def steps_left(args: argparse.Namespace, rows: list[Row]) -> int:
    """Steps of the runs that are not done yet."""
    return args.steps * sum(not path_of(args, row, seed).exists() for seed in range(args.seeds) for row in rows)
