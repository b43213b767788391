"""The delay penalty (Kang et al. 2022) on scores of label arcs, and on the upper bounds on them.

A label arc in frame t of T is to get penalty * ((T - 1) / 2 - t) nats. Scores have to stay at most 0 (state.py). So
here it gets -penalty * t, or penalty * (T - 1 - t) where the penalty is negative. Each label of an alignment lacks the
same |penalty| * (T - 1) / 2 then, which `Targets.owed` adds to the sum over all alignments.
"""

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, typed
from .launch import by_thread, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .state import BOUND, is_bounded


@register_jitable
def cost_of(frame, begin, end, penalty):
    """What a label arc of a frame costs, at least 0: `begin` and `end` are the frames of its example."""
    late = frame - begin if penalty > 0 else end - 1 - frame
    return late * abs(penalty)


@register_jitable
def bound_less(rest, cost, few):
    """The rest of a cell that is not computed, once its label arc costs more; `few` is room for the roundings."""
    # A cell that is wanted holds no bound. A closed arc stays closed.
    if not is_bounded(rest) or rest == typed(CLOSED, rest):
        return rest
    return min(BOUND, rest - cost + few * (cost - rest))


@register_jitable
def delay_cell(i, frame, owner, starts, place, penalty, few, bounds, target):
    p, n = place[i] if place.shape[0] else i, owner[i]
    cost = cost_of(frame[i], starts[n], starts[n + 1], penalty)
    target[p] = bound_less(target[p], cost, few) if bounds else target[p] - cost


@cpu_sweep
def delay_cpu(begin, end, frame, owner, starts, place, penalty, few, bounds, target):
    for i in range(begin, end):
        delay_cell(i, frame, owner, starts, place, penalty, few, bounds, target)


@cuda_kernel
def delay_cuda(frame, owner, starts, place, penalty, few, bounds, target):
    i = cuda.grid(1)
    if i < frame.shape[0]:
        delay_cell(i, frame, owner, starts, place, penalty, few, bounds, target)


def delay(frame, owner, starts, place, penalty, target, *, bounds):
    """Take the delay penalty off the label arcs of a run of cells.

    Parameters
    ----------
    frame, owner : (n,) int64, (n,) int32
        Number of each cell's frame, and its example.
    starts : (examples + 1,) int64
        First frame of each example.
    place : (n,) or (0,) int64
        As in `emit`.
    penalty : float
        Nats a frame, not 0.
    target : (cells,) float32 or float64
        Label scores; with `bounds`, the rests of cells that are not computed.
    """
    # The cost is float64, so a score in float32 is rounded once. A penalty that is rounded to float32 moves all labels
    # of an alignment to the same side.
    numbers = float(penalty), 16 * float(np.finfo(target.dtype).eps), bounds
    if on_host(target):
        sweep(delay_cpu, len(frame), frame, owner, starts, place, *numbers, target, work=4 * len(frame))
    else:
        by_thread(delay_cuda, len(frame), frame, owner, starts, place, *numbers, target)
