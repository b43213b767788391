"""The picture: bound, computed cells and true posterior of one lattice, frame under frame."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file is all that is wanted, and a display may be missing

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lattice import LatticeReport

from .problem import FLOOR
from .rounds import NEVER, PROBE, Rounds

LOWEST = -40.0  # nats: all that lies below is drawn alike
PATH, OUTLINE = "black", "#d9480f"
COLOURS = ("#ebebeb", *matplotlib.colormaps["tab10"].colors)
"""Of a cell that is never computed, then of the cells of each round: the library has 8 rounds at most."""


def draw_figure(
    path: Path, rounds: Rounds, posterior: np.ndarray, label_frames: np.ndarray, report: LatticeReport
) -> None:
    """Write the figure as a PNG.

    Parameters
    ----------
    path : Path
        Its folder is made if it does not exist.
    rounds : Rounds
    posterior : (T, U+1)
        The probability that an alignment visits a cell, from the logits of all cells.
    label_frames : (U,) int
        The frame on which the best path emits each label.
    report : LatticeReport
        Of this lattice alone.
    """
    figure, (bound, computed, truth) = plt.subplots(
        3, 1, figsize=(10.5, 11), sharex=True, sharey=True, layout="constrained"
    )
    draw_bound(bound, rounds.bound)
    draw_rounds(computed, rounds.round, label_frames)
    draw_posterior(truth, posterior, rounds.round != NEVER, report)
    for axes in (bound, computed, truth):
        axes.set_xlabel("frame t")
        axes.set_ylabel("labels emitted so far, u")
        axes.tick_params(labelbottom=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def show_cells(axes: Axes, cells: np.ndarray, **how):
    """A square for each cell of (T, U+1), frames to the right and labels upwards."""
    return axes.imshow(cells.T, origin="lower", aspect="auto", interpolation="nearest", **how)


def draw_bound(axes: Axes, bound: np.ndarray) -> None:
    image = show_cells(axes, bound, vmin=LOWEST, vmax=0, cmap="viridis")
    axes.set_title("(a) alpha + beta over the bounds of all cells, minus their total", loc="left")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, extend="min", ticks=[LOWEST, -30, -20, -PROBE, 0])
    bar.ax.axhline(-PROBE, color="white", lw=1.5)
    bar.set_label(f"nats (the probe takes what is above \N{MINUS SIGN}{PROBE:.0f})")


def draw_rounds(axes: Axes, round_of_cell: np.ndarray, label_frames: np.ndarray) -> None:
    T, rows = round_of_cell.shape
    show_cells(axes, round_of_cell, vmin=NEVER - 0.5, vmax=len(COLOURS) - 1.5, cmap=ListedColormap(COLOURS))
    # The best path stays on its frame for a label and moves one frame for a blank: a staircase through cell centres.
    frames = np.concatenate(([0], np.repeat(label_frames, 2), [T - 1]))
    axes.plot(frames, np.repeat(np.arange(rows), 2), color=PATH, lw=1.5)
    named = {0: "computed in the probe, round 1", NEVER: "never computed"}
    handles = []
    for number in (*range(round_of_cell.max() + 1), NEVER):
        share = 100 * (round_of_cell == number).mean()
        name = named.get(number, f"joined in round {number + 1}")
        handles.append(Patch(facecolor=COLOURS[number + 1], label=f"{name}: {share:.1f} %"))
    axes.legend(handles=[*handles, Line2D([], [], color=PATH, label="best path")], loc="lower right")
    axes.set_title(f"(b) The cells whose logits are computed, of {round_of_cell.size:,}", loc="left")


def draw_posterior(axes: Axes, posterior: np.ndarray, computed: np.ndarray, report: LatticeReport) -> None:
    shown = np.ma.masked_less(posterior, FLOOR)
    image = show_cells(axes, shown, norm=LogNorm(FLOOR, 1.0), cmap="Blues")
    axes.add_collection(LineCollection(edges_of(computed), color=OUTLINE, lw=1.0))
    handle = Line2D([], [], color=OUTLINE, label="outline of the computed cells")
    axes.legend(handles=[handle], loc="lower right")
    certified, occupied = (100 * count[0] / report.cells[0] for count in (report.certified, report.occupied))
    axes.set_title(
        f"(c) True posterior; certified {certified:.1f} %, occupied {occupied:.1f} %, "
        f"certificate {report.certificate[0]:.1e} nats",
        loc="left",
    )
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, ticks=[2.0**-24, 2.0**-18, 2.0**-12, 2.0**-6, 1.0])
    bar.ax.set_yticklabels(["$2^{-24}$", "$2^{-18}$", "$2^{-12}$", "$2^{-6}$", "1"])
    bar.ax.minorticks_off()
    bar.set_label("probability that an alignment visits the cell")


def edges_of(chosen: np.ndarray) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The sides between chosen cells and others, in the coordinates of the picture."""
    framed = np.pad(chosen, 1)
    upright = np.argwhere(framed[1:, 1:-1] != framed[:-1, 1:-1]) - 0.5
    level = np.argwhere(framed[1:-1, 1:] != framed[1:-1, :-1]) - 0.5
    return [((t, u), (t, u + 1)) for t, u in upright] + [((t, u), (t + 1, u)) for t, u in level]
