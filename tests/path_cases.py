"""Cases of `tests/kernel_cases.py` for the kernels of the best path and of the loss along a path."""

from unittest import mock

import ml_dtypes
import numpy as np

from lattice.kernels import launch
from lattice.kernels.best_path import best_path, bit_bytes, extend
from lattice.kernels.path_rows import path_rows, sum_rows
from tests.kernel_compare import MOVES, Case, frames_for

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
BF = np.dtype(ml_dtypes.bfloat16)
WIDE = {False: (np.array([50, 3, 40]), np.array([72, 2, 0])), True: (np.array([130, 3, 40]), np.array([66, 2, 0]))}
"""By topology: frames of more cells than two warps have threads."""
WARPS = {False: (np.array([33, 2]), np.array([32, 1])), True: (np.array([64, 2]), np.array([32, 1]))}
"""By topology: an anti-diagonal or a frame of one cell more than a warp has threads."""


def every_case() -> list[Case]:
    found = [*_sums(F4), *_sums(F8), *_long_paths(F4, WIDE, (37, 38, 51)), *_long_paths(F8, WARPS)]
    for dtype in (F4, F8):
        found += _paths(dtype)
    for dtype, stored in ((F4, F4), (F8, F8), (F4, BF)):
        found += _rows(dtype, stored)
    return found


def wide_cases() -> list[Case]:
    """Rows as in `kernel_cases.wide_cases`."""
    return [
        case for dtype, stored in ((F4, F4), (F8, F8), (F4, BF)) for case in _rows(dtype, stored, (128, 129, 250, 257))
    ]


def _scores(rng, frames, dtype):
    blank, label = (np.log(rng.dirichlet(np.ones(3), frames.cells)[:, k]).astype(dtype) for k in (0, 1))
    return blank, label


def _outputs(frames, count):
    """`left`, `bits`, score and frames, as full of zeros as the host functions ask."""
    bits = np.zeros(bit_bytes(frames.cells, len(frames.example)), np.uint8)
    left = np.zeros((count, 2, 2, frames.widest + 1))
    return (
        left,
        bits,
        np.arange(count)[::-1].copy(),
        np.zeros(count),
        np.full((count, frames.widest + 2), -1, np.int32),
    )


def _paths(dtype):
    rng = np.random.default_rng(40)
    for topology, moves in MOVES.items():
        for bounded in (False, True):
            frames = frames_for(moves, bounded)
            total = len(frames.example)
            scores = _scores(rng, frames, dtype)
            poisoned = tuple(score.copy() for score in scores)
            poisoned[0][1] = np.nan
            poisoned[1][-2:] = -np.inf
            ties = tuple(np.zeros_like(score) for score in scores)
            for kind, given in (("", scores), ("-nan", poisoned), ("-ties", ties)):
                for cuts in ((0, total), (0, 1, 2, 4, 5, 9, total)):
                    name = f"path-{topology}{'-bounded' * bounded}{kind}-{len(cuts) - 1}"
                    yield Case(name, dtype, in_runs, (frames, moves, *given, *_outputs(frames, 4), cuts), {})


def _long_paths(dtype, lengths, inner=()):
    """Frames wider than two warps, in runs that part an example at the frames `inner`.

    Without `inner` the frames are wider than one warp.
    """
    rng = np.random.default_rng(41)
    for topology, moves in MOVES.items():
        frames = frames_for(moves, False, lengths[moves.monotonic])
        assert np.diff(frames.offset).max() > (64 if inner else 32)
        cuts = (0, *inner, len(frames.example))
        arguments = (frames, moves, *_scores(rng, frames, dtype), *_outputs(frames, len(frames.labels)), cuts)
        yield Case(f"path-wide-{topology}", dtype, in_runs, arguments, {})


def in_runs(frames, moves, blank, label, left, bits, examples, score, best, cuts):
    """The best path by runs of frames, whose first and last are `cuts`."""
    starts, offset = (part if isinstance(part, np.ndarray) else part.get() for part in (frames.starts, frames.offset))
    for low, high in zip(cuts[:-1], cuts[1:]):
        since = int(np.searchsorted(starts, low, side="right")) - 1
        until = int(np.searchsorted(starts, high, side="left"))
        run = slice(int(offset[low]), int(offset[high]))
        extend(frames, low, high, since, until, moves, blank[run], label[run], left, bits)
    best_path(frames, moves, left, bits, examples, score, best)


def _rows(dtype, stored, sizes=(1, 2, 70, 150)):
    rng = np.random.default_rng(42)
    for size in sizes:
        logits = (3 * rng.standard_normal((14, size))).astype(dtype)
        logits[1] = -np.inf
        if size > 1:
            logits[2, :-1], logits[3, size // 2], logits[4, 1] = -np.inf, np.nan, np.inf
            logits[5, 1:], logits[5, 0], logits[6, -1] = -np.inf, np.nan, -np.inf
            logits[13, :-1], logits[13, -1] = -np.inf, np.nan
            logits[7, -1] = logits[7].max() - 89  # its share is subnormal in float32
            logits[8, 0], logits[9, -1], logits[10, 0] = 200, 200, 20  # certain, wrong, and nearly certain
        label = rng.integers(-1, size, 14).astype(np.int32)
        label[[2, 4, 6, 9]], label[[5, 7, 11]] = size - 1, 0
        emits = ((label >= 0) & (rng.random(14) < 0.7)).astype(np.uint8)
        owner = rng.integers(0, 3, 14).astype(np.int32)
        owner[12] = 3
        upstream = np.array([1.0, -0.3, 1e-3, 0.0]).astype(dtype)
        for bias in (np.zeros(0, dtype), np.full(size, 0.25, dtype)):
            for smoothing, focal in ((0.0, 0.0), (0.2, 0.0), (0.0, 2.0), (0.2, 0.5)):
                known = (bias, label, emits, owner, 0, 1.5, smoothing, focal, upstream, np.zeros(14, dtype))
                name = f"path-rows-{size}-bias{len(bias)}-{smoothing}-{focal}"
                yield Case(name, stored, path_rows, (logits, np.full(logits.shape, 7, stored), *known), {})
                if stored == dtype:
                    yield Case(f"{name}-in-place", stored, in_place, (logits, *known), {})


def in_place(logits, *known):
    """The gradient over the logits."""
    path_rows(logits, logits, *known)


def _sums(dtype):
    """Sums of losses over an example's rows; one loss is infinite, one NaN.

    Examples have one row, none, and more rows than a small block has threads four times.
    """
    rng = np.random.default_rng(43)
    edges = np.array([0, 1, 1, 70, 73, 76, 400, 650])
    loss = (5 * rng.random(650)).astype(dtype)
    loss[71], loss[74] = np.inf, np.nan
    yield Case(f"path-sum-{len(loss)}", dtype, sum_rows, (edges, loss, np.zeros(7)), {})
    for threads in (32, 128):
        yield Case(f"path-sum-{threads}-threads", dtype, in_blocks, (edges, loss, np.zeros(7), threads), {})


def in_blocks(edges, loss, log_z, threads):
    """Sums by blocks of one warp, and of four, which a loop over warps goes on by at once; a GPU's are of eight."""
    with mock.patch.object(launch, "THREADS", threads):
        sum_rows(edges, loss, log_z)
