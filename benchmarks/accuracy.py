"""Error of the fused joint's loss and gradients in float32, against float64, at the shapes of real speech."""

import gc
import json
from pathlib import Path

import numpy as np

import lattice

from . import peers, record, shapes

SHAPES = {
    "librispeech-p50": (1, 343, 71, 500, 512),
    "librispeech-p90": (1, 416, 93, 500, 512),
    "long": (1, 1000, 100, 1024, 512),
    "mandarin": (1, 115, 14, 4233, 512),
    "smoke": (1, 20, 5, 32, 16),
}
MEASURED = tuple(name for name in SHAPES if name != "smoke")
KINDS = {"untrained": shapes.untrained, "trained-like": shapes.trained_like}


def wide(problem: shapes.Joint) -> list:
    return [array.astype(np.float64) for array in problem[:4]]


def truth_of(problem: shapes.Joint) -> tuple:
    """Loss and gradients in float64 over every cell.

    Dense logits of these shapes need not fit in memory. `check` compares them with the oracle at a
    smaller shape.
    """
    return lattice.joint_transducer_loss_and_grad(*wide(problem), *problem[4:], posterior_floor=0)


def errors(loss, gradients, truth: tuple) -> dict[str, float]:
    """Absolute error of the summed loss in nats; relative l2 error of the gradients, the largest of the four."""
    relative = {
        name: float(np.linalg.norm(ours.astype(np.float64) - true) / np.linalg.norm(true))
        for name, ours, true in zip(lattice.JointGradients._fields, gradients, truth[1], strict=True)
    }
    total = float(truth[0].sum())
    loss_error = abs(float(np.sum(loss, dtype=np.float64)) - total)
    return {"loss_error": loss_error, "gradient_error": max(relative.values()), **relative, "loss": total}


def check() -> float:
    """Largest error of the float64 truth against the float64 oracle, at the length of a long utterance."""
    from tests import joint_oracle

    worst = 0.0
    for make in KINDS.values():
        problem = make(1, 416, 93, 40, 32)
        found = errors(*joint_oracle.joint_loss_and_grad(*wide(problem), *problem[4:]), truth_of(problem))
        worst = max(worst, found["gradient_error"], found["loss_error"] / found["loss"])
    if worst > 1e-11:
        raise RuntimeError(f"the float64 truth is {worst:.1e} from the oracle: nothing can be measured against it")
    return worst


def measure(shape: str, compared: list) -> dict[str, dict]:
    """Rows of one shape, by kind of problem and implementation."""
    rows = {}
    for kind, make in KINDS.items():
        problem = make(*SHAPES[shape])
        truth = truth_of(problem)
        calls = {
            "lattice": lambda p=problem: lattice.joint_transducer_loss_and_grad(*p),
            "lattice, every cell": lambda p=problem: lattice.joint_transducer_loss_and_grad(*p, posterior_floor=0),
        }
        for peer in compared:
            calls[peer.name] = lambda p=problem, peer=peer: peer.joint(*p)()
        for name, call in calls.items():
            rows[f"{name}, {kind}"] = errors(*call(), truth)
            gc.collect()
    return rows


def names_of(results: dict) -> list[str]:
    """Implementations, each once, in the order they were measured in."""
    keys = dict.fromkeys(key for rows in results["rows"].values() for key in rows)
    return [key.removesuffix(", untrained") for key in keys if key.endswith(", untrained")]


def table_of(results: dict) -> str:
    """Implementations over shapes, relative error of the gradients: untrained / trained-like."""
    lines = ["| | " + " | ".join(results["shapes"]) + " |", "|---" + "|---:" * len(results["shapes"]) + "|"]
    for name in names_of(results):
        cells = []
        for rows in results["rows"].values():
            errors = [rows[key]["gradient_error"] for key in (f"{name}, {kind}" for kind in KINDS) if key in rows]
            cells.append(" / ".join(f"{error:.1e}" for error in errors))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", record.not_measured(results["not_measured"])])


def draw(results: dict, path: Path) -> None:
    """Relative error of the gradient, a row for each implementation and a mark for each shape."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tables = results["rows"]
    names = names_of(results)
    figure, panels = plt.subplots(1, len(KINDS), figsize=(11, 4.6), sharex=True, sharey=True, layout="constrained")
    for axes, kind in zip(panels, KINDS):
        for place, (marker, (shape, rows)) in enumerate(zip("osD^", tables.items())):
            for row, name in enumerate(names):
                colour = "#1f5fa8" if name.startswith("lattice") else "#c2410c"
                if f"{name}, {kind}" in rows:
                    error = rows[f"{name}, {kind}"]["gradient_error"]
                    axes.plot(error, row + 0.16 * (place - 1.5), marker, color=colour, ms=5)
            _, T, U, V, _ = results["shapes"][shape]
            axes.plot([], [], marker, color="0.35", ms=5, label=f"{shape}: T={T} U={U} V={V}")
        axes.set_xscale("log")
        axes.set_title(kind, loc="left")
        axes.set_xlabel("relative l2 error of the gradients, largest of the four")
        axes.grid(alpha=0.3, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    panels[1].legend(fontsize=8)
    record.save(figure, path)


def main(options) -> None:
    if options.record:
        results = json.loads(Path(options.record).read_text())
    else:
        worst = check()
        compared, missing = peers.chosen(options.without)
        # A pruned loss is another loss: how far it is from this one depends on networks that are not measured here.
        compared = [peer for peer in compared if peer.exact]
        missing = {name: reason for name, reason in missing.items() if peers.PEERS[name][1]}
        chosen = MEASURED if options.shape == "all" else (options.shape,)
        tables = {shape: measure(shape, compared) for shape in chosen}
        results = {
            "benchmark": "accuracy",
            "shapes": {shape: SHAPES[shape] for shape in chosen},
            "rows": tables,
            "truth_error": worst,
            "not_measured": missing,
        }
        record.write(options.json, results)
    for shape, rows in results["rows"].items():
        record.show(f"errors in float32, {shape} {results['shapes'][shape]}", rows, ("loss_error", "gradient_error"))
    if options.png:
        draw(results, Path(options.png))
