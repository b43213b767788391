"""The best alignment where arcs take several frames (steps.py): the largest in the place of the sum, and who won.

A byte of each cell tells the arc by which the best alignment entered it: 0 where it begins, else 1 + the arc's number
as `step_arcs.arc_of` counts. Of equal scores a blank's wins, and then the shorter step's.
"""

from numba.extending import register_jitable

from . import launch as policy
from .arcs import cell_at
from .cells import CLOSED
from .launch import by_thread, cpu_sweep, cuda, cuda_kernel, launch, on_host, sweep, whole_warps
from .state import CellState
from .step_arcs import Lattice, arc_of, came_by
from .step_sums import StepScores


@register_jitable
def entered(f, u, c, own, alpha):
    """(best score of an alignment up to cell c = (f, u), the byte of its last arc). NaN stays NaN."""
    best, arc = (0.0 if f == own.begin and u == 0 else CLOSED), 0
    for i in range(2 * own.steps.shape[1]):
        x = arc_of(i, False, f, u, c, own, alpha)
        if x > best or x != x:
            best, arc = x, i + 1
        if x != x:
            break
    return best, arc


@register_jitable
def of_example(n, starts, labels, first, offset, steps, blank_score, label_score, step_score):
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    return Lattice(starts[n], starts[n + 1], labels[n], first, offset, steps, False, state, step_score)


@cpu_sweep
def enter_cpu(begin, end, starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha, arc):
    for n in range(begin, end):
        own = of_example(n, starts, labels, first, offset, steps, blank_score, label_score, step_score)
        for f in range(own.begin, own.end):
            for c in range(offset[f], offset[f + 1]):
                alpha[c], arc[c] = entered(f, first[f] + c - offset[f], c, own, alpha)


@cuda_kernel
def enter_cuda(starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha, arc):
    own = of_example(cuda.blockIdx.x, starts, labels, first, offset, steps, blank_score, label_score, step_score)
    stays, T, U = steps[0, 0] == 0, own.end - own.begin, own.labels
    # Waves as in step_sums.py.
    for wave in range(T + U if stays else T):
        u = cuda.threadIdx.x + (max(0, wave - T + 1) if stays else 0)
        while u <= (min(U, wave) if stays else U):
            f = own.begin + (wave - u if stays else wave)
            c = cell_at(f, u, first, offset)
            if c >= 0:
                alpha[c], arc[c] = entered(f, u, c, own, alpha)
            u += cuda.blockDim.x
        cuda.syncthreads()


@register_jitable
def trace_steps(own, alpha, arc, row, frames):
    """Follow the arcs back from the end and note the frame of each label in `frames[row]`; return the score in nats."""
    score, by = CLOSED, 0
    for n in range(own.steps.shape[1]):
        x = came_by(n, False, own.end, own.labels, own, alpha)
        if x > score or x != x:
            score, by = x, n + 1
        if x != x:
            break
    # -inf or NaN: no alignment to follow, and `frames` is left as it is.
    if not score > CLOSED:
        return score
    f, u, count = own.end, own.labels, own.steps.shape[1]
    while by > 0:
        i = by - 1
        if i >= count:
            f, u = f - own.steps[0, i - count], u - 1
            frames[row, u] = f - own.begin
        else:
            f -= own.steps[0, i]
        by = arc[cell_at(f, u, own.first, own.offset)]
    return score


@cpu_sweep
def trace_steps_cpu(
    begin, end, starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha, arc, examples,
    score, frames,
):  # fmt: skip
    for n in range(begin, end):
        own = of_example(n, starts, labels, first, offset, steps, blank_score, label_score, step_score)
        score[n] = trace_steps(own, alpha, arc, examples[n], frames)


@cuda_kernel
def trace_steps_cuda(
    starts, labels, first, offset, steps, step_score, blank_score, label_score, alpha, arc, examples, score, frames
):
    n = cuda.grid(1)
    if n < score.shape[0]:
        own = of_example(n, starts, labels, first, offset, steps, blank_score, label_score, step_score)
        score[n] = trace_steps(own, alpha, arc, examples[n], frames)


def best_step_path(frames, steps: StepScores, blank_score, label_score, alpha, arc, examples, score, best):
    """The best alignments, where arcs take several frames.

    Parameters
    ----------
    frames : lattice.layout.Frames
    steps : StepScores
    blank_score, label_score : (cells,) float32 or float64
        Scores of the arcs in nats, but for the step.
    alpha, arc : (cells,) float64, (cells,) uint8
        Scratch.
    examples, score, best
        As in `best_path.best_path`.
    """
    lattices = frames.starts, frames.labels, frames.first, frames.offset
    arguments = *lattices, *steps, blank_score, label_score, alpha, arc
    found = examples, score, best
    if on_host(score):
        sweep(enter_cpu, len(score), *arguments, work=64 * len(alpha), pieces=8)
        sweep(trace_steps_cpu, len(score), *arguments, *found, work=len(frames.example))
    else:
        launch(enter_cuda, len(score), whole_warps(frames.widest + 1, policy.LATTICE_THREADS), *arguments)
        by_thread(trace_steps_cuda, len(score), *arguments, *found)
