"""Sums over alignments on one thread of a CPU: time a cell by the shape of the lattice, and the error of alpha."""

import time

import numpy as np

from lattice import Topology, layout
from lattice.inputs.joint import DEFAULT_POSTERIOR_FLOOR
from lattice.kernels.forward_backward import forward_backward, forward_sums
from lattice.kernels.state import BOUND, CellState
from lattice.kernels.step_sums import StepScores
from lattice.tiles.certificate import first_brackets, rounds, tolerance_of
from lattice.topology import TIMED, TWO_ARCS, read_topology

from . import record

F4 = np.dtype(np.float32)
RNNT = Topology("rnnt").moves
SHAPES = {
    "rnnt": (500, 100, "rnnt", None),
    "monotonic": (500, 100, "monotonic", None),
    "constrained": (500, 100, "constrained", None),
    "tdt, 0 to 4": (500, 100, Topology("tdt", durations=(0, 1, 2, 3, 4), sigma=0.05), None),
    "rnnt, U=5": (5000, 5, "rnnt", None),
    "rnnt, 3 cells a frame": (5000, 1000, "rnnt", 3),
}
"""T, U, topology, cells of a frame where there are bounds."""
CERTIFIED = (500, 100)
LONG = (1000, 100)


def frames_of(T: int, U: int, topology: Topology | str = "rnnt", width: int | None = None) -> layout.Frames:
    """One example; with a `width`, only so many cells of a frame exist, along the diagonal."""
    first = np.arange(T)[None] * U // T - (width or 0) // 2
    bounds = None if width is None else (first, first + width - 1)
    moves = read_topology(topology, TWO_ARCS + TIMED).moves
    return layout.frames_of(np.arange(1), np.array([T]), np.array([U]), moves, bounds)


def a_cell(call, cells: int, counted: int) -> float:
    """Median nanoseconds a cell of what `call` returns, in seconds."""
    call()
    return float(np.median([call() for _ in range(counted)])) / cells * 1e9


def timed(call, *arguments) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


def uniform(topology: Topology, cells: int) -> np.ndarray:
    """(D, cells): scores of durations as an untrained model has them."""
    x = 0.3 * np.random.default_rng(1).standard_normal((topology.tail, cells))
    return (x - np.logaddexp.reduce(x, axis=0, initial=-np.inf) - topology.sigma).astype(F4)


def sweeps(T, U, topology, width, counted) -> dict:
    from tests.sums_oracle import flat

    frames, topology = frames_of(T, U, topology, width), read_topology(topology, TWO_ARCS + TIMED)
    scores, alpha, log_z = flat(np.random.default_rng(0), frames), np.empty(frames.cells), np.empty(1)
    step_score = uniform(topology, frames.cells)

    def arguments():
        # Posteriors take the place of scores.
        steps = StepScores(topology.steps, step_score.copy()) if topology.tail else None
        return frames, topology.moves, *scores.copy(), alpha, log_z, None, steps

    def forward():
        return timed(forward_sums, *arguments())

    def both():
        return timed(forward_backward, *arguments())

    return {
        "cells": frames.cells,
        "forward": a_cell(forward, frames.cells, counted),
        "posteriors": a_cell(both, frames.cells, counted),
    }


def certified(counted: int) -> dict:
    """Nanoseconds a cell of all rounds of the certificate, without the scores, and of the sums over what is left."""
    from tests.sums_oracle import trained

    frames = frames_of(*CERTIFIED)
    exact, bounds = trained(np.random.default_rng(9), frames)
    times, shares, count = {"rounds": [], "forward": [], "posteriors": []}, [], frames.cells
    for _ in range(counted + 1):
        state = CellState(*np.full((2, count), -np.inf, F4), bounds[0].copy(), (bounds[1] + BOUND).astype(F4))
        alpha, cells, first_cell = np.empty(count), np.empty(count, np.int64), np.empty(2, np.int64)
        brackets, spent = first_brackets(np.array([count]), DEFAULT_POSTERIOR_FLOOR), 0.0
        given = state, alpha, None, cells, first_cell, None, brackets, tolerance_of(F4, DEFAULT_POSTERIOR_FLOOR)
        steps = rounds(frames, RNNT, *given)
        while True:
            begin = time.perf_counter()
            listed = next(steps, None)
            spent += time.perf_counter() - begin
            if listed is None:
                break
            found = cells[: listed[-1]]
            state.blank_score[found], state.label_score[found], state.rest[found] = exact[0][found], exact[1][found], 1
        times["rounds"].append(spent)
        shares.append(float(brackets.exact[0]) / count)
        times["forward"].append(timed(forward_sums, frames, RNNT, *state.scores, alpha, np.empty(1)))
        times["posteriors"].append(timed(forward_backward, frames, RNNT, *state.scores, alpha, np.empty(1)))
    # The first compiles.
    return {"cells": count, "certified": shares[0]} | {
        name: float(np.median(found[1:])) / count * 1e9 for name, found in times.items()
    }


def errors() -> dict:
    """Largest error of alpha, in nats, where longdouble holds the truth."""
    from tests import sums_oracle

    rows, frames = {}, frames_of(*LONG)
    for make in (sums_oracle.flat, sums_oracle.sharp):
        scores, alpha, log_z = make(np.random.default_rng(0), frames), np.empty(frames.cells), np.empty(1)
        truth, _ = sums_oracle.alpha_of(frames, False, *scores)
        forward_sums(frames, RNNT, *scores, alpha, log_z)
        held = truth > sums_oracle.HELD
        error = np.abs(alpha[held] - truth[held])
        rows[make.__name__] = {
            "lowest": float(truth[held].min()),
            "error": float(error.max()),
            "log_z": float(log_z[0]),
        }
    return rows


def main(options) -> None:
    table = {name: sweeps(*shape, options.rounds) for name, shape in SHAPES.items()}
    accuracy = errors()
    chosen = certified(options.rounds)
    record.show("nanoseconds a cell", table, ("cells", "forward", "posteriors"))
    columns = ("cells", "certified", "rounds", "forward", "posteriors")
    record.show(f"a certified lattice {CERTIFIED}", {"trained-like": chosen}, columns)
    record.show(f"alpha {LONG}", accuracy, ("lowest", "log_z", "error"))
    results = {"benchmark": "recursion", "rows": table, "certified": chosen, "alpha": accuracy}
    record.write(options.json, results)
