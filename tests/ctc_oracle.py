"""The other side of the tests of CTC: enumeration of all label strings, the naive recursion, and the best path.

Imports neither `lattice` nor `samplers`. `dtype` is what everything is computed in, as in `tests/oracle.py`.
"""

from itertools import groupby, product

import numpy as np

from tests.oracle import log_softmax


def collapse(string, blank):
    """Runs of one id merged, then blanks removed."""
    return [v for v, _ in groupby(string) if v != blank]


def strings(frames, targets, blank):
    """Every string of one id per frame that collapses to the targets."""
    targets = [int(v) for v in targets]
    for string in product(sorted({blank, *targets}), repeat=frames):
        if collapse(string, blank) == targets:
            yield string


def first_frames(string, blank):
    """The frame in which each run of a label begins."""
    return [t for t, v in enumerate(string) if v != blank and (t == 0 or string[t - 1] != v)]


def last_frames(string, blank):
    """The frame in which each run of a label ends."""
    return [t for t, v in enumerate(string) if v != blank and (t + 1 == len(string) or string[t + 1] != v)]


def states(string, blank):
    """The state of each frame: twice the labels begun so far, less one while the last of them lasts."""
    begun = np.cumsum([t in first_frames(string, blank) for t in range(len(string))])
    return [2 * int(count) - (v != blank) for count, v in zip(begun, string, strict=True)]


def score_of(log_probs, string):
    """Log-probability of a string, added up frame by frame."""
    return sum((log_probs[t, v] for t, v in enumerate(string)), log_probs.dtype.type(0))


def loss_by_enumeration(logits, targets, *, blank=0, dtype=np.float64):
    """Loss of one example ``(T, V)``: minus the logarithm of the summed probabilities of all its strings."""
    log_probs = log_softmax(np.asarray(logits).astype(dtype))
    log_z = dtype(-np.inf)
    for string in strings(len(logits), targets, blank):
        log_z = np.logaddexp(log_z, score_of(log_probs, string))
    return -log_z


def best_by_enumeration(logits, targets, *, blank=0, dtype=np.float64):
    """Score and best string; of equal ones that which, from the last frame back, is further on.

    The string is None where none has a finite score.
    """
    log_probs = log_softmax(np.asarray(logits).astype(dtype))
    if np.isnan(log_probs).any():
        return dtype(np.nan), None
    found = [
        (score_of(log_probs, string), states(string, blank)[::-1], string)
        for string in strings(len(logits), targets, blank)
    ]
    score, _, string = max(found, default=(dtype(-np.inf), None, None))
    return score, None if np.isneginf(score) else string


def loss_and_grad(logits, targets, *, blank=0, grad_loss=1.0, dtype=np.float64):
    """Loss of one example and its gradient with respect to the logits ``(T, V)``.

    The recursions run forward and backward over the states of the example.
    """
    logits, targets = np.asarray(logits).astype(dtype), np.asarray(targets, np.int64)
    log_probs = log_softmax(logits)
    ids = np.full(2 * len(targets) + 1, blank)
    ids[1::2] = targets
    score = log_probs[:, ids]
    closed = np.array(-np.inf, dtype)
    skips = np.zeros(len(ids), bool)  # entered from the label before, past a blank
    skips[3::2] = targets[1:] != targets[:-1]

    def shifted(values, by):
        return np.concatenate([np.full(min(by, len(ids)), closed), values[: max(0, len(ids) - by)]])

    alpha, beta = np.full_like(score, closed), np.full_like(score, closed)
    with np.errstate(invalid="ignore"):
        alpha[0] = np.where(np.arange(len(ids)) < 2, dtype(0), closed) + score[0]
        for t in range(1, len(logits)):
            skip = np.where(skips, shifted(alpha[t - 1], 2), closed)
            alpha[t] = np.logaddexp(np.logaddexp(alpha[t - 1], shifted(alpha[t - 1], 1)), skip) + score[t]
        beta[-1, -2:] = 0
        for t in reversed(range(len(logits) - 1)):
            onward = (beta[t + 1] + score[t + 1])[::-1]
            skip = np.where(np.append(skips, [False, False])[2:][::-1], shifted(onward, 2), closed)
            beta[t] = np.logaddexp(np.logaddexp(onward, shifted(onward, 1)), skip)[::-1]
        log_z = np.logaddexp.reduce(alpha[-1, -2:])
        if np.isneginf(log_z):
            return -log_z, np.zeros_like(logits)
        gamma = np.exp(alpha + beta - log_z)
        grad = gamma.sum(axis=1, keepdims=True) * np.exp(log_probs)
        for s, v in enumerate(ids):
            grad[:, v] -= gamma[:, s]
        return -log_z, grad * dtype(grad_loss)


def batch_loss_and_grad(logits, targets, logit_lengths, target_lengths, *, blank=0, grad_loss=None, dtype=np.float64):
    """Loss ``(B,)`` and gradient of padded logits ``(B, T, V)``; the padding is not read and its gradient is 0."""
    loss, grad = np.zeros(len(logits), dtype), np.zeros(logits.shape, dtype)
    for b, (frames, labels) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        loss[b], grad[b, :frames] = loss_and_grad(
            logits[b, :frames],
            targets[b, :labels],
            blank=blank % logits.shape[2],
            grad_loss=1 if grad_loss is None else grad_loss[b],
            dtype=dtype,
        )
    return loss, grad
