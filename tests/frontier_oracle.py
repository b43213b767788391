"""What leaves a set of cells, alignment by alignment, and the cells that a frontier of probabilities reaches.

Probabilities are float64 numbers, so lattices have to be small. Neither package is imported.
"""

from math import frexp, inf, log

import numpy as np

from tests.oracle import alignments, rules_of


def steps_of(arcs, paired):
    """The arcs of an alignment, one by one; `paired`, a label and the blank behind it are one."""
    steps, k = [], 0
    while k < len(arcs):
        t, u, is_label = arcs[k]
        steps.append((t, u, is_label))
        k += 2 if paired and is_label else 1
    return steps


def inside_and_outside(blank, label, inside, held, known, topology, largest=False):
    """Weights of the alignments that keep to a set of cells, and of all others: (inside, outside).

    Parameters
    ----------
    blank, label : (T, U+1) float64
        Probabilities of arcs, or upper bounds on them.
    inside, held, known : (T, U+1) bool
        The set; the cells whose scores are held; and those whose label arc does not lead out, unless it is a pair that
        ends outside of the set. A pair counts without its blank where that or its label is not held.
    largest : bool
        The largest weight takes the place of the sum.
    """
    frames, width = blank.shape
    paired = rules_of(topology).name == "constrained"
    weights = [[], []]
    for arcs in alignments(frames, width - 1, topology):
        weight, left = 1.0, False
        for t, u, is_label in steps_of(arcs, paired):
            weight *= (label if is_label else blank)[t, u]
            left |= not inside[t, u]
            if is_label:
                both = paired and held[t, u] and held[t, u + 1]
                weight *= blank[t, u + 1] if both else 1.0
                left |= not known[t, u] or (paired and not inside[t, u + 1])
        weights[left].append(weight)
    return tuple((max if largest else sum)(own, **({"default": 0.0} if largest else {})) for own in weights)


def rounded_down(x):
    """The logarithm of x, rounded down to a power of two."""
    return (frexp(x)[1] - 1) * log(2) if x else -inf


def reached(blank, label, exists, nats, topology):
    """(T, U+1) bool: the cells of each frame that are at most `nats` below the best one of the frame before.

    What comes to another cell goes no further. `blank` and `label` (T, U+1) are probabilities.
    """
    frames, width = blank.shape
    name = rules_of(topology).name
    found = np.zeros((frames, width), bool)
    arriving, best = np.zeros(width + 1), 0.0
    arriving[0] = 1.0
    for t in range(frames):
        behind, along, cut, best = np.zeros(width + 1), 0.0, best - nats, -inf
        for u in range(width):
            here = arriving[u] + along
            along = 0.0
            if not exists[t, u] or not here or rounded_down(here) < cut:
                continue
            found[t, u], best = True, max(best, rounded_down(here))
            behind[u] += here * blank[t, u]
            if name == "rnnt":
                along = here * label[t, u]
            else:
                behind[u + 1] += here * label[t, u]
        arriving = behind
    return found
