"""The study's tables and its record."""

import datetime
import importlib.metadata
import json
import platform
import statistics
import sys
from pathlib import Path

from .figure import draw
from .recipe import CTC

LIBRARIES = ("numpy", "numba", "nltk", "rapidfuzz")


def environment() -> dict:
    """What a study was run with."""
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}
    command = " ".join(["python -m studies.three_stage", *sys.argv[1:]])
    return {"date": datetime.date.today().isoformat(), "command": command, "versions": versions}


def spread(values: list[float], digits: int = 1) -> str:
    """Mean over the seeds, and the lowest and the highest where there are several."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.fmean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table: the first column is text, the others are numbers."""
    return [
        "| " + " | ".join(head) + " |",
        "|---|" + "---:|" * (len(head) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def last_rates(run: dict) -> list[float]:
    """The error rate at the end of each stage, in percent."""
    ends = {point["stage"]: 100 * point["error_rate"] for point in run["curve"]}
    return [ends[stage] for stage in sorted(ends)]


def run_lines(runs_of: dict[str, list[dict]], memory: dict[str, int]) -> list[str]:
    """A line for each stage of each row: steps, CPU seconds, error rate when it ended, memory of its largest step."""
    rows = []
    for name, runs in runs_of.items():
        seconds = 0.0
        for k, stage in enumerate(runs[0]["stages"]):
            spent = statistics.fmean(run["stages"][k]["seconds"] for run in runs)
            aligned = statistics.fmean(run["stages"][k]["align_seconds"] for run in runs)
            seconds += spent
            kind = stage["kind"] + (f", {aligned:.1f} s of it to align" if aligned else "")
            rates = spread([last_rates(run)[k] for run in runs])
            step = f"{1e3 * (spent - aligned) / stage['steps']:.0f}"
            rows.append(
                [
                    name,
                    kind,
                    str(stage["steps"]),
                    f"{spent:.0f}",
                    f"{seconds:.0f}",
                    step,
                    rates,
                    f"{memory[stage['kind']] / 1e6:.0f}",
                ]
            )
    head = [
        "row",
        "stage",
        "steps",
        "CPU seconds",
        "since the start",
        "ms a step",
        "label errors after it, %",
        "memory of a step, MB",
    ]
    return markdown(head, rows)


def first_seconds(run: dict, rate: float) -> float | None:
    """When a transducer of a run was first found to have at most some error rate; None if never."""
    kinds = [stage["kind"] for stage in run["stages"]]
    reached = (
        point["seconds"] for point in run["curve"] if kinds[point["stage"]] != CTC and point["error_rate"] <= rate
    )
    return next(reached, None)


def goal_lines(runs_of: dict[str, list[dict]]) -> list[str]:
    """When each row reached the error rate at which the first row, full sum from scratch, ended; seed by seed."""
    ends = [(run["curve"][-1]["error_rate"], run["seconds"]) for run in next(iter(runs_of.values()))]
    rows = []
    for name, runs in runs_of.items():
        cells = [name]
        for run, (rate, whole) in zip(runs, ends):
            seconds = first_seconds(run, rate)
            cells.append("not reached" if seconds is None else f"{seconds:.0f} s, {seconds / whole:.2f} of its time")
        rows.append(cells)
    head = [
        "the first row's last error rate",
        *(f"seed {seed}: {100 * rate:.1f} %" for seed, (rate, _) in enumerate(ends)),
    ]
    return markdown(head, rows)


def risk_lines(row: str, results: list[dict]) -> list[str]:
    """Before and after stage 3, which began with the parameters that a row ended with."""
    names = {
        "training_risk": "expected edits, training lists, % of labels",
        "held_out_risk": "expected edits, held-out lists, %",
        "greedy": "greedy, label errors, %",
        "beam": "beam search, %",
        "beam_and_model": "beam search, the language model's choice, %",
    }
    rows = []
    for key, name in names.items():
        before, after = ([100 * result[when][key] for result in results] for when in ("before", "after"))
        rows.append([name, spread(before, 2), spread(after, 2)])
    for part in results[0]["seconds"]:
        rows.append([f"CPU seconds, {part}", "", spread([result["seconds"][part] for result in results], 0)])
    return markdown([f"stage 3, after {row}", "before", "after"], rows)


def alignment_lines(errors_of: dict[str, list[dict]]) -> list[str]:
    """Each aligner against the phones' times."""
    rows = []
    for name, errors in errors_of.items():
        cells = [name]
        for point in ("end", "centre"):
            cells += [
                spread([error[point][key] for error in errors], 0)
                for key in ("median_ms", "mean_ms", "offset_ms", "median_without_offset_ms")
            ]
        cells += [spread([100 * error[key] for error in errors]) for key in ("inside", "inside_without_offset")]
        rows.append(cells)
    head = ["frames by"]
    for point in ("end", "centre"):
        head += [f"to the phone's {point}, ms: median", "mean", "offset", "median without it"]
    head += ["inside the phone, %", "without the offset, %"]
    return markdown(head, rows)


def write(folder: Path, args, runs_of: dict, memory: dict, risk: dict, alignments: dict) -> list[str]:
    """Write table.md, study.json and curve.png; the lines of the first."""
    tables = {"table": run_lines(runs_of, memory), "goal": goal_lines(runs_of)}
    dense = [[name, f"{size / 1e6:.0f}"] for name, size in memory.items()]
    tables["memory"] = markdown(["a training step on the largest batch", "peak memory, MB"], dense)
    for row, results in risk.items():
        tables["risk"] = risk_lines(row, results)
    if alignments:
        tables["alignment"] = alignment_lines(alignments)
    lines = [line for table in tables.values() for line in (*table, "")][:-1]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    record = {"benchmark": f"three stages {args.corpus} {args.units}", "environment": environment(), **tables}
    record |= {"peak_bytes": memory, "runs": runs_of, "stage_3": risk, "alignments": alignments}
    (folder / "study.json").write_text(json.dumps(record, indent=1) + "\n")
    title = f"{args.corpus}, {args.units}: {args.held_out} held-out utterances"
    draw(folder / "curve.png", title, runs_of, memory)
    return lines
