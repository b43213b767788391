"""alpha, beta, log_z and arc posteriors over two score arrays. Knows nothing of vocabularies, targets or logits.

The sums are float64 whatever the scores are. float32 near -7000 has steps of 5e-4, which is the gradient error of
implementations that keep alpha in float32 on long audio. The topology is two flags, `arcs.Moves`. A cell that does not
exist has no outgoing arcs, so a band of cells is the same recursion.

Arrays of cells hold a whole group. An example has the frames from `begin` to `end`, and `labels` is its U.
"""

from numba.extending import register_jitable

from .arcs import departing, ending
from .cells import CLOSED, lowest_of, posterior, tiny_of
from .launch import WARP, by_warp, cpu_sweep, cuda, cuda_kernel, on_host, sweep
from .pairs import from_lane_below
from .state import ArcPosteriors, CellState
from .sums import sums
from .sweeps import forward, to_posteriors


@cpu_sweep
def forward_backward_cpu(
    begin, end, starts, labels, first, offset, moves, blank_score, label_score, alpha, log_z, posteriors, tiny
):
    state = CellState(blank_score, label_score, blank_score, label_score)  # the last two are not read
    for n in range(begin, end):
        a, b = starts[n], starts[n + 1]
        log_z[n] = forward(a, b, labels[n], first, offset, moves, False, True, state, alpha)
        if posteriors:
            to_posteriors(a, b, labels[n], first, offset, moves, state, alpha, log_z[n], tiny)


@register_jitable
def arc_posterior(log_probability, lowest):
    """`posterior`, at most 1: of scores like -1e13 the digits behind the point are lost (`probability_of`)."""
    # A NaN is not above 0, so it stays.
    return posterior(0.0 if log_probability > 0.0 else log_probability, lowest)


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
            used = blank + before
            blank_score[c], label_score[c] = (1.0 if used > 1.0 else used), label


def forward_sums(frames, moves, blank_score, label_score, alpha, log_z):
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
    """
    if on_host(blank_score):
        _on_host(frames, moves, blank_score, label_score, alpha, log_z, posteriors=False)
    else:
        sums(frames, moves, blank_score, label_score, alpha, log_z)


def forward_backward(frames, moves, blank_score, label_score, alpha, log_z, beta=None) -> ArcPosteriors:
    """Sum over all alignments of every example, and turn scores into posteriors.

    Parameters
    ----------
    frames, moves, alpha, log_z
        As in `forward_sums`.
    blank_score, label_score : (cells,) float32 or float64
        Scores of the arcs in nats. What is returned lies in their memory, so they are gone.
    beta : (cells,) float64
        On a GPU: filled with the backward sums.

    Returns
    -------
    posteriors : ArcPosteriors
        All 0 where no alignment exists.
    """
    if on_host(blank_score):
        _on_host(frames, moves, blank_score, label_score, alpha, log_z, posteriors=True)
    else:
        sums(frames, moves, blank_score, label_score, alpha, log_z, beta)
        lattices = frames.starts, frames.labels, frames.example, frames.first, frames.offset
        known = blank_score, label_score, alpha, beta, log_z, lowest_of(blank_score)
        if moves.paired:
            by_warp(posteriors_paired_cuda, len(frames.example), *lattices, *known)
        else:
            by_warp(posteriors_cuda, len(frames.example), *lattices, moves.monotonic, *known)
    return ArcPosteriors(blank_score, label_score)


def _on_host(frames, moves, blank_score, label_score, alpha, log_z, *, posteriors: bool) -> None:
    lattices = frames.starts, frames.labels, frames.first, frames.offset, moves, blank_score, label_score, alpha
    known = log_z, posteriors, tiny_of(blank_score)
    sweep(forward_backward_cpu, len(log_z), *lattices, *known, work=64 * len(alpha), pieces=8)
