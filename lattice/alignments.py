"""Alignments as whole numbers: bounds round them, frame-wise ids, shifts.

All of it is computed on the host, wherever the arrays lie.
"""

from typing import Literal

from . import aligned_frames
from .annotations import A, Array, Keep, TopologyLike
from .device import arrays
from .inputs.alignments import check_spelling, read_alignments, read_ids, read_labels, read_margin
from .inputs.checks import read_integer
from .topology import Topology


def alignment_bounds(
    frames: A, target_lengths: Array, encoder_lengths: Array, *, left: int, right: int, topology: TopologyLike = "rnnt",
) -> tuple[A, A]:  # fmt: skip
    """Bounds that keep a lattice near an alignment, for an alignment-restricted transducer (Mahadeokar et al. 2021).

    With these as `bounds` of a loss, label u can be emitted at frame t only if
    `frames[u] - left <= t <= frames[u] + right`. The loss then sums over every alignment for which this holds.

    Width 0 keeps only the given alignment. With "monotonic" it has one cell a frame, `first = last = #(frames < t)`.
    With "rnnt" a frame may hold several labels. Its cells are then those from `first = #(frames < t)` to
    `last = #(frames <= t)`. So they are with "constrained", of which each label has one more cell for its blank.

    Parameters
    ----------
    frames : (B, U) int32 or int64
        The frame of each label, 0 to T_b - 1. Frames never decrease with "rnnt", and else increase. Entries
        beyond a target's length may hold anything.
    target_lengths, encoder_lengths : (B,) int32 or int64
        0 <= U_b <= U and 1 <= T_b. U_b <= T_b, but for "rnnt".
    left, right : int
        Frames by which a label may come earlier, and later. At least 0, of any size.
    topology : {"rnnt", "monotonic", "constrained"} or Topology
        As in `transducer_loss`, but for "tdt" and "multiblank", which are refused.

    Returns
    -------
    first, last : (B, T) int32, T the largest encoder length
        First and last label position, inclusive, that exist at each frame. They mean nothing beyond an encoder length.
        In the kind of `frames`, on its device.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. Frames of -1 (no alignment) are refused, so leave such
        examples out.

    Notes
    -----
    Computed on the host, which waits once for arrays on a GPU. Beside a copy of the arguments it
    allocates about 25 bytes for each frame and 60 for each label.

    References
    ----------
    Mahadeokar et al. 2021, arXiv 2011.03072.
    """
    left, right = read_margin(left, "left"), read_margin(right, "right")
    problem = read_alignments(
        frames, encoder_lengths, target_lengths, topology=topology, lengths_name="encoder_lengths"
    )
    first, last = aligned_frames.around(problem.frames, problem.frame_lengths, left, right, problem.moves)  # (B, T)
    return _give_back(problem, first, last)


def ids_to_frames(
    ids: A, targets: Array, lengths: Array, target_lengths: Array, *, blank: int = 0,
    topology: Literal["ctc", "monotonic"] | Topology = "ctc", keep: Keep = "last",
) -> A:  # fmt: skip
    """The frame of each label in frame-wise ids, as an external aligner gives them.

    Parameters
    ----------
    ids : (B, T) int32 or int64
        One id for each frame, a label of the target, in order, or the blank. Entries beyond a length may hold anything.
    targets : (B, U) int32 or int64
        Label ids, never `blank`. Entries beyond a target's length may hold anything.
    lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T and 0 <= U_b <= U.
    blank : int
        At least 0. The size of the vocabulary is not known here, so a negative id has no end to count from.
    topology : {"ctc", "monotonic"} or Topology
        What the ids mean. With "ctc" a run of one id is one label, and a blank parts equal labels (Graves et al. 2006).
        With "monotonic" each frame that is not blank is one label. No other topology is taken.
    keep : {"last", "first"}
        The frame of its run that a label keeps with "ctc". The last frame makes peaky alignments as Viterbi training
        wants them (Zhou et al. 2022), in which a label is emitted once its sound has been heard.

    Returns
    -------
    frames : (B, U) int32
        Increasing, so they are alignments of both topologies of `transducer_loss`. -1 beyond a target's length. In the
        kind of `ids`, on its device.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. For ids that do not spell the target, the text says
        where they leave it.

    Notes
    -----
    Computed on the host, which waits once for arrays on a GPU. Beside a copy of the arguments it
    allocates about 2 bytes for each frame and 30 for each label.

    References
    ----------
    Graves et al. 2006 ("ctc"); Zhou et al. 2022, arXiv 2204.10586 (peaky alignments).
    """
    problem = read_ids(ids, targets, lengths, target_lengths, blank=blank, topology=topology, keep=keep)
    example, t = aligned_frames.emitting(problem)  # (labels,) each, of all examples
    # From here on each example has as many labels as its target.
    check_spelling(problem, example, t)
    frames = aligned_frames.emitted(problem, t)  # (B, U)
    return _give_back(problem, frames)[0]


def frames_to_ids(
    frames: A, targets: Array, lengths: Array, target_lengths: Array, *,
    blank: int = 0, topology: Literal["ctc", "monotonic"] | Topology = "monotonic",
) -> A:  # fmt: skip
    """One id for each frame, the label that is emitted there or the blank, as for a frame-wise cross-entropy.

    Parameters
    ----------
    frames : (B, U) int32 or int64
        The frame of each label, 0 to T_b - 1. Frames increase, since a frame holds one label. Entries beyond a target's
        length may hold anything.
    targets : (B, U) int32 or int64
        Label ids, never `blank`. Entries beyond a target's length may hold anything.
    lengths, target_lengths : (B,) int32 or int64
        1 <= T_b and 0 <= U_b <= U.
    blank : int
        At least 0. The size of the vocabulary is not known here, so a negative id has no end to count from.
    topology : {"monotonic", "ctc"} or Topology
        How the ids will be read. "ctc" merges runs of one id, so there equal labels in neighbouring frames are refused.
        No other topology is taken.

    Returns
    -------
    ids : (B, T) int32, T the largest length
        -1 beyond a length. In the kind of `frames`, on its device. `ids_to_frames` of the same topology gives `frames`
        again.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. Frames of -1 (no alignment) are refused, so leave such
        examples out.

    Notes
    -----
    Computed on the host, which waits once for arrays on a GPU. Beside a copy of the arguments it
    allocates about 5 bytes for each frame and 40 for each label.

    References
    ----------
    As in `ids_to_frames`.
    """
    problem, labels, blank = read_labels(frames, targets, lengths, target_lengths, blank=blank, topology=topology)
    ids = aligned_frames.frame_wise(problem, labels, blank)  # (B, T)
    return _give_back(problem, ids)[0]


def shift_frames(
    frames: A, lengths: Array, target_lengths: Array, shift: int, *, topology: TopologyLike = "monotonic"
) -> A:
    """Alignments with every label moved, then pushed just as far as needed to be alignments still.

    A label looks for its frame from the frame that it is moved to. It takes the first frame that the labels before it
    leave free. Where this leaves too few frames for the labels after it, it takes the last frame that leaves enough.

    In an alignment of the "rnnt" topology labels may share a frame. With another one and a shift of 0, each label gets
    a frame of its own.

    Parameters
    ----------
    frames : (B, U) int32 or int64
        The frame of each label, 0 to T_b - 1, never decreasing, in every topology. Entries beyond a target's length
        may hold anything.
    lengths, target_lengths : (B,) int32 or int64
        1 <= T_b and 0 <= U_b <= U. U_b <= T_b, but for "rnnt".
    shift : int
        Frames to move by, of any size. A negative shift moves labels earlier.
    topology : {"monotonic", "rnnt", "constrained"} or Topology
        Of the result, in which labels may share frames ("rnnt"), or take frames of their own (the others). "tdt" and
        "multiblank" are refused.

    Returns
    -------
    frames : (B, U) int32
        -1 beyond a target's length. In the kind of `frames`, on its device.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. Frames of -1 (no alignment) are refused, so leave such
        examples out.

    Notes
    -----
    Computed on the host, which waits once for arrays on a GPU. Beside a copy of the arguments it
    allocates about 40 bytes for each label.

    References
    ----------
    The rule is the library's own. What it is for: Zhou et al. 2022, arXiv 2204.10586.
    """
    shift = read_integer(shift, "shift")
    # Labels that share a frame are what "monotonic" is given to part.
    problem = read_alignments(frames, lengths, target_lengths, topology=topology, lengths_name="lengths", ordered=False)
    moved = aligned_frames.shifted(problem, shift)  # (B, U)
    return _give_back(problem, moved)[0]


def _give_back(problem, *results):
    """Results in the kind of the first argument, on its device."""
    with problem.device.active():
        return tuple(arrays.give_back(output, problem.like) for output in problem.device.upload(None, *results))
