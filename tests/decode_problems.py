"""Small problems for the searches, a predictor with a state, and both searches written to be obviously right."""

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from tests import joint_oracle, oracle
from tests.problems import GARBAGE_IDS

ROWS = 997


class Predictor:
    """A predictor that depends on every label before, through a state of two arrays of different shapes and dtypes.

    The same hash of the labels is in both arrays. A state that is re-indexed wrongly, or in part, leads to other
    vectors. `calls` holds the labels of each call.
    """

    def __init__(self, width, dtype, seed=0):
        self.table = np.random.default_rng(seed).standard_normal((ROWS, width)).astype(dtype)
        self.calls = []

    def __call__(self, labels, state):
        assert isinstance(labels, np.ndarray) and labels.dtype == np.int64
        self.calls.append(labels.copy())
        if state is None:
            state = np.zeros(len(labels), np.int32), np.zeros((len(labels), 2, 3), self.table.dtype)
        history, wide = state
        assert (wide == (history % 256)[:, None, None]).all()
        history = self.after(history, labels.astype(np.int32))
        vectors = self.table[history]
        history, wide = history.copy(), np.broadcast_to((history % 256)[:, None, None], wide.shape).astype(wide.dtype)
        return vectors, (history, wide)

    @staticmethod
    def after(history, label):
        return (history * 31 + label + 1) % ROWS

    def vector(self, labels):
        """What is predicted after `labels`, the blank of the start among them."""
        history = 0
        for label in labels:
            history = self.after(history, int(label))
        return self.table[history]


class Found(NamedTuple):
    """A label sequence, and where each label was emitted with which score."""

    labels: list
    score: float
    frames: list
    label_scores: list


@dataclass(frozen=True)
class DecodeProblem:
    """Arguments of the doors, but for the predictor."""

    encoder: np.ndarray  # (B, T, H), NaN on padding
    lengths: np.ndarray  # (B,)
    weight: np.ndarray  # (V, H)
    bias: np.ndarray | None
    predictor: Predictor
    blank: int = 0
    activation: str = "tanh"
    topology: str = "rnnt"
    allowed: np.ndarray | None = None
    max_labels_per_frame: int = 10

    @property
    def is_monotonic(self):
        """Whether a label consumes its frame. A frame of the other topologies ends with a blank."""
        return oracle.rules_of(self.topology).name == "monotonic"

    @property
    def most(self):
        """Labels in a frame at most."""
        return self.max_labels_per_frame if oracle.rules_of(self.topology).name == "rnnt" else 1

    @property
    def args(self):
        return self.encoder, self.lengths, self.predictor, self.weight, self.bias

    @property
    def options(self):
        names = "blank activation topology allowed max_labels_per_frame"
        return {name: getattr(self, name) for name in names.split()}

    def single(self, b):
        rows = slice(b, b + 1)
        allowed = None if self.allowed is None else self.allowed[rows]
        return replace(self, encoder=self.encoder[rows], lengths=self.lengths[rows], allowed=allowed)

    def ids(self, b):
        """The ids in use of an example, ascending, and its blank."""
        blank = self.blank % len(self.weight)
        row = list(range(len(self.weight))) if self.allowed is None else self.allowed[b].tolist()
        return sorted({blank, *(row[: row.index(-1)] if -1 in row else row)}), blank

    def logits(self, b, t, prefix, dtype):
        """Over the ids in use, after the labels `prefix`."""
        ids, blank = self.ids(b)
        weight = self.weight[ids].astype(dtype)
        bias = 0 if self.bias is None else self.bias[ids].astype(dtype)
        function, _ = joint_oracle.ACTIVATIONS[self.activation]
        predictor = self.predictor.vector([blank, *prefix])
        return function(self.encoder[b, t].astype(dtype) + predictor.astype(dtype)) @ weight.T + bias

    def scores(self, b, t, prefix, dtype=np.float64):
        """(log-probability of the blank, [(log-probability, id) of the labels, best first]) of a cell."""
        ids, blank = self.ids(b)
        row = oracle.log_distribution(self.logits(b, t, prefix, dtype), ids.index(blank), self.topology)
        found = dict(zip(ids, row, strict=True))
        return found.pop(blank), sorted(
            ((score, v) for v, score in found.items()), key=lambda pair: (-pair[0], pair[1])
        )


def decode_problem(
    seed=0,
    *,
    batch=4,
    frames=6,
    vocab=7,
    width=5,
    blank=0,
    activation="tanh",
    topology="rnnt",
    dtype=np.float32,
    weight_dtype=None,
    dtypes=None,
    use_bias=True,
    allowed=None,
    most=10,
    blank_lead=1.0,
    lengths=None,
):
    """A ragged random problem.

    `allowed` is None, "all" or "some" (short rows, some with the blank). `blank_lead` favours blanks. `dtypes` are
    those of encoder, predictor, weight and bias.
    """
    rng = np.random.default_rng(seed)
    lengths = np.append(frames, rng.integers(1, frames + 1, batch - 1)) if lengths is None else np.asarray(lengths)
    encoder = np.full((len(lengths), lengths.max() + 2, width), np.nan)
    for b, length in enumerate(lengths):
        encoder[b, :length] = 1.5 * rng.standard_normal((length, width))
    weight, bias = 1.5 * rng.standard_normal((vocab, width)), 0.5 * rng.standard_normal(vocab)
    bias[blank] += blank_lead
    ids = None
    if allowed == "all":
        ids = np.stack([rng.permutation(vocab) for _ in lengths])
    elif allowed == "some":
        ids = np.full((len(lengths), vocab), GARBAGE_IDS[0])
        for row in ids:
            size = rng.integers(1, vocab)
            row[:size], row[size] = rng.permutation(vocab)[:size], -1
    weight_dtype = dtype if weight_dtype is None else weight_dtype
    of_encoder, of_predictor, of_weight, of_bias = dtypes or (dtype, dtype, weight_dtype, weight_dtype)
    return DecodeProblem(
        encoder.astype(of_encoder),
        lengths,
        weight.astype(of_weight),
        bias.astype(of_bias) if use_bias else None,
        Predictor(width, of_predictor, seed),
        blank,
        activation,
        topology,
        ids,
        most,
    )


def greedy(problem, b, dtype=np.float64):
    """What is found in one example."""
    found, t, count = Found([], dtype(0), [], []), 0, 0
    while t < problem.lengths[b]:
        blank_score, others = problem.scores(b, t, found.labels, dtype)
        best, label = others[0] if others else (-np.inf, -1)
        blank = problem.blank % len(problem.weight)
        emits = best > blank_score or (best == blank_score and label < blank)
        emits = emits and count < problem.most
        found = found._replace(score=found.score + (best if emits else blank_score))
        if emits:
            found.labels.append(label)
            found.frames.append(t)
            found.label_scores.append(best)
        count = count + 1 if emits and not problem.is_monotonic else 0
        t += 0 if count else 1
    return found


class Kept(NamedTuple):
    """A prefix of a beam: its score, the score of its best alignment, and (frame, label score) of that one's labels."""

    score: float = -np.inf
    best: float = -np.inf
    emissions: tuple = ()

    def along(self, arc, *emission):
        return Kept(self.score + arc, self.best + arc, self.emissions + emission)


def add(kept, prefix, more):
    """Merge one more way to a prefix into what is kept."""
    before = kept.get(prefix, Kept())
    better = more if more.best > before.best else before
    kept[prefix] = better._replace(score=np.logaddexp(before.score, more.score))


def best_of(kept, beam):
    return dict(sorted(kept.items(), key=lambda item: -item[1].score)[:beam])


def lowest_of(kept, beam):
    """The score that one more prefix needs to be among the best `beam`."""
    return sorted(one.score for one in kept.values())[-beam] if len(kept) >= beam else -np.inf


def listed(kept):
    """[Found, ...] of what is kept, in its order."""
    return [
        Found(list(prefix), one.score, [t for t, _ in one.emissions], [arc for _, arc in one.emissions])
        for prefix, one in kept.items()
    ]


def beam_search(problem, b, beam):
    """[Found, ...] of one example, best first, prefixes in dictionaries."""
    live = {(): Kept(0.0, 0.0)}
    for t in range(problem.lengths[b]):
        reached, level = {}, live
        for _ in range(1 if problem.is_monotonic else problem.most + 1):
            longer = {}
            for prefix, kept in level.items():
                blank_score, others = problem.scores(b, t, prefix)
                add(reached, prefix, kept.along(blank_score))
                for label_score, label in others[:beam]:
                    longer[(*prefix, label)] = kept.along(label_score, (t, label_score))
            if problem.is_monotonic:
                for prefix, kept in longer.items():
                    add(reached, prefix, kept)
            else:
                needed = lowest_of(reached, beam)
                level = {prefix: kept for prefix, kept in best_of(longer, beam).items() if kept.score >= needed}
        live = best_of(reached, beam)
    return listed(live)


def every_alignment(problem, b, labels, dtype=np.float64):
    """(score, [(frame, score) of each label]) of the alignments that hold to the limit of labels in a frame."""
    ids, blank = problem.ids(b)
    T, at = problem.lengths[b], {v: i for i, v in enumerate(ids)}
    cells = [[problem.logits(b, t, labels[:u], dtype) for u in range(len(labels) + 1)] for t in range(T)]
    topology = oracle.rules_of(problem.topology)._replace(delay_penalty=0.0)
    targets = [at[v] for v in labels]
    _, blank_score, label_score = oracle.arc_scores(np.array(cells), targets, blank=at[blank], topology=topology)
    for arcs in oracle.alignments(T, len(labels), topology):
        emitted = np.bincount([t for t, _, is_label in arcs if is_label], minlength=1)
        if emitted.max() <= problem.most:
            score = sum(label_score[t, u] if is_label else blank_score[t, u] for t, u, is_label in arcs)
            yield score, [(t, label_score[t, u]) for t, u, is_label in arcs if is_label]


def exact_score(problem, b, labels, dtype=np.float64, *, alignments=every_alignment):
    """Log-probability of labels, summed over these alignments."""
    total = dtype(-np.inf)
    for score, _ in alignments(problem, b, labels, dtype):
        total = np.logaddexp(total, score)
    return total


def every_sequence(problem, b):
    """All label sequences that an example can have."""
    ids, blank = problem.ids(b)
    most = problem.lengths[b] * problem.most
    labels = [v for v in ids if v != blank]
    return [list(sequence) for length in range(most + 1) for sequence in product(labels, repeat=length)]
