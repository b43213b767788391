"""Cases of `tests/kernel_cases.py` for HAT, whose blank has a head of its own, and for the delay penalty."""

import itertools

import ml_dtypes
import numpy as np

from lattice.device.arrays import bits
from lattice.kernels import rows
from lattice.kernels.delay import delay
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.emissions import emit
from lattice.kernels.forward_backward import forward_backward
from lattice.kernels.gradient import gradient
from lattice.kernels.hat_bounds import bound_hat
from lattice.kernels.occupied_hat import compact_hat
from lattice.kernels.state import BOUND, WANTED, ArcPosteriors
from tests.certificate_cases import fraction_layer, lattices, selected
from tests.kernel_compare import BROAD, MOVES, NARROW, RNNT, UNROLLED, Case, frames_for, in_float32, like

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
STORED = ((F4, F4), (F8, F8), (F4, F2), (F4, BF))
"""What is computed in, and what is stored."""
MIXED = (F4, BF)
"""Logits, and what takes their gradients. The output layer, and encoder and predictor."""


def every_case() -> list[Case]:
    found = [case for types in STORED for case in (*_emissions(*types), *_gradients(*types), *_bounds(*types))]
    found += [*_gradients(*MIXED, source=F4), *_bounds(*MIXED, layer=F4), *_bounds(F4, F4, activations=NARROW)]
    for dtype in (F4, F8):
        found += [*_selections(dtype), *_compactions(dtype), *_penalties(dtype)]
    return found


def wide_cases() -> list[Case]:
    """Rows as in `kernel_cases.wide_cases`."""
    sizes, found = (128, 129, 250, 256, 257), []
    for types in STORED:
        found += [*_emissions(*types, sizes), *_gradients(*types, sizes), *_bounds(*types, widths=(129, 250, 513))]
    return found


def _logits(rng, size, blank, dtype):
    """12 rows with all that a row may hold, in the blank's entry and beside it."""
    logits = (3 * rng.standard_normal((12, size))).astype(dtype)
    others = np.arange(size) != blank
    logits[1], logits[5, others] = -np.inf, -np.inf
    logits[3, size // 2], logits[4, 0] = np.nan, np.inf
    logits[7, blank], logits[8, blank], logits[9, blank], logits[10, blank] = np.nan, np.inf, -np.inf, 60
    logits[11, blank], logits[6, -1] = -60, 12
    return logits


def _emissions(dtype, stored, sizes=(2, 70, 150)):
    rng = np.random.default_rng(50)
    for size, blank in itertools.product(sizes, (0, -1)):
        blank %= size
        logits = _logits(rng, size, blank, stored)
        row, label = rng.permutation(12)[:11].astype(np.int64), rng.integers(0, size, 11).astype(np.int32)
        label[label == blank] = -1
        for bias in (np.zeros(0, dtype), rng.standard_normal(size).astype(dtype)):
            for place, known in ((rows.NO_IDS, False), (rng.permutation(11), True)):
                score = -np.arange(11).astype(dtype) / 4
                outputs = (score, *(np.zeros(11, dtype) for _ in range(3)))
                arguments = (logits, bias, row, place, label, blank, *outputs)
                options = {"hat": True, "blank_known": known}
                # Where no label has a score the two parts of a normaliser are left open.
                name = f"emit-hat-{size}-{blank}-bias{len(bias)}-{known}"
                yield Case(name, stored, emit_apart, arguments, options, 7, (8, 9))


def emit_apart(logits, *rest, **options):
    """`emit` on logits of its own: where there is a bias the CPU adds it to them."""
    emit(bits(logits).copy().view(logits.dtype), *rest, **options)


def _gradients(dtype, stored, sizes=(2, 150), source=None):
    rng = np.random.default_rng(51)
    for size, blank in itertools.product(sizes, (0, -1)):
        blank %= size
        logits = _logits(rng, size, blank, source or stored)
        logits[0, (blank + 1) % size] = logits[0].astype(F8).max() - 89  # its share is subnormal in float32
        row, owner = rng.permutation(12).astype(np.int64), rng.integers(0, 3, 12).astype(np.int32)
        label = rng.integers(0, size, 12).astype(np.int32)
        label[label == blank] = -1
        posteriors = (rng.random((2, 12)) * 0.5).astype(dtype)
        # Blanks alone, and nothing at all; where there is no label to take, its arc is not taken.
        posteriors[1, [2, 5]], posteriors[:, 4] = 0, 0
        posteriors[1, np.isin(row, (1, 5))] = 0
        upstream = np.array([1.0, -0.3, 1e-3]).astype(dtype)
        for bias in (np.zeros(0, dtype), np.full(size, 0.25, dtype)):
            given = logits[row].astype(dtype) + (bias if len(bias) else 0)
            given[:, blank] = -np.inf
            maximum = given.max(axis=1)
            with np.errstate(invalid="ignore"):
                exponentials = np.exp(given - maximum[:, None])
            rest = exponentials.sum(axis=1) - 1
            known = (bias, label, owner, blank, *posteriors, maximum, rest, 0.5, upstream)
            target = np.full(logits.shape, 7, stored)
            for anew in (False, True):
                name = f"{size}-{blank}-bias{len(bias)}-{anew}" + "-mixed" * (source is not None)
                options = {"anew": anew, "hat": True}
                yield Case(f"gradient-hat-{name}", stored, gradient_apart, (logits, target, row, *known), options)
                if source is None:
                    yield Case(f"gradient-hat-in-place-{name}", stored, in_place, (logits, row, *known), options)


def gradient_apart(logits, *rest, **options):
    """The gradient of logits of its own: where it is normalised anew, a GPU writes over two entries of a row."""
    gradient(bits(logits).copy().view(logits.dtype), *rest, **options)


def in_place(logits, *rest, **options):
    gradient(logits, logits, *rest, **options)


def _bounds(dtype, stored, layer=None, widths=(37, 120), activations=BROAD):
    """As `certificate_cases` has them: fractions, whose products come out the same in any order."""
    rng = np.random.default_rng(52)
    for (activation, number), width in itertools.product(activations.items(), widths):
        weight = fraction_layer(rng, layer or (stored if stored != F2 else F4), width=width)
        scale, parts = (640, 8) if activation == "tanh" else (1, None)
        encoder, predictor = (fraction_layer(rng, stored, n, width, parts) * stored.type(scale) for n in (6, 5))
        encoder[3, 5], encoder[4, 0] = np.nan, np.inf
        encoder_row, predictor_row = rng.permutation(6), rng.permutation(5)
        frame, slot = rng.integers(0, 6, 41), rng.integers(0, 5, 41)
        label = rng.integers(-1, 8, 41).astype(np.int32)
        for bias in (np.zeros(0, dtype), np.append(rng.integers(-4, 5, 8) / 8, -np.inf).astype(dtype)):
            # The last blank is closed by its bias.
            for blank in (8, 2):
                norm, ceiling = (rng.permutation(9) / 8 + 1).astype(dtype), np.array([3, 4, 1e30], dtype)
                outputs = tuple(np.zeros(41, dtype) for _ in range(4))
                inputs = (encoder, predictor, np.zeros((0, width), dtype), NO_DROPOUT, encoder_row, predictor_row)
                arguments = (
                    number,
                    *inputs,
                    frame,
                    slot,
                    label,
                    blank,
                    weight,
                    bias,
                    norm,
                    ceiling,
                    2.0**-10,
                    *outputs,
                )
                name = f"bound-hat-{activation}-{width}-{blank}-bias{len(bias)}" + "-mixed" * (layer is not None)
                yield Case(name, stored, bound_hat, arguments, {}, unrolled=width >= UNROLLED)


def _selections(dtype):
    """Blanks are known everywhere, and a cell counts by its label arc."""
    for name, frames, moves, exact, _ in lattices(dtype):
        with np.errstate(divide="ignore"):
            bounds = np.stack([exact[0], np.log1p(-np.exp(exact[0].astype(F8))).astype(dtype)])
        bounds[1] = np.maximum(bounds[1], exact[1])
        for floor, last in ((2.0**-24, False), (0.9, False), (1e-3, True)):
            arguments = (frames, moves, exact, bounds, np.log(floor), last)
            options = {"by_label": True}
            yield Case(f"select-cells-by-label-{name}-{floor:.0e}-{last}", dtype, selected, arguments, options)


def _compactions(dtype):
    rng = np.random.default_rng(53)
    for topology, bounded in itertools.product(MOVES, (False, True)):
        frames = frames_for(MOVES[topology], bounded)
        blank, label = (np.log(rng.dirichlet(np.ones(3), frames.cells)[:, k]).astype(dtype) for k in (0, 1))
        # Labels that are hardly ever taken, in cells whose blanks are taken or not, computed or not.
        label[rng.random(frames.cells) < 0.5] -= 8
        rest = np.where(rng.random(frames.cells) < 0.6, 0.5, BOUND - 1.5).astype(dtype)
        rest[1] = np.nan
        for floor in (0.0, 1e-2, 0.2):
            name = f"compact-hat-{topology}{'-bounded' * bounded}-{floor}"
            yield Case(name, dtype, compacted, (frames, MOVES[topology], blank, label, rest, floor), {})
            if dtype == F8:
                posteriors, log_z = rng.random((2, frames.cells)) / 4, np.zeros(len(frames.labels))
                log_z[1] = -np.inf
                given = log_z, *posteriors, -posteriors[1], rest, floor
                yield Case(name.replace("hat", "hat-given"), dtype, compacted_given, (frames, *given), {})
    # More cells than the one block that looks at them has threads, and an example without an alignment.
    frames = frames_for(RNNT, False, (np.array([40, 3]), np.array([40, 2])))
    blank, label = (np.log(rng.dirichlet(np.ones(3), frames.cells)[:, k]).astype(dtype) for k in (0, 1))
    blank[-1] = -np.inf
    rest = np.where(np.arange(frames.cells) % 3, 0.5, BOUND).astype(dtype)
    yield Case("compact-hat-wide", dtype, compacted, (frames, RNNT, blank, label, rest, 1e-3), {})


def compacted(frames, moves, blank, label, rest, floor):
    """Cells by their rows, and by their blanks alone."""
    count, N = len(blank), len(frames.labels)
    alpha, log_z, beta = (like(blank, n, np.float64) for n in (count, N, count))
    maximum, blank, label = blank.copy(), blank.copy(), label.copy()
    posteriors = forward_backward(frames, moves, blank, label, alpha, log_z, beta)
    found = compacted_given(frames, log_z, *posteriors, maximum, rest, floor)
    # Two targets sum in other orders, and part by more than some roundings of float64.
    return (*found[:4], *in_float32(*(part for part in found[4:] if part is not None)))


def compacted_given(frames, log_z, blank, label, maximum, rest, floor):
    """`compacted` of posteriors, which are the same on all targets."""
    count, N = len(blank), len(frames.labels)
    blank, label, maximum, rest = blank.copy(), label.copy(), maximum.copy(), rest.copy()
    posteriors = ArcPosteriors(blank, label)
    cells, first_cell = like(blank, count, np.int64), like(blank, N + 1, np.int64)
    counts, spare = like(blank, len(frames.example) + 1, np.int64), like(blank, count, blank.dtype)
    skipped = like(blank, N, np.float64)
    skipped.fill(0)
    numbers = posteriors, maximum, rest
    by_row, by_blank = compact_hat(frames, log_z, floor, *numbers, cells, first_cell, skipped, counts, spare)
    assert len(by_row.cells) + len(by_blank.cells) <= count
    return (*by_row[:2], *by_blank[:2], skipped, *by_row[2:], *by_blank[2:4])


def _penalties(dtype):
    rng = np.random.default_rng(54)
    starts, place = np.array([0, 3, 5, 10]), rng.permutation(300)[:290]
    frame = rng.integers(0, 10, 290)
    owner = (np.searchsorted(starts, frame, side="right") - 1).astype(np.int32)
    score = -rng.random(300).astype(dtype) * 5
    score[::11] = -np.inf
    rest = (BOUND + score).astype(dtype)
    rest[::7], rest[1::7], rest[2::13] = WANTED, 0.5, np.nan
    for penalty, where in itertools.product((0.25, -0.75), (rows.NO_IDS, place)):
        for bounds, target in ((False, score), (True, rest)):
            arguments = (frame, owner, starts, where, penalty, target)
            name = f"delay-{penalty}-{len(where)}-{bounds}"
            yield Case(name, dtype, delay, arguments, {"bounds": bounds})
