"""Time of the fused joint while a model grows sharp, in matrix products: what is proven negligible is not computed."""

import json
from pathlib import Path

import lattice

from . import joint, peers, record, shapes

SCALES = (0.05, 0.15, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0, 2.0)
"""Factors of the logits of a trained-like problem."""
LIMIT = 64 << 20


def measure(shape: str, rounds: int, compared: list) -> dict:
    """Rows of three matrix products, of each scale, and of each peer on the trained-like problem."""
    sizes = joint.SHAPES[shape]
    problems = {f"scale {scale}": shapes.scaled(*sizes, scale) for scale in SCALES}
    calls = {"three GEMMs": joint.three_gemms(*sizes)}
    for name, problem in problems.items():
        calls[name] = lambda p=problem: lattice.joint_transducer_loss_and_grad(*p, memory_limit=LIMIT)
    for peer in compared:
        calls[peer.name] = peer.joint(*shapes.scaled(*sizes, 1.0))
    table = record.ratios(record.interleaved(calls, rounds), "three GEMMs")
    for name, problem in problems.items():
        shares = shapes.shares(problem)
        c, f = shares["certified"], shares["occupied"]
        table[name] |= {**shares, "dense floor": (1 + 3 * f) / 3, "certified floor": (c + 3 * f) / 3}
    return table


def draw(results: dict, path: Path) -> None:
    """Cost over the occupied share: ours, its floors, and the peers, whose cost does not depend on it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import PercentFormatter, ScalarFormatter

    rows = results["rows"]
    ours = sorted((row for name, row in rows.items() if name.startswith("scale")), key=lambda row: row["occupied"])
    occupied = [row["occupied"] for row in ours]
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    low, high = ([row[key] for row in ours] for key in ("ratio_min", "ratio_max"))
    axes.fill_between(occupied, low, high, color="#1f5fa8", alpha=0.2, lw=0)
    axes.plot(
        occupied, [row["ratio"] for row in ours], "o-", color="#1f5fa8", label="lattice, median, smallest and largest"
    )
    axes.plot(
        occupied,
        [row["certified floor"] for row in ours],
        "--",
        color="#1f5fa8",
        lw=1,
        label="certified floor, (c + 3 f) / 3: the products over c certified and f occupied cells",
    )
    axes.plot(
        occupied,
        [row["dense floor"] for row in ours],
        ":",
        color="0.35",
        label="dense floor, (1 + 3 f) / 3: every cell forward, occupied cells backward",
    )
    axes.axhline(1, color="0.35", lw=1)
    axes.annotate(
        "three matrix products over all cells",
        (occupied[-1], 1),
        (0, 3),
        textcoords="offset points",
        ha="right",
        color="0.35",
        fontsize=9,
    )
    others = [
        (name, row["ratio"]) for name, row in rows.items() if name != "three GEMMs" and not name.startswith("scale")
    ]
    for number, (name, ratio) in enumerate(others):
        axes.axhline(ratio, color="#c2410c", lw=1)
        text = f"{name} (approximate)" if "pruned" in name else name
        # Two that lie close to each other do not write over each other: one stands further left.
        at = 0.6 if number % 2 else 0.99
        axes.annotate(
            f"{text}: {ratio:.2g}",
            (at, ratio),
            (0, 2),
            textcoords="offset points",
            xycoords=("axes fraction", "data"),
            ha="right",
            color="#c2410c",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlim(0.8 * occupied[0], 1.4 * occupied[-1])
    axes.set_xticks([0.03, 0.05, 0.1, 0.2, 0.3], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5], [str(tick) for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5)])
    axes.set_xlabel("cells whose posterior reaches 2$^{-24}$")
    axes.set_ylabel("time of loss and gradients, in three matrix products")
    B, T, U, V, H = results["shape"]
    axes.set_title(
        f"Trained-like logits times 0.05 (right) to 2 (left): B={B} T={T} U={U} V={V} H={H}, float32", loc="left"
    )
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    record.save(figure, path)


def main(options) -> None:
    if options.record:
        results = json.loads(Path(options.record).read_text())
    else:
        compared, missing = peers.chosen(options.without)
        table = measure(options.shape, options.rounds, compared)
        results = {
            "benchmark": "sharpness",
            "shape": joint.SHAPES[options.shape],
            "rows": table,
            "not_measured": missing,
        }
        record.write(options.json, results)
    record.show(
        f"fused joint from flat to sharp, {results['shape']} float32",
        results["rows"],
        ("seconds", "ratio", "ratio_min", "ratio_max", "occupied", "certified", "certified floor"),
    )
    if options.png:
        draw(results, Path(options.png))
