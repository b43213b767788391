"""What bounds over more ids than the pair would save: certified cells and cost of a forward pass, by the set of ids.

The rounds run in float64 NumPy and take exact scores where the walk would compute them. The library itself bounds by
the pair only (docs/certified.md).
"""

import numpy as np

from lattice import Topology, layout
from lattice.inputs.joint import DEFAULT_POSTERIOR_FLOOR
from lattice.kernels.state import BOUND, CellState
from lattice.tiles.certificate import first_brackets, rounds, tolerance_of

from . import record, shapes

SIZES = (1, 200, 40, 1024, 128)
SCALES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)
LIKELIEST = (16, 64, 256)
RNNT = Topology("rnnt").moves


def certified(blank, label, norm, bound_norm) -> float:
    """Share of cells that are computed for scores (T, U+1) less `norm` and bounds less `bound_norm`."""
    T, rows = blank.shape
    frames = layout.frames_of(np.arange(1), np.array([T]), np.array([rows - 1]), RNNT, None)
    exact, bounds = (np.stack([blank - by, label - by]).reshape(2, -1) for by in (norm, bound_norm))
    count = frames.cells
    state = CellState(np.full(count, -np.inf), np.full(count, -np.inf), bounds[0].copy(), bounds[1] + BOUND)
    alpha, cells, first_cell = np.empty(count), np.empty(count, np.int64), np.empty(2, np.int64)
    brackets = first_brackets(np.array([count]), DEFAULT_POSTERIOR_FLOOR)
    # The tolerance of float32, whose counts these stand for.
    tolerance = tolerance_of(np.dtype(np.float32), DEFAULT_POSTERIOR_FLOOR)
    for listed in rounds(frames, RNNT, state, alpha, None, cells, first_cell, None, brackets, tolerance):
        found = cells[: listed[-1]]
        state.blank_score[found], state.label_score[found], state.rest[found] = exact[0][found], exact[1][found], 1
    return float(brackets.exact[0] / count)


def sets_of(logits, targets):
    """Name -> ids: the example's own labels, and with them those that an averaged posterior likes best."""
    own = np.unique(np.append(targets, 0))
    weights = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)).mean(axis=(0, 1))
    best = np.argsort(-weights)
    return {"own labels": own, **{f"own labels, {m} likeliest": np.union1d(own, best[:m]) for m in LIKELIEST}}


def measure() -> dict:
    """Rows of scales and sets: certified share, and cost of bounds and forward products in products over all cells."""
    table = {}
    for scale in SCALES:
        problem = shapes.scaled(*SIZES, scale)
        logits = shapes.logits_of(problem)[0].astype(np.float64)
        targets, V = problem.targets[0], logits.shape[-1]
        u = np.arange(len(targets))
        label = np.pad(logits[:, u, targets], ((0, 0), (0, 1)), constant_values=-np.inf)
        blank, norm = logits[..., 0], np.logaddexp.reduce(logits, axis=-1)
        share = certified(blank, label, norm, np.logaddexp(blank, label))
        table[f"scale {scale}, pair"] = {"ids": 2, "certified": share, "forward": share + 2 / V}
        for name, ids in sets_of(logits, targets).items():
            share = certified(blank, label, norm, np.logaddexp.reduce(logits[..., ids], axis=-1))
            table[f"scale {scale}, {name}"] = {"ids": len(ids), "certified": share, "forward": share + len(ids) / V}
    return table


def main(options) -> None:
    table = measure()
    record.show(f"cells certified by bounds over other ids, {SIZES} float64", table, ("ids", "certified", "forward"))
    record.write(options.json, {"benchmark": "bounds", "shape": SIZES, "rows": table})
