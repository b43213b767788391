"""One small call of every kernel's host function, in every branch.

The simulator runs the cases, the compiler turns them to PTX, and a GPU runs them. `tests/kernel_compare.py` says how
the results are compared.
"""

import itertools

import ml_dtypes
import numpy as np

from lattice.device.arrays import bits
from lattice.kernels import rows
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.emissions import emit
from lattice.kernels.forward_backward import forward_backward, forward_sums
from lattice.kernels.gradient import gradient
from lattice.kernels.halves import split
from lattice.kernels.hidden import compute_hidden
from lattice.kernels.hidden_transpose import hidden_transpose
from lattice.kernels.locate import locate
from lattice.kernels.occupied import compact, list_cells
from lattice.kernels.state import BOUND, WANTED
from tests import (
    band_cases,
    certificate_cases,
    ctc_cases,
    decode_cases,
    dropout_cases,
    factor_cases,
    hat_cases,
    heads_cases,
    least_cases,
    mixed_cases,
    padded_cases,
    path_cases,
    risk_cases,
    sampler_cases,
    step_bounds_cases,
    step_cases,
)
from tests.kernel_compare import BROAD, MOVES, NARROW, RNNT, SLOPED, UNROLLED, Case, frames_for, in_float32, like

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
FLOOR = 1e-3


def every_case() -> list[Case]:
    found = []
    for dtype in (F4, F8):
        found += [
            *_emissions(dtype, dtype),
            *_lattices(dtype),
            *_gradients(dtype, dtype),
            *_hidden(dtype, dtype),
            *_hidden(dtype, dtype, activations=NARROW, shapes=SHAPES[:1]),
            *_rows(dtype),
            *_lists(dtype),
        ]
    for stored in (F2, BF):
        found += [*_emissions(F4, stored), *_gradients(F4, stored), *_hidden(F4, stored), *_stored_rows(stored)]
    slopes = _hidden(F4, F4, (37,), SLOPED, SHAPES[:1])
    found += [
        *(case for case in slopes if case.function is compute_hidden),
        *_wide_lattices((np.array([70, 3]), np.array([40, 2]))),
        _paired_in_two_rounds(),
        # A thread of few notes four or five of the examples' first cells.
        _list("list-edges", F4, (np.ones(260, np.int64), np.arange(260) % 2)),
        *_places(),
        *_halves(),
        *band_cases.every_case(),
        *certificate_cases.every_case(),
        *ctc_cases.every_case(),
        *decode_cases.every_case(),
        *factor_cases.every_case(),
        *least_cases.every_case(),
        *hat_cases.every_case(),
        *heads_cases.every_case(),
        *mixed_cases.every_case(),
        *padded_cases.every_case(),
        *path_cases.every_case(),
        *risk_cases.every_case(),
        *sampler_cases.every_case(),
        *step_bounds_cases.every_case(),
        *step_cases.every_case(),
    ]
    return found + dropout_cases.every_case(found)


def wide_cases() -> list[Case]:
    """Wide rows and wide frames: the simulator would take hours for them.

    A row has more columns than a block has threads. A frame has more cells than a block of `LATTICE_THREADS` takes at
    once.
    """
    # What rounds of eight entries a lane leave over: none, one, and up to one or two half rounds.
    found, sizes = [], (128, 129, 250, 256, 257, 1500, 2043)
    for dtype, stored in ((F4, F4), (F8, F8), (F4, F2), (F4, BF)):
        found += [*_emissions(dtype, stored, sizes), *_gradients(dtype, stored, sizes)]
        found += _hidden(dtype, stored, (250, 400))
        # Behind four entries of each lane, the first lane's next one is just beyond the row.
        found += [case for case in _hidden(dtype, stored, (128,)) if case.name.startswith("hidden")]
    for dtype in (F4, F8):
        found += _wide_lattices((np.array([40, 3, 30]), np.array([430, 2, 119])), dtype)
        found.append(_no_alignment(dtype))
    # More frames than the one block that adds up has threads.
    found.append(_list("list-frames-ever-more", F4, (np.array([1100, 2]), np.array([1, 0])), ever_more=True))
    others = (
        *(band_cases, certificate_cases, ctc_cases, decode_cases, factor_cases, hat_cases, heads_cases, mixed_cases),
        *(padded_cases, path_cases, sampler_cases, step_bounds_cases, step_cases),
    )
    found += [case for module in others for case in module.wide_cases()]
    return found + dropout_cases.wide_cases(found)


def _logits(rng, count, size, dtype):
    logits = (3 * rng.standard_normal((count, size))).astype(dtype)
    logits[1] = -np.inf
    logits[2, :3] = -np.inf
    logits[3, size // 2] = np.nan
    logits[4, 1] = np.inf
    logits[5] = -np.inf
    logits[5, 0] = np.nan
    logits[6, -1] = 12  # so much that half precision tells when it is left out
    return logits


def _emissions(dtype, stored, sizes=(2, 70, 150)):
    rng = np.random.default_rng(0)
    for size in sizes:
        logits = _logits(rng, 12, size, stored)
        row = rng.permutation(12)[:11].astype(np.int64)
        label = rng.integers(-1, size, 11).astype(np.int32)
        for bias in (np.zeros(0, dtype), rng.standard_normal(size).astype(dtype)):
            outputs = tuple(np.zeros(11, dtype) for _ in range(4))
            for place in (rows.NO_IDS, rng.permutation(11)):
                arguments = (logits, bias, row, place, label, 1, *outputs)
                yield Case(f"emit-{size}-bias{len(bias)}-{len(place)}", stored, emit_only, arguments, {}, 6, (8, 9))


def emit_only(logits, bias, *rest):
    """`emit` on logits of its own: where there is a bias the CPU adds it to them."""
    emit(bits(logits).copy().view(logits.dtype), bias, *rest)


def _scores(frames, dtype):
    rng = np.random.default_rng(1)
    blank, label = (np.log(rng.dirichlet(np.ones(3), frames.cells)[:, k]).astype(dtype) for k in (0, 1))
    blank[2] = -np.inf
    return blank, label


def _lattices(dtype):
    for topology, moves in MOVES.items():
        for bounded in (False, True):
            frames = frames_for(moves, bounded)
            blank, label = _scores(frames, dtype)
            name = f"{topology}{'-bounded' if bounded else ''}"
            sums = np.zeros(frames.cells), np.zeros(len(frames.labels))
            # A posterior of a pair, near 1, is the exponential of a sum of six logarithms.
            wide = moves.paired and dtype == F8
            sweeps, compaction = (rounded, compacted_rounded) if wide else (both_sweeps, compacted)
            yield Case(f"alpha-{name}", dtype, forward_sums, (frames, moves, blank, label, *sums), {})
            yield Case(f"posteriors-{name}", dtype, sweeps, (frames, moves, blank, label, *sums, sums[0].copy()), {})
            yield Case(f"compact-{name}", dtype, compaction, (frames, moves, blank, label, FLOOR), {})
            yield Case(f"compact-all-{name}", dtype, compaction, (frames, moves, blank, label, 0.0), {})


def _wide_lattices(lengths, dtype=F4):
    """More frames than a block may have threads, and more cells in a frame than a warp has lanes."""
    frames = frames_for(RNNT, False, lengths)
    blank, label = _scores(frames, dtype)
    sums = np.zeros(frames.cells), np.zeros(len(frames.labels))
    name = f"wide-{lengths[1][0]}"
    sweeps = both_sweeps if dtype == F4 else rounded
    yield Case(f"posteriors-{name}", dtype, sweeps, (frames, RNNT, blank, label, *sums, sums[0].copy()), {})
    compaction = compacted if dtype == F4 else compacted_rounded
    yield Case(f"compact-{name}", dtype, compaction, (frames, RNNT, blank, label, FLOOR), {})


def _paired_in_two_rounds():
    """Frames of up to 34 cells: a pair leads from the last lane of a warp to what the first one takes next.

    Most labels come in the first 33 frames. Sums are a few nats, so float64 is held to its last digits.
    """
    rng, moves = np.random.default_rng(14), MOVES["constrained"]
    frames = frames_for(moves, False, (np.array([66, 3]), np.array([33, 2])))
    blank, label = -0.01 * rng.random((2, frames.cells))
    label -= 6 * np.repeat(frames.t >= 33, np.diff(frames.offset))
    sums = np.zeros(frames.cells), np.zeros(2), np.zeros(frames.cells)
    return Case("posteriors-wide-constrained", F8, both_sweeps, (frames, moves, blank, label, *sums), {})


def _no_alignment(dtype):
    """None in an example of which each thread of a block takes four cells."""
    frames = frames_for(RNNT, False, (np.array([32, 3]), np.array([127, 2])))
    blank, label = _scores(frames, dtype)
    blank[32 * 128 - 1] = -np.inf
    return Case("compact-no-alignment", dtype, compacted, (frames, RNNT, blank, label, FLOOR), {})


def both_sweeps(frames, moves, blank, label, alpha, log_z, beta):
    """Forward and backward; beta is the device's alone."""
    scratch = beta.copy()
    forward_backward(frames, moves, blank, label, alpha, log_z, scratch)


def rounded(frames, moves, *given):
    """What `both_sweeps` gives, in float32."""
    own = [part.copy() for part in given]
    both_sweeps(frames, moves, *own)
    return in_float32(*own)


def compacted(frames, moves, blank, label, floor):
    """The occupied cells of the lattices."""
    count, alpha, log_z, beta = (
        len(blank),
        *(like(blank, n, np.float64) for n in (len(blank), len(frames.labels), len(blank))),
    )
    maximum, rest, blank, label = blank.copy(), label.copy(), blank.copy(), label.copy()
    rest.fill(1)
    posteriors = forward_backward(frames, moves, blank, label, alpha, log_z, beta)
    cells, first_cell = like(blank, count, np.int64), like(blank, len(frames.labels) + 1, np.int64)
    counts, spare = like(blank, len(frames.example) + 1, np.int64), like(blank, count, blank.dtype)
    skipped = like(blank, len(frames.labels), np.float64)
    skipped.fill(0)
    rest[1] = BOUND
    visited = compact(frames, log_z, floor, posteriors, maximum, rest, cells, first_cell, skipped, counts, spare)
    rounded = like(blank, len(frames.labels), blank.dtype)
    rounded[:] = skipped
    return (*visited[:2], rounded, *visited.arrays[2:])


def compacted_rounded(*given):
    """What `compacted` gives, in float32 where it is real."""
    first_cell, cells, left, *numbers = compacted(*given)
    return (first_cell, cells, left, *in_float32(*numbers))


def _lists(dtype):
    """Cells of each kind, in frames of 10, 1 and 4 rounds of a warp: a loop over them takes four at a time."""
    for wanted in (True, False):
        name = f"list-298-{'wanted' if wanted else 'computed'}"
        yield _list(name, dtype, (np.array([2, 1, 3, 1]), np.array([298, 0, 31, 119])), wanted)


def _list(name, dtype, lengths, wanted=True, ever_more=False):
    frames = frames_for(RNNT, False, lengths)
    rest = np.resize([WANTED, BOUND, 0.0, BOUND - 2.5, 1.5, np.nan, WANTED], frames.cells).astype(dtype)
    if ever_more:
        # Warps count different numbers of cells.
        rest[np.random.default_rng(35).random(frames.cells) < np.linspace(0, 1, frames.cells)] = WANTED
    return Case(name, dtype, listed, (frames, rest), {"wanted": wanted})


def listed(frames, rest, wanted):
    """The cells of one kind."""
    cells, first_cell = like(rest, len(rest), np.int64), like(rest, len(frames.labels) + 1, np.int64)
    counts = like(rest, len(frames.example) + 1, np.int64)
    first_cell = list_cells(frames, rest, cells, first_cell, counts, wanted=wanted)
    return first_cell, cells[: first_cell[-1]]


def _gradients(dtype, stored, sizes=(2, 150)):
    rng = np.random.default_rng(2)
    for size in sizes:
        logits = _logits(rng, 12, size, stored)
        logits[9, -1] = logits[9].astype(F8).max() - 89  # its share is subnormal in float32
        row = rng.permutation(12)[:11].astype(np.int64)
        label, owner = rng.integers(-1, size, 11).astype(np.int32), rng.integers(0, 3, 11).astype(np.int32)
        label[label == 1] = 0
        posteriors = (rng.random((2, 11)) * 0.5).astype(dtype)
        posteriors[:, 4] = 0
        maximum = logits[row].astype(dtype).max(axis=1)
        with np.errstate(invalid="ignore"):
            rest = np.exp(logits[row].astype(dtype) - maximum[:, None]).sum(axis=1)
        upstream = np.array([1.0, -0.3, 1e-3]).astype(dtype)
        for bias in (np.zeros(0, dtype), np.full(size, 0.25, dtype)):
            known = (
                bias,
                label,
                owner,
                1,
                *posteriors,
                maximum + dtype.type(0.25 if len(bias) else 0),
                rest,
                0.5,
                upstream,
            )
            target = np.full(logits.shape, 7, stored)
            for anew in (False, True):
                name, options = f"{size}-bias{len(bias)}-{anew}", {"anew": anew}
                yield Case(
                    f"gradient-{name}", stored, mixed_cases.gradient_apart, (logits, target, row, *known), options
                )
                yield Case(f"gradient-in-place-{name}", stored, in_place, (logits, row, *known), options)


def in_place(logits, *rest, anew):
    """The gradient over the logits."""
    gradient(logits, logits, *rest, anew=anew)


SHAPES = "holesFalse", "holesTrue", "two", "four", "later"


def _hidden(dtype, stored, widths=(37, 120), activations=BROAD, shapes=SHAPES):
    rng = np.random.default_rng(3)
    operand = stored if stored == BF else dtype
    # Examples of 3, 6 and 9 cells in a frame, and of 8 to 16: one round to four of a loop over four cells of a frame.
    two, four = (np.array([2, 1]), np.array([5, 10])), (np.array([2, 2]), np.array([10, 15]))
    narrow = "two", "four", "later"
    for name, frames in (
        *((f"holes{holes}", frames_for(RNNT, True)) for holes in (False, True)),
        ("two", frames_for(RNNT, False, two)),
        ("four", frames_for(RNNT, False, four)),
        ("later", frames_for(RNNT, False, (np.array([3, 2, 1]), np.array([2, 3, 1])))),
    ):
        cells = np.arange(3, frames.cells - 2)
        if name == "later":
            # A tile that begins in the second example, at a frame of an odd number.
            cells = np.arange(frames.offset[3] + 1, frames.cells)
        if name == "holesTrue":
            cells = cells[rng.random(len(cells)) < 0.5]
            # Of the last two frames a cell each: the search for the end of a frame's cells has two to look at.
            owner = np.searchsorted(frames.offset, cells, side="right")
            alone = (owner == owner[-1]) | (owner == owner[owner != owner[-1]][-1])
            cells = cells[~alone | np.append(True, np.diff(owner) > 0)]
        label_base = np.append(0, np.cumsum(frames.labels.astype(np.int64) + 1))
        outputs = np.empty((2, len(cells)), np.int64), np.empty((2, len(cells)), np.int32)
        positions = np.zeros((4, 15), np.int32)
        locate(0, cells, frames, positions, np.arange(len(frames.example)), label_base, *outputs[0], *outputs[1])
        frame, slot = outputs[0]
        if name not in shapes:
            continue
        # A lane has more than four entries of the wider rows: its loop over them is unrolled.
        for (activation, number), width in itertools.product(
            activations.items(), widths[:1] if name in narrow else widths
        ):
            encoder = rng.standard_normal((20, width)).astype(stored)
            predictor = rng.standard_normal((label_base[-1], width)).astype(stored)
            encoder_row, predictor_row = rng.permutation(20)[: len(frames.example)], rng.permutation(len(predictor))
            hidden, none = np.zeros((len(cells), width), operand), np.zeros((0, width), dtype)
            arguments = (number, encoder, predictor, none, NO_DROPOUT, encoder_row, predictor_row, frame, slot, hidden)
            if name not in narrow:
                yield Case(
                    f"hidden-{activation}-{width}-{name}",
                    stored,
                    compute_hidden,
                    arguments,
                    {},
                    # Of sums that were not rounded many are halfway between two bfloat16.
                    exact=number.rate is None and activation in BROAD,
                    unrolled=width >= UNROLLED,
                )
            # The transpose reads what the activation gives; both targets are handed the same rounded numbers.
            given = np.tanh(rng.standard_normal((len(cells), width))).astype(operand)
            grad_hidden = rng.standard_normal((len(cells), width)).astype(dtype)
            sums = np.ones((len(frames.example), width), dtype), np.ones((label_base[-1], width), dtype)
            places = frame, slot, cells, frames, label_base
            arguments = (number.slope or number, given, grad_hidden, NO_DROPOUT, *places, *sums)
            yield Case(
                f"transpose-{activation}-{width}-{name}",
                stored,
                hidden_transpose,
                arguments,
                {},
                unrolled=width >= UNROLLED,
            )


def _places():
    rng = np.random.default_rng(4)
    two = frames_for(RNNT, False, (np.array([1, 1]), np.array([2, 1])))
    several = {
        "False-False": frames_for(RNNT, False),
        "True-False": frames_for(MOVES["monotonic"], False),
        "False-True": frames_for(RNNT, True),
    }
    for kind, frames in (several | {"two": two}).items():
        targets = rng.integers(1, 9, (4, 5)).astype(np.int32)
        some = np.flatnonzero(rng.random(frames.cells) < 0.5)
        for cells, count in ((rows.NO_IDS, frames.cells - 2), (some, len(some))):
            outputs = (
                np.zeros(count, np.int64),
                np.zeros(count, np.int64),
                np.zeros(count, np.int32),
                np.zeros(count, np.int32),
            )
            bases = np.arange(len(frames.example)) * 3, np.arange(4) * 10
            yield Case(
                f"locate-{kind}-{len(cells)}",
                np.dtype(np.int64),
                locate,
                (2, cells, frames, targets, *bases, *outputs),
                {},
            )


def _halves():
    """Numbers that round up, down and to even; ones that no float32 is above; ones that have no second half."""
    rng = np.random.default_rng(8)
    ends = [0.0, -0.0, 1e-45, -1e-40, np.finfo(F4).tiny, np.finfo(F4).max, -np.finfo(F4).max, np.inf, -np.inf, np.nan]
    near = [1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-11 + 2.0**-23, -1 - 2.0**-11, 2 - 2.0**-23, 1 + 2.0**-22]
    special = np.array([ends + near], F4).repeat(3, axis=0)
    for name, values in (("special", special), ("wide", rng.standard_normal((9, 131)).astype(F4))):
        halves = np.zeros_like(values), np.zeros_like(values)
        yield Case(f"split-{name}", F4, split, (values, *halves), {}, exact=True, unrolled=name == "wide")
        yield Case(f"split-{name}-in-place", F4, _split_in_place, (values, halves[1]), {}, exact=True)


def _split_in_place(values, low):
    return split(values, values, low)


def _rows(dtype):
    rng = np.random.default_rng(5)
    source, ids = rng.standard_normal((9, 35)).astype(dtype), rng.permutation(9)[:6]
    yield Case("gather", dtype, rows.gather, (source, ids, np.zeros((6, 35), dtype)), {})
    yield Case("scatter", dtype, rows.scatter, (source[:6].copy(), ids, np.ones((9, 35), dtype)), {})
    visited = (rng.random(9) < 0.5).astype(np.uint8)
    yield Case("clear", dtype, rows.clear_rows, (visited, source), {})
    yield Case("clear-wide", dtype, rows.clear_rows, (visited, np.full((9, 120), 7, dtype)), {})
    yield Case("mark", dtype, rows.mark, (ids, np.zeros(9, np.uint8)), {})


def _stored_rows(stored):
    """Rows that are rounded on the way; `clear` sees the bits of a half-precision array."""
    rng = np.random.default_rng(6)
    starts, examples = np.array([0, 4, 4, 9]), np.array([3, 0, 2])

    def halfway(*shape):
        """Numbers that add up without rounding, many of them halfway between two of the dtype that is stored."""
        return (rng.integers(-(2**12), 2**12, shape) / 2**11).astype(F4)

    for width in (120, 35):
        source = halfway(9, width)
        arguments = (source, starts, examples, np.full((4, 6, width), 7, stored))
        yield Case(f"unpack-halfway-{width}", stored, rows.unpack, arguments, {}, exact=True, stored=True)
    total = halfway(6, 35)
    for places, opens in (
        ([2], [0]),
        ([1, 2, 2], [0, 1, 0]),
        ([1, 1, 1, 0], [0, 0, 0, 1]),
        # The fifth example, the first of a second round of four, is alone.
        ([3, 3, 1, 1, 0, 2, 2, 2, 2], [0, 0, 1, 0, 1, 1, 0, 0, 0]),
    ):
        begins = np.array([0, 1, 2, 2, 3, 5, 6, 7, 8, 9])[: len(places) + 1]
        begins = starts if len(places) == 3 else begins
        arguments = (source, begins, np.array(places), np.array(opens, np.uint8), total, np.full((4, 6, 35), 7, stored))
        yield Case(f"share-halfway-{len(places)}", stored, rows.share, arguments, {}, exact=True, stored=True)
    visited = np.array([1, 0, 1], np.uint8)
    for width in (40, 120):
        yield Case(
            f"clear-{width}", stored, rows.clear_rows, (visited, np.full((3, width), 7, stored).view(np.uint16)), {}
        )
    special = [1 / 3, -0.0, np.nan, np.inf, -np.inf, 65504.0, 3.4e38, 1e-30]
    # Halfway between two neighbours, of which the even one is meant: the lower, and the upper.
    half = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11]
    source = np.array([special + half], np.float32).repeat(3, axis=0)
    arguments = (source, np.array([0, 3]), np.array([0]), np.zeros((1, *source.shape), stored))
    yield Case("round", stored, rows.unpack, arguments, {}, exact=True, stored=True)
