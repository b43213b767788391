"""Time, memory and accuracy at real shapes, ours and every importable peer's: a record, a table and a picture of each.

Each cell, one implementation at one shape, runs in a process of its own. A process that crashes, runs out of memory or
takes too long loses its own cell and no other. Cells lie in a folder; cells that lie there already are not measured
again.
"""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from . import accuracy, joint, logits, peer_memory, peers, pictures, record
from .peer_tables import COMPARISONS, comparison_table


class Part(NamedTuple):
    """One thing that is measured: the command that measures it, at which shapes, and who of us takes part."""

    command: str
    sizes: dict[str, tuple[int, ...]]
    ours: tuple[str, ...] = (peers.OURS,)
    approximate: bool = True  # whether pruned losses can be asked
    rounds: bool = True


PARTS = {
    "time": Part("joint", joint.SHAPES),
    "logits": Part("logits", logits.SHAPES, approximate=False),
    "memory": Part("peer_memory", peer_memory.SHAPES, tuple(peer_memory.OURS), rounds=False),
    "accuracy": Part("accuracy", accuracy.SHAPES, approximate=False, rounds=False),
}


def shapes_of(part: str, chosen: list[str]) -> list[str]:
    """Shapes of a part that were asked for; `smoke` only if it was."""
    return [shape for shape in PARTS[part].sizes if (shape in chosen if chosen else shape != "smoke")]


def asked(part: str, without: list[str]) -> list[str]:
    """Who has a cell: ours, and the peers that import."""
    compared, _ = peers.chosen(without)
    return [*PARTS[part].ours, *(peer.name for peer in compared if peer.exact or PARTS[part].approximate)]


def arguments_of(part: str, shape: str, who: str, rounds: int) -> list[str]:
    """Of the command that measures one cell."""
    if part == "accuracy":
        alone = ["--without", *(["all"] if who == peers.OURS else [name for name in peers.PEERS if name != who])]
    else:
        alone = ["--only", who]
    return [PARTS[part].command, "--shape", shape, *alone, *(["--rounds", str(rounds)] if PARTS[part].rounds else [])]


def reason_of(done: subprocess.CompletedProcess) -> str:
    """Why a process failed, in one line without folders."""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    return peers.FOLDERS.sub("", (done.stderr.strip().splitlines() or ["no message"])[-1])


def first_to_go() -> None:
    """When memory runs out, the kernel ends the process that called this before any other."""
    Path("/proc/self/oom_score_adj").write_text("1000")


def run_cell(arguments: list[str], path: Path, minutes: float) -> None:
    """Measure in a process of its own, which writes its record; where it does not, the record says why."""
    command = [sys.executable, "-m", "benchmarks", *arguments, "--json", str(path)]
    try:
        done = subprocess.run(
            command,
            cwd=record.ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60 * minutes,
            preexec_fn=first_to_go,
        )
        failed = reason_of(done) if done.returncode else None
    except subprocess.TimeoutExpired:
        failed = f"no result in {minutes:g} minutes"
    if failed:
        record.write(str(path), {"failed": failed})


def cell_of(part: str, shape: str, who: str, options) -> dict:
    """A cell that is there, or is measured now."""
    path = Path(options.out).absolute() / "cells" / f"{part}-{shape}-{re.sub(r'[^a-z0-9]+', '-', who.lower())}.json"
    begin = time.monotonic()
    known = path.exists() and not options.again
    if not known:
        run_cell(arguments_of(part, shape, who, options.rounds), path, options.minutes)
    cell = json.loads(path.read_text())
    took = "was there" if known else f"{time.monotonic() - begin:.0f} s"
    print(f"{part}, {shape}, {who}: {cell.get('failed', 'measured')} ({took})", flush=True)
    return cell


def merged(part: str, options) -> dict:
    """One record of all cells of a part."""
    shapes = shapes_of(part, options.shapes)
    rows, failed = {shape: {} for shape in shapes}, {shape: {} for shape in shapes}
    commits, truth_error = set(), 0.0
    for shape in shapes:
        for who in asked(part, options.without):
            cell = cell_of(part, shape, who, options)
            commits.add(cell["environment"]["commit"])
            if "failed" in cell:
                failed[shape][who] = cell["failed"]
                continue
            for name, row in cell["rows"].get(shape, cell["rows"]).items():
                rows[shape][f"{name} beside {who}" if name in ("three GEMMs", "numpy.copyto") else name] = row
            truth_error = max(truth_error, cell.get("truth_error", 0.0))
    return {
        "benchmark": COMPARISONS[part].benchmark if part in COMPARISONS else part,
        "shapes": {shape: PARTS[part].sizes[shape] for shape in shapes},
        "rows": rows,
        "failed": failed,
        "not_measured": peers.chosen(options.without)[1],
        "commits": sorted(commits),
        **({"truth_error": truth_error} if part == "accuracy" else {}),
    }


def add_arguments(command) -> None:
    command.add_argument("--out", default="out/benchmarks", help="folder for cells, records and pictures")
    command.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    command.add_argument("--shapes", nargs="+", default=[], metavar="SHAPE", help="by default all but smoke")
    command.add_argument("--without", nargs="*", default=[], metavar="PEER", help="peers to leave out, or `all`")
    command.add_argument("--rounds", type=int, default=5, help="counted rounds of what is timed")
    command.add_argument("--minutes", type=float, default=15, help="time limit of one cell")
    command.add_argument("--again", action="store_true", help="measure cells that are there already once more")


def main(options) -> None:
    for part in options.parts:
        path = Path(options.out) / f"{part}.json"
        record.write(str(path), merged(part, options))
        results = json.loads(path.read_text())
        print(f"\n{comparison_table(part, results) if part in COMPARISONS else accuracy.table_of(results)}\n")
        if pictures.possible():
            pictures.draw(part, results, path.with_suffix(".png"))
    if not pictures.possible():
        print(
            "no pictures: matplotlib is not installed; "
            "`python -m benchmarks pictures` draws those of the committed records"
        )
