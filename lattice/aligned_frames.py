"""The integers behind alignments: bounds round them, frame-wise ids and back, shifts. All on the host, and checked."""

import numpy as np

from .device.memory import HOST
from .inputs.alignments import FramesProblem, IdsProblem
from .topology import Moves


def filled(shape: tuple[int, int], value: int):
    """A fresh int32 output."""
    output = HOST.empty(shape, np.int32)
    output.fill(value)
    return output


def around(frames, frame_lengths, left: int, right: int, moves: Moves):
    """`alignment_bounds` of frames (B, U), -1 beyond a target's length: first and last position, (B, T) int32 each."""
    T = int(frame_lengths.max(initial=0))
    real = frames >= 0  # (B, U)
    # (labels,) of all examples: the frame after which a label cannot be later, and the one from which it can be
    # emitted.
    example, frame = np.nonzero(real)[0], frames[real]
    # Beyond T frames a margin changes nothing, and might overflow.
    late, early = frame + min(right, T) + 1, frame - min(left, T)
    if moves.monotonic and not moves.paired:
        # A label that consumes its frame is behind in the next one. In a pair it is behind at once, for its blank.
        early = early + 1
    return tuple(_begun(example, np.clip(since, 0, T), len(real), T) for since in (late, early))


def _begun(example, since, B: int, T: int):
    """(B, T) int32: how many of an example's labels have `since`, 0 to T, at or before each frame."""
    # T + 1 counters an example; the last counts the labels that never begin.
    begun = np.bincount(example * (T + 1) + since, minlength=B * (T + 1)).reshape(B, T + 1)
    counts = HOST.empty((B, T), np.int32)
    np.cumsum(begun[:, :T], axis=1, out=counts)
    return counts


def emitting(problem: IdsProblem):
    """(example, t), (labels,) int64 each: the frames that stand for a label, in order."""
    ids = problem.ids  # (B, T)
    emits = (np.arange(ids.shape[1]) < problem.frame_lengths[:, None]) & (ids != problem.blank_id)
    if problem.merged:
        # A run of one id is one label: all of its frames but the one that is kept emit nothing.
        goes_on = emits[:, 1:] & (ids[:, 1:] == ids[:, :-1])
        dropped = emits[:, :-1] if problem.keep_last else emits[:, 1:]
        dropped &= ~goes_on
    return np.nonzero(emits)


def emitted(problem: IdsProblem, t):
    """(B, U) int32: frames `t` (labels,) of all labels in order, -1 beyond each target."""
    frames = filled((len(problem.ids), problem.label_axis), -1)
    frames[np.arange(problem.label_axis) < problem.target_lengths[:, None]] = t
    return frames


def frame_wise(problem: FramesProblem, labels, blank_id: int):
    """(B, T) int32: the label (of `labels`, (B, U)) of each frame or the blank, -1 beyond each length."""
    T = int(problem.frame_lengths.max(initial=0))
    ids = filled((len(labels), T), -1)
    ids[np.arange(T) < problem.frame_lengths[:, None]] = blank_id
    example, u = np.nonzero(problem.frames >= 0)
    ids[example, problem.frames[example, u]] = labels[example, u]
    return ids


def shifted(problem: FramesProblem, shift: int):
    """(B, U) int32: frames moved, then pushed just as far as needed to be an alignment still; -1 beyond each target."""
    T, U = problem.frame_lengths[:, None], problem.target_lengths[:, None]
    farthest = int(T.max(initial=0))
    # A shift may be any integer. Beyond T frames it changes nothing, and might overflow.
    moved = problem.frames + max(-farthest, min(shift, farthest))
    if problem.moves.monotonic:
        # Less their positions, frames only have to be in order, and two may be equal. What lies beyond a target comes
        # last, so it pushes no label.
        u = np.arange(moved.shape[1])
        moved = np.clip(np.maximum.accumulate(moved - u, axis=1), 0, T - U) + u
    else:
        moved = np.clip(moved, 0, T - 1)
    frames = filled(moved.shape, -1)
    np.copyto(frames, moved, casting="same_kind", where=problem.frames >= 0)
    return frames
