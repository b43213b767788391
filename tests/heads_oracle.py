"""Scores and gradient rows of cells whose arcs take several frames, row by row in longdouble."""

import numpy as np


def heads_of(rows, tail):
    """The heads of rows (n, V + tail): tokens, and durations if there are any."""
    cut = rows.shape[1] - tail
    return [rows[:, :cut], rows[:, cut:]] if tail else [rows]


def log_softmax(head):
    """Of rows (n, V), -inf where a row is -inf throughout, and NaN where it holds NaN or +inf."""
    found = np.empty(head.shape, np.longdouble)
    for row, out in zip(head.astype(np.longdouble), found, strict=True):
        if not (row < np.inf).all():
            out[:] = np.nan
        elif (row == -np.inf).all():
            out[:] = -np.inf
        else:
            order = np.argsort(row)[::-1]
            out[:] = row - row[order[0]] - np.log1p(np.exp(row[order[1:]] - row[order[0]]).sum())
    return found


def scores(rows, label, blanks, tail, sigma):
    """(blank (n,), label (n,), steps (D, n)) of rows (n, V + tail); label -1 is none."""
    heads = [log_softmax(head) for head in heads_of(rows, tail)]
    tokens = heads[0]
    of_label = np.array([tokens[i, v] if v >= 0 else min(tokens[i, 0], -np.inf) for i, v in enumerate(label)])
    # 0, or what is wrong with a cell's last head: -inf throughout, or NaN.
    whole = np.array([0 if np.isfinite(row).any() else row[0] for row in heads[-1]], np.longdouble)
    if tail:
        return tokens[:, blanks[0]] + whole, of_label + whole, heads[1].T - sigma
    return whole, of_label, np.stack([whole, *tokens[:, blanks].T]) - sigma


def gradient(rows, label, blanks, tail, arcs, steps, factor, upstream):
    """(gradient, sum of the magnitudes that each entry is a difference of), both (n, V + tail).

    `arcs` (2, n) are posteriors of blanks and labels, `steps` (D, n) of steps; a label arc counts `factor` times.
    """
    taken = [np.zeros(head.shape, np.longdouble) for head in heads_of(rows, tail)]
    for i, v in enumerate(label):
        taken[0][i, blanks] = arcs[0, i] if tail else steps[1:, i]
        if v >= 0:
            taken[0][i, v] = np.longdouble(factor) * arcs[1, i]
        if tail:
            taken[1][i] = steps[:, i]
    found, parts = [], []
    for head, own in zip(heads_of(rows, tail), taken, strict=True):
        p = np.exp(log_softmax(head))
        gained, lost = p * all_but_one(own), own * all_but_one(p)
        found.append((gained - lost) * upstream[:, None])
        parts.append((gained + lost) * abs(upstream[:, None]))
    return np.concatenate(found, axis=1), np.concatenate(parts, axis=1)


def all_but_one(values):
    """Sums of each row without each of its entries, (n, V): no difference costs them digits."""
    return np.stack([np.delete(values, v, axis=1).sum(axis=1) for v in range(values.shape[1])], axis=1)
