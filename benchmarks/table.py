"""The tables of the README and of docs, made from the records.

`python -m benchmarks table` writes the tables into the pages, and a test compares them.
"""

import functools
import json
import re
from pathlib import Path

from . import accuracy, dropout, tf32
from .gpu import instructions
from .peer_tables import COMPARISONS, comparison_table, first_table, title_of
from .peers import PEERS
from .record import not_measured

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).resolve().parent.parent
MISSING = "not measured"
FIRST_COUNT = "instructions-before-2026-11-28.json"


def newest(benchmark: str) -> dict | None:
    """The latest record of a benchmark; of one day, the one with most rows."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    records = [record for record in records if record["benchmark"] == benchmark]
    return max(records, key=lambda record: (record["environment"]["date"], len(record.get("rows", ()))), default=None)


def looked_up(record: dict | None, *path):
    """A value in a record, None where any part of the path is missing."""
    node = record
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def gpu_table() -> str:
    """What was measured on a GPU, and what was not yet."""
    record = newest("gpu")
    names = [gpu["name"] for gpu in looked_up(record, "environment", "gpu") or ()]
    lines = [f"| on a GPU ({', '.join(names) or 'none was at hand yet'}) | float32 | bfloat16 |", "|---|---|---|"]

    def row(title, *paths, form):
        values = [looked_up(record, *path) for path in paths]
        lines.append(f"| {title} | " + " | ".join(MISSING if value is None else form(value) for value in values) + " |")

    def joint(dtype, kind):
        return "sections", f"joint {dtype}", f"default {dtype}", "rows", f"{kind}, 256 MiB", "ratio"

    def logits(dtype, label, key):
        return "sections", "logits", f"long {dtype}", "rows", label, key

    both = ("float32", "bfloat16")
    row("tests of the `cuda` tier that passed", ("tests", "passed"), ("tests", "passed"), form=str)
    row(
        "fused joint, untrained, in three matrix products", *(joint(d, "untrained") for d in both), form="{:.2f}".format
    )
    row("fused joint, trained-like", *(joint(d, "trained-like") for d in both), form="{:.2f}".format)
    row(
        "loss from logits (B=8 T=1000 U=100 V=1024) in place, in copies of them",
        *(logits(d, "out=logits", "ratio") for d in both),
        form="{:.2f}".format,
    )
    row("torchaudio there", *(logits(d, "torchaudio", "ratio") for d in both), form="{:.2f}".format)
    row(
        "headline (B=1024 T=1000 U=100 H=512 V=1024): bytes of the pool, with inputs",
        *(("sections", f"headline {d}", f"{d}, 512 MiB", "pool") for d in both),
        form="{:.3g}".format,
    )
    for limit in ("512 MiB", "64 MiB"):
        row(
            f"headline: seconds with `memory_limit` {limit}",
            *(("sections", f"headline {d}", f"{d}, {limit}", "seconds") for d in both),
            form="{:.3g}".format,
        )
    return "\n".join(lines)


def instructions_table() -> str:
    """Machine code of the inner loops, counted first and now."""
    before = json.loads((RESULTS / FIRST_COUNT).read_text())
    return instructions.comparison_of(before["kernels"], newest("instructions")["kernels"])


def model_table(machine: str = "H100") -> str:
    """What the model predicts: seconds in all, of the host alone, and the ratio to the floor."""
    precisions, rows = {"float32": "float32", "tf32x3": "3xTF32", "tf32": "TF32", "bfloat16": "bfloat16"}, {}
    for name, cell in newest("model")["predictions"][machine].items():
        if "rows" in cell:
            precision = next(word for word in name.split() if word in precisions)
            whole, host = (f"{1e3 * cell[key]:{',.0f' if cell[key] >= 1 else '.3g'}}" for key in ("seconds", "host"))
            text = f"{whole} ms (host {host}), {cell['ratio']:.2f}"
            rows.setdefault(name.replace(f" {precision}", ""), {})[precision] = text
    lines = [f"| predicted for an {machine} | {' | '.join(precisions.values())} |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(row.get(word, '-') for word in precisions)} |" for name, row in rows.items()]
    return "\n".join(lines)


def samplers_table() -> str:
    """Time of steps and draws, memory of a step."""
    record = newest("samplers")
    lines = ["| a step's joint, loss and all gradients | time, full softmax = 1 | workspace, MB |", "|---|---:|---:|"]
    for name, row in record["steps"].items():
        lines.append(f"| {name} | {row['ratio']:.2f} | {row['workspace'] / 1e6:.1f} |")
    lines += ["", "| peak memory of a step, inputs and gradients included | MB | |", "|---|---:|---:|"]
    lines += [f"| {name} | {row['step'] / 1e6:.0f} | {row['ratio']:.3f} |" for name, row in record["memory"].items()]
    B, T, U, V, H, S = record["draw_shape"]
    lines += ["", f"| drawing, B={B} T={T} U={U} V={V} H={H} S={S} | time |", "|---|---:|"]
    return "\n".join(lines + [f"| {name} | {row['ratio']:.3g} |" for name, row in record["draws"].items()])


def steps_table() -> str:
    """Steps of the three stages."""
    lines = ["| loss and all gradients, or alignment | time, dense full sum = 1 |", "|---|---:|"]
    return "\n".join(
        lines + [f"| {name} | {row['ratio']:.3f} |" for name, row in newest("three_stage")["steps"].items()]
    )


def long_table() -> str:
    """Alignments of long audio."""
    lines = ["| | cells | growth, MB | seconds | one matrix product = 1 |", "|---|---:|---:|---:|---:|"]
    for name, row in newest("three_stage")["long"].items():
        lines.append(
            f"| {name} | {row['cells']:,} | {row['growth'] / 1e6:.0f} | {row['seconds']:.1f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines)


def study_table(benchmark: str, part: str) -> str:
    """What a study wrote."""
    record = newest(benchmark)
    return MISSING if record is None else "\n".join(record[part])


def newest_comparison(part: str) -> str:
    """Time or memory beside the peers'."""
    return comparison_table(part, newest(COMPARISONS[part].benchmark))


def readme_table() -> str:
    """Time and memory of one batch beside the peers'."""
    return first_table(*(newest(COMPARISONS[part].benchmark) for part in ("time", "memory")))


def accuracy_table() -> str:
    """Errors beside the peers'."""
    record = newest("accuracy")
    return MISSING if record is None else accuracy.table_of(record)


def dropout_table() -> str:
    """Activations, and dropout beside each."""
    record = newest("dropout")
    return MISSING if record is None else dropout.table_of(record)


def tf32_table() -> str:
    """Errors of products in TF32 and in three of them."""
    return tf32.table_of(newest("tf32"))


def verdict_text(cell: dict, limit: float | None) -> str:
    """One cell of the behaviour table; what should not be is bold."""
    if cell["good"] is None:
        return "-"
    errors = [cell.get("loss_error"), cell.get("gradient_error")]
    text = cell["verdict"] if cell["good"] else f"**{cell['verdict']}**"
    return f"{text} {max(errors):.0e}" if None not in errors and (limit or cell["verdict"] == "wrong") else text


def behaviour_table() -> str:
    """Cases over implementations, and how many of the cases each gets right."""
    record = newest("behaviour")
    if record is None:
        return MISSING
    rows, versions = record["rows"], record["environment"]["versions"]
    names = list(next(iter(rows.values())))
    version = {name: versions.get(distribution.replace("_", "-"), "") for name, (distribution, *_) in PEERS.items()}
    heads = [title_of(name, version.get(name, ""), exact=True) for name in names]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(names) + 1) + "|"]
    for case, row in rows.items():
        texts = [verdict_text(row[name], record["cases"][case]["limit"]) for name in names]
        lines.append(f"| {case} | " + " | ".join(texts) + " |")
    goods = {name: [row[name]["good"] for row in rows.values() if row[name]["good"] is not None] for name in names}
    lines.append("| as it should be | " + " | ".join(f"{sum(good)} of {len(good)}" for good in goods.values()) + " |")
    return "\n".join([*lines, "", not_measured(record["not_measured"])])


def words_table(part: str) -> str:
    """What the behaviour record itself says that its words mean."""
    words = looked_up(newest("behaviour"), part) or {}
    lines = [f"| {part[:-1]} | meaning |", "|---|---|"]
    return "\n".join(
        lines + [f"| {name} | {word if isinstance(word, str) else word['asked']} |" for name, word in words.items()]
    )


STUDIES = {
    "espeak": ("study espeak 1000 units 1500 steps", "table"),
    "long": ("study espeak 1000 units 3000 steps", "table"),
    "bias": ("study espeak 1000 units 3000 steps", "bias"),
    "festvox": ("study festvox 300 units 1000 steps", "table"),
    "characters": ("study festvox characters units 800 steps", "table"),
}
STUDY_TABLES = {name: functools.partial(study_table, *what) for name, what in STUDIES.items()}
PIPELINES = {
    f"{units} {part}": functools.partial(study_table, f"three stages festvox {units}", part)
    for units, parts in (
        ("characters", ("table", "goal", "memory", "risk")),
        ("phones", ("table", "goal", "risk", "alignment")),
    )
    for part in parts
}
WORDS = {part: functools.partial(words_table, part) for part in ("verdicts", "cases")}
AGAINST_PEERS = {part: functools.partial(newest_comparison, part) for part in COMPARISONS}
PAGES = {
    ROOT / "README.md": {"first": readme_table},
    ROOT / "docs" / "gpu.md": {"gpu": gpu_table, "instructions": instructions_table, "model": model_table},
    ROOT / "docs" / "dropout.md": {"dropout": dropout_table},
    ROOT / "docs" / "numerics.md": {"tf32": tf32_table},
    ROOT / "docs" / "sampled_softmax.md": {"samplers": samplers_table, **STUDY_TABLES},
    ROOT / "docs" / "pruning.md": {"pruning": functools.partial(study_table, "study pruning 3000 steps", "table")},
    ROOT / "docs" / "tdt.md": {"tdt": functools.partial(study_table, "study tdt 3000 steps", "table")},
    ROOT / "docs" / "three_stage.md": {"steps": steps_table, "long": long_table, **PIPELINES},
    ROOT / "docs" / "peers.md": {"behaviour": behaviour_table, "accuracy": accuracy_table, **WORDS, **AGAINST_PEERS},
}


def filled(text: str, tables: dict) -> str:
    """A document with what stands between `<!-- table NAME -->` and `<!-- end -->` made anew."""
    for name, make in tables.items():
        between = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        text = re.sub(between, lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text, flags=re.S)
    return text


def main(options) -> None:
    for path, tables in PAGES.items():
        path.write_text(filled(path.read_text(), tables))
