"""The pictures of docs/peers.md, from the newest records.

A picture has a panel for each shape, a row for each implementation and a line for the floor.
"""

import importlib.util
import math
from pathlib import Path

from . import accuracy, record, table
from .peer_tables import COMPARISONS, Comparison, Row, number, rows_of, sizes_of, values_of

OURS, PEERS, FLOOR = "#1f5fa8", "#c2410c", "0.35"


def possible() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(part: str, results: dict, path: Path) -> None:
    if part in COMPARISONS:
        draw_comparison(part, results, path)
    else:
        accuracy.draw(results, path)


def draw_comparison(part: str, results: dict, path: Path) -> None:
    """A dot for the first number of each implementation, a ring for the second, on a common logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    comparison, rows, shapes = COMPARISONS[part], rows_of(part, results), results["shapes"]
    across = min(3, len(shapes))
    down = math.ceil(len(shapes) / across)
    figure, panels = plt.subplots(
        down,
        across,
        figsize=(2 + 3.4 * across, 1.2 + (0.9 + 0.27 * len(rows)) * down),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    low, high = extent(part, results)
    for axes, (shape, sizes) in zip(panels.flat, shapes.items()):
        floor = comparison.floor_of(results["rows"][shape])
        for place, row in enumerate(rows):
            draw_row(
                axes, place, values_of(part, results, shape, row), row, floor, results["failed"][shape].get(row.who)
            )
        axes.axvline(floor, color=FLOOR, lw=1.5, ls="--")
        axes.set_title(f"{shape}\n{sizes_of(shape, sizes)}", loc="left", fontsize=9)
        axes.grid(alpha=0.3, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xscale("log")
    axes.set_xlim(low / 2, 3 * high)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    for axes in list(panels.flat)[len(shapes) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.tick_params(axis="y", labelsize=8)
        for label, row in zip(axes.get_yticklabels(), rows):
            label.set_color(OURS if row.ours else "black")
            label.set_weight("bold" if row.ours else "normal")
    figure.supxlabel(f"{comparison.label} (logarithmic)", fontsize=9)
    handles = legend_of(comparison)
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8)
    record.save(figure, path)


def extent(part: str, results: dict) -> tuple[float, float]:
    """Smallest and largest number of the picture, floors among them."""
    values = [COMPARISONS[part].floor_of(rows) for rows in results["rows"].values() if rows]
    for row in rows_of(part, results):
        for shape in results["shapes"]:
            values += values_of(part, results, shape, row)
    return min(values), max(values)


def draw_row(axes, place: int, values: list[float], row: Row, floor: float, failed: str | None) -> None:
    colour = OURS if row.ours else PEERS
    beside = {"textcoords": "offset points", "va": "center", "fontsize": 7}
    if failed:
        axes.annotate(f"failed: {failed}", (floor, place), (5, 0), color=colour, **beside)
    if not values:
        return
    axes.plot([floor, values[0]], [place, place], "-", color=colour, lw=2.5 if row.ours else 1.5, alpha=0.6)
    axes.plot(values[0], place, "o", color=colour, ms=7 if row.ours else 5)
    for value in values[1:]:
        axes.plot(value, place, "o", mfc="white", mec=colour, mew=1.5, ms=5)
    text = axes.annotate(number(values[0]), (max(floor, *values), place), (6, 0), color=colour, **beside)
    text.set_weight("bold" if row.ours else "normal")


def legend_of(comparison: Comparison) -> list:
    from matplotlib.lines import Line2D

    def mark(label, colour, **style):
        return Line2D([], [], color=colour, label=label, **style)

    handles = [mark(f"floor: {comparison.floor}", FLOOR, ls="--")]
    if comparison.kinds:
        first, second = comparison.kinds
        handles += [
            mark(f"{first} (number)", FLOOR, ls="", marker="o"),
            mark(second, FLOOR, ls="", marker="o", mfc="white"),
        ]
    return handles


def main(options) -> None:
    for part in (*COMPARISONS, "accuracy"):
        results = table.newest(f"peers {part}" if part in COMPARISONS else part)
        if results is None:
            print(f"{part}: {table.MISSING}")
        else:
            draw(part, results, record.ROOT / "docs" / f"peers-{part}.png")
