"""Cases of `tests/kernel_cases.py` for the kernels that decide which cells are computed."""

import itertools

import ml_dtypes
import numpy as np

from lattice import layout
from lattice.kernels.certify import Brackets, select
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.layer import measure
from lattice.kernels.marking import open_all
from lattice.kernels.narrow import narrow
from lattice.kernels.occupied import list_cells
from lattice.kernels.state import BOUND, WANTED, CellState
from lattice.kernels.step_sums import StepScores
from lattice.kernels.upper_bounds import bound
from tests.kernel_compare import BROAD, MOVES, NARROW, RNNT, UNROLLED, Case, frames_for, like

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = 1e-6


def every_case() -> list[Case]:
    found = []
    for dtype, stored in ((F4, F4), (F8, F8), (F4, F2), (F4, BF)):
        found += [*_bounds(dtype, stored), *_measures(dtype, stored)]
    found += _bounds(F4, F4, NARROW)
    for dtype in (F4, F8):
        found += [*_selections(dtype), *_narrowings(dtype), _decided_by_one(dtype)]
    return [*found, *_paired_in_two_rounds(F4)]


def wide_cases() -> list[Case]:
    """Lattices of so many cells that threads of the one block that looks at them take several.

    In the first example each thread takes four cells. Its frames have 128 cells, so a lane takes four cells, too. After
    the probe its certificate is above `tolerance`, but so little that no cell reaches the floor however often the floor
    is lowered. The certificate of the second example is below `tolerance`. There one thread takes two cells, of which
    the second is the last of all; the first is left alone, and counts. The third example has no alignment.
    """
    found, rnnt = [], TOPOLOGIES[:1]
    for dtype in (F4, F8):
        sizes = np.array([32, 14, 25]), np.array([127, 79, 127])
        for name, frames, moves, exact, bounds in lattices(dtype, sizes, rnnt, (2.0,)):
            bounds[0, -1] = -np.inf
            arguments = (frames, moves, exact, bounds, np.log(10), True)
            options = {"rounds": 2, "tolerance": 6e-5}
            found.append(Case(f"select-cells-wide-128-{name}", dtype, selected, arguments, options))
        sizes = np.array([32, 9]), np.array([127, 4])
        for name, *arguments in lattices(dtype, sizes, rnnt, (2.0,)):
            for last in (None, 0):
                options = {"last": last, "rounds": 1}
                found.append(Case(f"narrow-wide-128-{name}-{last}", dtype, narrowed, tuple(arguments), options))
        # Behind sixteen warps, at even places of a sum over them that takes four a round.
        found += [_decided_by_one(dtype, f"narrow-one-in-warp-{warp}", 1000, 32 * warp) for warp in (20, 22)]
    return found


def fraction_layer(rng, stored, size=9, width=37, parts=None):
    """Fractions whose products come out the same in any order; those of float64 fill lower halves too."""
    parts = parts or (2**20 if stored == F8 else 8)
    return (rng.integers(-parts // 2, parts // 2 + 1, (size, width)) / parts).astype(stored)


def _bounds(dtype, stored, activations=BROAD):
    rng = np.random.default_rng(7)
    # A lane has more than four entries of the wider rows: its loop over them is unrolled.
    for (activation, number), width in itertools.product(activations.items(), (37, 120)):
        weight = fraction_layer(rng, stored if stored != F2 else F4, width=width)
        # tanh of these, and of their sums, is -1, 0 or 1.
        scale, parts = (640, 8) if activation == "tanh" else (1, None)
        encoder, predictor = (fraction_layer(rng, stored, rows, width, parts) * stored.type(scale) for rows in (6, 5))
        encoder[3, 5], encoder[4, 0] = np.nan, np.inf
        encoder_row, predictor_row = rng.permutation(6), rng.permutation(5)
        # No multiple of the rows that a block takes.
        frame, slot = rng.integers(0, 6, 41), rng.integers(0, 5, 41)
        label = rng.integers(-1, 9, 41).astype(np.int32)
        for bias in (np.zeros(0, dtype), np.append(rng.integers(-4, 5, 8) / 8, -np.inf).astype(dtype)):
            norm, ceiling = (rng.permutation(9) / 8 + 1).astype(dtype), np.array([3, 4, 1e30], dtype)
            outputs = tuple(np.zeros(41, dtype) for _ in range(4))
            inputs = (encoder, predictor, np.zeros((0, width), dtype), NO_DROPOUT, encoder_row, predictor_row)
            arguments = (number, *inputs, frame, slot, label, 8, weight, bias, norm, ceiling, 2.0**-10, *outputs)
            case = f"bound-rows-{activation}-{width}-bias{len(bias)}"
            yield Case(case, stored, bound, arguments, {}, unrolled=width >= UNROLLED)


def _measures(dtype, stored):
    rng = np.random.default_rng(8)
    for size, width in ((9, 37), (119, 120)):
        weight = fraction_layer(rng, stored if stored != F2 else F4, size, width)
        with_nan = weight.copy()
        with_nan[4, 4] = np.nan
        for layer in (weight, with_nan):
            for bias in (np.zeros(0, dtype), np.resize([-np.inf, -3, 2, 0, 0, 0, 1, 2, 3], size).astype(dtype)):
                bias *= dtype.type(1 + 2.0**-40)
                name = f"measure-{size}-{np.isnan(layer.astype(F4)).any()}-bias{len(bias)}"
                arguments = (layer, bias, np.zeros(size, dtype), np.zeros(3, dtype))
                yield Case(name, stored, measure, arguments, {}, unrolled=width >= UNROLLED)


NAMES = {"rnnt": False, "monotonic": True, "constrained": "constrained"}
LENGTHS = np.array([24, 1, 9, 6]), np.array([7, 0, 4, 3])
TOPOLOGIES = (
    ("rnnt", False),
    ("monotonic", False),
    ("rnnt", True),
    ("constrained", False),
    ("constrained", True),
)
"""A topology, and with bounds or without."""


def lattices(dtype, sizes=LENGTHS, topologies=TOPOLOGIES, sharpnesses=(0.3, 2.0, 6.0)):
    """(name, frames, moves, exact scores (2, cells), bounds (2, cells)) of four examples, from flat to sharp."""
    rng = np.random.default_rng(9)
    for topology, bounded in topologies:
        (T, U), moves = sizes, MOVES[topology]
        bounds = None
        if bounded:
            first = np.arange(24) * U[:, None] // T[:, None] - 2
            bounds = first, first + 5
            bounds[1][3, 2] = -1  # a frame without cells: no alignment
        frames = layout.frames_of(np.arange(len(T)), T, U, moves, bounds)
        n = frames.example
        lengths = np.diff(frames.starts)[n]
        width = np.diff(frames.offset)
        u = np.arange(frames.cells) - np.repeat(frames.offset[:-1] - frames.first, width)
        due = np.repeat((frames.t + 1) * frames.labels[n] / lengths, width)
        for sharpness in sharpnesses:
            # Blanks win where more labels are out than are due by now, labels where fewer are.
            ahead = sharpness * (u - due)
            truth = np.stack([ahead, -ahead, rng.normal(size=frames.cells) - 3])
            norm, pair = np.logaddexp.reduce(truth, axis=0), np.logaddexp(truth[0], truth[1])
            exact, bounds = ((truth[:2] - by).astype(dtype) for by in (norm, pair))
            yield f"{NAMES[topology]}-{bounded}-{sharpness}", frames, moves, exact, bounds


def _selections(dtype):
    for name, frames, moves, exact, bounds in lattices(dtype):
        for floor, last in ((2.0**-24, False), (0.9, False), (1e-3, True)):
            arguments = (frames, moves, exact, bounds, np.log(floor), last)
            yield Case(f"select-cells-{name}-{floor:.0e}-{last}", dtype, selected, arguments, {})


def _narrowings(dtype):
    for name, frames, moves, exact, bounds in lattices(dtype):
        for last in (None, 1):
            yield Case(f"narrow-{name}-{last}", dtype, narrowed, (frames, moves, exact, bounds), {"last": last})
    without = np.array([3, 2]), np.array([0, 2])
    for name, frames, moves, exact, bounds in lattices(dtype, without, (*TOPOLOGIES[:2], TOPOLOGIES[3]), (2.0,)):
        yield Case(f"narrow-no-label-{name}", dtype, narrowed, (frames, moves, exact, bounds), {})


def _paired_in_two_rounds(dtype):
    """Frames of up to 34 cells, of which a warp takes 32 at once; one label in each of the first 33 frames.

    In frame 31 a pair leads from the last lane to the cell that the first lane takes next.
    """
    rng, moves = np.random.default_rng(13), MOVES["constrained"]
    frames = frames_for(moves, False, (np.array([66, 3]), np.array([33, 2])))
    early = np.repeat(frames.t < 33, np.diff(frames.offset))
    probability = np.stack([np.full(frames.cells, 0.05), np.where(early, 0.9, 0.001)])
    exact = (np.log(probability) - 0.1 * rng.random((2, frames.cells))).astype(dtype)
    arguments = frames, moves, exact, (exact + 0.05).astype(dtype)
    name = "wide-constrained"
    yield Case(f"select-cells-{name}", dtype, selected, (*arguments, np.log(1e-3), False), {"rounds": 2})
    yield Case(f"narrow-{name}", dtype, narrowed, arguments, {"rounds": 1})


def _decided_by_one(dtype, name="narrow-one", labels=40, cell=31):
    """All cells are known but one, which one thread looks at: of the first warp it is lane 31.

    A sum over the threads loses this cell if any place on its way is passed by.
    """
    frames = frames_for(RNNT, False, (np.array([1, 2]), np.array([labels, 1])))
    rng = np.random.default_rng(12)
    blank, label = (np.log(rng.dirichlet(np.ones(3), frames.cells)[:, k]).astype(dtype) for k in (0, 1))
    rest = np.ones(frames.cells, dtype)
    rest[cell] = BOUND - 2.5
    return Case(name, dtype, narrowed_once, (frames, blank, label, rest, np.zeros(2, np.int64)), {})


def narrowed_once(frames, blank, label, rest, computed):
    """One round."""
    scratch = (like(blank, count, np.float64) for count in (frames.cells, frames.cells, len(computed)))
    narrow(frames, RNNT, CellState(blank, label, rest, rest), *scratch, computed, last=False)


def unknown(exact, bounds, by_label=False):
    """The state of cells of which nothing but bounds is known; `by_label`, and the exact score of their blanks."""
    state = CellState(*(like(exact, exact.shape[1], exact.dtype) for _ in range(4)))
    state.blank_score.fill(-np.inf)
    state.label_score.fill(-np.inf)
    state.maximum[:] = bounds[0]
    if by_label:
        state.blank_score[:] = exact[0]
    state.rest[:] = bounds[1] + BOUND
    # A cell that has to be computed whatever it is worth.
    state.rest[2:3] = WANTED
    return state


def steps_of(table, bounds):
    """The bounds of steps as (D, cells) of their own, behind those of the two arcs; None where there are none."""
    if table is None:
        return None
    count = table.shape[1]
    score = like(bounds, count * bounds.shape[1], bounds.dtype).reshape(count, bounds.shape[1])
    score[:] = bounds[2:]
    return StepScores(table, score)


def compute(state, exact, cells, steps=None):
    """Exact scores in the place of the bounds, a run of neighbouring cells at a time."""
    cells = np.unique(cells)
    for run in np.split(cells, np.flatnonzero(np.diff(cells) != 1) + 1):
        c = slice(run[0], run[-1] + 1) if len(run) else slice(0)
        for array, value in zip(state, (exact[0][c], exact[1][c], 0, 1), strict=True):
            array[c] = value
        for n in range(0 if steps is None else len(steps.score)):
            steps.score[n][c] = exact[2 + n][c]


def narrowed(frames, moves, exact, bounds, last=None, rounds=30, table=None):
    """Rounds until nothing is marked: what is marked each time, the account, and the state in the end."""
    count, N = exact.shape[1], len(frames.labels)
    state, marked, steps = unknown(exact, bounds), [], steps_of(table, bounds)
    alpha, beta = like(exact, count, np.float64), like(exact, count, np.float64)
    cells, first_cell = like(exact, count, np.int64), like(exact, N + 1, np.int64)
    counts = like(exact, len(frames.example) + 1, np.int64)
    computed, best = like(exact, N, np.int64), like(exact, N, np.float64)
    computed.fill(0)
    # No cell joins where these are not written.
    for array, value in ((alpha, -np.inf), (beta, -np.inf), (best, 0)):
        array.fill(value)
    open_all(frames, state)
    for number in range(rounds):
        narrow(frames, moves, state, alpha, beta, best, computed, last=number == last, steps=steps)
        found = list_cells(frames, state.rest, cells, first_cell, counts, wanted=True)
        marked.append(fetched(cells[: found[-1]]).copy())
        if not len(marked[-1]):
            break
        compute(state, exact, marked[-1], steps)
    return (*marked, fetched(computed), *state)


def selected(
    frames, moves, exact, bounds, log_floor, last, rounds=4, tolerance=TOLERANCE, by_label=False, table=None
):  # fmt: skip
    """Some rounds: what is marked each time, the brackets, and the state in the end."""
    count, N = exact.shape[1], len(frames.labels)
    state, steps = unknown(exact, bounds, by_label), steps_of(table, bounds)
    alpha, beta = like(exact, count, np.float64), like(exact, count, np.float64)
    cells, first_cell = like(exact, count, np.int64), like(exact, N + 1, np.int64)
    counts = like(exact, len(frames.example) + 1, np.int64)
    counted = ("exact", "cells")
    brackets = Brackets(*(like(exact, N, np.int64 if name in counted else np.float64) for name in Brackets._fields))
    for array, value in zip(brackets, (0, 0, -1, log_floor, 0, 0, 0), strict=True):
        array.fill(value)
    # Of every other lattice these cells are half.
    for n, cells_of_one in enumerate(np.diff(fetched(frames.offset)[fetched(frames.starts)])):
        brackets.cells[n : n + 1].fill(cells_of_one * (1 + n % 2))
    marked = []
    for number in range(rounds):
        probing, settle = number == 0, last and number == 1
        decisions = {"probing": probing, "last": settle, "tolerance": tolerance, "by_label": by_label}
        select(frames, moves, state, alpha, beta, brackets, **decisions, steps=steps)
        found = list_cells(frames, state.rest, cells, first_cell, counts, wanted=True)
        marked.append(fetched(cells[: found[-1]]).copy())
        compute(state, exact, marked[-1], steps)
    known = {name: fetched(array) for name, array in brackets._asdict().items()}
    # A floor is lowered by the logarithm of a gap between two sums of T + U scores, and the gap is then above
    # `tolerance`. The product of `tolerance` and the floor is known as well as such a sum is.
    scores = np.diff(fetched(frames.starts)) + fetched(frames.labels)
    known["log_floor"] = tolerance * known["log_floor"] / scores
    # What a settled example's bounds were is told by its certificate; a GPU sums them once more.
    for name in ("lower", "upper"):
        known[name] = np.where(known["certificate"] >= 0, 0, known[name])
    return (*marked, *known.values(), *state)


def fetched(array):
    return array if isinstance(array, np.ndarray) else array.get()
