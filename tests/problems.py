"""Builders of small ragged problems. Real padding is NaN, id padding is garbage: whoever reads it, fails.

A problem carries its arguments as the doors and the oracle take them: ``door(*problem.args, **problem.options)``.
"""

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from lattice import Topology
from tests import joint_oracle
from tests.oracle import rules_of

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16]
NARROW = [dtype for dtype in DTYPES if dtype != np.float64]
"""Dtypes that encoder, predictor, weight and bias may have in any mix."""
HALF_ENCODER = {"dtypes": (BFLOAT16, NARROW[0], np.dtype(np.float16), NARROW[0])}
HALF_PREDICTOR = {"dtypes": (NARROW[0], BFLOAT16, NARROW[0], np.dtype(np.float16))}
"""Two mixes in which each array differs from the other of its kind: rows, and output layers."""
TOPOLOGIES = ["rnnt", "monotonic", "constrained"]
VARIANTS = [
    Topology(name, hat=hat, delay_penalty=penalty)
    for name in ("rnnt", "monotonic", "constrained")
    for hat in (False, True)
    for penalty in (0.0, 0.3, -0.2)
]
"""Wherever a problem takes a topology it takes one of these, too."""
ACTIVATIONS = list(joint_oracle.ACTIVATIONS)
DROPOUTS = [None, (0.2, 7), (0.5, 2**64 - 1)]
GARBAGE_IDS = [10**6, -7]  # no vocabulary here has these


def name_of(value):
    """Test ids for dtypes and topologies; everything else is named as pytest would."""
    if isinstance(value, Topology):
        return value.name + "-hat" * value.hat + f"{value.delay_penalty:+g}" * (value.delay_penalty != 0)
    return value.name if isinstance(value, np.dtype) else None


@dataclass(frozen=True)
class LogitsProblem:
    """Padded logits and what goes with them."""

    logits: np.ndarray  # (B, T, U+1, V), NaN on padding
    targets: np.ndarray  # (B, U), garbage on padding
    logit_lengths: np.ndarray  # (B,)
    target_lengths: np.ndarray  # (B,)
    blank: int = 0
    topology: str | Topology = "rnnt"
    bounds: tuple | None = None

    @property
    def args(self):
        return self.logits, self.targets, self.logit_lengths, self.target_lengths

    @property
    def options(self):
        return {"blank": self.blank, "topology": self.topology, "bounds": self.bounds}

    @property
    def real(self):
        """Boolean ``(B, T, U+1)``: the cells that are no padding."""
        t = np.arange(self.logits.shape[1])[None, :, None]
        u = np.arange(self.logits.shape[2])[None, None, :]
        return (t < self.logit_lengths[:, None, None]) & (u <= self.target_lengths[:, None, None])

    def pack(self, padded):
        """``(B, T, U+1, V)`` to ``(sum_b T_b*(U_b+1), V)``."""
        return padded[self.real]

    def band(self, padded, *, spare=0, fill=np.nan):
        """``(B, T, U+1, V)`` to ``(B, T, R, V)``: rows of the bounds, and `spare` more; `fill` where is no cell."""
        first, last = (np.asarray(bound, np.int64)[:, : padded.shape[1], None] for bound in self.bounds)
        real = (np.arange(padded.shape[1]) < self.logit_lengths[:, None])[..., None]
        rows = max(0, int(np.where(real, last - first, -1).max()) + 1) + spare
        u = first + np.arange(rows)  # (B, T, R)
        exists = real & (u >= 0) & (u <= last) & (u <= self.target_lengths[:, None, None])
        banded = np.full((*u.shape, padded.shape[3]), fill, padded.dtype)
        b, t, _ = np.nonzero(exists)
        banded[exists] = padded[b, t, u[exists]]
        return banded

    def single(self, b):
        """Example b alone, with the padding of the batch."""
        rows = slice(b, b + 1)
        bounds = None if self.bounds is None else (self.bounds[0][rows], self.bounds[1][rows])
        return replace(
            self,
            logits=self.logits[rows],
            targets=self.targets[rows],
            logit_lengths=self.logit_lengths[rows],
            target_lengths=self.target_lengths[rows],
            bounds=bounds,
        )


@dataclass(frozen=True)
class JointProblem:
    """Encoder, predictor, output layer and what goes with them."""

    encoder: np.ndarray  # (B, T, H), NaN on padding
    predictor: np.ndarray  # (N, U+1, H), NaN on padding
    weight: np.ndarray  # (V, H)
    bias: np.ndarray | None  # (V,)
    targets: np.ndarray  # (N, U), garbage on padding
    encoder_lengths: np.ndarray  # (N,)
    target_lengths: np.ndarray  # (N,)
    blank: int = 0
    activation: str = "tanh"
    topology: str | Topology = "rnnt"
    vocabulary: np.ndarray | None = None
    vocabulary_lengths: np.ndarray | None = None
    bounds: tuple | None = None
    encoder_index: np.ndarray | None = None
    dropout: tuple | None = None

    @property
    def args(self):
        names = "encoder predictor weight bias targets encoder_lengths target_lengths"
        return tuple(getattr(self, name) for name in names.split())

    @property
    def options(self):
        names = "blank activation topology vocabulary vocabulary_lengths bounds encoder_index"
        # Searches know no dropout.
        names += " dropout" * (self.dropout is not None)
        return {name: getattr(self, name) for name in names.split()}


def consumes(topology):
    """Whether a frame has one label at most."""
    return rules_of(topology).name != "rnnt"


def random_lengths(rng, batch, frames, labels, topology):
    """Lengths within the two limits: the first example reaches both, the last of three or more has U=0."""
    logit_lengths = rng.integers(1, frames + 1, batch)
    target_lengths = rng.integers(0, labels + 1, batch)
    logit_lengths[0] = frames
    target_lengths[0] = labels
    if batch > 2:
        target_lengths[-1] = 0
    if consumes(topology):
        target_lengths = np.minimum(target_lengths, logit_lengths)
    return logit_lengths, target_lengths


def random_targets(rng, target_lengths, width, vocab, blank):
    """Ids that are never the blank, and garbage behind each example's last."""
    targets = np.resize(GARBAGE_IDS, (len(target_lengths), width)).astype(np.int64)
    for row, length in zip(targets, target_lengths, strict=True):
        ids = rng.integers(0, vocab - 1, length)
        row[:length] = ids + (ids >= blank % vocab)
    return targets


def random_frames(rng, frames, labels, topology):
    """The frame of each label of one random alignment."""
    return np.sort(rng.choice(frames, labels, replace=not consumes(topology)))


def band(emitted, frames, left, right, topology):
    """Bounds of one example, `left` cells below and `right` above its alignment; may reach beyond ``[0, U]``."""
    t = np.arange(frames)[:, None]
    first = (emitted[None] < t).sum(axis=1)
    last = first if rules_of(topology).name == "monotonic" else (emitted[None] <= t).sum(axis=1)
    return first - left, last + right


def random_bounds(rng, logit_lengths, target_lengths, width, topology, margin=2):
    """Bounds round a random alignment of each example; garbage on padded frames."""
    first = np.resize(GARBAGE_IDS, (len(logit_lengths), width)).astype(np.int32)
    last = first[:, ::-1].copy()
    for b, (frames, labels) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        left, right = rng.integers(0, margin + 1, 2)
        emitted = random_frames(rng, frames, labels, topology)
        first[b, :frames], last[b, :frames] = band(emitted, frames, left, right, topology)
    return first, last


def logits_problem(
    seed=0,
    *,
    batch=4,
    frames=6,
    labels=4,
    vocab=7,
    blank=0,
    topology="rnnt",
    dtype=np.float32,
    spread=1.5,
    sharpness=0.0,
    bounded=False,
    slack=(1, 2),
    lengths=None,
    integer=np.int64,
):
    """A ragged problem with random logits.

    `spread` is the standard deviation of the logits. `sharpness` is the advantage of one random alignment (trained-like
    from 8 on). The two padded axes are `slack` longer than the longest example. `lengths` is a pair of lists instead of
    random lengths.
    """
    rng = np.random.default_rng(seed)
    if consumes(topology):
        labels = min(labels, frames)
    if lengths is None:
        lengths = random_lengths(rng, batch, frames, labels, topology)
    logit_lengths, target_lengths = (np.asarray(n) for n in lengths)
    batch, depth, width = len(logit_lengths), max(logit_lengths) + slack[0], max(target_lengths) + slack[1]
    targets = random_targets(rng, target_lengths, width, vocab, blank)
    logits = np.full((batch, depth, width + 1, vocab), np.nan, dtype)
    for b, (t_b, u_b) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        rows = spread * rng.standard_normal((t_b, u_b + 1, vocab))
        if sharpness:
            t, u = np.arange(t_b)[:, None], np.arange(u_b)
            due = t >= random_frames(rng, t_b, u_b, topology)[None]  # label u is emitted at this frame or was before
            rows[:, :u_b, blank] += np.where(due, 0, sharpness)
            rows[t, u, targets[b, :u_b]] += np.where(due, sharpness, 0)
            rows[:, u_b, blank] += sharpness
        logits[b, :t_b, : u_b + 1] = rows.astype(dtype)
    return LogitsProblem(
        logits,
        targets.astype(integer),
        logit_lengths.astype(integer),
        target_lengths.astype(integer),
        blank,
        topology,
        random_bounds(rng, logit_lengths, target_lengths, depth, topology) if bounded else None,
    )


def random_vocabulary(rng, targets, target_lengths, vocab, blank, kind):
    """Each example's blank, positives and some negatives in any order, as ``(vocabulary, vocabulary_lengths)``.

    `kind` is None, "full", "lengths" (given), or "endings" (a -1 ends each row). Behind the end is garbage.
    """
    if kind is None:
        return None, None
    batch = len(targets)
    if kind == "full":
        return np.stack([rng.permutation(vocab) for _ in range(batch)]).astype(np.int32), None
    vocabulary = np.resize(GARBAGE_IDS, (batch, vocab + 1)).astype(np.int32)
    lengths = np.zeros(batch, np.int64)
    for b in range(batch):
        positives = {blank % vocab, *targets[b, : target_lengths[b]].tolist()}
        others = rng.permutation([v for v in range(vocab) if v not in positives])
        ids = rng.permutation([*positives, *others[: rng.integers(0, len(others) + 1)]]).astype(np.int32)
        lengths[b] = len(ids)
        vocabulary[b, : len(ids)] = ids
        vocabulary[b, len(ids)] = -1 if kind == "endings" else GARBAGE_IDS[0]
    return vocabulary, lengths if kind == "lengths" else None


def joint_problem(
    seed=0,
    *,
    batch=4,
    frames=6,
    labels=4,
    vocab=9,
    width=5,
    blank=0,
    activation="tanh",
    topology="rnnt",
    dtype=np.float32,
    weight_dtype=None,
    dtypes=None,
    use_bias=True,
    sharpness=0.0,
    vocabulary=None,
    bounded=False,
    hypotheses=None,
    dropout=None,
    slack=(2, 1),
    lengths=None,
    integer=np.int64,
):
    """A ragged problem with a random joint network of `width` features.

    `sharpness` makes the network favour one alignment (trained-like from 6 on). Two of the features say how far frame t
    is behind or ahead of the frame at which label u is due, and the blank's weights read them. `hypotheses` is the
    number N of targets that share the `batch` encoder rows in mixed order; the last encoder row then stays unused.
    `weight_dtype` is of weight and bias, by default `dtype`. `dtypes` are those of encoder, predictor, weight and bias.
    """
    rng = np.random.default_rng(seed)
    if consumes(topology):
        labels = min(labels, frames)
    rows = np.arange(batch) if hypotheses is None else rng.integers(0, max(batch - 1, 1), hypotheses)
    if lengths is None:
        lengths = random_lengths(rng, len(rows), frames, labels, topology)
        if hypotheses is not None:  # hypotheses of one encoder row see the same frames
            per_row = rng.integers(max(1, frames // 2), frames + 1, batch)
            lengths = per_row[rows], np.minimum(lengths[1], per_row[rows])
    encoder_lengths, target_lengths = (np.asarray(n) for n in lengths)
    depth, height = max(encoder_lengths) + slack[0], max(target_lengths) + slack[1]
    targets = random_targets(rng, target_lengths, height, vocab, blank)
    encoder = np.full((batch, depth, width), np.nan)
    predictor = np.full((len(rows), height + 1, width), np.nan)
    weight = 1.5 * rng.standard_normal((vocab, width)) / np.sqrt(width)
    bias = 0.5 * rng.standard_normal(vocab)
    for n, (row, t_n, u_n) in enumerate(zip(rows, encoder_lengths, target_lengths, strict=True)):
        encoder[row, :t_n] = rng.standard_normal((t_n, width))
        predictor[n, : u_n + 1] = rng.standard_normal((u_n + 1, width))
        if sharpness:
            due = np.append(random_frames(rng, t_n, u_n, topology), t_n + 1) - 0.5
            encoder[row, :t_n, :2] = np.arange(t_n)[:, None] * [1, -1]
            predictor[n, : u_n + 1, :2] = due[:, None] * [-1, 1]
    if sharpness:
        weight[:, :2] = 0
        weight[blank, :2] = -sharpness, sharpness
    ids, ids_lengths = random_vocabulary(rng, targets, target_lengths, vocab, blank, vocabulary)
    weight_dtype = dtype if weight_dtype is None else weight_dtype
    dtypes = dtypes or (dtype, dtype, weight_dtype, weight_dtype)
    encoder, predictor, weight, bias = (x.astype(kind) for x, kind in zip((encoder, predictor, weight, bias), dtypes))
    return JointProblem(
        encoder,
        predictor,
        weight,
        bias if use_bias else None,
        targets.astype(integer),
        encoder_lengths.astype(integer),
        target_lengths.astype(integer),
        blank,
        activation,
        topology,
        ids,
        ids_lengths,
        random_bounds(rng, encoder_lengths, target_lengths, depth, topology) if bounded else None,
        None if hypotheses is None else rows,
        dropout,
    )


def shapes():
    """What both kinds of problem have in common."""
    return {
        "seed": st.integers(0, 2**32 - 1),
        "batch": st.integers(1, 4),
        "frames": st.integers(1, 7),
        "labels": st.integers(0, 5),
        "blank": st.integers(-2, 1),
        "topology": st.sampled_from(TOPOLOGIES),
        "dtype": st.sampled_from(DTYPES),
        "sharpness": st.sampled_from([0.0, 3.0, 10.0]),
        "bounded": st.booleans(),
        "slack": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "integer": st.sampled_from([np.int32, np.int64]),
    }


def mixes():
    """None, or the dtypes of encoder, predictor, weight and bias in any mix."""
    return st.none() | st.tuples(*[st.sampled_from(NARROW)] * 4)


def logits_problems():
    """Hypothesis strategy."""
    return st.builds(logits_problem, vocab=st.integers(2, 9), spread=st.sampled_from([0.1, 1.5, 6.0]), **shapes())


def joint_problems(*, dropout=True):
    """Hypothesis strategy. Searches take none with dropout."""
    return st.builds(
        joint_problem,
        vocab=st.integers(2, 9),
        width=st.integers(2, 6),
        activation=st.sampled_from(ACTIVATIONS),
        dropout=st.sampled_from(DROPOUTS if dropout else [None]),
        use_bias=st.booleans(),
        vocabulary=st.sampled_from([None, "full", "lengths", "endings"]),
        hypotheses=st.sampled_from([None, 1, 5]),
        dtypes=mixes(),
        **shapes(),
    )
