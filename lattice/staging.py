"""Rows of given logits on their way in and out: half precision widened a few at a time, rows that nobody read cleared.

The CPU's kernels read only float32 and float64.
"""

import numpy as np

from .kernels.rows import clear_rows, mark

STAGING_BYTES = 4 << 20
"""Logits are widened to float32 this many bytes at a time."""


def staged(logits, row, dtype, device):
    """Yield (part, rows of logits, where each row of the part lies in them).

    The logits come as they are if the kernels read their dtype. Otherwise they come widened, some rows at a time, in
    memory that the next part writes over. The caller may write to it, too.

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
        # The last part is shorter; what follows its rows is of the part before.
        stage[:n] = logits[row[part]]
        yield part, stage, rows[:n]


def clear_others(device, row, rows, dtype):
    """Zero the rows (R, V) of an output that are not in `row` (n,): padding, and cells that no alignment can visit."""
    visited = device.empty(len(rows), np.uint8)  # (R,)
    visited.fill(0)
    mark(row, visited)
    # Rows that are not of the dtype that is computed in are half precision, where a 0 has no bit set.
    clear_rows(visited, rows if rows.dtype == dtype else rows.view(np.uint16))
