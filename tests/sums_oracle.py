"""alpha by sums of probabilities in longdouble, and scores of arcs for it. Written plainly; imports neither package."""

import numpy as np

HELD = -11_300
"""Logarithm of probabilities that longdouble holds with all its digits."""


def alpha_of(frames, monotonic, blank, label, paired=False):
    """log alpha, and log_z, by sums of probabilities.

    A label arc that is `paired` takes in the blank of the cell behind it.
    """
    blank, label = (np.exp(part.astype(np.longdouble)) for part in (blank, label))
    place = {}
    for f in range(len(frames.example)):
        for c in range(frames.offset[f], frames.offset[f + 1]):
            place[f, frames.first[f] + c - frames.offset[f]] = c
    alpha = np.zeros(frames.cells + 1, np.longdouble)
    T, U = len(frames.example), int(frames.labels[0])
    for (f, u), c in [*place.items(), ((T, U), frames.cells)]:
        stay, step = place.get((f - 1, u)), place.get((f - monotonic, u - 1))
        alpha[c] = 1 if f == u == 0 else 0
        if stay is not None:
            alpha[c] += alpha[stay] * blank[stay]
        # Out of the last frame leads a blank arc, or with "monotonic" either.
        if step is not None and (f < T or monotonic) and not (paired and stay is None):
            alpha[c] += alpha[step] * label[step] * (blank[stay] if paired else 1)
    with np.errstate(divide="ignore"):
        found = np.log(alpha)
    return found[:-1], found[-1]


def flat(rng, frames):
    """Arcs as an untrained model with 1024 entries scores them."""
    return (np.log(1 / 1024) + 0.3 * rng.standard_normal((2, frames.cells))).astype(np.float32)


def _trained(rng, frames, sharpness, others):
    """Logits (3, cells) of blank, label and the rest: blanks win where more labels are out than are due by now."""
    width = np.diff(frames.offset)
    u = np.arange(frames.cells) - np.repeat(frames.offset[:-1] - frames.first, width)
    ahead = sharpness * (u - np.repeat((frames.t + 1) * frames.labels[0] / len(frames.example), width))
    logits = np.stack([ahead, -ahead, rng.standard_normal(frames.cells) + others])
    logits[1, u == frames.labels[0]] = -np.inf
    return logits


def sharp(rng, frames):
    """Arcs as a trained model scores them."""
    logits = _trained(rng, frames, 2, -1)
    return (logits[:2] - np.logaddexp.reduce(logits, axis=0)).astype(np.float32)


def trained(rng, frames):
    """Scores of arcs, and upper bounds that know of the blank and the label only, (2, cells) each."""
    logits = _trained(rng, frames, 1.5, -3)
    norms = np.logaddexp.reduce(logits, axis=0), np.logaddexp(logits[0], logits[1])
    return tuple((logits[:2] - norm).astype(np.float32) for norm in norms)
