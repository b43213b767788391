"""Cases of `tests/kernel_cases.py` for cells whose arcs take several frames: rows with durations, or several blanks."""

import itertools

import ml_dtypes
import numpy as np

from lattice.device.arrays import bits
from lattice.kernels import rows
from lattice.kernels.heads import emit_steps
from lattice.kernels.heads_gradient import MOST_BLANKS, gradient_steps
from tests.kernel_compare import Case

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)
STORED = ((F4, F4), (F8, F8), (F4, F2), (F4, BF))
"""What is computed in, and what is stored."""
MIXED = (F4, BF)
"""Logits, and what takes their gradients."""
SMALL = ((2, 1, 3), (150, 1, 5), (3, 2, 0), (150, 3, 0))
"""Entries of the token head, blanks, durations."""
WIDE = ((129, 1, 5), (256, 1, 33), (257, 1, 70), (129, 3, 0), (250, 1, 0), (257, MOST_BLANKS, 0))
"""As many blanks as there may be among them, and more durations than a warp has lanes."""


BIASED, PLACED, ANEW, IN_PLACE = "biased", "placed", "anew", "in place"
EMISSIONS = {BIASED, PLACED}, set(), {BIASED}, {PLACED}
GRADIENTS = {BIASED, ANEW, IN_PLACE}, set(), {BIASED}, {ANEW}, {IN_PLACE}
"""What is true of a case. The first two have every branch, the others tell which of them belong together."""


def every_case() -> list[Case]:
    narrow, longer = SMALL[::2], SMALL[1::2]
    found = [*_emissions(F4, F4, narrow, EMISSIONS[:2]), *_emissions(F4, F4, longer, EMISSIONS)]
    found += [*_gradients(F4, F4, narrow, GRADIENTS[:2]), *_gradients(F4, F4, longer, GRADIENTS)]
    for types in STORED[1:]:
        found += [*_emissions(*types, longer, EMISSIONS[:1]), *_gradients(*types, longer, GRADIENTS[:2])]
    return [*found, *_gradients(*MIXED, longer, GRADIENTS[:1], source=F4)]


def wide_cases() -> list[Case]:
    """Rows as in `kernel_cases.wide_cases`."""
    found = [*_emissions(F4, F4, WIDE, EMISSIONS[:1]), *_gradients(F4, F4, WIDE, GRADIENTS[3:4])]
    for types, shapes in zip(STORED[1:], (WIDE[1:2], WIDE[4:5], WIDE[2:3]), strict=True):
        found += _emissions(*types, shapes, EMISSIONS[1:2])
    return [*found, *_gradients(F4, BF, WIDE[3:4], GRADIENTS[:1])]


def _logits(rng, size, tail, dtype):
    """14 rows with all that a row may hold."""
    logits = (3 * rng.standard_normal((14, size + tail))).astype(dtype)
    logits[1, :size], logits[2, size:], logits[5] = -np.inf, -np.inf, -np.inf
    logits[3, size // 2], logits[4, 1], logits[6, -1], logits[7, size - 1] = np.nan, np.inf, np.nan, 12
    logits[5, -1], logits[8, -1], logits[9, -1], logits[10, -1] = np.nan, np.inf, -np.inf, 12
    return logits


def _blanks(rng, size, blanks):
    """Positions of the blanks, in no order, and those of labels."""
    places = rng.permutation(size)
    return places[:blanks], places[blanks:]


def _emissions(dtype, stored, shapes, kinds):
    rng = np.random.default_rng(60)
    for (size, blanks, tail), kind in itertools.product(shapes, kinds):
        logits, (blank_ids, labels) = _logits(rng, size, tail, stored), _blanks(rng, size, blanks)
        row, label = rng.permutation(14)[:13].astype(np.int64), rng.choice(labels, 13).astype(np.int32)
        label[::4] = -1
        bias = rng.standard_normal((size + tail) * (BIASED in kind)).astype(dtype)
        place, start = (rng.permutation(15)[:13], 0) if PLACED in kind else (rows.NO_IDS, 2)
        state = tuple(np.zeros(15, dtype) for _ in range(4))
        steps = np.full((tail or blanks + 1, 17), 7, dtype)
        arguments = (logits, bias, row, place, start, label, blank_ids, tail, 0.05, *state, steps)
        name = f"emit-steps-{size}-{blanks}-{tail}-bias{len(bias)}-{len(place)}"
        # Where no token has a score the two parts of a normaliser are left open.
        yield Case(name, stored, emit_apart, arguments, {}, 10, (11, 12))


def emit_apart(logits, *rest):
    """`emit_steps` on logits of its own: where there is a bias the CPU adds it to them."""
    emit_steps(bits(logits).copy().view(logits.dtype), *rest)


def _gradients(dtype, stored, shapes, kinds, source=None):
    rng = np.random.default_rng(61)
    for (size, blanks, tail), kind in itertools.product(shapes, kinds):
        logits, (blank_ids, labels) = _logits(rng, size, tail, source or stored), _blanks(rng, size, blanks)
        logits[0, size - 1] = logits[0, :size].astype(F8).max() - 89  # its share is subnormal in float32
        row, owner = rng.permutation(14).astype(np.int64), rng.integers(0, 3, 14).astype(np.int32)
        label, steps = rng.choice(labels, 14).astype(np.int32), np.full((tail or blanks + 1, 18), np.nan, dtype)
        label[::4] = -1
        # A closed head is taken by no alignment.
        weight = rng.random(14) * (row != 1) * (row != 2)
        weight[4] = 0
        steps[:, 3:-1] = rng.dirichlet(np.ones(len(steps)), 14).T * weight
        of_label = np.where(label < 0, 0, (rng.random(14) if tail else 1) * (weight if tail else steps[0, 3:-1]))
        if not tail:
            steps[0, 3:-1] = of_label
        arcs = (steps[:, 3:-1].sum(axis=0) - of_label).astype(dtype), of_label.astype(dtype)
        bias, anew = np.full((size + tail) * (BIASED in kind), 0.25, dtype), ANEW in kind
        tokens = logits[row, :size].astype(dtype) + (bias[:size] if len(bias) else 0)
        maximum = tokens.max(axis=1)
        with np.errstate(invalid="ignore"):
            rest = np.exp(tokens - maximum[:, None]).sum(axis=1) - 1
        if anew:
            # The other product had no +inf.
            maximum[row == 4] = 5
        norms, upstream = (maximum, rest), np.array([1.0, -0.3, 1e-3]).astype(dtype)
        arguments = (row, bias, label, owner, blank_ids, tail, *arcs, steps, 3, *norms, 0.5, upstream)
        name = f"{size}-{blanks}-{tail}-bias{len(bias)}-{anew}"
        if IN_PLACE in kind and source is None:
            yield Case(f"gradient-steps-in-place-{name}", stored, in_place, (logits, *arguments), {"anew": anew})
        else:
            given, mixed = (logits, np.full(logits.shape, 7, stored), *arguments), "-mixed" * (source is not None)
            yield Case(f"gradient-steps-{name}{mixed}", stored, gradient_apart, given, {"anew": anew})


def gradient_apart(logits, *rest, **options):
    """The gradient of logits of its own: where it is normalised anew, a GPU writes over two entries of a row."""
    gradient_steps(bits(logits).copy().view(logits.dtype), *rest, **options)


def in_place(logits, *rest, **options):
    gradient_steps(logits, logits, *rest, **options)
