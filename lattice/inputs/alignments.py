"""What the integer tools on alignments are given -> frozen Problems: frames in order, ids that spell their targets."""

import math
from dataclasses import dataclass

import numpy as np

from ..device import arrays
from ..device.memory import Cuda, Host, device_of
from ..topology import Moves, read_name, read_topology
from .checks import index, read_choice, read_integer, read_integers, read_lengths, refuse
from .ctc import KEEPS
from .targets import read_targets

FRAME_WISE = ("ctc", "monotonic")
"""The topologies with one id a frame."""
LARGEST = 2**31 - 1
"""Frames and ids are given back as int32."""
MOST_FRAMES, WEEK = 1 << 24, "a week and more of audio"
"""Results are as long as the longest length, and a length that is garbage must not take the machine's memory."""


@dataclass(frozen=True)
class FramesProblem:
    """Alignments as the frames of their labels, on the host.

    Attributes
    ----------
    like : array
        The first argument as it was given. Results are of its kind, and on its `device`.
    frames : (B, U) int64
        -1 beyond a target's length.
    frame_lengths, target_lengths : (B,) int64
    moves : Moves
    """

    device: Host | Cuda
    like: object
    frames: np.ndarray
    frame_lengths: np.ndarray
    target_lengths: np.ndarray
    moves: Moves


@dataclass(frozen=True)
class IdsProblem:
    """Alignments as one id for each frame, on the host.

    Attributes
    ----------
    like : array
        As in FramesProblem.
    ids : (B, T) int32 or int64
    targets : (B, longest U_b, at least 1) int32
    frame_lengths, target_lengths : (B,) int64
    blank_id : int
    merged, keep_last : bool
        Whether a run of one id is one label, and whether its last frame is the label's or its first.
    label_axis : int
        U, the size of the targets' second axis.
    """

    device: Host | Cuda
    like: object
    ids: np.ndarray
    targets: np.ndarray
    frame_lengths: np.ndarray
    target_lengths: np.ndarray
    blank_id: int
    merged: bool
    keep_last: bool
    label_axis: int


def read_frames(
    frames, frame_lengths, target_lengths, *, monotonic: bool, owner: str, lengths_name="encoder_lengths", ordered=True
) -> np.ndarray:
    """The frame of each label, in range and in the topology's order.

    Parameters
    ----------
    frames : array
        (B, U), U at least the longest target. What lies beyond a target's length is not read.
    frame_lengths, target_lengths : (B,) int64
        Checked before.
    monotonic : bool
        A label takes a frame of its own, so frames increase from label to label. Otherwise they never decrease.
    owner, lengths_name : str
        Where B comes from, and what `frame_lengths` are called.
    ordered : bool
        False if monotonic frames are only to be made out of these, which then never decrease.

    Returns
    -------
    frames : (B, U) int64
        -1 beyond a target's length.
    """
    frames = read_integers(frames, "frames", (len(target_lengths), None), f"(B, U) for {owner}")
    longest = int(target_lengths.max(initial=0))
    if frames.shape[1] < longest:
        raise ValueError(f"frames has shape {frames.shape}, expected at least {longest} labels, the longest target")
    step = int(monotonic and ordered)  # frames from a label to the next, at least
    real = np.arange(frames.shape[1]) < target_lengths[:, None]  # (B, U)

    def too_many(at):
        expected = f"expected at most {frame_lengths[at]}, {lengths_name}{index(at)}: a label takes a frame of its own"
        return f"target_lengths{index(at)} is {target_lengths[at]}, {expected}"

    def out_of_range(at):
        b = at[0]
        found = f"frames{index(at)} is {frames[at]}, expected 0 to {frame_lengths[b] - 1}, {lengths_name}[{b}] less one"
        # What our own alignments give for an example without one.
        return f"{found}: -1 stands for no alignment, and example {b} is to be left out" if frames[at] == -1 else found

    def out_of_order(at):
        b, u = at
        found = f"frames[{b}, {u + 1}] is {frames[b, u + 1]}, expected at least {frames[b, u] + step}"
        why = "a label takes a frame of its own" if step else "frames never decrease"
        return f"{found} after frames[{b}, {u}] = {frames[b, u]}: {why}"

    if monotonic:
        refuse(target_lengths > frame_lengths, too_many)
    refuse(real & ((frames < 0) | (frames >= frame_lengths[:, None])), out_of_range)
    # (B, U - 1) each label but the first, beside the one before it. All are in range by now, so no sum overflows.
    refuse(real[:, 1:] & (frames[:, 1:] < frames[:, :-1] + step), out_of_order)
    return np.where(real, frames, -1).astype(np.int64)


def read_alignments(
    frames, frame_lengths, target_lengths, *, topology, lengths_name: str, ordered=True
) -> FramesProblem:
    """Check the arguments of `alignment_bounds`; `ordered` as in `read_frames`."""
    like, array = frames, arrays.read(frames, "frames")
    # The one wait for a GPU. All work that follows is on the host, and results are uploaded to where `array` lies.
    given = {"frames": frames, lengths_name: frame_lengths, "target_lengths": target_lengths}
    frames, frame_lengths, target_lengths = arrays.to_host(**given)
    moves = read_topology(topology).moves
    B, U = shape = read_integers(frames, "frames", (None, None), "(B, U)").shape
    owner, source = f"frames {shape}", f"the size of frames {shape}"
    target_lengths = read_lengths(target_lengths, "target_lengths", B, low=0, high=U, source=source, owner=owner)
    lengths = read_lengths(frame_lengths, lengths_name, B, low=1, high=MOST_FRAMES, source=WEEK, owner=owner)
    frames = read_frames(
        frames,
        lengths,
        target_lengths,
        monotonic=moves.monotonic,
        owner=owner,
        lengths_name=lengths_name,
        ordered=ordered,
    )
    return FramesProblem(device_of(array), like, frames, lengths, target_lengths, moves)


def read_margin(value, name: str) -> int:
    """Frames to one side of an alignment, at least 0 and of any size."""
    value = read_integer(value, name)
    if value < 0:
        raise ValueError(f"{name} is {value}, expected at least 0 frames")
    return value


def read_known_blank(blank) -> int:
    """The blank's id where the vocabulary's size is not known, so that a negative one has nothing to count from."""
    blank = read_integer(blank, "blank")
    if not 0 <= blank <= LARGEST:
        raise ValueError(
            f"blank is {blank}, expected 0 to {LARGEST}: to count from the end takes the vocabulary's size"
        )
    return blank


def read_labels(frames, targets, lengths, target_lengths, *, blank, topology):
    """Check the arguments of `frames_to_ids`.

    Returns
    -------
    problem : FramesProblem
    targets : (B, longest U_b, at least 1) int32
    blank : int
    """
    like, array = frames, arrays.read(frames, "frames")
    # The one wait for a GPU.
    frames, targets, lengths, target_lengths = arrays.to_host(
        frames=frames, targets=targets, lengths=lengths, target_lengths=target_lengths
    )
    parted = read_name(topology, FRAME_WISE) == "ctc"
    blank, shape = read_known_blank(blank), read_integers(frames, "frames", (None, None), "(B, U)").shape
    (B, U), owner, source = shape, f"frames {shape}", f"the size of frames {shape}"
    targets, _, target_lengths = read_targets(
        targets, target_lengths, blank, None, count=B, size=LARGEST + 1, label_axis=U, label_source=source, owner=owner
    )
    lengths = read_lengths(lengths, "lengths", B, low=1, high=MOST_FRAMES, source=WEEK, owner=owner)
    # A frame holds one id, so labels take frames of their own in both topologies.
    frames = read_frames(frames, lengths, target_lengths, monotonic=True, owner=owner, lengths_name="lengths")
    if parted:
        # (B, fewer of the columns of both): targets are cut to the longest, with 0 behind it, where frames are -1.
        label, place = targets[:, :U], frames[:, : targets.shape[1]]
        touch = (label[:, 1:] == label[:, :-1]) & (place[:, 1:] == place[:, :-1] + 1)

        def unparted(at):
            b, u = at
            found = f"frames[{b}, {u + 1}] is {place[b, u + 1]}, expected at least {place[at] + 2}"
            why = f"both labels are {label[at]}, and a blank must part them"
            return f"{found} after frames[{b}, {u}] = {place[at]}: {why}"

        refuse(touch, unparted)
    moves = read_topology("monotonic").moves
    return FramesProblem(device_of(array), like, frames, lengths, target_lengths, moves), targets, blank


def read_ids(ids, targets, lengths, target_lengths, *, blank, topology, keep) -> IdsProblem:
    """Check the arguments of `ids_to_frames`, but for what the ids spell, which `check_spelling` does."""
    like, array = ids, arrays.read(ids, "ids")
    # The one wait for a GPU.
    ids, targets, lengths, target_lengths = arrays.to_host(
        ids=ids, targets=targets, lengths=lengths, target_lengths=target_lengths
    )
    merged = read_name(topology, FRAME_WISE) == "ctc"
    keep_last = read_choice(keep, "keep", KEEPS) == "last"
    blank, ids = read_known_blank(blank), read_integers(ids, "ids", (None, None), "(B, T)")
    (B, T), owner = ids.shape, f"ids {ids.shape}"
    # Ids have no label axis, so only the array of targets bounds the length of a target.
    positions, _, U = read_targets(
        targets,
        target_lengths,
        blank,
        None,
        count=B,
        size=LARGEST + 1,
        label_axis=math.inf,
        label_source="",
        owner=owner,
    )
    lengths = read_lengths(lengths, "lengths", B, low=1, high=T, source=f"axis 1 of ids {ids.shape}", owner=owner)
    outside = (np.arange(T) < lengths[:, None]) & ((ids < 0) | (ids > LARGEST))  # (B, T)
    refuse(outside, lambda at: f"ids{index(at)} is {ids[at]}, expected 0 to {LARGEST}")
    columns = arrays.read(targets, "targets").shape[1]  # U of the result (B, U), padding included
    return IdsProblem(device_of(array), like, ids, positions, lengths, U, blank, merged, keep_last, columns)


def check_spelling(problem: IdsProblem, example, t) -> None:
    """Refuse ids that do not spell their target.

    Parameters
    ----------
    problem : IdsProblem
    example, t : (n,) int64
        Where labels were found, in order of examples and of frames.
    """
    targets, U = problem.targets, problem.target_lengths
    wrong = np.bincount(example, minlength=len(U)) != U  # (B,) too few labels, or too many
    if not wrong.any():
        # With the right count in each example, labels found and labels expected stand in one order.
        real = np.arange(targets.shape[1]) < U[:, None]
        wrong[example[problem.ids[example, t] != targets[real]]] = True
    if wrong.any():
        b = int(np.argmax(wrong))
        found, expected = problem.ids[b, t[example == b]], targets[b, : U[b]]
        shared = min(len(found), len(expected))
        differ = np.flatnonzero(found[:shared] != expected[:shared])
        if len(differ):
            u = int(differ[0])
            what = f"label {u} is {found[u]}, in frame {t[example == b][u]}, expected targets[{b}, {u}] = {expected[u]}"
        else:
            # One is the other's beginning.
            what = f"found {len(found)} labels, expected {len(expected)}, target_lengths[{b}]"
        raise ValueError(f"ids[{b}] do not spell the target: {what}")
