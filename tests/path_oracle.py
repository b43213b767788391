"""The other side of the tests of alignments: the best one by enumeration, and the loss along a given one, row by row.

Imports neither `lattice` nor `samplers`. `dtype` is what everything is computed in, as in `tests/oracle.py`.
"""

import numpy as np

from tests import joint_oracle, oracle


def best_by_enumeration(logits, targets, *, blank=0, topology="rnnt", bounds=None, dtype=np.float64):
    """Score and label frames of the best alignment; of equal ones that which, from the end back, takes the blank first.

    The frames are None where no alignment has a finite score.
    """
    _, blank_score, label_score = oracle.arc_scores(
        np.asarray(logits).astype(dtype), targets, blank=blank, topology=topology, bounds=bounds
    )
    best = dtype(-np.inf), [], None
    for arcs in oracle.alignments(len(logits), len(targets), topology):
        score = score_of(arcs, blank_score, label_score)
        if np.isnan(score):
            return score, None
        takes_blank = [not is_label for _, _, is_label in arcs[::-1]]
        best = max(best, (score, takes_blank, [t for t, _, is_label in arcs if is_label]))
    return best[0], None if np.isneginf(best[0]) else best[2]


def score_of(arcs, blank_score, label_score):
    """Score of an alignment, added up arc by arc."""
    return sum(
        (label_score[t, u] if is_label else blank_score[t, u] for t, u, is_label in arcs), blank_score.dtype.type(0)
    )


def best_by_recursion(blank_score, label_score, topology):
    """Score and label frames of one example, in float64: for lattices too large to enumerate."""
    frames, width = blank_score.shape
    name = oracle.rules_of(topology).name
    step = 0 if name == "rnnt" else 1
    if name == "constrained":  # a label and the blank behind it are one step
        label_score = label_score.copy()
        label_score[:, :-1] += blank_score[:, 1:]
    blank_score, label_score = blank_score.tolist(), label_score.tolist()
    best = [[-np.inf] * width for _ in range(frames + 1)]
    by_label = np.zeros((frames + 1, width), bool)
    best[0][0] = 0.0
    for t in range(frames + 1):
        if t:
            best[t] = [before + score for before, score in zip(best[t - 1], blank_score[t - 1], strict=True)]
        source = t - step
        if not 0 <= source < frames:
            continue
        for u in range(1, width):
            score = best[source][u - 1] + label_score[source][u - 1]
            if score > best[t][u]:
                best[t][u], by_label[t, u] = score, True
    found, t, u = [], frames, width - 1
    while u:
        if by_label[t, u]:
            t, u = t - step, u - 1
            found.append(t)
        else:
            t -= 1
    return best[frames][width - 1], found[::-1]


def row_loss_and_grad(row, own, *, blank=0, topology="rnnt", label_smoothing=0.0, focal=0.0):
    """Loss of one row of logits along the arc of id `own`, and its gradient.

    The loss is a product of two factors of the row's distribution.
    """
    dtype, others = row.dtype.type, np.arange(len(row)) != own
    hat = oracle.rules_of(topology).hat
    log_probs = oracle.log_distribution(row, blank, topology)
    probs = np.exp(log_probs)
    wanted = np.zeros_like(row)
    if len(row) > 1:
        wanted[others] = dtype(label_smoothing) / dtype(len(row) - 1)
    wanted[own] = 1 - wanted[others].sum()
    cross_entropy = -(wanted[wanted > 0] * log_probs[wanted > 0]).sum()
    if hat:
        return _factorised(row, own, blank, probs, wanted, cross_entropy, focal)
    if not focal or np.isposinf(cross_entropy):
        return cross_entropy, probs - wanted
    wrong = probs[others].sum()
    factor = wrong ** dtype(focal)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = dtype(focal) * wrong ** dtype(focal - 1)
        grad_factor = np.where(others, slope * probs[own] * probs, -slope * probs[own] * wrong)
    grad_factor[np.isnan(grad_factor) & (wrong == 0)] = 0
    return factor * cross_entropy, factor * (probs - wanted) + grad_factor * cross_entropy


def _factorised(row, own, blank, probs, wanted, cross_entropy, focal):
    """`row_loss_and_grad` of a blank's sigmoid and a softmax of the others, by the derivative in log probs."""
    dtype, labels = row.dtype.type, np.arange(len(row)) != blank
    is_blank, is_label = np.exp(oracle.log_sigmoid(row[blank])), np.exp(oracle.log_sigmoid(-row[blank]))
    # Without a label of any probability the others' sum would be 0.
    wrong = is_label if own == blank else probs[np.arange(len(row)) != own].sum()
    factor, by_log_probs = dtype(1), -wanted
    if focal and not np.isposinf(cross_entropy):
        factor = wrong ** dtype(focal)
        by_log_probs = factor * by_log_probs
        if wrong:
            by_log_probs[own] -= cross_entropy * dtype(focal) * wrong ** dtype(focal - 1) * probs[own]
    of_labels = by_log_probs[labels].sum()
    softmax = row.copy()
    softmax[blank] = -np.inf
    grad = by_log_probs - of_labels * np.exp(oracle.log_softmax(softmax))
    grad[blank] = by_log_probs[blank] * is_label - of_labels * is_blank
    return factor * cross_entropy, grad


def path_loss_and_grad(
    logits,
    targets,
    frames,
    *,
    blank=0,
    topology="monotonic",
    label_smoothing=0.0,
    label_scale=0.0,
    focal=0.0,
    grad_loss=1.0,
    dtype=np.float64,
):
    """Loss of one example along an alignment and its gradient with respect to the logits ``(T, U+1, V)``.

    An infinite loss has no gradient, and where the loss is NaN so are all rows that the alignment visits.
    """
    logits = np.asarray(logits).astype(dtype)
    blank %= logits.shape[-1]
    loss, grad = dtype(0), np.zeros_like(logits)
    arcs = oracle.arcs_along(list(frames), len(logits), topology)
    for t, u, is_label in arcs:
        own, factor = (targets[u], dtype(1 + label_scale)) if is_label else (blank, dtype(1))
        with np.errstate(invalid="ignore"):
            row_loss, row_grad = row_loss_and_grad(
                logits[t, u], own, blank=blank, topology=topology, label_smoothing=label_smoothing, focal=focal
            )
        loss += factor * row_loss
        grad[t, u] = factor * row_grad * dtype(grad_loss)
        if is_label:
            loss -= dtype(oracle.rules_of(topology).delay_penalty) * dtype((len(logits) - 1) / 2 - t)
    if not np.isfinite(loss):
        for t, u, _ in arcs:
            grad[t, u] = 0 if np.isposinf(loss) else np.nan
    return loss, grad


def joint_path_loss_and_grad(
    encoder,
    predictor,
    weight,
    bias,
    targets,
    frames,
    encoder_lengths,
    target_lengths,
    *,
    blank=0,
    activation="tanh",
    topology="monotonic",
    label_smoothing=0.0,
    label_scale=0.0,
    focal=0.0,
    vocabulary=None,
    vocabulary_lengths=None,
    dropout=None,
    grad_loss=None,
    dtype=np.float64,
):
    """Loss and gradients along the alignments of a batch, as `joint_oracle.through_joint` returns them."""

    def of_logits(n, logits, labels, blank):
        return path_loss_and_grad(
            logits,
            labels,
            frames[n, : len(labels)],
            blank=blank,
            topology=topology,
            label_smoothing=label_smoothing,
            label_scale=label_scale,
            focal=focal,
            grad_loss=1 if grad_loss is None else grad_loss[n],
            dtype=dtype,
        )

    return joint_oracle.through_joint(
        of_logits,
        encoder,
        predictor,
        weight,
        bias,
        targets,
        encoder_lengths,
        target_lengths,
        blank=blank,
        activation=activation,
        vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths,
        dropout=dropout,
        dtype=dtype,
    )
