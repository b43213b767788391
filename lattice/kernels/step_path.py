"""The best alignment where arcs take several frames (steps.py): the largest in the place of the sum, and the walk back.

By which arc the best alignment came to a cell follows from alpha, so it is asked of the cells that the alignment visits
and kept of none. Of equal scores a blank's wins, and then the shorter step's.
"""

from numba.extending import register_jitable

from .cells import CLOSED
from .launch import by_thread, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .state import CellState
from .step_arcs import Lattice, arc_of
from .step_sums import StepScores, step_sums
from .step_sweeps import forward_steps


@register_jitable
def entered(f, u, own, alpha):
    """(best score of an alignment up to cell (f, u), the arc by which it comes, -1 where it begins). NaN stays NaN."""
    best, arc = (0.0 if f == own.begin and u == 0 else CLOSED), -1
    for i in range(2 * own.steps.shape[1]):
        x = arc_of(i, False, f, u, 0, own, alpha)  # no cell: it is read for beta alone
        if x > best or x != x:
            best, arc = x, i
        if x != x:
            break
    return best, arc


@register_jitable
def of_example(n, starts, labels, first, offset, steps, blank_score, label_score, step_score):
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    return Lattice(starts[n], starts[n + 1], labels[n], first, offset, steps, False, state, step_score)


@register_jitable
def trace_steps(own, alpha, row, frames):
    """Follow the arcs back from the end and note the frame of each label in `frames[row]`; return the score in nats."""
    f, u, count = own.end, own.labels, own.steps.shape[1]
    score, i = entered(f, u, own, alpha)
    # -inf or NaN: no alignment to follow, and `frames` is left as it is.
    if not score > CLOSED:
        return score
    while i >= 0:
        if i >= count:
            f, u = f - own.steps[0, i - count], u - 1
            frames[row, u] = f - own.begin
        else:
            f -= own.steps[0, i]
        _, i = entered(f, u, own, alpha)
    return score


@cpu_sweep
def best_up_to_cpu(begin, end, starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha):
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    for n in range(begin, end):
        lattice = labels[n], first, offset, steps
        forward_steps(starts[n], starts[n + 1], *lattice, False, True, True, state, step_score, alpha)


@cpu_sweep
def trace_steps_cpu(
    begin, end, starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha, examples, score,
    frames,
):  # fmt: skip
    for n in range(begin, end):
        own = of_example(n, starts, labels, first, offset, steps, blank_score, label_score, step_score)
        score[n] = trace_steps(own, alpha, examples[n], frames)


@cuda_kernel
def trace_steps_cuda(
    starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha, examples, score, frames
):
    n = cuda.grid(1)
    if n < score.shape[0]:
        own = of_example(n, starts, labels, first, offset, steps, blank_score, label_score, step_score)
        score[n] = trace_steps(own, alpha, examples[n], frames)


def best_step_path(frames, steps: StepScores, blank_score, label_score, alpha, examples, score, best):
    """The best alignments, where arcs take several frames.

    Parameters
    ----------
    frames : lattice.layout.Frames
    steps : StepScores
    blank_score, label_score : (cells,) float32 or float64
        Scores of the arcs in nats, but for the step.
    alpha : (cells,) float64
        Filled with the best score of an alignment up to each cell.
    examples, score, best
        As in `best_path.best_path`.
    """
    lattices = frames.starts, frames.labels, frames.first, frames.offset
    arguments, found = (*lattices, *steps, blank_score, label_score, alpha), (examples, score, best)
    if on_host(score):
        sweep(best_up_to_cpu, len(score), *arguments, work=64 * len(alpha), pieces=8)
        sweep(trace_steps_cpu, len(score), *arguments, *found, work=len(frames.example))
    else:
        state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
        # The score is found once more where the walk back begins.
        step_sums(frames, steps, state, alpha, score, largest=True)
        by_thread(trace_steps_cuda, len(score), *arguments, *found)
