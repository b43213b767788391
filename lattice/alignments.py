"""Alignments as whole numbers: bounds round them, frame-wise ids, shifts. Computed on the host, wherever the arrays are."""

from typing import Literal

import numpy as np

from .annotations import A, Array, Keep, Topology
from .device import arrays
from .device.memory import HOST
from .inputs import alignments as inputs_alignments
from .inputs import checks


def alignment_bounds(
    frames: A, target_lengths: Array, encoder_lengths: Array, *, left: int, right: int, topology: Topology = "rnnt",
) -> tuple[A, A]:  # fmt: skip
    """Bounds that keep a lattice near an alignment: the alignment-restricted transducer (Mahadeokar et al. 2021).

    With these as `bounds` of a loss, label u can be emitted at frame t only if `frames[u] - left <= t <= frames[u] + right`, and
    every alignment of which that holds is summed. Width 0 keeps the given alignment alone: its cells are one a frame,
    `first = last = #(frames < t)`, where the topology is "monotonic"; where it is "rnnt" those from `first = #(frames < t)` to
    `last = #(frames <= t)`, since a frame holds as many labels as the alignment has there.

    Parameters
    ----------
    frames : (B, U) int32 or int64
        The frame of each label, 0 to T_b - 1; never decreasing with "rnnt", increasing with "monotonic". Entries beyond a
        target's length may hold anything.
    target_lengths, encoder_lengths : (B,) int32 or int64
        0 <= U_b <= U and 1 <= T_b; with "monotonic" also U_b <= T_b.
    left, right : int
        At least 0, of any size: frames by which a label may come earlier, and later.
    topology : {"rnnt", "monotonic"}
        As in `transducer_loss`.

    Returns
    -------
    first, last : (B, T) int32, T the largest encoder length
        First and last label position, inclusive, that exist at each frame; of no account beyond an encoder length. In the kind of
        `frames`, on its device.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. Frames of -1 (no alignment) are refused: leave such examples out.

    Notes
    -----
    Computed on the host: arrays on a GPU are waited for once. Beside a copy of the arguments it
    allocates about 25 bytes for each frame and 60 for each label.

    References
    ----------
    Mahadeokar et al. 2021, arXiv 2011.03072.
    """
    left, right = inputs_alignments.read_margin(left, "left"), inputs_alignments.read_margin(right, "right")
    problem = inputs_alignments.read_alignments(frames, encoder_lengths, target_lengths, topology, lengths_name="encoder_lengths")
    first, last = around(problem.frames, problem.frame_lengths, left, right, problem.monotonic)
    return _give_back(problem, first, last)


def ids_to_frames(
    ids: A, targets: Array, lengths: Array, target_lengths: Array, *, blank: int = 0,
    topology: Literal["ctc", "monotonic"] = "ctc", keep: Keep = "last",
) -> A:  # fmt: skip
    """The frame of each label in frame-wise ids, as an external aligner gives them.

    Parameters
    ----------
    ids : (B, T) int32 or int64
        One id for each frame: a label of the target, in order, or the blank. Entries beyond a length may hold anything.
    targets : (B, U) int32 or int64
        Label ids, never `blank`; entries beyond a target's length may hold anything.
    lengths, target_lengths : (B,) int32 or int64
        1 <= T_b <= T and 0 <= U_b <= U.
    blank : int
        At least 0: the size of the vocabulary, from whose end a negative one would count, is not known here.
    topology : {"ctc", "monotonic"}
        What the ids mean. "ctc": a run of one id is one label, a blank parts equal labels (Graves et al. 2006). "monotonic":
        each frame that is not blank is one label.
    keep : {"last", "first"}
        The frame of its run that a label keeps with "ctc". The last one makes peaky alignments as Viterbi training wants them
        (Zhou et al. 2022): a label is emitted once its sound has been heard.

    Returns
    -------
    frames : (B, U) int32
        Increasing, so alignments of both topologies of `transducer_loss`; -1 beyond a target's length. In the kind of `ids`, on
        its device.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound; of ids that do not spell the target, where they leave it.

    Notes
    -----
    Computed on the host: arrays on a GPU are waited for once. Beside a copy of the arguments it
    allocates about 2 bytes for each frame and 30 for each label.

    References
    ----------
    Graves et al. 2006 ("ctc"); Zhou et al. 2022, arXiv 2204.10586 (peaky alignments).
    """
    problem = inputs_alignments.read_ids(ids, targets, lengths, target_lengths, blank, topology, keep)
    spelt = problem.ids
    emits = (np.arange(spelt.shape[1]) < problem.frame_lengths[:, None]) & (spelt != problem.blank)
    if problem.merged:
        lasts = emits[:, 1:] & (spelt[:, 1:] == spelt[:, :-1])
        dropped = emits[:, :-1] if problem.keep_last else emits[:, 1:]
        dropped &= ~lasts
    example, t = np.nonzero(emits)
    inputs_alignments.check_spelling(problem, example, t)
    frames = _filled((len(spelt), problem.label_axis), -1)
    frames[np.arange(problem.label_axis) < problem.target_lengths[:, None]] = t
    return _give_back(problem, frames)[0]


def frames_to_ids(
    frames: A, targets: Array, lengths: Array, target_lengths: Array, *, blank: int = 0, topology: Topology = "monotonic",
) -> A:  # fmt: skip
    """One id for each frame: the label that is emitted there, or the blank; targets of a frame-wise cross-entropy, for one.

    Parameters
    ----------
    frames : (B, U) int32 or int64
        The frame of each label, 0 to T_b - 1, increasing: a frame holds one label. Entries beyond a target's length may hold
        anything.
    targets : (B, U) int32 or int64
        Label ids, never `blank`; entries beyond a target's length may hold anything.
    lengths, target_lengths : (B,) int32 or int64
        1 <= T_b and 0 <= U_b <= U.
    blank : int
        At least 0: the size of the vocabulary, from whose end a negative one would count, is not known here.
    topology : {"monotonic", "ctc"}
        How the ids will be read. "ctc" merges runs of one id, so there equal labels in neighbouring frames are refused.

    Returns
    -------
    ids : (B, T) int32, T the largest length
        -1 beyond a length. In the kind of `frames`, on its device. `ids_to_frames` of the same topology gives `frames` again.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. Frames of -1 (no alignment) are refused: leave such examples out.

    Notes
    -----
    Computed on the host: arrays on a GPU are waited for once. Beside a copy of the arguments it
    allocates about 5 bytes for each frame and 40 for each label.

    References
    ----------
    As in `ids_to_frames`.
    """
    problem, labels, blank = inputs_alignments.read_labels(frames, targets, lengths, target_lengths, blank, topology)
    T = int(problem.frame_lengths.max(initial=0))
    ids = _filled((len(labels), T), -1)
    ids[np.arange(T) < problem.frame_lengths[:, None]] = blank
    example, u = np.nonzero(problem.frames >= 0)
    ids[example, problem.frames[example, u]] = labels[example, u]
    return _give_back(problem, ids)[0]


def shift_frames(frames: A, lengths: Array, target_lengths: Array, shift: int, *, topology: Topology = "monotonic") -> A:
    """Alignments with every label moved, then pushed just as far as needed to be alignments still.

    Each label goes to the first frame, from the one it is moved to on, that the labels before it leave free; where too few frames
    are left for the labels after it, to the last frame that leaves enough. Without a shift, "monotonic" turns an alignment of the
    "rnnt" topology, in which labels share frames, into one in which each has a frame of its own.

    Parameters
    ----------
    frames : (B, U) int32 or int64
        The frame of each label, 0 to T_b - 1, never decreasing, in either topology. Entries beyond a target's length may hold
        anything.
    lengths, target_lengths : (B,) int32 or int64
        1 <= T_b and 0 <= U_b <= U; with "monotonic" also U_b <= T_b.
    shift : int
        Frames to move by, of any size; negative ones are earlier.
    topology : {"monotonic", "rnnt"}
        Labels increase by a frame at least, or share frames, in the result.

    Returns
    -------
    frames : (B, U) int32
        -1 beyond a target's length. In the kind of `frames`, on its device.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound. Frames of -1 (no alignment) are refused: leave such examples out.

    Notes
    -----
    Computed on the host: arrays on a GPU are waited for once. Beside a copy of the arguments it
    allocates about 40 bytes for each label.

    References
    ----------
    The rule is the library's own; what for: Zhou et al. 2022, arXiv 2204.10586.
    """
    shift = checks.read_integer(shift, "shift")
    problem = inputs_alignments.read_alignments(frames, lengths, target_lengths, topology, lengths_name="lengths", ordered=False)
    T, U = problem.frame_lengths[:, None], problem.target_lengths[:, None]
    farthest = int(T.max(initial=0))
    shifted = problem.frames + max(-farthest, min(shift, farthest))
    if problem.monotonic:
        # Less its position, a label's frame may be that of the label before it.
        u = np.arange(shifted.shape[1])
        shifted = np.clip(np.maximum.accumulate(shifted - u, axis=1), 0, T - U) + u
    else:
        shifted = np.clip(shifted, 0, T - 1)
    moved = _filled(shifted.shape, -1)
    np.copyto(moved, shifted, casting="same_kind", where=problem.frames >= 0)
    return _give_back(problem, moved)[0]


def around(frames, frame_lengths, left: int, right: int, monotonic: bool):
    """`alignment_bounds` of frames (B, U) that were checked, -1 beyond a target's length."""
    T = int(frame_lengths.max(initial=0))
    real = frames >= 0
    example, emitted = np.nonzero(real)[0], frames[real]
    late, early = emitted + min(right, T) + 1, emitted - min(left, T)
    if monotonic:
        early = early + 1  # a label that consumes its frame is behind in the next one
    return tuple(_count(example, np.clip(since, 0, T), len(real), T) for since in (late, early))


def _count(example, since, B: int, T: int):
    """(B, T) int32: how many of an example's labels have `since`, 0 to T, at or before each frame."""
    begun = np.bincount(example * (T + 1) + since, minlength=B * (T + 1)).reshape(B, T + 1)
    counts = HOST.empty((B, T), np.int32)
    np.cumsum(begun[:, :T], axis=1, out=counts)
    return counts


def _filled(shape, value: int):
    output = HOST.empty(shape, np.int32)
    output.fill(value)
    return output


def _give_back(problem, *results):
    """Results in the kind of the first argument, on its device."""
    with problem.device.active():
        return tuple(arrays.give_back(output, problem.like) for output in problem.device.upload(None, *results))
