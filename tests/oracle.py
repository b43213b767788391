"""The other side of every test: sums over alignments written to be obviously right, and nothing else.

The module enumerates all alignments. It has the naive recursion with the gradient of the logits, finite differences and
closed forms (the joint network is in `tests/joint_oracle.py`). It imports neither `lattice` nor `samplers`. Every
function that computes takes a `dtype` in which *everything* is computed. float64 (or wider) gives the truth, the dtype
under test gives the error that a naive implementation makes in it. A `topology` is a name, or any object with the
fields of `Rules`.
"""

from itertools import combinations, combinations_with_replacement
from math import comb, expm1, log
from typing import NamedTuple

import numpy as np


class Rules(NamedTuple):
    """What a topology says of arcs and of their scores."""

    name: str
    hat: bool = False
    delay_penalty: float = 0.0


def rules_of(topology):
    """The rules of a name, or of an object with these fields."""
    if isinstance(topology, str):
        return Rules(topology)
    return Rules(topology.name, topology.hat, topology.delay_penalty)


def most_of_a_row(topology):
    """The most that the l1 norm of a gradient row is of its cell's posterior (docs/certified.md): 2 for each softmax.

    With HAT it is 2, and 1 more for the sigmoid of the blank.
    """
    return 4 if rules_of(topology).name == "tdt" else 2 + rules_of(topology).hat


def truth_and_naive(function, dtype, *args, **options):
    """The same computation twice: in a wider dtype, and in the dtype that arithmetic on `dtype` happens in."""
    name = np.dtype(dtype).name
    truth = function(*args, dtype=np.longdouble if name == "float64" else np.float64, **options)
    return truth, function(*args, dtype=np.float64 if name == "float64" else np.float32, **options)


def alignments(frames, labels, topology):
    """Every alignment, each as the arcs ``(t, u, is_label)`` that it takes out of the cells that it visits."""
    choices = {"rnnt": combinations_with_replacement, "monotonic": combinations, "constrained": combinations}
    choose = choices[rules_of(topology).name]
    for emitted in choose(range(frames), labels):
        yield arcs_along(emitted, frames, topology)


def arcs_along(emitted, frames, topology):
    """The arcs ``(t, u, is_label)`` of the alignment that emits each label in this frame.

    All frames end with a blank, but for those of "monotonic" with a label.
    """
    name, arcs = rules_of(topology).name, []
    for t in range(frames):
        here = [u for u, frame in enumerate(emitted) if frame == t]
        arcs += [(t, u, True) for u in here]
        if name != "monotonic" or not here:
            arcs.append((t, sum(frame <= t for frame in emitted), False))
    return arcs


def cell_exists(frames, labels, bounds):
    """Boolean ``(T, U+1)``: the cells inside ``bounds = (first, last)``; all of them without bounds."""
    if bounds is None:
        return np.ones((frames, labels + 1), bool)
    first, last = (np.asarray(bound)[:frames, None] for bound in bounds)
    u = np.arange(labels + 1)
    return (first <= u) & (u <= last)


def log_softmax(logits):
    """Row by row; a row that is -inf throughout stays so, a row that holds NaN or +inf becomes NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        top = logits.max(axis=-1, keepdims=True)
        shifted = logits - np.where(np.isneginf(top), 0, top)
        log_norm = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return shifted - np.where(np.isneginf(log_norm), 0, log_norm)


def log_sigmoid(x):
    with np.errstate(invalid="ignore"):
        return -np.logaddexp(0, -x)


def log_distribution(logits, blank, topology):
    """Logarithm of what rows of logits ``(..., V)`` make of their ids.

    The softmax of all, or with `hat` the sigmoid of the blank's logit, and what it leaves times the softmax of the
    others. A row that holds NaN or +inf is NaN.
    """
    if not rules_of(topology).hat:
        return log_softmax(logits)
    others = logits.copy()
    others[..., blank] = -np.inf
    found = log_sigmoid(-logits[..., blank])[..., None] + log_softmax(others)
    found[..., blank] = log_sigmoid(logits[..., blank])
    found[(np.isnan(logits) | np.isposinf(logits)).any(axis=-1)] = np.nan
    return found


def arc_scores(logits, targets, *, blank=0, topology="rnnt", bounds=None):
    """Scores of the arcs of one example: log-probabilities, and what a delay penalty adds to labels.

    Parameters
    ----------
    logits : (T, U+1, V) array
        Of the frames of the example, and no padding: a delay penalty counts from the middle of the array.
    targets : (U,) array of int
    blank : int
    topology : str or object with the fields of `Rules`
    bounds : pair of (T,) arrays, optional

    Returns
    -------
    log_probs (T, U+1, V), blank_score (T, U+1), label_score (T, U+1); the last column of label_score is -inf
    """
    frames, width, _ = logits.shape
    log_probs = log_distribution(logits, blank, topology)
    early = (frames - 1) / 2 - np.arange(frames)
    reward = (rules_of(topology).delay_penalty * early).astype(logits.dtype)
    exists = cell_exists(frames, width - 1, bounds)
    blank_score = np.where(exists, log_probs[:, :, blank], -np.inf).astype(logits.dtype)
    label_score = np.full_like(blank_score, -np.inf)
    for u, label in enumerate(targets):
        label_score[:, u] = np.where(exists[:, u], log_probs[:, u, label] + reward, -np.inf)
    return log_probs, blank_score, label_score


def loss_by_enumeration(logits, targets, *, blank=0, topology="rnnt", bounds=None, dtype=np.float64):
    """Loss of one example: minus the logarithm of the summed probabilities of all its alignments."""
    logits = np.asarray(logits).astype(dtype)
    _, blank_score, label_score = arc_scores(logits, targets, blank=blank, topology=topology, bounds=bounds)
    log_z = dtype(-np.inf)
    for arcs in alignments(logits.shape[0], len(targets), topology):
        scores = [label_score[t, u] if is_label else blank_score[t, u] for t, u, is_label in arcs]
        log_z = np.logaddexp(log_z, sum(scores))
    return -log_z


def scores_by_enumeration(blank_score, label_score, topology):
    """What `arc_posteriors` gives, arc by arc of every alignment; scores of any sign."""
    found = [*alignments(len(blank_score), blank_score.shape[1] - 1, topology)]
    scores = [sum((label_score if is_label else blank_score)[t, u] for t, u, is_label in arcs) for arcs in found]
    log_z = np.logaddexp.reduce(np.array(scores, blank_score.dtype), initial=-np.inf)
    gammas = np.zeros((2, *blank_score.shape), blank_score.dtype)
    for arcs, score in zip(found, scores):
        for t, u, is_label in arcs:
            gammas[int(is_label), t, u] += np.exp(score - log_z) if score > -np.inf else 0
    return -log_z, *gammas


def arc_posteriors(blank_score, label_score, topology):
    """Forward and backward over the arcs of one example.

    With "constrained" a label and the blank behind it are one step. That blank's probability is `gamma_blank`'s too.

    Returns
    -------
    loss : scalar, inf where no alignment exists
    gamma_blank, gamma_label : (T, U+1) arrays, the probability that an alignment uses the arc
    """
    frames, width = blank_score.shape
    name = rules_of(topology).name
    step = 0 if name == "rnnt" else 1  # frames a label arc consumes
    if name == "constrained":
        label_score = label_score.copy()
        label_score[:, :-1] += blank_score[:, 1:]
    alpha = np.full((frames + 1, width + 1), -np.inf, blank_score.dtype)
    beta = np.full_like(alpha, -np.inf)
    alpha[0, 0] = 0
    beta[frames, width - 1] = 0  # every alignment ends having consumed all frames and all labels
    with np.errstate(invalid="ignore"):
        for t in range(frames):
            for u in range(width):
                for score, t1, u1 in ((blank_score[t, u], t + 1, u), (label_score[t, u], t + step, u + 1)):
                    alpha[t1, u1] = np.logaddexp(alpha[t1, u1], alpha[t, u] + score)
        for t in reversed(range(frames)):
            for u in reversed(range(width)):
                beta[t, u] = np.logaddexp(blank_score[t, u] + beta[t + 1, u], label_score[t, u] + beta[t + step, u + 1])
    log_z = beta[0, 0]
    if np.isneginf(log_z):
        return -log_z, np.zeros_like(blank_score), np.zeros_like(blank_score)
    before = alpha[:frames, :width] - log_z
    gamma_blank = np.exp(before + blank_score + beta[1:, :width])
    gamma_label = np.exp(before + label_score + beta[step : step + frames, 1:])
    if name == "constrained":
        gamma_blank[:, 1:] += gamma_label[:, :-1]
    return -log_z, gamma_blank, gamma_label


def loss_and_grad(
    logits, targets, *, blank=0, topology="rnnt", bounds=None, fastemit_lambda=0.0, grad_loss=1.0, dtype=np.float64
):
    """Loss of one example and its gradient with respect to the logits ``(T, U+1, V)``."""
    logits = np.asarray(logits).astype(dtype)
    log_probs, blank_score, label_score = arc_scores(logits, targets, blank=blank, topology=topology, bounds=bounds)
    loss, gamma_blank, gamma_label = arc_posteriors(blank_score, label_score, topology)
    if np.isposinf(loss):
        return loss, np.zeros_like(logits)
    gamma_label = gamma_label * dtype(1 + fastemit_lambda)
    if rules_of(topology).hat:
        others = logits.copy()
        others[:, :, blank] = -np.inf
        grad = gamma_label[:, :, None] * np.exp(log_softmax(others))
        is_blank, is_label = np.exp(log_sigmoid(logits[:, :, blank])), np.exp(log_sigmoid(-logits[:, :, blank]))
        grad[:, :, blank] = gamma_label * is_blank - gamma_blank * is_label
    else:
        grad = (gamma_blank + gamma_label)[:, :, None] * np.exp(log_probs)
        grad[:, :, blank] -= gamma_blank
    for u, label in enumerate(targets):
        grad[:, u, label] -= gamma_label[:, u]
    return loss, grad * dtype(grad_loss)


def row_of(bounds, b):
    """The bounds of one example."""
    return None if bounds is None else (bounds[0][b], bounds[1][b])


def batch_loss_and_grad(
    logits,
    targets,
    logit_lengths,
    target_lengths,
    *,
    blank=0,
    topology="rnnt",
    bounds=None,
    fastemit_lambda=0.0,
    grad_loss=None,
    dtype=np.float64,
):
    """Loss ``(B,)`` and gradient of padded logits ``(B, T, U+1, V)``; the padding is not read and its gradient is 0."""
    grad = np.zeros(logits.shape, dtype)
    loss = np.zeros(len(logits), dtype)
    for b, (frames, labels) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        loss[b], grad[b, :frames, : labels + 1] = loss_and_grad(
            logits[b, :frames, : labels + 1],
            targets[b, :labels],
            blank=blank,
            topology=topology,
            bounds=row_of(bounds, b),
            fastemit_lambda=fastemit_lambda,
            grad_loss=1 if grad_loss is None else grad_loss[b],
            dtype=dtype,
        )
    return loss, grad


def finite_differences(function, array, step=1e-5):
    """Central differences of a scalar function of one float64 array, entry by entry."""
    grad = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        shifted = array.copy()
        shifted[index] = array[index] + step
        above = function(shifted)
        shifted[index] = array[index] - step
        grad[index] = (above - function(shifted)) / (2 * step)
    return grad


def log_q_binomial(n, k, exponent):
    """Logarithm of the q-binomial of n over k at q = exp(-exponent); of the binomial where that is 0.

    It is the sum over k of 0, 1, .., n - k, repeats allowed, of q to the power of their sum.
    """
    if not exponent:
        return log(comb(n, k))
    return sum(log(expm1(-exponent * (n - k + i)) / expm1(-exponent * i)) for i in range(1, k + 1))


def uniform_loss(frames, labels, vocab, topology):
    """The loss where all logits are equal: alignments are counted, each weighted by what its delay costs."""
    name, hat, penalty = rules_of(topology)
    blanks = frames - (labels if name == "monotonic" else 0)
    loss = (blanks + labels) * log(2 if hat else vocab)
    if hat and labels:
        loss += labels * log(vocab - 1)
    loss -= penalty * labels * (frames - 1) / 2
    if name == "rnnt":
        return loss - log_q_binomial(frames + labels - 1, labels, penalty)
    # Frames that increase are those that never decrease, and 0, 1, 2, .. on top.
    return loss + penalty * labels * (labels - 1) / 2 - log_q_binomial(frames, labels, penalty)
