"""The study's picture: error rate against seconds, beside error rate against peak memory."""

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file is all that is wanted, and a display may be missing

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter, ScalarFormatter

from .recipe import CTC, FULL_SUM, VITERBI

COLOURS = ("#33415c", "#c2410c", "#8d99ae", "#f0a86b", "#2f7d5b")
LINES = {CTC: (":", "CTC model, read off its own layer"), VITERBI: ("--", "Viterbi"), FULL_SUM: ("-", "full sum")}
TICKS = (5, 7, 10, 15, 20, 25, 30, 40, 50, 70, 100)


def draw_curves(axes, runs_of: dict[str, list[dict]]) -> None:
    """A line for each run: dotted, dashed and solid in the stages, a hollow dot where one ends, a full one at last."""
    for colour, (name, runs) in zip(COLOURS, runs_of.items()):
        for run in runs:
            before = []
            for k, stage in enumerate(run["stages"]):
                points = [
                    (point["seconds"], 100 * point["error_rate"]) for point in run["curve"] if point["stage"] == k
                ]
                axes.plot(*zip(*before, *points), LINES[stage["kind"]][0], color=colour, linewidth=1.4)
                before = points[-1:]
                last = k == len(run["stages"]) - 1
                axes.plot(
                    *before[0],
                    "o",
                    color=colour,
                    mfc=colour if last else "white",
                    markersize=6 if last else 4,
                    zorder=3,
                )
        axes.plot([], [], color=colour, linewidth=3, label=f"{name} ({len(runs)} seeds)" if len(runs) > 1 else name)
    for line, label in LINES.values():
        axes.plot([], [], line, color="#555555", label=label)
    axes.set_xlabel("CPU seconds of training on one core, alignment included, decoding not")
    axes.set_ylabel("label errors, greedy search, %")
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=9, loc="upper right")


def draw_memory(axes, runs_of: dict[str, list[dict]], memory: dict[str, int]) -> None:
    """The error rate at the end against the memory of the largest step of any stage of the row."""
    for colour, runs in zip(COLOURS, runs_of.values()):
        rates = [100 * run["curve"][-1]["error_rate"] for run in runs]
        mean = statistics.fmean(rates)
        error = [[mean - min(rates)], [max(rates) - mean]]
        ours = max(memory[stage["kind"]] for stage in runs[0]["stages"]) / 1e6
        axes.errorbar(memory["full sum, dense logits"] / 1e6, mean, error, fmt="s", color=colour, capsize=3)
        axes.errorbar(ours, mean, error, fmt="o", color=colour, capsize=3, mfc="white")
    axes.plot([], [], "s", color="#555555", label="its full-sum steps with dense logits")
    axes.plot([], [], "o", color="#555555", mfc="white", label="with the fused joint")
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("memory of the largest training step, MB")
    axes.legend(frameon=False, fontsize=9, loc="upper center")


def draw(path: Path, title: str, runs_of: dict[str, list[dict]], memory: dict[str, int]) -> None:
    """Both panels over the same error rates, on a logarithmic axis: they begin at all labels wrong."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 5.5), width_ratios=(2, 1), sharey=True, layout="constrained"
    )
    draw_curves(left, runs_of)
    draw_memory(right, runs_of, memory)
    left.set_yscale("log")
    left.set_yticks(TICKS, [str(tick) for tick in TICKS])
    left.yaxis.set_minor_formatter(NullFormatter())
    left.minorticks_off()
    lowest = min(point["error_rate"] for runs in runs_of.values() for run in runs for point in run["curve"])
    left.set_ylim(max(1, 92 * lowest), 105)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
