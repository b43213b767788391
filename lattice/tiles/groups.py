"""Groups of examples that are worked on at once: their cells, the rows that cells are made of, and vocabularies."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import layout
from ..device.arrays import computing_dtype
from ..inputs.dropout import Dropout
from ..inputs.joint import JointProblem
from ..kernels.dropout import NO_DROPOUT
from ..kernels.factors import TAIL, make_factors


class Group(NamedTuple):
    """Examples `begin` to `end` of the order of work, and the rows their cells are made of.

    `examples` and `frames` are on the host. All fields behind them lie where the kernels want them. Among these are
    `examples` and `frames` once more, as `device_examples` and `device_frames`.

    Attributes
    ----------
    begin, end : int
    examples : (examples,) int64
        Their places in the batch.
    frames : layout.Frames
        The numbering of their cells, frame by frame.
    device_frames : layout.Frames
    device_examples : (examples,) int64
    source : (examples,) int64
        The place of each example on the encoder's first axis. With `encoder_index` several examples share one.
    encoder, predictor : (rows, H)
        The arguments, seen as rows. Where they had to be widened, copies of the group's rows.
    factors, dropout : (frames + slots, H + TAIL) or (0, H + TAIL), (HEAD + frames + slots,) or (0,) int64
        As `compute_hidden` takes them.
    encoder_row, predictor_row : (frames,) int64, (slots,) int64
        The row of each frame, and of each label position (slot) of the group.
    frame_base : (frames,) int64
        0, 1, ...: the number of each frame. `locate` hands it on as the row of a cell, so here that is its frame.
    label_base : (examples + 1,) int64
        First slot of each example.
    positions : (examples, U) int32
        Positions of the labels in the vocabulary in use.
    blank_ids : (examples, 1 + K) int64
        Positions of all blanks, where arcs take several frames.
    vocabulary : list of (S,) int64
        The ids of each example; empty without vocabularies.
    """

    begin: int
    end: int
    examples: np.ndarray
    frames: layout.Frames
    device_frames: layout.Frames
    device_examples: np.ndarray
    source: np.ndarray
    encoder: np.ndarray
    predictor: np.ndarray
    factors: np.ndarray
    dropout: np.ndarray
    encoder_row: np.ndarray
    predictor_row: np.ndarray
    frame_base: np.ndarray
    label_base: np.ndarray
    positions: np.ndarray
    blank_ids: np.ndarray
    vocabulary: list[np.ndarray]

    @property
    def inputs(self) -> tuple:
        """What hidden vectors are made of, as `compute_hidden` and `bound` take it."""
        return self.encoder, self.predictor, self.factors, self.dropout, self.encoder_row, self.predictor_row


class Segment(NamedTuple):
    """Examples `begin` to `end` of a group, which share an output layer.

    `ids` (S,) int64 are the layer's rows of the whole weight, where the kernels want them, or None for all rows.
    `blank_ids` (1 + K,) int64 are the positions of all blanks, where the kernels want them.
    """

    begin: int
    end: int
    ids: np.ndarray | None
    blank_id: int
    blank_ids: np.ndarray | None = None


def widens(problem: JointProblem, array) -> bool:
    """Whether a group holds copies of its rows of the encoder or predictor in the dtype that is computed in.

    Half precision has to be widened on the host. The kernels of a GPU read it.
    """
    return not problem.device.on_gpu and array.dtype != computing_dtype(array.dtype)


def make_group(problem: JointProblem, order: np.ndarray, begin: int, end: int, factored: bool, space) -> Group:
    """Number the cells of examples `begin` to `end` of the order of work.

    Parameters
    ----------
    problem : JointProblem
    order : (N,) int64
    begin, end : int
    factored : bool
        Whether hidden vectors are made of factors.
    space : Workspace
        Takes what the kernels of a GPU read. On the host it takes only widened rows and factors.
    """
    targets = problem.targets
    examples = order[begin:end]  # (examples,)
    frames = layout.frames_of(examples, targets.frame_lengths, targets.target_lengths, targets.moves, targets.bounds)
    source = examples if problem.encoder_index is None else problem.encoder_index[examples]  # (examples,)
    T_max, U1, H = problem.encoder.shape[1], problem.predictor.shape[1], problem.weight.shape[1]
    t = frames.t  # (frames,)
    encoder_row = source[frames.example] * T_max + t  # (frames,) row of the encoder
    counts = frames.labels.astype(np.int64) + 1  # (examples,) label positions, the one behind the last label included
    label_base = np.append(0, np.cumsum(counts))  # (examples + 1,)
    owner = np.repeat(np.arange(len(examples)), counts)  # (slots,)
    u = np.arange(len(owner)) - label_base[owner]  # (slots,)
    predictor_row = examples[owner] * U1 + u  # (slots,) row of the predictor
    view = problem.device.view
    encoder, predictor = view(problem.encoder).reshape(-1, H), view(problem.predictor).reshape(-1, H)
    dtype = computing_dtype(problem.weight.dtype)
    if widens(problem, problem.encoder):
        encoder, encoder_row = _widen(encoder, encoder_row, frames.starts, dtype, space)
    if widens(problem, problem.predictor):
        predictor, predictor_row = _widen(predictor, predictor_row, label_base, dtype, space)
    frame_base = np.arange(len(encoder_row))  # (frames,)
    vocabulary = [] if problem.vocabulary is None else [problem.vocabulary[n] for n in examples]
    integers = examples, source, encoder_row, predictor_row, frame_base, label_base, targets.positions[examples]
    integers = *integers, targets.blank_ids[examples], _draws(problem.dropout, examples, frames.example, t, u)
    # One copy to a GPU for all of them. The host hands back the arrays themselves.
    device_frames, placed = frames.on(problem.device, space, *integers, *vocabulary)
    device_examples, source, encoder_row, predictor_row, frame_base, label_base, positions, *others = placed
    blank_ids, dropout, *vocabulary = others
    factors = space.take(((len(encoder_row) + len(predictor_row)) * factored, H + TAIL), dtype)
    if factored:
        make_factors(problem.activation.rate, encoder, predictor, encoder_row, predictor_row, factors)
    cells = examples, frames, device_frames, device_examples, source
    rows = encoder, predictor, factors, dropout, encoder_row, predictor_row, frame_base, label_base
    return Group(begin, end, *cells, *rows, positions, blank_ids, vocabulary)


def _draws(dropout: Dropout | None, examples, example, t, u) -> np.ndarray:
    """`dropout` of `compute_hidden`; `example` and `t` are (frames,), and `u` is (slots,)."""
    if dropout is None:
        return NO_DROPOUT
    head = np.array([dropout.seed, dropout.threshold], np.uint64).view(np.int64)
    return np.concatenate([head, examples[example] << 32 | t, u])


def _widen(source, rows, starts, dtype, space):
    """Copies of rows (n,) of a source (rows, H) in a wider dtype, (n, H), and their own numbers (n,)."""
    wide = space.take((len(rows), source.shape[1]), dtype)
    # The rows of an example follow one another in the source too, so they are copied by slices, without an index array.
    for begin, end in zip(starts[:-1], starts[1:]):
        wide[begin:end] = source[rows[begin] : rows[begin] + end - begin]
    return wide, np.arange(len(rows))


def segments(group: Group, problem: JointProblem, span: tuple[int, int] | None = None) -> Iterator[Segment]:
    """Split a group where the vocabulary changes.

    A `span` is a first cell and the cell behind the last. Segments without any cell of it are left out.
    """
    blanks = problem.targets.blank_id[group.examples]  # (examples,)
    if problem.vocabulary is None:
        if len(blanks):
            yield Segment(0, len(group.examples), None, int(blanks[0]), group.blank_ids[:1].reshape(-1))
        return
    ids = [problem.vocabulary[n] for n in group.examples]
    begin = 0
    while begin < len(ids):
        end = begin + 1
        # Neighbours with the same ids in the same order share one gathered layer, and one place of the blank.
        while end < len(ids) and np.array_equal(ids[end], ids[begin]):
            end += 1
        first, last = group.frames.cells_of(begin, end)
        if span is None or (first < span[1] and span[0] < last):
            # A view of a GPU's memory is cut by runs of rows.
            of_first = group.blank_ids[begin : begin + 1].reshape(-1)
            yield Segment(begin, end, group.vocabulary[begin], int(blanks[begin]), of_first)
        begin = end
