"""The command line of the demo."""

import argparse
from pathlib import Path


def at_least_one(text: str) -> int:
    """The number in an option that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}, expected at least 1")
    return number


def read_arguments(description: str) -> argparse.Namespace:
    """What the user asks for; the first line of `description` heads the help."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--epochs",
        type=at_least_one,
        default=10,
        help="epochs; held-out strings are measured after each (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=at_least_one, default=300, help="training steps an epoch (default: %(default)s)"
    )
    parser.add_argument("--batch", type=at_least_one, default=16, help="strings a step (default: %(default)s)")
    parser.add_argument(
        "--held-out",
        type=at_least_one,
        default=300,
        help="strings joined from the held-out scans (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the split of the scans, the strings and the parameters (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/digit_strings.png"), help="file of the picture (default: %(default)s)"
    )
    parser.add_argument("--log", type=Path, help="write the numbers of each epoch here, one JSON object a line")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a run of a few seconds that learns next to nothing, with its own epochs, steps, batch and held-out",
    )
    args = parser.parse_args()
    if args.smoke:
        args.epochs, args.steps, args.batch, args.held_out = 2, 10, 8, 20
    return args
