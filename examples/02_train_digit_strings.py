"""Train a neural transducer to read strings of handwritten digits, one pixel column a frame.

    python examples/02_train_digit_strings.py            # about a minute on two cores
    python examples/02_train_digit_strings.py --smoke    # a few seconds, for CI

As the network learns, probability gathers in few cells of its lattices. After each epoch the program prints which share
of the cells of held-out lattices carries any (occupied), which share had to be computed to find them (certified), and
the median milliseconds of a training step and of the joint call in it. At the end it draws one held-out lattice.

The scans come with scikit-learn, so nothing is downloaded. Encoder, predictor and their gradients are plain NumPy
(`digit_strings/network.py`). The joint network, the output layer, the softmax and the loss are one call into `lattice`,
which returns the gradients that the rest of the network needs.
"""

import argparse
import time

import numpy as np
from digit_strings.adam import Adam, warmup_cosine
from digit_strings.arguments import read_arguments
from digit_strings.decode import label_error_rate, read_strings
from digit_strings.figure import draw_figure
from digit_strings.lattice_picture import lattice_picture
from digit_strings.log import LearningCurve, Step, add_epoch, tell_epoch
from digit_strings.network import Arrays, backward, forward, initial_parameters
from digit_strings.sparsity import cell_shares
from digit_strings.strings import BLANK, DigitStrings, Scans, first_of_length, join_strings, split_scans
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from lattice import joint_transducer_loss_and_grad

PEAK_LEARNING_RATE = 5e-3


def loss_and_grads(parameters: Arrays, strings: DigitStrings) -> tuple[float, Arrays, float]:
    """The mean loss in nats a label, its gradient for every parameter, and the seconds that the joint call took."""
    encoder, predictor, saved = forward(parameters, strings)  # (B, T, H), (B, U+1, H)
    output = parameters["output.weight"], parameters["output.bias"]
    lengths = strings.encoder_lengths, strings.target_lengths
    # What the mean does to each string's loss is the gradient that comes in from above.
    grad_loss = np.full(len(encoder), 1 / strings.target_lengths.sum(), encoder.dtype)
    started = time.perf_counter()
    loss, grads = joint_transducer_loss_and_grad(
        encoder, predictor, *output, strings.targets, *lengths, blank=BLANK, grad_loss=grad_loss
    )
    seconds = time.perf_counter() - started
    return float(loss @ grad_loss), backward(parameters, saved, grads), seconds


def train(
    parameters: Arrays, train_scans: Scans, held_out: DigitStrings, rng: np.random.Generator, args: argparse.Namespace
) -> LearningCurve:
    """Train in place on strings joined anew for every step; measure on `held_out` before, and after every epoch."""
    adam, total = Adam(parameters), args.epochs * args.steps
    curve = LearningCurve([], [], [], [], [], [])
    tell_epoch(curve, cell_shares(parameters, held_out), args.log)
    with tqdm(total=total, unit="step", dynamic_ncols=True) as progress:
        for epoch in range(args.epochs):
            steps = []
            for step in range(epoch * args.steps, (epoch + 1) * args.steps):
                strings = join_strings(train_scans, args.batch, rng, jitter=True)
                started = time.perf_counter()
                loss, grads, joint_seconds = loss_and_grads(parameters, strings)
                adam.step(grads, warmup_cosine(step, total, PEAK_LEARNING_RATE))
                steps.append(Step(loss, time.perf_counter() - started, joint_seconds))
                progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
                progress.update()
            decoded = read_strings(parameters, held_out)
            add_epoch(curve, steps, label_error_rate(decoded, held_out.targets, held_out.target_lengths))
            tell_epoch(curve, cell_shares(parameters, held_out), args.log)
    return curve


def main() -> None:
    args = read_arguments(__doc__)
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
    string = first_of_length(held_out, 8)
    draw_figure(args.out, curve, string, read_strings(parameters, string)[0], lattice_picture(parameters, string))
    tqdm.write(f"held-out label error rate {curve.error_rate[-1]:.2%}, trained in {seconds:.0f} s, picture {args.out}")


if __name__ == "__main__":
    main()
