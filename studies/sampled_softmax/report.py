"""The study's table, and its picture: memory against error rate (Lee et al. 2022, Figure 3)."""

import datetime
import importlib.metadata
import json
import platform
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file is all that is wanted, and a display may be missing

import matplotlib.pyplot as plt

COLOURS = {None: "#33415c", "uniform": "#c2410c", "ctc": "#1f5fa8", "mixture": "#2f7d5b"}


def environment() -> dict:
    """What a study was run with."""
    versions = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("numpy", "numba")},
    }
    command = " ".join(["python -m studies.sampled_softmax", *sys.argv[1:]])
    return {"date": datetime.date.today().isoformat(), "command": command, "versions": versions}


def rate_text(runs: list[dict], decoding: str, kind: str) -> str:
    """Mean over the seeds, and the lowest and the highest where there are several."""
    rates = [100 * run["error_rates"][decoding][kind] for run in runs]
    if len(rates) == 1:
        return f"{rates[0]:.1f}"
    return f"{statistics.fmean(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"


def table_lines(runs_of: dict[str, list[dict]], measured: dict[str, dict]) -> list[str]:
    """The table in Markdown: a line for each row of the study."""
    decodings = list(next(iter(runs_of.values()))[0]["error_rates"])
    head = ["row", "unit errors, %", *(f"over {name}" for name in decodings[1:]), "word errors, %"]
    head += ["joint, ms", "step, ms", "step's memory, MB", "with dense logits, MB"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, runs in runs_of.items():
        cells = [name, *(rate_text(runs, decoding, "unit_error_rate") for decoding in decodings)]
        cells.append(rate_text(runs, decodings[0], "word_error_rate"))
        if name in measured:
            cost = measured[name]
            cells += [f"{1e3 * cost['joint_seconds']:.0f}", f"{1e3 * cost['step_seconds']:.0f}"]
            cells += [f"{cost['peak_bytes'] / 1e6:.0f}", f"{cost['conventional_bytes'] / 1e6:.0f}"]
        else:
            cells += ["-"] * 4
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(path: Path, title: str, runs_of: dict[str, list[dict]], measured: dict[str, dict]) -> None:
    """Memory of a whole training step against the error rate, with dense logits and with ours."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for name, cost in measured.items():
        runs = runs_of[name]
        rates = [100 * run["error_rates"]["free"]["unit_error_rate"] for run in runs]
        colour, shape = (
            COLOURS[runs[0]["row"]["source"]],
            {"none": "o", "inter": "s", "self": "^"}[runs[0]["row"]["mode"]],
        )
        if runs[0]["row"]["strategy"] == "batch":
            shape = "X"
        mean = statistics.fmean(rates)
        error = [[mean - min(rates)], [max(rates) - mean]]
        axes.errorbar(cost["conventional_bytes"] / 1e6, mean, error, fmt=shape, color=colour, capsize=3, label=name)
        size = runs[0]["row"]["size"]
        axes.annotate(
            f"S={size}" if size else "all",
            (cost["conventional_bytes"] / 1e6, mean),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=7,
            color=colour,
        )
        axes.errorbar(cost["peak_bytes"] / 1e6, mean, error, fmt=shape, color=colour, capsize=3, mfc="white")
    axes.set_xlabel("memory of a training step, MB: with dense logits (filled), with the fused joint (hollow)")
    axes.set_ylabel("unit error rate on held-out speech, %\nmean over seeds; bars from lowest to highest")
    axes.set_title(title, loc="left")
    axes.set_xlim(left=0)
    # The rates lie close together: the axis begins below the lowest, not at zero.
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def write(folder: Path, args, runs_of: dict[str, list[dict]], measured: dict[str, dict], bias: list[str]) -> list[str]:
    """Write table.md, study.json and memory.png; the lines of the first."""
    table = table_lines(runs_of, measured)
    lines = [*table, "", *bias] if bias else table
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    name = f"study {args.corpus} {args.units} units {args.steps} steps"
    record = {"benchmark": name, "environment": environment(), "table": table, "bias": bias}
    (folder / "study.json").write_text(json.dumps({**record, "measured": measured, "runs": runs_of}, indent=1) + "\n")
    draw(folder / "memory.png", f"{args.corpus}, {args.units} units, {args.steps} steps", runs_of, measured)
    return lines
