"""Bands: the joint on ever longer audio in 64 MiB, time and memory of a frame; and what looking for a band costs."""

import functools
import math
import tracemalloc

import numpy as np

import lattice
from lattice.tiles import plan

from . import joint, record, shapes

LIMIT = 64 << 20
SIZES = {
    # V, H, (T, U) of one example each; the longest are an hour of 40 ms
    "default": (1024, 512, ((500, 100), (2000, 400), (8000, 1600), (90_000, 15_000))),
    "smoke": (64, 16, ((60, 40), (120, 80))),
}
SAMPLE = 5000
"""Cells of the three products that stand for all."""
DENSE = 1 << 20
"""Cells up to which the loss is compared with all of them, in float64."""
SCALES = (1.0, 0.7, 0.5, 0.4, 0.0)
"""What the logits are multiplied by where a band is compared with bounds on all cells; 0 stands for untrained."""


def reference(problem: shapes.Joint) -> float:
    """The loss by all cells in float64, or where these are too many by thresholds whose logarithms are twice as low."""
    if shapes.cells(problem) <= DENSE:
        wide = [array.astype(np.float64) for array in problem[:4]]
        return float(lattice.joint_transducer_loss(*wide, *problem[4:], posterior_floor=0.0)[0])
    return float(lattice.joint_transducer_loss(*problem, posterior_floor=2.0**-48, memory_limit=LIMIT)[0])


def lengths(options) -> dict:
    """Rows by length: a frame's microseconds, ratios to three products over all cells, bytes, errors."""
    V, H, sizes = SIZES[options.shape]
    table, products = {}, joint.three_gemms(1, 1, SAMPLE - 1, V, H)
    for T, U in sizes:
        problem = shapes.trained_like(1, T, U, V, H)
        limit = {"memory_limit": LIMIT}
        calls = {
            "products": products,
            "loss and gradient": functools.partial(lattice.joint_transducer_loss_and_grad, *problem, **limit),
            "loss": functools.partial(lattice.joint_transducer_loss, *problem, **limit),
            "alignment": functools.partial(lattice.joint_transducer_alignment, *problem, **limit),
        }
        seconds, cells = record.interleaved(calls, options.rounds), shapes.cells(problem)
        report = lattice.joint_transducer_report(*problem, **limit)
        tracemalloc.start()
        loss, gradients = calls["loss and gradient"]()
        allocated = tracemalloc.get_traced_memory()[1] - sum(array.nbytes for array in gradients)
        tracemalloc.stop()
        truth = reference(problem)
        for name in list(calls)[1:]:
            row = record.ratios({"products": seconds["products"], name: seconds[name]}, "products")[name]
            table[f"{name}, T={T} U={U}"] = {
                "ratio": row["ratio"] * SAMPLE / cells,
                "us a frame": row["seconds"] / T * 1e6,
                "cells a frame": float(report.certified[0] / T),
            }
        table[f"loss and gradient, T={T} U={U}"] |= {
            "loss": float(loss[0]),
            "certificate": float(report.certificate[0]),
            "off by": float(loss[0] - truth),
            "workspace MiB": report.workspace_bytes / 2**20,
            "allocated MiB": allocated / 2**20,
        }
    return table


def without(call):
    """A call that looks for no band: bounds on all cells come first, as in narrow lattices."""

    def run():
        small = plan.SMALL
        plan.SMALL = math.inf
        try:
            return call()
        finally:
            plan.SMALL = small

    return run


def decisions(options) -> dict:
    """Time over that without bands, as logits grow flat."""
    shape = joint.SHAPES[options.shape]
    table, products = {}, joint.three_gemms(*shape)
    for scale in SCALES:
        problem = shapes.scaled(*shape, scale) if scale else shapes.untrained(*shape)
        call = functools.partial(lattice.joint_transducer_loss_and_grad, *problem)
        calls = {"products": products, "without": without(call), "with": call}
        seconds = record.interleaved(calls, options.rounds)
        times, own = record.ratios(seconds, "products"), record.ratios(seconds, "without")["with"]
        table[f"logits times {scale}" if scale else "untrained"] = {
            "ratio": times["with"]["ratio"],
            "without a band": times["without"]["ratio"],
            "over that": own["ratio"],
            "certified": shapes.shares(problem)["certified"],
        }
    return table


def main(options) -> None:
    V, H, _ = SIZES[options.shape]
    long, flat = lengths(options), decisions(options)
    columns = ("ratio", "us a frame", "cells a frame", "loss", "certificate", "off by", "allocated MiB")
    record.show(f"lengths, B=1 V={V} H={H} float32, trained-like, in {LIMIT >> 20} MiB", long, columns)
    B, T, U, V, H = joint.SHAPES[options.shape]
    columns = ("ratio", "without a band", "over that", "certified")
    record.show(f"bands or bounds on all cells, B={B} T={T} U={U} V={V} H={H} float32", flat, columns)
    record.write(options.json, {"benchmark": "linear", "rows": long, "decisions": flat})
