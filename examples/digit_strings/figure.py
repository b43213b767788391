"""The demo's picture: how training went on the left, one held-out string and its lattice on the right."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file is all that is wanted, and a display may be missing

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import SubFigure

from .lattice_picture import LatticePicture
from .log import LearningCurve
from .strings import SIDE, DigitStrings

FLOOR = 2.0**-24  # the library's default posterior_floor: cells below it are left white
LOSS, ERROR, PATH = "#1f5fa8", "#c2410c", "#e8590c"
CERTIFIED, OCCUPIED = "#7c8ea3", "#1f5fa8"


def draw_figure(path: Path, curve: LearningCurve, string: DigitStrings, decoded: list[int], picture: LatticePicture):
    """Write the figure as a PNG.

    Parameters
    ----------
    path : Path
        Its folder is made if it does not exist.
    curve : LearningCurve
    string : DigitStrings
        A batch of one.
    decoded : list of int
        The label ids that greedy decoding found in it.
    picture : LatticePicture
    """
    figure = plt.figure(figsize=(14, 7.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.4), wspace=0.04)
    draw_curve(left, curve)
    draw_lattice(right, string, decoded, picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_curve(figure: SubFigure, curve: LearningCurve) -> None:
    """Loss, label error rate and computed cells, one under the other over the same epochs."""
    panels = figure.subplots(3, 1, sharex=True)
    draw_loss(panels[0], curve)
    draw_error_rate(panels[1], curve)
    draw_cells(panels[2], curve)
    figure.align_ylabels(panels)
    panels[2].set_xlabel("epoch")
    panels[2].xaxis.get_major_locator().set_params(integer=True)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)


def draw_loss(axes: Axes, curve: LearningCurve) -> None:
    axes.plot(np.arange(1, len(curve.loss) + 1), curve.loss, color=LOSS, marker="o", markersize=4)
    axes.set_yscale("log")
    axes.set_title("Training loss", loc="left")
    axes.set_ylabel("loss (nats per label)")


def draw_error_rate(axes: Axes, curve: LearningCurve) -> None:
    epochs, percent = np.arange(1, len(curve.error_rate) + 1), 100 * np.array(curve.error_rate)
    axes.plot(epochs, percent, color=ERROR, marker="o", markersize=4)
    # Linear below 1 %, so that an epoch without an error has a place on the axis.
    axes.set_yscale("symlog", linthresh=1.0)
    ticks = [0, 1, 2, 5, 10, 20, 50, 100]
    axes.set_yticks(ticks, labels=[str(tick) for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_ylim(0, max(110, 1.1 * percent.max()))
    axes.annotate(f"{percent[-1]:.1f} %", (epochs[-1], percent[-1]), (0, 9), textcoords="offset points", ha="right")
    axes.set_title("Held-out label error rate", loc="left")
    axes.set_ylabel("label error rate (%)")


def draw_cells(axes: Axes, curve: LearningCurve) -> None:
    """The shares of computed cells from epoch 0, which is the untrained network, on."""
    certified, occupied = 100 * np.array(curve.certified), 100 * np.array(curve.occupied)
    epochs = np.arange(len(certified))
    axes.plot(epochs, certified, color=CERTIFIED, marker="s", markersize=4, label="certified: computed forward")
    axes.plot(epochs, occupied, color=OCCUPIED, marker="o", markersize=4, label="occupied: visited backward")
    # One above its line and one below: the two may end close to each other.
    for percent, offset, side in ((certified, 6, "bottom"), (occupied, -6, "top")):
        axes.annotate(
            f"{percent[-1]:.0f} %",
            (epochs[-1], percent[-1]),
            (0, offset),
            textcoords="offset points",
            ha="right",
            va=side,
        )
    axes.set_ylim(0, 105)
    axes.set_title("Held-out lattice cells computed", loc="left")
    axes.set_ylabel("share of cells (%)")
    axes.legend(loc="upper right", frameon=False)


def draw_lattice(figure: SubFigure, string: DigitStrings, decoded: list[int], picture: LatticePicture) -> None:
    """The pixels above, the posterior of the lattice below, frame under frame."""
    T, rows = picture.posterior.shape
    digits = [str(label - 1) for label in string.targets[0]]
    strip, lattice = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3.2))

    strip.imshow(string.frames[0].T, cmap="gray_r", aspect="auto", interpolation="nearest")
    for start, digit in zip(string.starts[0], digits):
        strip.axvspan(start - 0.5, start + SIDE - 0.5, ymin=1.02, ymax=1.05, color="0.55", clip_on=False, lw=0)
        strip.annotate(
            digit,
            (start + (SIDE - 1) / 2, 1.08),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=12,
            annotation_clip=False,
        )
    read = "".join(str(label - 1) for label in decoded) or "nothing"
    strip.set_title(f"A held-out string: {''.join(digits)}, read as {read}", loc="left", pad=26)
    strip.set_ylabel("pixel row")
    strip.set_yticks([0, SIDE - 1])
    strip.tick_params(labelbottom=False, bottom=False)

    shown = np.ma.masked_less(picture.posterior.T, FLOOR)
    image = lattice.imshow(
        shown, norm=LogNorm(FLOOR, 1.0), cmap="Blues", origin="lower", aspect="auto", interpolation="nearest"
    )
    # The best path stays on its frame for a label and moves one frame for a blank: a staircase through cell centres.
    frames = np.concatenate(([0], np.repeat(picture.label_frames, 2), [T - 1]))
    lattice.plot(frames, np.repeat(np.arange(rows), 2), color=PATH, lw=2, label="best path, with the labels it emits")
    for u, (frame, digit) in enumerate(zip(picture.label_frames, digits)):
        circle = {"boxstyle": "circle,pad=0.18", "facecolor": "white", "edgecolor": PATH}
        lattice.annotate(digit, (frame, u + 0.5), ha="center", va="center", color=PATH, fontsize=9, bbox=circle)
    lattice.set_yticks(range(rows))
    lattice.set_xlim(-0.5, T - 0.5)
    lattice.set_xlabel("frame t (one pixel column)")
    lattice.set_ylabel("labels emitted so far, u")
    lattice.legend(loc="lower right")
    shown_part = 100 * (picture.posterior >= FLOOR).mean()
    lattice.set_title(
        f"Lattice posterior: {shown_part:.0f} % of the cells reach 2$^{{-24}}$, the rest is white", loc="left"
    )
    bar = figure.colorbar(image, ax=lattice, pad=0.01)
    bar.set_label("probability that an alignment visits the cell")
