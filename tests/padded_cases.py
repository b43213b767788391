"""Cases of `tests/kernel_cases.py` for the kernels between cells and padded arrays (B, T, U+1)."""

import ml_dtypes
import numpy as np

from lattice.kernels.padded import lay_out, read_scores
from lattice.kernels.rows import NO_IDS
from tests.kernel_compare import MOVES, RNNT, Case, frames_for

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
BF = np.dtype(ml_dtypes.bfloat16)


def every_case() -> list[Case]:
    found = []
    for dtype, stored in ((F4, F4), (F8, F8), (F4, F2), (F4, BF)):
        found += _read(dtype, stored)
    for dtype in (F4, F8):
        found += _laid_out(dtype)
    return found


def wide_cases() -> list[Case]:
    """Frames of which a lane takes up to six cells, and cells of more than one block."""
    wide = {"wide-170": (np.array([3, 9]), np.array([170, 70]))}
    return [case for dtype in (F4, F8) for case in (*_read(dtype, dtype, wide), *_laid_out(dtype, wide))]


def _lattices(wide):
    """Name -> frames: of both topologies, of frames without cells, and of an example of one cell."""
    if wide:
        return {name: frames_for(RNNT, False, lengths) for name, lengths in wide.items()}
    return {
        "False-False": frames_for(RNNT, False),
        "True-False": frames_for(MOVES["monotonic"], False),
        "False-True": frames_for(RNNT, True),
    }


def _read(dtype, stored, wide=None):
    rng = np.random.default_rng(40)
    for name, frames in _lattices(wide).items():
        shape = len(frames.labels), int(np.diff(frames.starts).max()) + 1, frames.widest + 3
        blank, label = (8 * rng.standard_normal((2, *shape))).astype(stored)
        # What an example's last label position holds of a label is not read.
        label[1, 0, 0], label[0, 1, 1], blank[0, 2, 0], blank[0, 3, 1] = np.nan, np.inf, np.nan, -np.inf
        if dtype == F8:
            blank[0, 0, 0], label[0, 0, 1] = 1e151, -1e200
        outputs = np.zeros(frames.cells, dtype), np.zeros(frames.cells, dtype)
        for delay_penalty in (0.0, 0.75):
            arguments = (frames, blank, label, delay_penalty, *outputs)
            yield Case(f"read-scores-{name}-{delay_penalty}", stored, read_scores, arguments, {})


def _laid_out(dtype, wide=None):
    rng = np.random.default_rng(41)
    for name, frames in _lattices(wide).items():
        B = len(frames.labels)
        shape = B + 1, int(np.diff(frames.starts).max()) + 1, frames.widest + 3
        examples = rng.permutation(B + 1)[:B]
        scale = np.array([1.0, -0.3, 1e-3, 0.0, 2.5])[: B + 1].astype(dtype)
        some = np.flatnonzero(rng.random(frames.cells) < 0.5)
        for cells, count in ((NO_IDS, frames.cells), (some, len(some))):
            posteriors = rng.random((2, count)).astype(dtype)
            posteriors[:, 1], posteriors[0, 3] = 2 * np.finfo(dtype).tiny, np.nan
            for factor in (scale, scale[:0]):
                targets = np.full((2, *shape), 7, dtype)
                arguments = (frames, examples, cells, *posteriors, factor, *targets)
                yield Case(f"lay-out-{name}-{len(cells)}-scale{len(factor)}", dtype, lay_out, arguments, {})
