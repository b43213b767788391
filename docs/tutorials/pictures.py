"""The pictures of the tutorials, drawn from what the blocks of their pages come to.

Run: python -m docs.tutorials.pictures [lattice emission memory training half_precision]
Needs: pip install -e ".[examples,bf16]"
"""

import argparse

import matplotlib

matplotlib.use("Agg")  # a file is all that is wanted, and a display may be missing

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

import lattice

from .pages import HERE, run

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
"""Told apart by colour-blind readers too (Okabe and Ito)."""

LOWEST = 1e-4  # posteriors below are drawn white
PRECISIONS = {  # name: dtype of encoder and predictor, dtype of weight and bias
    "float32": ("float32", "float32"),
    "float16, float32 weights": ("float16", "float32"),
    "float16": ("float16", "float16"),
    "bfloat16, float32 weights": ("bfloat16", "float32"),
    "bfloat16": ("bfloat16", "bfloat16"),
}


def save(figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", dpi=110)
    plt.close(figure)


def draw_lattice() -> None:
    names = run("lattice.md").names
    panels = {"Untrained": names["untrained"], "Trained": names["trained"]}
    figure, axes = plt.subplots(2, 1, figsize=(8.5, 6.2), sharex=True, sharey=True, layout="constrained")
    for one, (title, logits) in zip(axes, panels.items()):
        image = draw_posterior(one, names, logits)
        loss = lattice.transducer_loss(logits[None], names["targets"][None], *names["lengths"])[0]
        one.set_title(f"{title}: loss {loss:.1f} nats", loc="left")
    axes[1].set_xlabel("frame t")
    axes[1].legend(loc="lower right", frameon=False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, extend="min")
    bar.set_label("probability that an alignment visits the cell")
    save(figure, "lattice")


def draw_posterior(axes: Axes, names: dict, logits: np.ndarray):
    """Posterior and best path of one lattice; each letter stands on its arc."""
    posterior = names["visited"](logits)
    shown = np.ma.masked_less(posterior, LOWEST)
    image = axes.imshow(
        shown.T, norm=LogNorm(LOWEST, 1.0), cmap="Blues", origin="lower", aspect="auto", interpolation="nearest"
    )
    (frames,), _ = lattice.transducer_alignment(logits[None], names["targets"][None], *names["lengths"])
    T, rows = posterior.shape
    # The best path stays on its frame for a label and moves one frame for a blank: a staircase through cell centres.
    across = np.concatenate(([0], np.repeat(frames, 2), [T - 1]))
    axes.plot(
        across, np.repeat(np.arange(rows), 2), color=ORANGE, lw=2, label="best alignment, with the labels it emits"
    )
    for u, (frame, letter) in enumerate(zip(frames, names["word"])):
        circle = {"boxstyle": "circle,pad=0.16", "facecolor": "white", "edgecolor": ORANGE}
        axes.annotate(letter, (frame, u + 0.5), ha="center", va="center", color=ORANGE, fontsize=9, bbox=circle)
    axes.set_yticks(range(rows))
    axes.set_ylabel("labels written, u")
    return image


def draw_emission() -> None:
    names = run("lattice.md").names
    panels = {"Untrained": names["untrained"], "Trained": names["trained"]}
    figure, axes = plt.subplots(2, 1, figsize=(8.5, 6.2), sharex=True, sharey=True, layout="constrained")
    for one, (title, logits) in zip(axes, panels.items()):
        image = draw_frames_of_labels(one, names, logits)
        one.set_title(title, loc="left")
    axes[1].set_xlabel("frame t")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", frameon=False, ncols=2)
    bar = figure.colorbar(image, ax=axes, pad=0.09)
    bar.set_label("probability that the letter is emitted in the frame")
    save(figure, "emission")


def draw_frames_of_labels(axes: Axes, names: dict, logits: np.ndarray):
    """A row for each letter: where it may be emitted, its expected frame, and how probable its best frame is."""
    T, U, due = names["T"], names["U"], names["due"]
    label = names["posteriors"](logits)[1][:, :U]
    expected, confidence = names["emission"](logits)
    image = axes.imshow(label.T, vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="nearest")
    rows = np.arange(U)
    axes.vlines(due, rows - 0.45, rows + 0.45, color=GREY, lw=1.5, ls=":", label="frame at which the letter is heard")
    axes.plot(expected, rows, "D", color=ORANGE, ms=6, label="expected frame")
    for u, share in enumerate(confidence):
        axes.annotate(
            f"{share:.0%}", (T - 0.5, u), (6, 0), textcoords="offset points", va="center", annotation_clip=False
        )
    axes.annotate("best frame", (1, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", ha="center")
    axes.set_yticks(rows, labels=names["word"])
    axes.tick_params(axis="y", length=0)
    return image


def draw_memory() -> None:
    names = run("memory.md").names
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    of_logits = 4e-6 * names["T"] * (names["U"] + 1) * names["V"]
    batches = np.array([1, 64])
    axes.plot(batches, of_logits * batches, color=GREY, ls="--", label="the logits themselves")
    for key, colour, marker, label in (
        ("in_new", ORANGE, "o", "loss from logits, gradient in a new array"),
        ("in_place", GREEN, "s", "loss from logits, gradient in their place"),
        ("measured", BLUE, "D", "fused joint"),
    ):
        axes.plot(*zip(*names[key].items()), color=colour, marker=marker, label=label)
    axes.axhline(names["limit"] / 1e6, color=BLUE, lw=1, ls=":", label="memory_limit, 64 MiB")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], labels=["1", "2", "4", "8", "16", "32", "64"])
    axes.set_yticks([10, 100, 1000], labels=["10", "100", "1000"])
    axes.set_xlabel("utterances in the batch")
    axes.set_ylabel("peak memory beyond the inputs (MB)")
    axes.set_title(f"T={names['T']}, U={names['U']}, V={names['V']}, H={names['H']}, float32", loc="left")
    bare(axes)
    axes.legend(frameon=False)
    save(figure, "memory")


def draw_training() -> None:
    losses = np.array(run("training.md").names["losses"])
    figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    steps = np.arange(1, len(losses) + 1)
    mean = np.convolve(losses, np.ones(15) / 15, mode="valid")
    axes.plot(steps, losses, color=BLUE, lw=0.8, alpha=0.5, label="each step")
    axes.plot(steps[7:-7], mean, color=ORANGE, lw=2, label="mean of 15 steps")
    axes.set_yscale("log")
    axes.set_yticks([0.003, 0.01, 0.03, 0.1, 0.3, 1, 3], labels=["0.003", "0.01", "0.03", "0.1", "0.3", "1", "3"])
    axes.set_yticks([], minor=True)
    axes.set_xlabel("step (16 strings each)")
    axes.set_ylabel("loss (nats per label)")
    bare(axes)
    axes.legend(frameon=False)
    save(figure, "training")


def draw_half_precision() -> None:
    errors = [gradient_errors(*dtypes) for dtypes in PRECISIONS.values()]
    rows = np.arange(len(errors))
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    for name, colour, lift in (("encoder", BLUE, -0.13), ("weight", ORANGE, 0.13)):
        in_all, computing = np.array([error[name] for error in errors]).T
        axes.hlines(rows + lift, computing, in_all, color=colour, lw=1, alpha=0.5)
        axes.plot(in_all, rows + lift, "o", color=colour, label=f"gradient of {name}, rounded inputs counted")
        axes.plot(
            computing, rows + lift, "o", color=colour, mfc="white", label=f"gradient of {name}, computation alone"
        )
    axes.set_yticks(rows, labels=PRECISIONS)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("error of the gradient (l2, relative to float64)")
    bare(axes)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    save(figure, "half_precision")


def gradient_errors(inputs: str, weights: str) -> dict[str, tuple[float, float]]:
    """Relative l2 errors of gradients, against float64 and against float64 of the inputs as they are after rounding."""
    import ml_dtypes  # noqa: F401  (gives NumPy bfloat16)

    rng = np.random.default_rng(0)
    shapes = (2, 60, 128), (2, 13, 128), (256, 128), (256,)
    exact = [scale * rng.standard_normal(shape) for shape, scale in zip(shapes, (1.0, 1.0, 128**-0.5, 1.0))]
    integers = rng.integers(1, 256, (2, 12)), np.array([60, 45]), np.array([12, 8])
    given = [array.astype(dtype) for array, dtype in zip(exact, (inputs, inputs, weights, weights))]
    gradients, of_exact, of_given = (
        lattice.joint_transducer_loss_and_grad(*arrays, *integers, posterior_floor=0)[1]
        for arrays in (given, exact, [array.astype(np.float64) for array in given])
    )

    def error(name, truth):
        ours, truth = getattr(gradients, name).astype(np.float64), getattr(truth, name)
        return float(np.linalg.norm(ours - truth) / np.linalg.norm(truth))

    return {name: (error(name, of_exact), error(name, of_given)) for name in ("encoder", "weight")}


def bare(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


PICTURES = {
    "lattice": draw_lattice,
    "emission": draw_emission,
    "memory": draw_memory,
    "training": draw_training,
    "half_precision": draw_half_precision,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(PICTURES))
    for name in parser.parse_args().names or PICTURES:
        PICTURES[name]()
