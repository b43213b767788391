"""Train speech transducers with a softmax over a few hundred ids, drawn for each example from its own CTC posterior.

    python examples/06_sampled_softmax_study.py                      # synthesised English, 1,000 word pieces
    python examples/06_sampled_softmax_study.py --corpus festvox     # 1.66 h of read Russian
    python examples/06_sampled_softmax_study.py --smoke              # a few seconds on pseudo-speech, for CI

Every row of the table is trained from the same parameters on the same batches for the same number of steps, with each seed, and
decoded greedily: over all units, and over the units that the CTC posterior of an utterance allows (Lee et al. 2022, Tables 1 and
2). Results are kept run by run, so a study that was interrupted goes on where it stopped. At the end the rows take turns to be
timed, then the table and a picture of memory against error rate (their Figure 3) are written.

Encoder, predictor and their gradients are plain NumPy (`speech/`); needs `pip install -e ".[speech]"`.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from sampled_softmax.bias import bias_lines
from sampled_softmax.measure import measure_rows
from sampled_softmax.report import write
from sampled_softmax.rows import Row, study_rows
from sampled_softmax.train import run_once
from speech.corpus import load_corpus
from speech.espeak import Voice
from speech.runs import run_all
from threadpoolctl import threadpool_limits
from tqdm import tqdm

DEFAULTS = {
    "espeak": {"units": 1000, "sizes": [100, 300], "steps": 1500, "batch": 16, "utterances": 8000, "stack": 8},
    "festvox": {"units": 300, "sizes": [100, 250], "steps": 1000, "batch": 8, "utterances": 560, "stack": 8},
    "generated": {"units": 60, "sizes": [40, 50], "steps": 500, "batch": 8, "utterances": 1000, "stack": 4},
}
SMOKE = {"units": 60, "sizes": [40, 50], "steps": 3, "batch": 4, "utterances": 40, "stack": 4, "held_out": 10, "seeds": 1,
         "channels": 16, "blocks": 2, "joint": 16}  # fmt: skip
VOICES = (Voice("en-us", (170, 170), (50, 50)), Voice("en-us+f3", (170, 170), (50, 50)))
"""A man and a woman who never change their pace: what can be learned in a few minutes a run is the words."""
SETTINGS = ("units", "utterances", "held_out", "stack", "channels", "blocks", "joint", "steps", "batch", "sizes")


def load(args: argparse.Namespace):
    return load_corpus(args.corpus, data=args.data, units=args.units, utterances=args.utterances, held_out=args.held_out,
                       stack=args.stack, voices=VOICES)  # fmt: skip


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


def bias_sizes(sizes: list[int], vocab_size: int) -> list[int]:
    """The study's sizes, half the smallest, and half of the whole vocabulary."""
    return sorted({max(2, min(sizes) // 2), *sizes, vocab_size // 2} - {vocab_size})


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", choices=("espeak", "festvox", "generated"), default="espeak")
    parser.add_argument("--data", type=Path, help="folder with the Debian packages; by default they are downloaded")
    parser.add_argument("--units", type=lambda text: text if text == "characters" else int(text),
                        help='number of word pieces, or "characters"')  # fmt: skip
    parser.add_argument("--sizes", type=int, nargs="*", help="S, sizes of the drawn vocabularies; none for the full softmax only")
    parser.add_argument("--steps", type=int, help="training steps of every run")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--stack", type=int, help="frames of 10 ms in one frame of the encoder")
    parser.add_argument("--utterances", type=int, help="to train on")
    parser.add_argument("--held-out", type=int)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--channels", type=int, default=192)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--joint", type=int, default=192, help="H")
    parser.add_argument("--out", type=Path, default=Path("out/sampled_softmax"))
    parser.add_argument("--smoke", action="store_true", help="a run of seconds on pseudo-speech that learns next to nothing")
    args = parser.parse_args()
    if args.smoke:
        args.corpus = "generated"
        vars(args).update({name: value for name, value in SMOKE.items() if name != "sizes" or args.sizes is None})
    for name, value in DEFAULTS[args.corpus].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> None:
    args = read_arguments()
    rows = study_rows(args.sizes)
    train_set, held_out, units = load(args)  # first, so that the processes of the runs find the features on the disk
    runs_of = run_all(args, run, rows, steps_left(args, rows))
    parameters_of = {}
    for row in rows:
        with np.load(path_of(args, row, 0).with_suffix(".npz")) as arrays:
            parameters_of[row] = dict(arrays)
    with threadpool_limits(1, user_api="blas"):
        measured = measure_rows(parameters_of, train_set, args.batch)
        bias = []
        if args.sizes:
            sizes = bias_sizes(args.sizes, units.vocab_size)
            bias = bias_lines(parameters_of[rows[0]], held_out, sizes)
    folder = path_of(args, rows[0], 0).parent
    lines = write(folder, args, runs_of, measured, bias)
    tqdm.write("\n".join(lines))
    tqdm.write(f"table.md, study.json and memory.png are in {folder}")


if __name__ == "__main__":
    main()
