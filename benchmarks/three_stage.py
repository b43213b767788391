"""Steps of the three training stages against a dense full-sum step, the cost of a band, and alignments of long audio.

Everything runs over the same encoder, predictor and output layer; the alignment comes from the lattice itself.
"""

import argparse
import json
import time
from functools import partial

import numpy as np

import lattice
from lattice.device import arrays
from lattice.device.memory import device_of

from . import record, shapes

SIZES = {
    # B, T, U, V, H, hypotheses of each example
    "default": (4, 250, 50, 1024, 512, 8),
    "smoke": (2, 20, 5, 32, 16, 3),
}
WIDTHS = (0, 2, 10, 50)
RECIPE = {"label_smoothing": 0.2, "label_scale": 5.0, "focal": 1.0}
LONG = {
    # frames of 40 ms: two minutes, and an hour within 10 s of a first guess
    "default": (
        {"T": 3000, "U": 400, "V": 1024, "H": 512, "band": 0},
        {"T": 90_000, "U": 15_000, "V": 256, "H": 256, "band": 250},
    ),
    "smoke": ({"T": 60, "U": 12, "V": 32, "H": 16, "band": 0}, {"T": 200, "U": 30, "V": 32, "H": 16, "band": 10}),
}
LIMIT = 64 << 20


def risk_step(problem: shapes.Joint, hypotheses: int, rng):
    """A step of minimum Bayes risk over lists that lose some labels of their target."""
    B, U = problem.targets.shape
    row = np.repeat(np.arange(B), hypotheses)
    kept = np.sort(rng.permuted(np.tile(np.arange(U), (len(row), 1)), axis=1)[:, : U - 1], axis=1)
    targets = np.take_along_axis(problem.targets[row], kept, axis=1)
    predictor = device_of(problem.predictor).empty((len(row), U, problem.predictor.shape[2]), problem.predictor.dtype)
    for n in range(hypotheses):
        predictor[n::hypotheses] = problem.predictor[:, :U]
    lengths = problem.encoder_lengths[row], np.full(len(row), U - 1)
    risks, count = rng.integers(1, 5, (B, hypotheses)), np.full(B, hypotheses)

    def step(**options):
        loss, vjp = lattice.joint_transducer_loss_vjp(
            problem.encoder,
            predictor,
            problem.weight,
            problem.bias,
            targets,
            *lengths,
            encoder_index=row,
            memory_limit=LIMIT,
            topology="monotonic",
            **options,
        )
        _, grad_scores = lattice.minimum_bayes_risk(-loss.reshape(B, hypotheses), risks, count)
        return vjp(-grad_scores.reshape(-1))

    return step


def step_calls(problem: shapes.Joint, hypotheses: int) -> dict:
    """Name -> a step, the first a dense full-sum one; real arrays may lie on a GPU, integers lie on the host."""
    limit, dense, calls, frames = {"memory_limit": LIMIT}, {"posterior_floor": 0.0}, {}, {}
    full = partial(lattice.joint_transducer_loss_and_grad, *problem, **limit)
    for topology in ("rnnt", "monotonic"):
        found, _ = lattice.joint_transducer_alignment(*problem, topology=topology, **limit)
        (frames[topology],) = arrays.to_host(frames=found)
        calls[f"full-sum, every cell, {topology}"] = partial(full, topology=topology, **dense)
    for topology in ("rnnt", "monotonic"):
        path = partial(
            lattice.joint_path_loss_and_grad, *problem[:5], frames[topology], *problem[5:], topology=topology, **limit
        )
        calls[f"full-sum, {topology}"] = partial(full, topology=topology)
        calls[f"on the path, {topology}"] = path
        calls[f"on the path, {topology}, smoothed and weighted"] = partial(path, **RECIPE)
        calls[f"alignment, {topology}"] = partial(
            lattice.joint_transducer_alignment, *problem, topology=topology, **limit
        )
    bounds = partial(lattice.alignment_bounds, frames["monotonic"], problem.target_lengths, problem.encoder_lengths)
    for width in WIDTHS:
        band = bounds(left=width, right=width, topology="monotonic")
        name = f"full-sum, every cell within {width} frames, monotonic"
        calls[name] = partial(full, topology="monotonic", bounds=band, **dense)
    risk = risk_step(problem, hypotheses, np.random.default_rng(0))
    calls[f"risk, {hypotheses} hypotheses, every cell, monotonic"] = partial(risk, **dense)
    calls[f"risk, {hypotheses} hypotheses, monotonic"] = risk
    return calls


def measure_steps(sizes: tuple[int, ...], rounds: int) -> dict:
    """Steps on a lattice as after training, in units of a dense full-sum step."""
    *shape, hypotheses = sizes
    calls = step_calls(shapes.trained_like(*shape), hypotheses)
    return record.ratios(record.interleaved(calls, rounds), next(iter(calls)))


def run(T: int, U: int, V: int, H: int, band: int) -> dict:
    """One alignment in this process; with a band, round the frames that a first guess would give."""
    small = shapes.untrained(1, 4, 2, 16, 4)
    lattice.joint_transducer_alignment(*small, memory_limit=LIMIT)
    problem, bounds = shapes.trained_like(1, T, U, V, H), None
    if band:
        guess = np.linspace(0, T - 1, U).astype(np.int32)[None]
        bounds = lattice.alignment_bounds(guess, problem.target_lengths, problem.encoder_lengths, left=band, right=band)
    with record.PeakMemory() as peak:
        begin = time.perf_counter()
        _, score = lattice.joint_transducer_alignment(*problem, bounds=bounds, memory_limit=LIMIT)
        seconds = time.perf_counter() - begin
    cells = T * (U + 1) if bounds is None else int(np.sum(bounds[1] - bounds[0] + 1))
    hidden, out = np.zeros((4096, H), np.float32), np.empty((4096, V), np.float32)
    begin = time.perf_counter()
    for _ in range(-(-cells // 4096)):
        np.matmul(hidden, problem.weight.T, out=out)
    products = time.perf_counter() - begin
    return {
        "cells": cells,
        "limit": LIMIT,
        "growth": peak.growth,
        "seconds": seconds,
        "ratio": seconds / products,
        "score": float(score[0]),
    }


def main(options) -> None:
    steps = measure_steps(SIZES[options.shape], options.rounds)
    long = {}
    for case in LONG[options.shape]:
        name = f"T={case['T']} U={case['U']}" + f", within {case['band']} frames" * bool(case["band"])
        long[name] = record.in_child("benchmarks.three_stage", **case)
    B, T, U, V, H, _ = SIZES[options.shape]
    columns = ("seconds", "ratio", "ratio_min", "ratio_max")
    record.show(f"steps, B={B} T={T} U={U} V={V} H={H} float32, trained-like", steps, columns)
    record.show("alignments in 64 MiB, against their matrix product", long, ("cells", "growth", "seconds", "ratio"))
    record.write(
        options.json, {"benchmark": "three_stage", "shape": SIZES[options.shape], "steps": steps, "long": long}
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("T", "U", "V", "H", "band"):
        parser.add_argument(f"--{flag}", type=int, required=True)
    print(json.dumps(run(**vars(parser.parse_args()))))
