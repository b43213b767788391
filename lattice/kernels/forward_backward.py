"""alpha, beta, log_z and arc posteriors over two score arrays. Knows nothing of vocabularies, targets or logits.

The sums are float64 whatever the scores are. float32 near -7000 has steps of 5e-4, which is the gradient error of
implementations that keep alpha in float32 on long audio. The topology is two flags, `arcs.Moves`. A cell that does not
exist has no outgoing arcs, so a band of cells is the same recursion.

Arrays of cells hold a whole group. An example has the frames from `begin` to `end`, and `labels` is its U.
"""

from .arcs import departing, ending
from .cells import CLOSED, arc_posterior, at_most_one, lowest_of, tiny_of
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .pairs import from_lane_below
from .state import ArcPosteriors, CellState
from .step_sums import forward_step_sums, to_step_posteriors
from .sums import sums
from .sweeps import forward, to_posteriors


@cpu_sweep
def forward_cpu(begin, end, starts, labels, first, offset, moves, blank_score, label_score, alpha, log_z):
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    for n in range(begin, end):
        log_z[n] = forward(starts[n], starts[n + 1], labels[n], first, offset, moves, False, True, state, alpha)


@cpu_sweep
def posteriors_cpu(begin, end, starts, labels, first, offset, moves, blank_score, label_score, alpha, log_z, tiny):
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    for n in range(begin, end):
        to_posteriors(starts[n], starts[n + 1], labels[n], first, offset, moves, state, alpha, log_z[n], tiny)


@cuda_kernel
def posteriors_cuda(
    starts, labels, example, first, offset, monotonic, blank_score, label_score, alpha, beta, log_z, lowest
):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    n = example[f]
    for c in range(offset[f] + cuda.threadIdx.x % WARP, offset[f + 1], WARP):
        if log_z[n] == CLOSED:
            blank_score[c], label_score[c] = 0, 0
        else:
            u = first[f] + c - offset[f]
            stay, step = departing(
                f, starts[n + 1], u, c, labels[n], first, offset, monotonic, blank_score, label_score, beta
            )
            arrive = alpha[c] - log_z[n]
            blank_score[c], label_score[c] = arc_posterior(arrive + stay, lowest), arc_posterior(arrive + step, lowest)


@cuda_kernel
def posteriors_paired_cuda(
    starts, labels, example, first, offset, blank_score, label_score, alpha, beta, log_z, lowest
):
    f = cuda.grid(1) // WARP
    if f >= example.shape[0]:
        return
    n, carried = example[f], 0.0
    # The loop is the same for all lanes, so each shuffle has the whole warp.
    for begin in range(offset[f], offset[f + 1], WARP):
        c = begin + cuda.threadIdx.x % WARP
        blank, label = 0.0, 0.0
        if c < offset[f + 1] and log_z[n] != CLOSED:
            u = first[f] + c - offset[f]
            stay, step = departing(
                f, starts[n + 1], u, c, labels[n], first, offset, True, blank_score, label_score, beta
            )
            step += ending(blank_score, c, offset[f + 1])
            arrive = alpha[c] - log_z[n]
            blank, label = arc_posterior(arrive + stay, lowest), arc_posterior(arrive + step, lowest)
        before, carried = from_lane_below(label, carried)
        # Posteriors take the place of scores, which the lane below has read too.
        cuda.syncwarp()
        if c < offset[f + 1]:
            blank_score[c], label_score[c] = at_most_one(blank + before), label


def forward_sums(frames, moves, blank_score, label_score, alpha, log_z, beta=None, steps=None):
    """Sum over all alignments of every example; the scores stay.

    Parameters
    ----------
    frames : lattice.layout.Frames
    moves : Moves
    blank_score, label_score : (cells,) float32 or float64
        Scores of the arcs in nats.
    alpha : (cells,) float64
        Filled with the forward sums.
    log_z : (examples,) float64
        Filled with the sums over alignments in nats, -inf where no alignment exists.
    beta : (cells,) float64, optional
        On a GPU: filled with the backward sums, for `to_arc_posteriors`.
    steps : StepScores, optional
        Where arcs take several frames.
    """
    if steps is not None:
        forward_step_sums(frames, steps, blank_score, label_score, alpha, log_z, beta)
    elif on_host(blank_score):
        arguments = *_lattices(frames, moves), blank_score, label_score, alpha, log_z
        sweep(forward_cpu, len(log_z), *arguments, work=32 * len(alpha), pieces=8)
    else:
        sums(frames, moves, blank_score, label_score, alpha, log_z, beta)


def to_arc_posteriors(
    frames, moves, blank_score, label_score, alpha, log_z, beta=None, steps=None
) -> ArcPosteriors:  # fmt: skip
    """Turn scores into posteriors, behind `forward_sums` with the same arguments.

    Returns
    -------
    posteriors : ArcPosteriors
        In the memory of the scores, which are gone. All 0 where no alignment exists. In the memory of the steps' scores
        are the posteriors of all arcs that take them.
    """
    if steps is not None:
        return to_step_posteriors(frames, steps, blank_score, label_score, alpha, log_z, beta)
    known = blank_score, label_score, alpha
    if on_host(blank_score):
        arguments = *_lattices(frames, moves), *known, log_z, tiny_of(blank_score)
        sweep(posteriors_cpu, len(log_z), *arguments, work=32 * len(alpha), pieces=8)
    else:
        lattices = frames.starts, frames.labels, frames.example, frames.first, frames.offset
        rest = beta, log_z, lowest_of(blank_score)
        if moves.paired:
            by_warp(posteriors_paired_cuda, len(frames.example), *lattices, *known, *rest)
        else:
            by_warp(posteriors_cuda, len(frames.example), *lattices, moves.monotonic, *known, *rest)
    return ArcPosteriors(blank_score, label_score)


def forward_backward(
    frames, moves, blank_score, label_score, alpha, log_z, beta=None, steps=None
) -> ArcPosteriors:  # fmt: skip
    """`forward_sums`, and then `to_arc_posteriors`."""
    arguments = frames, moves, blank_score, label_score, alpha, log_z, beta, steps
    forward_sums(*arguments)
    return to_arc_posteriors(*arguments)


def _lattices(frames, moves):
    return frames.starts, frames.labels, frames.first, frames.offset, moves
