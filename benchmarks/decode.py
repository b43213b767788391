"""Greedy and beam search against the bare products, over all ids and over allowed ids.

The lattices are like a trained model's. The floor is what greedy search cannot do without: one product of B hidden
vectors with the output layer for each step.
"""

import numpy as np

import lattice
import samplers

from . import record, shapes
from .samplers import ctc_logits

SIZES = {
    # B, T, U, V, H, allowed, beam
    "default": (16, 200, 40, 2000, 512, 100, 8),
    "smoke": (2, 20, 5, 32, 16, 12, 3),
}


def predictor_of(problem: shapes.Joint):
    """The problem's predictor vectors by the number of labels so far; a hypothesis knows its example by its state."""
    last = problem.predictor.shape[1] - 1

    def predict(labels, state):
        example, count = (np.arange(len(labels)), np.zeros(len(labels), np.int64)) if state is None else state
        count = count if state is None else np.minimum(count + 1, last)
        return problem.predictor[example, count], (example, count)

    return predict


def products(problem: shapes.Joint):
    """The products of a greedy search: as many steps as an example has frames and labels."""
    B, T, _ = problem.encoder.shape
    hidden, out = problem.encoder[:, 0].copy(), np.empty((B, len(problem.weight)), np.float32)
    steps = T + problem.predictor.shape[1] - 1

    def run():
        for _ in range(steps):
            np.matmul(hidden, problem.weight.T, out=out)

    return run


def main(options) -> None:
    *shape, size, beam = SIZES[options.shape]
    problem = shapes.trained_like(*shape)
    allowed = samplers.allowed_vocabulary(samplers.ctc_posterior(ctc_logits(problem), problem.encoder_lengths), size)

    def search(door, **given):
        return door(
            problem.encoder, problem.encoder_lengths, predictor_of(problem), problem.weight, problem.bias, **given
        )

    calls = {"bare products": products(problem)}
    for name, ids in ((f"all V={shape[3]}", None), (f"{size} allowed", allowed)):
        for topology in ("rnnt", "monotonic"):
            calls[f"greedy, {topology}, {name}"] = lambda i=ids, t=topology: search(
                lattice.greedy_decode, allowed=i, topology=t
            )
            calls[f"beam {beam}, {topology}, {name}"] = lambda i=ids, t=topology: search(
                lattice.beam_decode, allowed=i, topology=t, beam=beam
            )
    labels, lengths, *_ = calls[f"greedy, rnnt, all V={shape[3]}"]()
    right = float(
        np.mean([n == len(row) and (found[:n] == row).all() for found, n, row in zip(labels, lengths, problem.targets)])
    )
    table = record.ratios(record.interleaved(calls, options.rounds), "bare products")
    B, T, U, V, H = shape
    record.show(
        f"search, B={B} T={T} U={U} V={V} H={H} float32, {right:.0%} of the targets found by greedy search",
        table,
        ("seconds", "ratio", "ratio_min", "ratio_max"),
    )
    record.write(options.json, {"benchmark": "decode", "shape": SIZES[options.shape], "found": right, "rows": table})
