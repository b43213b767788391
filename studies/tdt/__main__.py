"""Train a token-and-duration transducer beside an RNN-T, and measure errors, frames that decoding visits, and cells.

    python -m studies.tdt            # trains the digit-string network of examples/02 twice a seed, writes out/tdt
    python -m studies.tdt --smoke    # seconds, for CI

It takes some minutes on two cores, and `pip install -e ".[examples]"`.

Both networks of a seed begin with the same encoder and predictor, and take the same steps on the same strings. The
output layer of "tdt" has five rows more, for durations of 0 to 4 frames. At some steps held-out strings are decoded
greedily, and the report of the joint says which share of the cells of their lattices is occupied and certified. The
study writes table.md and study.json. docs/tdt.md reads them.
"""

import argparse
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from examples.digit_strings.strings import join_strings, split_scans

from ..pruning.model import checkpoints
from .measure import measured
from .model import TOPOLOGIES, grads_by, parameters_for
from .report import write

STEPS = [0, 300, 3000]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.tdt", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="networks of each topology (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="strings a step (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=300, help="strings that are decoded (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/tdt"), help="folder (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="few steps, which teach next to nothing")
    args = parser.parse_args()
    args.steps = [0, 5, 10] if args.smoke else STEPS
    if args.smoke:
        args.seeds, args.batch, args.held_out = 2, 4, 8
    return args


def rows_of(args: argparse.Namespace, seed: int, progress: tqdm) -> list[dict]:
    """What is measured of the networks of a seed, step by step."""
    train_scans, held_out_scans = split_scans(seed)
    rows = []
    for name, topology in TOPOLOGIES.items():
        # Both topologies see the same strings, and begin with the same numbers.
        for_strings, for_parameters, for_held_out = np.random.default_rng(seed).spawn(3)
        held_out = join_strings(held_out_scans, args.held_out, for_held_out)
        parameters = parameters_for(topology, for_parameters)
        grads_of = grads_by(topology)
        for step, loss, trained in checkpoints(train_scans, args.steps, args.batch, parameters, for_strings, grads_of):
            told = measured(trained, held_out, topology)
            loss = loss if step else None  # there is none before the first step
            rows.append({"seed": seed, "topology": name, "step": step, "training_loss": loss, **told})
            progress.update()
    return rows


def main() -> None:
    args = read_arguments()
    # Matrices this small gain nothing from BLAS threads.
    with (
        threadpool_limits(1, user_api="blas"),
        tqdm(total=args.seeds * len(TOPOLOGIES) * len(args.steps), unit="checkpoint") as progress,
    ):
        rows = [row for seed in range(args.seeds) for row in rows_of(args, seed, progress)]
    print("\n".join(write(args.out, args, rows)))


if __name__ == "__main__":
    main()
