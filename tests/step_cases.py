"""Cases of `tests/kernel_cases.py` for sums, certificates and best alignments where arcs take several frames."""

import numpy as np

from lattice import Topology, layout
from lattice.kernels.forward_backward import forward_backward
from lattice.kernels.occupied import compact
from lattice.kernels.state import WANTED, ArcPosteriors
from lattice.kernels.step_path import best_step_path
from lattice.kernels.step_sums import StepScores
from tests.certificate_cases import narrowed, selected
from tests.kernel_compare import RNNT, Case, in_float32, like

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
TOPOLOGIES = {
    "tdt-0-1-3": Topology("tdt", durations=(0, 1, 3)),
    "tdt-1-2": Topology("tdt", durations=(1, 2)),
    "tdt-0-2": Topology("tdt", durations=(0, 2)),
    "multiblank-3": Topology("multiblank", durations=(3,)),
}
LENGTHS = np.array([9, 1, 5, 6]), np.array([4, 0, 3, 2])
SOME = ("tdt-0-1-3", True), ("tdt-1-2", False), ("tdt-0-2", False), ("multiblank-3", True)
"""Lattices, and whether they are bounded: labels stay in a frame or not, and blanks have steps of their own or not."""
OTHERS = ("tdt-0-1-3", False), ("tdt-1-2", True)
"""Those of float64, whose kernels differ in how they read scores."""


def every_case() -> list[Case]:
    kinds = _sums, _rounds, _paths, _compactions
    return [case for dtype, which in ((F4, SOME), (F8, OTHERS)) for kind in kinds for case in kind(dtype, which)]


def wide_cases() -> list[Case]:
    """A frame of more cells than a block of `LATTICE_THREADS` takes at once."""
    sizes = np.array([6, 3]), np.array([530, 2])
    return [
        Case(f"step-sums-wide-{name}", F4, summed, (frames, steps, exact), {})
        for name, frames, steps, exact, _ in lattices(F4, (("tdt-0-1-3", False), ("tdt-1-2", False)), sizes)
    ]


def lattices(dtype, which, sizes=LENGTHS):
    """(name, frames, steps (2, D), exact, bounds) with scores and bounds (2 + D, cells) of each of four examples."""
    rng = np.random.default_rng(60)
    for name, bounded in which:
        topology, (T, U), bounds = TOPOLOGIES[name], sizes, None
        if bounded:
            first = np.arange(T.max()) * U[:, None] // T[:, None] - 1
            bounds = first, first + 3
            bounds[1][-1, 2] = -1  # a frame without cells
        frames = layout.frames_of(np.arange(len(T)), T, U, topology.moves, bounds)
        n, width = frames.example, np.diff(frames.offset)
        u = np.arange(frames.cells) - np.repeat(frames.offset[:-1] - frames.first, width)
        due = np.repeat((frames.t + 1) * frames.labels[n] / np.diff(frames.starts)[n], width)
        ahead, D = 3 * (u - due), topology.steps.shape[1]
        # Blanks win where more labels are out than are due by now, labels where fewer are.
        truth = np.stack([ahead, -ahead, rng.normal(size=frames.cells) - 3])
        pair = truth[:2] - np.logaddexp(truth[0], truth[1])
        step = rng.normal(size=(D, frames.cells)) - 1
        step -= np.logaddexp.reduce(step, axis=0)
        exact = np.concatenate([truth[:2] - np.logaddexp.reduce(truth, axis=0), step])
        exact[1, u == np.repeat(frames.labels[n], width)] = -np.inf
        slack = np.concatenate([pair, np.minimum(0, step + 1e-3)])
        slack[1, np.isneginf(exact[1])] = -np.inf
        yield f"{name}-{bounded}", frames, topology.steps, exact.astype(dtype), slack.astype(dtype)


def summed(frames, steps, scores):
    """Sums of scores (2 + D, cells): log_z, alpha, and behind it the posteriors that took their place."""
    blank, label, step = _parts(scores)
    count = len(frames.labels)
    alpha, log_z = like(blank, len(blank), F8), like(blank, count, F8)
    beta = None if isinstance(blank, np.ndarray) else like(blank, len(blank), F8)
    found = forward_backward(frames, None, blank, label, alpha, log_z, beta, StepScores(steps, step))
    return in_float32(log_z, *found, step.reshape(-1))


def _parts(scores):
    """Fresh copies of the rows: blank, label and steps (D, cells)."""
    parts = [like(scores, scores[i].shape, scores.dtype) for i in (0, 1, slice(2, None))]
    for part, i in zip(parts, (0, 1, slice(2, None))):
        part[:] = scores[i]
    return parts


def _sums(dtype, which):
    for name, frames, steps, exact, _ in lattices(dtype, which):
        yield Case(f"step-sums-{name}", dtype, summed, (frames, steps, exact), {})
        broken = exact.copy()
        # A row of logits with a NaN has NaN for both scores.
        broken[:2, frames.offset[frames.starts[2] + 1]], broken[2, 1], broken[:2, -1] = np.nan, -np.inf, -np.inf
        yield Case(f"step-sums-broken-{name}", dtype, summed, (frames, steps, broken), {})


def chosen(frames, table, exact, bounds, how, *rest):
    """`selected` or `narrowed` with the table of steps among the arguments, so that it lies where they lie."""
    return how(frames, RNNT, exact, bounds, *rest, table=table)


def _rounds(dtype, which):
    for number, (name, frames, steps, exact, bounds) in enumerate(lattices(dtype, which)):
        last = number % 2 == 0
        arguments = (frames, steps, exact, bounds, selected, np.log(2.0**-24), last)
        yield Case(f"step-select-{name}-{last}", dtype, chosen, arguments, {})
        arguments = (frames, steps, exact, bounds, narrowed, None)
        yield Case(f"step-narrow-{name}", dtype, chosen, arguments, {})


def followed(frames, steps, scores, examples):
    blank, label, step = _parts(scores)
    alpha = like(blank, len(blank), F8)
    score, best = like(blank, len(examples), F8), like(blank, (len(examples), 6), np.int32)
    best[:] = -1
    best_step_path(frames, StepScores(steps, step), blank, label, alpha, examples, score, best)
    return score, best, *in_float32(alpha)


def _paths(dtype, which):
    for name, frames, steps, exact, _ in lattices(dtype, which):
        order = np.array([2, 0, 3, 1])
        yield Case(f"step-path-{name}", dtype, followed, (frames, steps, exact, order), {})
        # Equal scores everywhere: ties are settled.
        even = np.where(np.isneginf(exact), exact, dtype.type(-0.5))
        yield Case(f"step-path-even-{name}", dtype, followed, (frames, steps, even, order), {})


def packed(frames, log_z, floor, blank, label, maximum, rest, step, skipped):
    """`compact` with posteriors of steps."""
    count = len(blank)
    own = [like(blank, len(array), array.dtype) for array in (blank, label, maximum, rest)]
    for array, value in zip(own, (blank, label, maximum, rest)):
        array[:] = value
    steps = like(blank, step.shape, step.dtype)
    steps[:] = step
    cells, first_cell = like(blank, count, np.int64), like(blank, len(log_z) + 1, np.int64)
    counts, spare = like(blank, len(frames.example) + 1, np.int64), like(blank, count, blank.dtype)
    numbers = ArcPosteriors(*own[:2]), *own[2:]
    found = compact(frames, log_z, floor, *numbers, cells, first_cell, skipped, counts, spare, steps)
    return tuple(found)


def _compactions(dtype, which):
    rng = np.random.default_rng(61)
    for name, frames, steps, _, _ in lattices(dtype, which[:1]):
        count, examples = frames.cells, len(frames.labels)
        blank, label = (rng.integers(0, 4, count).astype(dtype) / 8 for _ in range(2))
        step = rng.random((steps.shape[1], count)).astype(dtype)
        rest = np.where(rng.random(count) < 0.2, WANTED, 1).astype(dtype)
        log_z = np.where(np.arange(examples) == 2, -np.inf, -3.0)
        arguments = frames, log_z, 0.3, blank, label, rest + 2, rest, step, np.zeros(examples)
        yield Case(f"step-compact-{name}", dtype, packed, arguments, {})
