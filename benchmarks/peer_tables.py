"""What the records of `python -m benchmarks all` say: rows of implementations over columns of shapes, as tables."""

from collections.abc import Callable
from typing import NamedTuple

from . import joint, peers
from .record import not_measured, wrapped

KINDS = ("untrained", "trained-like")


class Row(NamedTuple):
    """One implementation: its rows in the record, and whose cell they come from."""

    title: str
    ours: bool
    who: str
    keys: tuple[str, ...]


class Comparison(NamedTuple):
    """How a record is read: which number of a row, which rows are ours, what cannot be passed."""

    benchmark: str
    label: str  # of the number, with its unit
    value: Callable[[dict], float]
    ours: tuple[Row, ...]
    kinds: tuple[str, ...]  # a peer has a row for each; none: one row
    floor: str
    floor_of: Callable[[dict], float]  # rows of a shape -> number


def our_row(title: str, who: str, *keys: str) -> Row:
    return Row(title, True, who, keys)


COMPARISONS = {
    "time": Comparison(
        "peers time",
        "time of loss and all gradients, in three matrix products",
        lambda row: row["ratio"],
        (
            our_row("lattice, 64 MiB", "lattice", *(f"lattice, {kind}, 64 MiB" for kind in KINDS)),
            our_row("lattice, every cell", "lattice", "lattice, untrained, every cell"),
        ),
        KINDS,
        "three matrix products over the real cells",
        lambda rows: 1.0,
    ),
    "logits": Comparison(
        "peers logits",
        "time of loss and gradient from given logits, in copies of the logits",
        lambda row: row["ratio"],
        (
            our_row("lattice, in place", "lattice", "lattice, out=logits"),
            our_row("lattice, gradient apart", "lattice", "lattice, new gradient"),
        ),
        (),
        "one copy of the logits",
        lambda rows: 1.0,
    ),
    "memory": Comparison(
        "peers memory",
        "peak memory of loss and all gradients, in MB",
        lambda row: row["total"] / 1e6,
        tuple(
            our_row(f"lattice, {limit}", f"lattice, {limit}", f"lattice, {limit}") for limit in ("64 MiB", "256 MiB")
        ),
        (),
        "inputs and outputs",
        lambda rows: max((row["inputs"] + row["outputs"] for row in rows.values()), default=0) / 1e6,
    ),
}


def rows_of(part: str, record: dict) -> list[Row]:
    """Ours, then the peers that were asked at any shape."""
    comparison, versions = COMPARISONS[part], record["environment"]["versions"]
    rows = list(comparison.ours)
    for name, (distribution, exact, _) in peers.PEERS.items():
        keys = tuple(f"{name}, {kind}" for kind in comparison.kinds) or (name,)
        title = title_of(name, versions.get(distribution.replace("_", "-"), ""), exact)
        if any(keys[0] in record["rows"][shape] or name in record["failed"][shape] for shape in record["rows"]):
            rows.append(Row(title, False, name, keys))
    return rows


def title_of(name: str, version: str, exact: bool) -> str:
    """`torch, naive` becomes `torch 2.11.0, naive`."""
    package, *kind = name.split(", ")
    text = ", ".join([f"{package} {version}".strip(), *kind])
    return text if exact else f"{text} (approximate)"


def values_of(part: str, record: dict, shape: str, row: Row) -> list[float]:
    """Numbers of an implementation at a shape; none where it failed or was not asked."""
    own = record["rows"][shape]
    return [COMPARISONS[part].value(own[key]) for key in row.keys if key in own]


def number(value: float) -> str:
    return f"{value:.2f}" if value < 1.5 else f"{value:.1f}" if value < 20 else f"{value:,.0f}"


def sizes_of(shape: str, sizes: list[int]) -> str:
    """Sizes by letter; where lengths differ, T and U are the longest."""
    longest = "≤" if shape in joint.LENGTHS else "="
    return " ".join(f"{letter}{longest if letter in 'TU' else '='}{size}" for letter, size in zip("BTUVH", sizes))


def comparison_table(part: str, record: dict | None) -> str:
    """Implementations over shapes; where a cell has two numbers, untrained and trained-like."""
    if record is None:
        return "not measured"
    comparison, shapes = COMPARISONS[part], record["shapes"]
    lines = ["| | " + " | ".join(shapes) + " |", "|---" + "|---:" * len(shapes) + "|"]
    lines.append("| | " + " | ".join(sizes_of(*item) for item in shapes.items()) + " |")
    floors = [number(comparison.floor_of(record["rows"][shape])) if record["rows"][shape] else "" for shape in shapes]
    lines.append(f"| {comparison.floor}, nothing else | " + " | ".join(floors) + " |")
    for row in rows_of(part, record):
        bold = "**" if row.ours else ""
        cells = []
        for shape in shapes:
            values = " / ".join(map(number, values_of(part, record, shape, row)))
            cells.append(f"{bold}{values}{bold}" if values else "failed" if row.who in record["failed"][shape] else "")
        lines.append(f"| {bold}{row.title}{bold} | " + " | ".join(cells) + " |")
    failures = [
        f"{who} at {shape} ({reason})" for shape, whose in record["failed"].items() for who, reason in whose.items()
    ]
    lines += ["", wrapped(f"Failed: {'; '.join(failures)}.")] if failures else []
    return "\n".join([*lines, "", not_measured(record["not_measured"])])


def first_table(time: dict | None, memory: dict | None, shape: str = "ragged") -> str:
    """What the README says first: time and memory of one batch as it comes, implementation by implementation."""
    if time is None or memory is None:
        return "not measured"
    sizes = sizes_of(shape, time["shapes"][shape])
    lines = [f"| one step, {sizes} | time, untrained | time, trained-like | peak memory, MB |", "|---|---:|---:|---:|"]
    floor = COMPARISONS["memory"].floor_of(memory["rows"][shape])
    lines.append("| three matrix products, the unit of time | 1 | 1 |  |")
    lines.append(f"| inputs and outputs |  |  | {number(floor)} |")
    peak = {row.title: values_of("memory", memory, shape, row) for row in rows_of("memory", memory)}
    for row in rows_of("time", time):
        times, bold = values_of("time", time, shape, row), "**" if row.ours else ""
        if not times:
            continue
        numbers = [*times, *[None] * (2 - len(times)), *(peak.get(row.title) or [None])]
        cells = ["" if value is None else number(value) for value in numbers]
        lines.append(
            f"| {bold}{row.title}{bold} | " + " | ".join(f"{bold}{cell}{bold}" if cell else "" for cell in cells) + " |"
        )
    return "\n".join(lines)
