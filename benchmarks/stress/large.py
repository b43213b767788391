"""More elements than an int32 can count: logits padded and packed, the fused joint, and 5000 labels, against float64.

The logits repeat a few rows. A float64 recursion over their scores is the truth, and no second array of their size
exists.
"""

import numpy as np

import lattice

from .. import record

V, T, U, PATTERNS = 4096, 1050, 255, 16
"""Two examples of 268,800 cells: 2.2e9 elements."""
TOLERANCE = {"loss": 1e-6, "gradient": 2e-3}
"""Relative for losses in float32; absolute for gradients rounded to float16, whose entries are at most 1."""


def scores_of(rows, which, targets):
    """(blank, label) scores (T, U+1) in float64; `which` (T, U+1) is the pattern of each cell."""
    wide = rows.astype(np.float64)
    log_p = wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)
    label = np.full(which.shape, -np.inf)
    label[:, : len(targets)] = log_p[which[:, : len(targets)], targets]
    return log_p, log_p[which, 0], label


def truth(rows, which, targets):
    from tests import oracle

    log_p, blank, label = scores_of(rows, which, targets)
    return log_p, oracle.arc_posteriors(blank, label, "rnnt")


def row_of(log_p, posteriors, which, targets, t, u):
    """The gradient of one row of logits."""
    blank, label = (posterior[t, u] for posterior in posteriors)
    row = (blank + label) * np.exp(log_p[which[t, u]])
    row[0] -= blank
    if u < len(targets):
        row[targets[u]] -= label
    return row


def from_logits(packed: bool) -> dict:
    """float16 logits of two examples, the gradient in their place; rows at both ends and in between are compared."""
    rng = np.random.default_rng(0)
    rows = (2 * rng.standard_normal((PATTERNS, V))).astype(np.float16)
    which, targets = rng.integers(0, PATTERNS, (2, T, U + 1)), rng.integers(1, V, (2, U))
    rows[:, 0] += 4
    logits = np.empty((2, T, U + 1, V), np.float16)
    for b in range(2):
        for t in range(T):
            logits[b, t] = rows[which[b, t]]
    given = logits.reshape(-1, V) if packed else logits
    loss, _ = lattice.transducer_loss_and_grad(given, targets, np.full(2, T), np.full(2, U), out=given)
    worst = {"loss": 0.0, "gradient": 0.0}
    for b in range(2):
        log_p, (expected, *posteriors) = truth(rows, which[b], targets[b])
        worst["loss"] = max(worst["loss"], abs(float(loss[b]) / expected - 1))
        for t, u in [
            (0, 0),
            (0, U),
            (T - 1, U),
            (T - 1, 0),
            *zip(rng.integers(0, T, 200), rng.integers(0, U + 1, 200)),
        ]:
            difference = logits[b, t, u].astype(np.float64) - row_of(log_p, posteriors, which[b], targets[b], t, u)
            worst["gradient"] = max(worst["gradient"], float(np.abs(difference).max()))
    return {"elements": logits.size, **worst}


def fused() -> dict:
    """Zero weights make uniform logits: the loss and the gradient of the bias have closed forms."""
    from tests import oracle

    frames, rng = 2 * T + 100, np.random.default_rng(1)
    encoder, predictor = rng.standard_normal((1, frames, 4), np.float32), rng.standard_normal((1, U + 1, 4), np.float32)
    targets = rng.integers(1, V, (1, U))
    loss, gradients = lattice.joint_transducer_loss_and_grad(
        encoder,
        predictor,
        np.zeros((V, 4), np.float32),
        np.zeros(V, np.float32),
        targets,
        np.array([frames]),
        np.array([U]),
        posterior_floor=0,
    )
    bias = (frames + U) / V - np.bincount(targets[0], minlength=V).astype(np.float64)
    bias[0] -= frames
    expected = oracle.uniform_loss(frames, U, V, "rnnt")
    return {
        "elements": frames * (U + 1) * V,
        "loss": abs(float(loss[0]) / expected - 1),
        "gradient": float(np.abs(gradients.bias - bias).max() / frames),
    }


def many_labels(topology: str) -> dict:
    """5000 labels: uniform logits in closed form, and, for "rnnt", random ones against a float64 recursion."""
    from tests import oracle

    labels, frames, size = 5000, 200 if topology == "rnnt" else 5100, 8
    rng = np.random.default_rng(2)
    targets = rng.integers(1, size, (1, labels))
    lengths = np.array([frames]), np.array([labels])
    zero = [np.zeros(shape, np.float32) for shape in ((1, frames, 2), (1, labels + 1, 2), (size, 2))]
    loss = lattice.joint_transducer_loss(*zero, None, targets, *lengths, topology=topology, memory_limit=1 << 30)
    error = abs(float(loss[0]) / oracle.uniform_loss(frames, labels, size, topology) - 1)
    told = {"elements": frames * (labels + 1) * size, "loss": error}
    if topology == "rnnt":
        logits = rng.standard_normal((frames, labels + 1, size), np.float32)
        truth = oracle.loss_and_grad(logits, targets[0], topology=topology)
        loss, grad = lattice.transducer_loss_and_grad(logits[None], targets, *lengths, topology=topology)
        told["loss"] = max(error, abs(float(loss[0]) / truth[0] - 1))
        told["gradient"] = float(np.abs(grad[0] - truth[1]).max())
    return told


def run(options) -> dict:
    """The record."""
    table = {
        "float16 logits, padded": from_logits(False),
        "float16 logits, packed": from_logits(True),
        "fused joint": fused(),
        "5000 labels, rnnt": many_labels("rnnt"),
        "5000 labels, monotonic": many_labels("monotonic"),
    }
    record.show("large: relative error of losses, largest error of gradients", table, ("elements", "loss", "gradient"))
    failures = [
        f"{name}: {key}"
        for name, row in table.items()
        for key, bound in TOLERANCE.items()
        if not row.get(key, 0.0) <= bound
    ]
    return {"tolerance": TOLERANCE, "rows": table, "failures": failures}
