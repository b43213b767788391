"""Train speech transducers with a softmax over a few hundred ids, drawn for each example from its own CTC posterior.

    python -m studies.sampled_softmax                      # synthesised English, 1,000 word pieces
    python -m studies.sampled_softmax --corpus festvox     # 1.66 h of read Russian
    python -m studies.sampled_softmax --smoke              # pseudo-speech, for CI

It takes half an hour on two cores with the default settings, `--smoke` half a minute, and `pip install -e ".[speech]"`.
The corpora are Debian packages: `apt-get` downloads them, unless `--data` names the folder where they lie.

Every row of the table is trained from the same parameters on the same batches for the same number of steps, with each
seed. It is decoded greedily: over all units, and over the units that the CTC posterior of an utterance allows (Lee et
al. 2022, Tables 1 and 2). Results are kept run by run, so a study that was interrupted goes on where it stopped. At the
end the rows take turns to be timed, then the table and a picture of memory against error rate (their Figure 3) are
written.

Encoder, predictor and their gradients are plain NumPy (`studies/speech/`).
"""

import argparse
import os
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from studies.speech.runs import run_all

from .bias import bias_lines
from .measure import measure_rows
from .report import write
from .rows import study_rows
from .runs import load, path_of, run, steps_left

DEFAULTS = {
    "espeak": {"units": 1000, "sizes": [100, 300], "steps": 1500, "batch": 16, "utterances": 8000, "stack": 8},
    "festvox": {"units": 300, "sizes": [100, 250], "steps": 1000, "batch": 8, "utterances": 560, "stack": 8},
    "generated": {"units": 60, "sizes": [40, 50], "steps": 500, "batch": 8, "utterances": 1000, "stack": 4},
}
SMOKE = {
    "units": 60,
    "sizes": [40, 50],
    "steps": 3,
    "batch": 4,
    "utterances": 40,
    "stack": 4,
    "held_out": 10,
    "seeds": 1,
    "channels": 16,
    "blocks": 2,
    "joint": 16,
}


def bias_sizes(sizes: list[int], vocab_size: int) -> list[int]:
    """The study's sizes, half the smallest, and half of the whole vocabulary."""
    return sorted({max(2, min(sizes) // 2), *sizes, vocab_size // 2} - {vocab_size})


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.sampled_softmax", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus",
        choices=("espeak", "festvox", "generated"),
        default="espeak",
        help="speech to train on (default: %(default)s)",
    )
    parser.add_argument("--data", type=Path, help="folder with the Debian packages; by default they are downloaded")
    parser.add_argument(
        "--units",
        type=lambda text: text if text == "characters" else int(text),
        help='number of word pieces, or "characters" (default: by corpus)',
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="*",
        help="S, sizes of the drawn vocabularies; none for the full softmax only (default: by corpus)",
    )
    parser.add_argument("--steps", type=int, help="training steps of every run (default: by corpus)")
    parser.add_argument("--batch", type=int, help="utterances a step (default: by corpus)")
    parser.add_argument("--stack", type=int, help="frames of 10 ms in one frame of the encoder (default: by corpus)")
    parser.add_argument("--utterances", type=int, help="to train on (default: by corpus)")
    parser.add_argument("--held-out", type=int, help="utterances to measure on (default: by corpus)")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each row (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=192, help="width of the encoder (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=6, help="blocks of the encoder (default: %(default)s)")
    parser.add_argument("--joint", type=int, default=192, help="H (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/sampled_softmax"),
        help="folder of runs, tables and pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a run of a minute or two on pseudo-speech that learns next to nothing"
    )
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
