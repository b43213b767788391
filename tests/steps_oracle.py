"""The other side of every test of "tdt" and "multiblank", whose arcs take several frames. Imports neither package.

As in `tests/oracle.py` all alignments are enumerated, and beside that is the naive recursion, arc by arc, in any dtype.
Scores and posteriors of arcs are ``(T, U+1, D)``: entry [t, u, n] is of the arc that leaves cell (t, u) and takes
``frames_of_steps(topology)[n]`` frames. A score of -inf says that there is no such arc. A `topology` is any object with
the fields of `Steps`. A `blank` is one id, or the positions of all blanks in a row of logits: first the one that takes
one frame, then the big ones in the order of `durations`.
"""

from math import comb, inf, log
from typing import NamedTuple

import numpy as np

from tests import joint_oracle
from tests.oracle import cell_exists, log_softmax, row_of


class Steps(NamedTuple):
    """What a topology says of frames and of scores."""

    name: str
    durations: tuple[int, ...]
    sigma: float = 0.0
    delay_penalty: float = 0.0


def tail_of(topology):
    """How many entries of a row are durations."""
    return len(topology.durations) if topology.name == "tdt" else 0


def frames_of_steps(topology):
    """Frames that arcs take: by the entries of the duration head, or 0 for labels and then the blanks'."""
    return topology.durations if topology.name == "tdt" else (0, 1, *topology.durations)


def blank_ids(blank, vocab, topology):
    """The ids of all blanks among `vocab` tokens."""
    ids = [blank % vocab]
    if topology.name == "multiblank":
        ids += [ids[0] - 1 - i for i in range(len(topology.durations))]
    return ids


def positions(blank, size, topology):
    """Where the blanks are in a row of `size` logits."""
    return blank_ids(blank, size - tail_of(topology), topology) if np.ndim(blank) == 0 else list(blank)


def log_heads(logits, topology):
    """Log-probabilities of each head of rows ``(..., S)``; NaN or +inf in a head makes all of it NaN."""
    size = logits.shape[-1] - tail_of(topology)
    heads = [log_softmax(logits[..., :size])]
    if topology.name == "tdt":
        heads.append(log_softmax(logits[..., size:]))
    return heads


def arc_scores(logits, targets, *, blank=0, topology, bounds=None):
    """Scores of the arcs of one example, by its logits ``(T, U+1, S)``: blank_score and label_score."""
    frames, width, size = logits.shape
    where, steps = positions(blank, size, topology), frames_of_steps(topology)
    heads = log_heads(logits, topology)
    of_blank, of_label = (np.full((frames, width, len(steps)), -inf, logits.dtype) for _ in range(2))
    early = (topology.delay_penalty * ((frames - 1) / 2 - np.arange(frames))).astype(logits.dtype)
    own = np.full((frames, width), -inf, logits.dtype)
    for u, label in enumerate(targets):
        own[:, u] = heads[0][:, u, label] + early
    for n, step in enumerate(steps):
        if topology.name == "tdt":
            if step > 0:
                of_blank[..., n] = heads[0][..., where[0]] + heads[1][..., n]
            of_label[:, :-1, n] = own[:, :-1] + heads[1][:, :-1, n]
        elif n == 0:
            of_label[..., n] = own
        else:
            of_blank[..., n] = heads[0][..., where[n - 1]]
    exists, sigma = cell_exists(frames, width - 1, bounds)[..., None], logits.dtype.type(topology.sigma)
    return tuple(np.where(exists, scores - sigma, -inf).astype(logits.dtype) for scores in (of_blank, of_label))


def arcs_from(t, u, frames, labels, topology):
    """The arcs ``(n, is_label, t', u')`` that leave a cell: a blank lands on T at most, and a label below it."""
    for n, step in enumerate(frames_of_steps(topology)):
        if step > 0 and t + step <= frames and not (t + step == frames and u < labels):
            yield n, False, t + step, u
        if u < labels and t + step < frames and (topology.name == "tdt" or n == 0):
            yield n, True, t + step, u + 1


def alignments(frames, labels, topology):
    """Every alignment, each as the arcs ``(t, u, n, is_label)`` that it takes out of the cells that it visits."""

    def behind(t, u):
        if t == frames:
            yield ()
            return
        for n, is_label, t1, u1 in arcs_from(t, u, frames, labels, topology):
            for rest in behind(t1, u1):
                yield (t, u, n, is_label), *rest

    yield from behind(0, 0)


def by_enumeration(blank_score, label_score, topology):
    """(loss, posteriors of blank arcs and of label arcs, best score, frames of its labels), alignment by alignment."""
    frames, width, _ = blank_score.shape
    scores, found = (blank_score, label_score), list(alignments(frames, width - 1, topology))
    sums = np.array([sum(scores[label][t, u, n] for t, u, n, label in arcs) for arcs in found], blank_score.dtype)
    log_z = np.logaddexp.reduce(sums, initial=-inf)
    gammas = np.zeros_like(blank_score), np.zeros_like(label_score)
    if not log_z > -inf:
        return -log_z, *gammas, -inf, [-1] * (width - 1)
    for arcs, score in zip(found, sums):
        for t, u, n, is_label in arcs:
            gammas[is_label][t, u, n] += np.exp(score - log_z)
    best = int(sums.argmax())
    return -log_z, *gammas, sums[best], [t for t, _, _, is_label in found[best] if is_label]


def backward(blank_score, label_score, topology, join=np.logaddexp):
    """beta ``(T+1, U+1)``; with `join=np.maximum` the best that is to come."""
    frames, width, _ = blank_score.shape
    beta = np.full((frames + 1, width), -inf, blank_score.dtype)
    beta[frames, width - 1] = 0
    for t, u in reversed(list(np.ndindex(frames, width))):
        for n, is_label, t1, u1 in arcs_from(t, u, frames, width - 1, topology):
            with np.errstate(invalid="ignore"):
                beta[t, u] = join(beta[t, u], (label_score if is_label else blank_score)[t, u, n] + beta[t1, u1])
    return beta


def forward(blank_score, label_score, topology):
    """alpha ``(T+1, U+1)``."""
    frames, width, _ = blank_score.shape
    alpha = np.full((frames + 1, width), -inf, blank_score.dtype)
    alpha[0, 0] = 0
    for t, u in np.ndindex(frames, width):
        for n, is_label, t1, u1 in arcs_from(t, u, frames, width - 1, topology):
            score = (label_score if is_label else blank_score)[t, u, n]
            with np.errstate(invalid="ignore"):
                alpha[t1, u1] = np.logaddexp(alpha[t1, u1], alpha[t, u] + score)
    return alpha


def arc_posteriors(blank_score, label_score, topology):
    """(loss, posteriors of blank arcs, posteriors of label arcs) of one example; loss inf without an alignment."""
    frames, width, _ = blank_score.shape
    gammas = np.zeros_like(blank_score), np.zeros_like(label_score)
    alpha, beta = forward(blank_score, label_score, topology), backward(blank_score, label_score, topology)
    log_z = beta[0, 0]
    if np.isneginf(log_z):
        return -log_z, *gammas
    for t, u in np.ndindex(frames, width):
        for n, is_label, t1, u1 in arcs_from(t, u, frames, width - 1, topology):
            score = (label_score if is_label else blank_score)[t, u, n]
            gammas[is_label][t, u, n] = np.exp(alpha[t, u] - log_z + score + beta[t1, u1])
    return -log_z, *gammas


def best_alignment(logits, targets, *, blank=0, topology, bounds=None, dtype=np.float64):
    """(score, the frame of each label) of the best alignment of one example; -inf and frames of -1 without one."""
    logits = np.asarray(logits).astype(dtype)
    scores = arc_scores(logits, targets, blank=blank, topology=topology, bounds=bounds)
    best = backward(*scores, topology, np.maximum)
    frames, labels, (t, u), emitted = len(logits), len(targets), (0, 0), []
    if not best[0, 0] > -inf:
        return best[0, 0], [-1] * labels
    while t < frames:
        _, is_label, t1, u1 = max(
            (scores[is_label][t, u, n] + best[t1, u1], is_label, t1, u1)
            for n, is_label, t1, u1 in arcs_from(t, u, frames, labels, topology)
        )
        emitted += [t] * is_label
        t, u = t1, u1
    return best[0, 0], emitted


def loss_and_grad(
    logits, targets, *, blank=0, topology, bounds=None, fastemit_lambda=0.0, grad_loss=1.0, dtype=np.float64
):
    """Loss of one example and its gradient with respect to the logits ``(T, U+1, S)``."""
    logits = np.asarray(logits).astype(dtype)
    scores = arc_scores(logits, targets, blank=blank, topology=topology, bounds=bounds)
    loss, of_blank, of_label = arc_posteriors(*scores, topology)
    if np.isposinf(loss):
        return loss, np.zeros_like(logits)
    where, heads = positions(blank, logits.shape[-1], topology), log_heads(logits, topology)
    faster = of_label * dtype(1 + fastemit_lambda)
    tokens = (of_blank + faster).sum(axis=-1)[..., None] * np.exp(heads[0])
    for k, position in enumerate(where):
        tokens[..., position] -= of_blank.sum(axis=-1) if topology.name == "tdt" else of_blank[..., k + 1]
    for u, label in enumerate(targets):
        tokens[:, u, label] -= faster[:, u].sum(axis=-1)
    if topology.name != "tdt":
        return loss, tokens * dtype(grad_loss)
    taken = of_blank + of_label
    durations = taken.sum(axis=-1)[..., None] * np.exp(heads[1]) - taken
    return loss, np.concatenate([tokens, durations], axis=-1) * dtype(grad_loss)


def batch_loss_and_grad(
    logits,
    targets,
    logit_lengths,
    target_lengths,
    *,
    blank=0,
    topology,
    bounds=None,
    fastemit_lambda=0.0,
    grad_loss=None,
    dtype=np.float64,
):
    """`loss_and_grad` of padded logits, example by example."""
    loss, grad = np.zeros(len(logits), dtype), np.zeros(logits.shape, dtype)
    given = {"blank": blank, "topology": topology, "fastemit_lambda": fastemit_lambda, "dtype": dtype}
    for b, (frames, labels) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        loss[b], grad[b, :frames, : labels + 1] = loss_and_grad(
            logits[b, :frames, : labels + 1],
            targets[b, :labels],
            bounds=row_of(bounds, b),
            grad_loss=1 if grad_loss is None else grad_loss[b],
            **given,
        )
    return loss, grad


def joint_loss_and_grad(
    encoder,
    predictor,
    weight,
    bias,
    targets,
    encoder_lengths,
    target_lengths,
    *,
    blank=0,
    topology,
    vocabulary=None,
    vocabulary_lengths=None,
    bounds=None,
    fastemit_lambda=0.0,
    grad_loss=None,
    dtype=np.float64,
    **options,
):
    """The fused joint over dense logits. The rows of the durations are in every example's vocabulary, last."""
    vocab = len(weight) - tail_of(topology)
    blanks = blank_ids(blank, vocab, topology)
    rows = joint_oracle.vocabulary_rows(vocabulary, vocabulary_lengths, len(targets), vocab)
    rows = [[*map(int, ids), *range(vocab, len(weight))] for ids in rows]

    def of_logits(n, logits, labels, _):
        return loss_and_grad(
            logits,
            labels,
            blank=[rows[n].index(id_) for id_ in blanks],
            topology=topology,
            bounds=row_of(bounds, n),
            fastemit_lambda=fastemit_lambda,
            grad_loss=1 if grad_loss is None else grad_loss[n],
            dtype=dtype,
        )

    known = {"blank": blanks[0], "vocabulary": rows, "vocabulary_lengths": [*map(len, rows)], "dtype": dtype}
    given = encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths
    return joint_oracle.through_joint(of_logits, *given, **known, **options)


def times(coefficients, steps):
    """Coefficients of a polynomial times the sum of x to each of the steps, up to the same power."""
    return [sum(coefficients[t - step] for step in steps if step <= t) for t in range(len(coefficients))]


def uniform_loss(frames, labels, vocab, topology):
    """The loss where all logits are equal: alignments are counted by how many blanks they have."""
    of_labels = topology.durations if topology.name == "tdt" else (0,)
    of_blanks = [step for step in frames_of_steps(topology) if step > 0]
    per_arc = log(vocab) + topology.sigma + (log(len(topology.durations)) if topology.name == "tdt" else 0)
    log_z, lengths = -inf, [1] + [0] * frames  # in how many ways some steps have a sum
    for _ in range(labels):
        lengths = times(lengths, of_labels)
    for blanks in range(1, frames + 1):
        lengths = times(lengths, of_blanks)
        if lengths[frames]:
            count = comb(blanks - 1 + labels, labels) * lengths[frames]  # the last arc is a blank
            log_z = np.logaddexp(log_z, log(count) - (blanks + labels) * per_arc)
    return -log_z
