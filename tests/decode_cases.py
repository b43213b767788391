"""Cases of `tests/kernel_cases.py` for the kernels of the search."""

import numpy as np

from lattice.kernels import rows
from lattice.kernels.best import best
from lattice.kernels.best_steps import best_steps
from tests.kernel_compare import Case


def every_case() -> list[Case]:
    dtypes = np.dtype(np.float32), np.dtype(np.float64)
    return [*(case for dtype in dtypes for case in (*_best(dtype), *_best_steps(dtype))), *_moved_rows()]


def wide_cases() -> list[Case]:
    """Rows as in `kernel_cases.wide_cases`."""
    dtypes = np.dtype(np.float32), np.dtype(np.float64)
    wide = (257, 1, 40), (257, 31, 0)
    kinds = (_best, (128, 129, 250, 257)), (_best_steps, wide)
    found = [case for dtype in dtypes for make, shapes in kinds for case in make(dtype, shapes)]
    return [*found, *map(_best_of_few, dtypes)]


def _best(dtype, sizes=(1, 2, 70, 150)):
    rng = np.random.default_rng(10)
    for size in sizes:
        logits = (3 * rng.standard_normal((12, size))).astype(dtype)
        logits[1] = -np.inf
        logits[2, size // 3 :] = -np.inf
        logits[3, size // 2] = np.nan
        logits[4, -1] = np.inf
        # Equal ones, which go by their position.
        logits[5] = 1
        logits[6] = np.round(logits[6])
        logits[7] = np.arange(size) % 3
        row = rng.permutation(12)[:11].astype(np.int64)
        owner, blank = rng.integers(0, 2, 11), np.array([0, size - 1])
        for bias in (np.zeros((2, 0), dtype), np.round(rng.standard_normal((2, size))).astype(dtype)):
            bias[:1, size // 2 :] = -np.inf
            for k in (1, 4):
                outputs = np.zeros((11, k + 1), dtype), np.zeros((11, k), np.int32)
                arguments = (logits, bias, row, owner, blank, *outputs)
                for hat in (False, True):
                    name = f"best-{'hat-' * hat}{size}-bias{bias.shape[1]}-{k}"
                    yield Case(name, dtype, best_only, arguments, {"hat": True} if hat else {})


def _best_steps(dtype, shapes=((2, 1, 3), (150, 1, 5), (4, 2, 0), (150, 3, 0))):
    """`shapes` are entries of the token head, blanks and durations; with a bias some ids and a duration are closed."""
    rng = np.random.default_rng(12)
    for (size, blanks, tail), k in zip(shapes, (1, 4) * 2):
        logits = (3 * rng.standard_normal((14, size + tail))).astype(dtype)
        logits[1, :size], logits[2, size:], logits[3, size // 2] = -np.inf, -np.inf, np.nan
        logits[4, size - 1], logits[5, -1], logits[6, -1] = np.inf, np.nan, -np.inf
        # Equal ones, which go by their position.
        logits[7, :size] = 1
        row, owner = rng.permutation(14)[:13].astype(np.int64), rng.integers(0, 2, 13)
        blank_ids = np.array([[size - 1], [blanks - 1]]) - np.arange(blanks)
        for bias in (np.zeros((2, 0), dtype), np.round(rng.standard_normal((2, size + tail))).astype(dtype)):
            bias[:1, size // 2 : size - blanks], bias[1:, -1:] = -np.inf, -np.inf
            outputs = np.zeros((13, k + 1), dtype), np.zeros((13, k), np.int32), np.full((tail or blanks + 1, 13), 7)
            arguments = (logits, bias, row, owner, blank_ids, tail, 0.05, *outputs[:2], outputs[2].astype(dtype))
            yield Case(f"best-steps-{size}-{blanks}-{tail}-bias{bias.shape[1]}", dtype, best_steps_only, arguments, {})


def best_steps_only(logits, *rest):
    """`best_steps` on logits of its own, as `best_only`."""
    best_steps(logits.copy(), *rest)


def _best_of_few(dtype):
    """Rows of one entry, or of two that are equal or not: most lanes have none, and all have to know what is listed."""
    twos = ((2, 17), (2, 25), (2, 29), (4, 31))
    entries = [{place: 1 / 3} for place in (1, 2, 4, 8, 16, 31)]
    entries += [{one: 1 / 3, other: value} for one, other in twos for value in (1 / 3, 1 / 7)]
    # The last lane lists the second, which is the first but for its last bits and stands before it.
    entries.append({36: 1 / 3, 31: np.nextafter(dtype.type(1 / 3), dtype.type(0))})
    logits = np.full((len(entries), 40), -np.inf, dtype)
    logits[:, 0] = 0.3  # the blank
    for row, own in zip(logits, entries):
        row[list(own)] = list(own.values())
    outputs = np.zeros((len(logits), 4), dtype), np.zeros((len(logits), 3), np.int32)
    every = np.arange(len(logits))
    arguments = (logits, np.zeros((1, 0), dtype), every, np.zeros_like(every), np.zeros(1, np.int64), *outputs)
    return Case("best-of-few-40", dtype, best_only, arguments, {})


def best_only(logits, bias, *rest, **options):
    """`best` on logits of its own: where there is a bias the CPU adds it to them."""
    best(logits.copy(), bias, *rest, **options)


def _moved_rows():
    """Rows of a state, moved as bits."""
    rng, ids = np.random.default_rng(11), np.array([4, 0, 0, 2])
    for bits in (8, 16, 32, 64):
        dtype = np.dtype(f"u{bits // 8}")
        source = rng.integers(0, 2**bits, (5, 3), dtype)
        yield Case(
            f"gather-{dtype}", np.dtype(np.int64), rows.gather, (source, ids, np.zeros((4, 3), dtype)), {}, exact=True
        )
