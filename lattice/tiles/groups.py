"""Groups of examples that are worked on at once: their cells numbered, the rows those are made of, the vocabularies in use."""

from typing import NamedTuple

import numpy as np

from .. import layout
from ..device.arrays import computing_dtype
from ..inputs.joint import JointProblem
from ..kernels.rows import gather


class Group(NamedTuple):
    """Examples `begin` to `end` of the order of work, worked on at once: their frames, and the rows their cells are made of.

    `examples` and `frames` are on the host; all that follows is where the kernels want it, `index` is `frames` again.
    """

    begin: int
    end: int
    examples: np.ndarray
    frames: layout.Frames
    index: layout.Frames
    example: np.ndarray
    source: np.ndarray
    encoder: np.ndarray
    predictor: np.ndarray
    encoder_row: np.ndarray
    predictor_row: np.ndarray
    frame_base: np.ndarray
    label_base: np.ndarray
    positions: np.ndarray
    vocabulary: list[np.ndarray]


class Segment(NamedTuple):
    """Examples `begin` to `end` of a group share an output layer; `ids` are its rows of the whole weight, None for all."""

    begin: int
    end: int
    ids: np.ndarray | None
    blank: int
    weight: np.ndarray
    bias: np.ndarray


def widens(problem: JointProblem) -> bool:
    """Whether a group holds copies of its rows in the dtype that is computed in; the kernels of a GPU read half precision."""
    return not problem.device.on_gpu and problem.encoder.dtype != computing_dtype(problem.weight.dtype)


def number(problem: JointProblem, order: np.ndarray, begin: int, end: int, space) -> Group:
    """Number the cells of examples `begin` to `end` of the order of work.

    Parameters
    ----------
    order : (N,) int64
    space : Workspace
        What the kernels of a device read is put there; the host needs it for widened rows alone.
    """
    targets = problem.targets
    examples = order[begin:end]
    frames = layout.frames_of(examples, targets.frame_lengths, targets.target_lengths, targets.monotonic, targets.bounds)
    source = examples if problem.encoder_index is None else problem.encoder_index[examples]
    T_max, U1, H = problem.encoder.shape[1], problem.predictor.shape[1], problem.weight.shape[1]
    encoder_row = source[frames.example] * T_max + frames.t
    counts = frames.labels.astype(np.int64) + 1
    label_base = np.append(0, np.cumsum(counts))
    owner = np.repeat(np.arange(len(examples)), counts)
    predictor_row = examples[owner] * U1 + np.arange(len(owner)) - label_base[owner]
    encoder, predictor = problem.encoder.reshape(-1, H), problem.predictor.reshape(-1, H)
    if widens(problem):
        dtype = computing_dtype(problem.weight.dtype)
        encoder, encoder_row = _widen(encoder, encoder_row, frames.starts, dtype, space)
        predictor, predictor_row = _widen(predictor, predictor_row, label_base, dtype, space)
    vocabulary = [] if problem.vocabulary is None else [problem.vocabulary[n] for n in examples]
    index, rest = frames.on(
        problem.device, space, examples, source, encoder_row, predictor_row, np.arange(len(encoder_row)), label_base,
        targets.positions[examples], *vocabulary,
    )  # fmt: skip
    return Group(begin, end, examples, frames, index, *rest[:2], encoder, predictor, *rest[2:7], rest[7:])


def _widen(source, rows, starts, dtype, space):
    wide = space.take((len(rows), source.shape[1]), dtype)
    for begin, end in zip(starts[:-1], starts[1:]):
        wide[begin:end] = source[rows[begin] : rows[begin] + end - begin]
    return wide, np.arange(len(rows))


def segments(group: Group, problem: JointProblem, weight, bias, space, span=None):
    """Split a group where the vocabulary changes; the rows of a vocabulary are gathered for as long as it is in use.

    With a `span`, a first cell and the one behind the last, segments without any of these cells are left out.
    """
    blanks = problem.targets.blank[group.examples]
    if problem.vocabulary is None:
        if len(blanks):
            yield Segment(0, len(group.examples), None, int(blanks[0]), weight, bias)
        return
    ids = [problem.vocabulary[n] for n in group.examples]
    begin = 0
    while begin < len(ids):
        end = begin + 1
        while end < len(ids) and np.array_equal(ids[end], ids[begin]):
            end += 1
        first, last = group.frames.cells_of(begin, end)
        if span is not None and (last <= span[0] or span[1] <= first):
            begin = end
            continue
        mark, used = space.used, group.vocabulary[begin]
        own_weight, own_bias = space.take((len(used), weight.shape[1]), weight.dtype), space.take(len(used), bias.dtype)
        gather(weight, used, own_weight)
        gather(bias[:, None], used, own_bias[:, None])
        yield Segment(begin, end, used, int(blanks[begin]), own_weight, own_bias)
        space.release(mark)
        begin = end
