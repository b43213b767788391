"""Measure how wrong k2's pruned loss and an alignment-restricted one are, by step of training, beside the bound on it.

    python -m studies.pruning            # trains the digit-string network of examples/02, measures, writes out/pruning
    python -m studies.pruning --smoke    # seconds, for CI

It takes some minutes on two cores, and `pip install -e ".[examples]"`.

At each of some steps, held-out strings of 20 to 40 digits are scored in bands: the label positions that k2's smoothed
loss chooses, S of them a frame, and 5 frames beside the alignment of the checkpoint before. The loss and the gradient
over all alignments are known here, so the true error is. `transducer_exit_posterior` bounds it from the logits in the
band alone. The study writes table.md, study.json and pruning.png. docs/pruning.md reads them.
"""

import argparse
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from examples.digit_strings.strings import join_strings, split_scans

from .measure import errors_of, in_float64, summary
from .model import checkpoints, parameters_with_simple
from .report import write

STEPS = [0, 25, 50, 100, 200, 300, 600, 1200, 3000]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.pruning", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="strings a step (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=48, help="strings that are measured (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/pruning"), help="folder (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="few steps, which teach next to nothing")
    args = parser.parse_args()
    args.steps = [0, 5, 10] if args.smoke else STEPS
    if args.smoke:
        args.batch, args.held_out = 4, 4
    return args


def main() -> None:
    args = read_arguments()
    train_scans, held_out_scans = split_scans(args.seed)
    for_strings, for_parameters, for_held_out = np.random.default_rng(args.seed).spawn(3)
    held_out = join_strings(held_out_scans, args.held_out, for_held_out, digits=(20, 40))
    rows, before = [], None
    # Matrices this small gain nothing from BLAS threads.
    with threadpool_limits(1, user_api="blas"):
        trained = checkpoints(train_scans, args.steps, args.batch, parameters_with_simple(for_parameters), for_strings)
        for step, loss, parameters in tqdm(trained, total=len(args.steps), unit="checkpoint"):
            wide = in_float64(parameters)
            for band, errors in errors_of(wide, held_out, before).items():
                told = {name: summary(values) for name, values in errors.items()}
                rows.append({"step": step, "training_loss": loss, "band": band, **told})
            before = wide
    print("\n".join(write(args.out, args, rows)))


if __name__ == "__main__":
    main()
