"""Rows of given logits on their way in and out: half precision widened a few at a time, rows that nobody read cleared.

The CPU's kernels read float32 and float64 alone.
"""

import numpy as np

from .kernels.rows import clear_rows, mark

STAGING_BYTES = 4 << 20
"""Logits are widened to float32 this many bytes at a time."""


def staged(logits, row, dtype, device):
    """Yield (part, rows of logits, where each row of the part lies in them): as they are where the kernels read their dtype.

    Parameters
    ----------
    logits : (rows, V)
    row : (n,) int64
        The rows that are worked on.
    dtype : np.dtype
        What is computed in.
    device : Host or Cuda
    """
    count, V = len(row), logits.shape[1]
    if logits.dtype == dtype or device.on_gpu:
        yield slice(0, count), logits, row
        return
    size = max(1, STAGING_BYTES // (V * dtype.itemsize))
    stage, rows = np.empty((min(size, count), V), dtype), np.arange(min(size, count))
    for begin in range(0, count, size):
        part = slice(begin, min(begin + size, count))
        n = part.stop - begin
        stage[:n] = logits[row[part]]
        yield part, stage, rows[:n]


def clear_others(device, row, rows, dtype):
    """Zero the rows (R, V) that are not in `row`; those that are not of `dtype` are half precision, and cleared by their bits."""
    visited = device.empty(len(rows), np.uint8)
    visited.fill(0)
    mark(row, visited)
    clear_rows(visited, rows if rows.dtype == dtype else rows.view(np.uint16))
