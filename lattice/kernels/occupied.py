"""Which cells the backward pass visits: those whose posterior reaches the floor, gathered in order.

A skipped cell would have added at most twice its posterior, in l1, to the gradient of the logits.
"""

from numba.extending import register_jitable

from .cells import CLOSED
from .launch import cpu_sweep


@register_jitable
def occupied(blank_posterior, label_posterior, floor):
    """Is the cell kept? One with NaN is, so that it is seen."""
    return not (blank_posterior + label_posterior < floor)


@cpu_sweep
def compact_cpu(frames, log_z, floor, blank, label, maximum, total, cells):
    kept = 0
    for n in range(log_z.shape[0]):
        if log_z[n] == CLOSED:
            continue
        for c in range(frames.offset[frames.starts[n]], frames.offset[frames.starts[n + 1]]):
            if occupied(blank[c], label[c], floor):
                cells[kept] = c
                blank[kept] = blank[c]
                label[kept] = label[c]
                maximum[kept] = maximum[c]
                total[kept] = total[c]
                kept += 1
    return kept


def compact(frames, log_z, floor, blank, label, maximum, total, cells) -> int:
    """Move the occupied cells to the front of their arrays, in place, and return how many there are.

    Parameters
    ----------
    frames : lattice.layout.Frames
    log_z : (examples,) float64
        Examples without an alignment are left out.
    floor : float
        Cells with a smaller posterior are skipped; 0 keeps every cell.
    blank, label, maximum, total : (cells,)
        Posteriors of the arcs and parts of the normaliser.
    cells : (cells,) int64
        Filled with the numbers of the cells that are kept.
    """
    return compact_cpu(frames, log_z, floor, blank, label, maximum, total, cells)
