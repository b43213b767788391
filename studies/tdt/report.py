"""The study's table and its record: means over the seeds, and the smallest and the largest of the error rates."""

import json
from pathlib import Path

import numpy as np

from ..pruning.report import environment

HEAD = (
    "step",
    "topology",
    "loss, nats a label",
    "label errors",
    "smallest",
    "largest",
    "frames visited",
    "rows a frame",
    "occupied",
    "certified",
)
LEFT_OUT = ("seed", "topology", "step", "training_loss")
"""Of the means."""


def percent(value: float) -> str:
    return f"{100 * value:.2f} %" if value < 0.1 else f"{100 * value:.0f} %"


def table_lines(rows: list[dict]) -> list[str]:
    """The table in Markdown, a line for each step and topology."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---:|---|" + "---:|" * (len(HEAD) - 2)]
    for step, name in sorted({(row["step"], row["topology"]) for row in rows}):
        own = [row for row in rows if (row["step"], row["topology"]) == (step, name)]
        mean = {key: float(np.mean([row[key] for row in own])) for key in own[0] if key not in LEFT_OUT}
        errors = [row["error_rate"] for row in own]
        losses = [row["training_loss"] for row in own]
        loss = f"{np.mean(losses):.3f}" if step else ""
        cells = [str(step), name, loss, *map(percent, (mean["error_rate"], min(errors), max(errors)))]
        cells += [percent(mean["frames"]), f"{mean['rows']:.2f}", percent(mean["occupied"]), percent(mean["certified"])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write(folder: Path, args, rows: list[dict]) -> list[str]:
    """Write table.md and study.json; the lines of the first."""
    table = table_lines(rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text("\n".join(table) + "\n")
    name = f"study tdt {args.steps[-1]} steps"
    told = environment("studies.tdt")
    record = {"benchmark": name, "environment": told, "table": table, "rows": rows}
    (folder / "study.json").write_text(json.dumps(record, indent=1) + "\n")
    return table
