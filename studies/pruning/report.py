"""The study's table, its record, and its picture: error of a band and the bound on it, by step of training."""

import datetime
import importlib.metadata
import json
import math
import platform
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file is all that is wanted, and a display may be missing

import matplotlib.pyplot as plt

from .measure import BANDS

COLOURS = {"bias": "#c2410c", "bound": "#33415c", "joint_bound": "#1f5fa8"}
LABELS = {
    "bias": "loss in the band minus the loss",
    "bound": "bound, from the logits in the band",
    "joint_bound": "bound of the joint's report",
}
LOWEST = 1e-12
"""Nats: what is less is rounding, and drawn here."""
CEILING = 300.0
"""Nats: what is more is drawn here, and so is inf."""
COLUMNS = {"bias": "bias, nats", "bound": "bound", "joint_bound": "joint's bound"}
HEAD = ["step", "loss", "band", "cells", *(cell for name in COLUMNS.values() for cell in (name, "largest")), "gradient"]


def environment(program: str = "studies.pruning") -> dict:
    """What a study was run with."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "scikit-learn")}
    command = " ".join([f"python -m {program}", *sys.argv[1:]])
    versions = {"python": platform.python_version(), **versions}
    return {"date": datetime.date.today().isoformat(), "command": command, "versions": versions}


def nats(value: float) -> str:
    """A number of nats: what is below `LOWEST` is 0, as far as rounding tells."""
    if not math.isfinite(value):
        return "inf"
    if value < LOWEST:
        return "0"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.0e}"


def share(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.01 else "0" if value < LOWEST else f"{100 * value:.0e} %"


def table_lines(rows: list[dict]) -> list[str]:
    """The table in Markdown: medians over the strings, and the largest of bias and bounds."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---:|---:|---|" + "---:|" * (len(HEAD) - 3)]
    for row in rows:
        pairs = [nats(row[name][which]) for name in COLUMNS for which in ("median", "max")]
        cells = [str(row["step"]), nats(row["loss"]["median"]), row["band"], share(row["cells"]["median"]), *pairs]
        cells.append(share(row["gradient"]["median"]))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(path: Path, rows: list[dict]) -> None:
    """A panel for each band: medians as lines, up to the largest as a shade."""
    figure, panels = plt.subplots(2, 2, figsize=(11, 8), sharex=True, sharey=True, layout="constrained")
    for axes, band in zip(panels.flat, BANDS, strict=True):
        own = [row for row in rows if row["band"] == band]
        # The axis of steps is logarithmic, and begins at step 0.
        at = [max(row["step"], own[-1]["step"] / 400) for row in own]
        for name, colour in COLOURS.items():
            median, most = ([min(max(row[name][k], LOWEST), CEILING) for row in own] for k in ("median", "max"))
            axes.plot(at, median, "o-", color=colour, markersize=4, label=LABELS[name])
            axes.fill_between(at, median, most, color=colour, alpha=0.12, linewidth=0)
        cells = own[-1]["cells"]["median"]
        axes.set_title(f"{band}: {100 * cells:.0f} % of the cells", loc="left")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.axhline(CEILING, color="#999999", linewidth=0.8, linestyle=":")
        axes.annotate("inf", (1, CEILING), xycoords=("axes fraction", "data"), va="center", fontsize=8, color="#555555")
    for axes in panels[1]:
        axes.set_xlabel("step of training (leftmost: untrained)")
    for axes in panels[:, 0]:
        axes.set_ylabel("nats an utterance: median, shaded to the largest")
    panels[0, 0].legend(frameon=False, fontsize=9, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(folder: Path, args, rows: list[dict]) -> list[str]:
    """Write table.md, study.json and pruning.png; the lines of the first."""
    table = table_lines(rows)
    draw(folder / "pruning.png", rows)
    (folder / "table.md").write_text("\n".join(table) + "\n")
    name = f"study pruning {args.steps[-1]} steps"
    record = {"benchmark": name, "environment": environment(), "table": table, "rows": rows}
    (folder / "study.json").write_text(json.dumps(record, indent=1) + "\n")
    return table
