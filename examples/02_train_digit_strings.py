"""Train a neural transducer to read strings of handwritten digits, one pixel column a frame.

    python examples/02_train_digit_strings.py            # about a minute on two cores
    python examples/02_train_digit_strings.py --smoke    # a few seconds, for CI

As the network learns, probability gathers in few cells of its lattices. After each epoch the program prints which share of
the cells of held-out lattices carries any (occupied), which share had to be computed to find them (certified), and the median
milliseconds of a training step and of the joint call in it. `--log FILE` keeps these numbers, one JSON object a line.

The scans come with scikit-learn, so nothing is downloaded. Encoder, predictor and their gradients are plain NumPy
(`digit_strings/network.py`). The joint network, the output layer, the softmax and the loss are one call into `lattice`,
which returns the gradients that the rest of the network needs.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from digit_strings.adam import Adam, warmup_cosine
from digit_strings.decode import greedy_decode, label_error_rate
from digit_strings.figure import draw_figure
from digit_strings.lattice_picture import lattice_picture_arrays
from digit_strings.log import LearningCurve, epoch_line, log_epoch
from digit_strings.network import (
    Arrays,
    encoder_backward,
    encoder_forward,
    initial_parameters,
    label_contexts,
    predictor_backward,
    predictor_forward,
)
from digit_strings.sparsity import cell_shares
from digit_strings.strings import BLANK, DigitStrings, Scans, join_strings, split_scans, take_string
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from lattice import joint_transducer_loss_and_grad

PEAK_LEARNING_RATE = 5e-3


def loss_and_grads(parameters: Arrays, strings: DigitStrings) -> tuple[float, Arrays, float]:
    """The mean loss in nats a label, its gradient for every parameter, and the seconds that the joint call took."""
    encoder, encoder_saved = encoder_forward(parameters, strings.frames, strings.encoder_lengths)
    predictor, predictor_saved = predictor_forward(parameters, label_contexts(strings.targets))
    # What the mean does to each string's loss is the gradient that comes in from above.
    grad_loss = np.full(len(encoder), 1 / strings.target_lengths.sum(), encoder.dtype)
    started = time.perf_counter()
    loss, grads = joint_transducer_loss_and_grad(
        encoder,
        predictor,
        parameters["output.weight"],
        parameters["output.bias"],
        strings.targets,
        strings.encoder_lengths,
        strings.target_lengths,
        blank=BLANK,
        grad_loss=grad_loss,
    )
    joint_seconds = time.perf_counter() - started
    all_grads = {
        **encoder_backward(parameters, encoder_saved, grads.encoder),
        **predictor_backward(parameters, predictor_saved, grads.predictor),
        "output.weight": grads.weight,
        "output.bias": grads.bias,
    }
    return float(loss @ grad_loss), all_grads, joint_seconds


def read_strings(parameters: Arrays, strings: DigitStrings) -> list[list[int]]:
    """The label ids that greedy decoding finds in each string."""
    encoder, _ = encoder_forward(parameters, strings.frames, strings.encoder_lengths)
    return greedy_decode(parameters, encoder, strings.encoder_lengths)


def measure_lattices(parameters: Arrays, held_out: DigitStrings, curve: LearningCurve, log: Path | None) -> None:
    """Complete the newest epoch of `curve` with the shares of computed cells, print it, and write it to `log` if there is one."""
    occupied, certified = cell_shares(parameters, held_out)
    curve.occupied.append(occupied)
    curve.certified.append(certified)
    tqdm.write(epoch_line(curve))
    if log is not None:
        log_epoch(log, curve)


def train(
    parameters: Arrays, train_scans: Scans, held_out: DigitStrings, rng: np.random.Generator, args: argparse.Namespace
) -> LearningCurve:
    """Train in place on strings that are joined anew for every step; measure on `held_out` before, and after every epoch."""
    curve = LearningCurve([], [], [], [], [], [])
    measure_lattices(parameters, held_out, curve, args.log)
    adam = Adam(parameters)
    total = args.epochs * args.steps
    with tqdm(total=total, unit="step", dynamic_ncols=True) as progress:
        for epoch in range(args.epochs):
            losses, step_seconds, joint_seconds = [], [], []
            for step in range(epoch * args.steps, (epoch + 1) * args.steps):
                strings = join_strings(train_scans, args.batch, rng, jitter=True)
                started = time.perf_counter()
                loss, grads, in_joint = loss_and_grads(parameters, strings)
                adam.step(grads, warmup_cosine(step, total, PEAK_LEARNING_RATE))
                step_seconds.append(time.perf_counter() - started)
                joint_seconds.append(in_joint)
                losses.append(loss)
                progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
                progress.update()
            decoded = read_strings(parameters, held_out)
            curve.loss.append(float(np.mean(losses)))
            curve.error_rate.append(label_error_rate(decoded, held_out.targets, held_out.target_lengths))
            # Medians: the first step may compile kernels, and others may use the machine.
            curve.step_ms.append(1e3 * statistics.median(step_seconds))
            curve.joint_ms.append(1e3 * statistics.median(joint_seconds))
            measure_lattices(parameters, held_out, curve, args.log)
    return curve


def draw_string(path: Path, parameters: Arrays, held_out: DigitStrings, curve: LearningCurve) -> None:
    """Draw the learning curve beside the lattice of the first held-out string of eight digits."""
    string = take_string(held_out, int(np.argmax(held_out.target_lengths == 8)))
    encoder, _ = encoder_forward(parameters, string.frames, string.encoder_lengths)
    predictor, _ = predictor_forward(parameters, label_contexts(string.targets))
    picture = lattice_picture_arrays(
        encoder[0], predictor[0], parameters["output.weight"], parameters["output.bias"], string.targets[0], BLANK
    )
    draw_figure(path, curve, string, read_strings(parameters, string)[0], picture)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300, help="training steps an epoch")
    parser.add_argument("--batch", type=int, default=16, help="strings a step")
    parser.add_argument("--held-out", type=int, default=300, help="strings joined from the held-out scans")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/digit_strings.png"))
    parser.add_argument("--log", type=Path, help="write the numbers of each epoch here, one JSON object a line")
    parser.add_argument("--smoke", action="store_true", help="a run of a few seconds that learns next to nothing")
    args = parser.parse_args()
    if args.smoke:
        args.epochs, args.steps, args.batch, args.held_out = 2, 10, 8, 20
    return args


def main() -> None:
    args = read_arguments()
    train_scans, held_out_scans = split_scans(args.seed)
    # Each use of chance has its own stream: other settings for training leave the held-out strings as they are.
    for_strings, for_parameters, for_held_out = np.random.default_rng(args.seed).spawn(3)
    held_out = join_strings(held_out_scans, args.held_out, for_held_out)
    parameters = initial_parameters(for_parameters)

    started = time.perf_counter()
    # Matrices this small gain nothing from BLAS threads, and on a busy machine waiting for them costs tenfold.
    with threadpool_limits(1, user_api="blas"):
        curve = train(parameters, train_scans, held_out, for_strings, args)
    seconds = time.perf_counter() - started
    draw_string(args.out, parameters, held_out, curve)
    tqdm.write(f"held-out label error rate {curve.error_rate[-1]:.2%}, trained in {seconds:.0f} s, picture {args.out}")


if __name__ == "__main__":
    main()
