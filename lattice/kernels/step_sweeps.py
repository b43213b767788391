"""The sweeps of one thread of a CPU over the lattice of one example whose arcs take several frames (steps.py).

A sweep takes a frame at a time (step_rows.py). Of a frame only those cells take part that arcs may lead to, and back
those whose own arcs are open; alpha or beta of all others is 0.
"""

import numpy as np
from numba.extending import register_jitable

from .cells import CLOSED, at_most_one, exp, larger, log_add
from .runs import FAR, NONE, ONE
from .step_rows import (
    ahead,
    any_term,
    arrive,
    close_row,
    depart,
    follow_best,
    follow_labels,
    open_base,
    open_range,
    reached,
    read_frame,
    step_scratch,
    to_logs,
)  # fmt: skip
from .steps import BLANK, LABEL


@register_jitable
def forward_steps(begin, end, labels, first, offset, steps, bounds, kept, largest, state, step_score, alpha):
    """`sweeps.forward` where arcs take several frames; with `largest`, a constant at each call, of best scores."""
    scratch = step_scratch(end - begin, labels, steps)
    ring, stays = np.uint64(scratch.stay.shape[0]), steps[0, 0] == 0
    high, total = scratch.high, scratch.total
    for f in range(begin, end):
        r, low, c = np.uint64(f) % ring, np.uint64(first[f]), np.uint64(offset[f])
        behind = low + np.uint64(offset[f + 1]) - c
        shift = c - low
        lo, hi = reached(f, begin, steps, scratch)
        if f == begin:
            lo, hi = NONE, ONE
        lo, (open_begin, open_end) = max(lo, low), open_range(f, first, offset, bounds, state)
        if stays and lo < hi:
            # Labels lead on as far as cells are open.
            hi = max(hi, open_end + ONE)
        hi = max(min(hi, behind), lo)
        if lo >= hi:
            scratch.begin[r], scratch.end[r] = FAR, NONE
            if kept:
                alpha[c : offset[f + 1]] = CLOSED
            continue
        read_frame(lo, hi, shift, bounds, state, scratch)
        close_row(lo, hi, high, total)
        arrive(f, begin, lo, hi, False, first, offset, steps, step_score, scratch)
        if f == begin and lo == NONE and lo < hi:
            high[ONE], total[ONE] = 0.0, 1.0  # alignments begin in cell (0, 0)
        if largest:
            if stays:
                follow_best(lo, hi, False, step_score, shift, scratch)
            for j in range(lo + ONE, hi + ONE):
                total[j] = high[j]
        else:
            open_base(lo, hi, high)
            arrive(f, begin, lo, hi, True, first, offset, steps, step_score, scratch)
            if stays:
                follow_labels(lo, hi, False, step_score, shift, scratch)
                to_logs(lo, hi, True, scratch)
            else:
                to_logs(lo, hi, False, scratch)
        for u in range(lo, hi):
            # What no alignment reaches is in no sum, whatever it holds.
            here = total[u + ONE]
            scratch.stay[r, u + ONE] = CLOSED if here == CLOSED else here + scratch.blank_score[u + ONE]
            scratch.move[r, u + ONE] = CLOSED if here == CLOSED else here + scratch.label_score[u + ONE]
        # Arcs lead on from open cells alone.
        scratch.begin[r], scratch.end[r] = max(lo, open_begin), min(hi, open_end)
        if kept:
            for u in range(low, lo):
                alpha[u + shift] = CLOSED
            for u in range(lo, hi):
                alpha[u + shift] = total[u + ONE]
            for u in range(hi, behind):
                alpha[u + shift] = CLOSED
    # Behind the last frame there is one cell, (T, U), to which blanks lead.
    log_z, u = CLOSED, np.uint64(labels)
    for n in range(steps.shape[1]):
        d = steps[0, n]
        if steps[1, n] & BLANK and d <= end - begin:
            r = np.uint64(end - d) % ring
            if scratch.begin[r] <= u < scratch.end[r]:
                c = offset[end - d] + labels - first[end - d]
                x = scratch.stay[r, u + ONE] + step_score[n, c]
                log_z = larger(x, log_z) if largest else log_add(log_z, x)
    return log_z


@register_jitable
def note(known, ahead, tiny):
    """Posterior of an arc from alpha - log_z, and from the arc with beta behind it: at most 1, and 0 below `tiny`."""
    # Where no alignment leads on there is none, whatever alpha is. Other NaN stay.
    x = CLOSED if ahead == CLOSED else known + ahead
    found = exp(0.0 if x > 0.0 else x)
    return 0.0 if found < tiny else found


@register_jitable
def step_posteriors(f, end, lo, hi, steps, tiny, nothing, step_score, shift, scratch):
    """Posteriors of a frame: of its steps in the place of their scores, of its arcs in `total` and `power`.

    `weight` holds alpha - log_z, and `nothing` is 0, or NaN where log_z is.
    """
    ring, known, beta = np.uint64(scratch.stay.shape[0]), scratch.weight, scratch.stay
    by_blank, by_label, row = scratch.total, scratch.power, scratch.high
    for j in range(lo + ONE, hi + ONE):
        by_blank[j], by_label[j] = nothing, nothing
    for n in range(steps.shape[1]):
        d = np.uint64(steps[0, n])
        r = (np.uint64(f) + d) % ring
        far = d > np.uint64(end - f)
        a, b = max(lo, scratch.begin[r]) + ONE, min(hi, scratch.end[r]) + ONE
        for j in range(lo + ONE, hi + ONE):
            row[j] = nothing
        if steps[1, n] & BLANK and not far:
            for j in range(a, b):
                x = ahead(beta[r, j], scratch.blank_score[j], step_score[n, j - ONE + shift])
                row[j] += note(known[j], x, tiny)
            for j in range(a, b):
                by_blank[j] += row[j]
        if steps[1, n] & LABEL and not far and np.uint64(f) + d < np.uint64(end):
            for j in range(max(lo + ONE, scratch.begin[r]), min(hi + ONE, scratch.end[r])):
                x = ahead(beta[r, j + ONE], scratch.label_score[j], step_score[n, j - ONE + shift])
                x = note(known[j], x, tiny)
                by_label[j] += x
                row[j] += x
        for j in range(lo + ONE, hi + ONE):
            # What no alignment reaches has no posterior, whatever it holds.
            step_score[n, j - ONE + shift] = 0.0 if known[j] == CLOSED else at_most_one(row[j])
    for j in range(lo + ONE, hi + ONE):
        by_blank[j] = 0.0 if known[j] == CLOSED else by_blank[j]
        by_label[j] = 0.0 if known[j] == CLOSED else by_label[j]


@register_jitable
def backward_steps(
    begin, end, labels, first, offset, steps, bounds, posteriors, largest, state, step_score, alpha, log_z, tiny
):
    """Sweep beta back over one example, for posteriors in the place of scores, or for visits in the place of alpha.

    `posteriors` is a constant at each call, and `largest`, as in `forward_steps`. With posteriors, those of all arcs of
    a cell that take a step go to `step_score`, and those of its blank and of its label arcs to the scores of `state`.
    """
    scratch = step_scratch(end - begin, labels, steps)
    ring, stays = np.uint64(scratch.stay.shape[0]), steps[0, 0] == 0
    high, total, outside = scratch.high, scratch.total, log_z - log_z  # 0, or NaN
    # Behind the last frame there is one cell, (T, U), whose beta is 1.
    r, u = np.uint64(end) % ring, np.uint64(labels)
    scratch.stay[r, u + ONE], scratch.begin[r], scratch.end[r] = 0.0, u, u + ONE
    for f in range(end - 1, begin - 1, -1):
        r, low, c = np.uint64(f) % ring, np.uint64(first[f]), np.uint64(offset[f])
        behind = low + np.uint64(offset[f + 1]) - c
        shift = c - low
        lo, hi = open_range(f, first, offset, bounds, state)
        if lo >= hi:
            lo, hi = behind, behind
        read_frame(lo, hi, shift, bounds, state, scratch)
        close_row(lo, hi, high, total)
        depart(f, end, lo, hi, False, steps, step_score, shift, scratch)
        if largest:
            if stays:
                follow_best(lo, hi, True, step_score, shift, scratch)
            for j in range(lo + ONE, hi + ONE):
                total[j] = high[j]
        else:
            open_base(lo, hi, high)
            depart(f, end, lo, hi, True, steps, step_score, shift, scratch)
            # Where no blanks of a frame lead to the end no labels do: a NaN of theirs is not to be multiplied by 0.
            if stays and any_term(lo, hi, total):
                follow_labels(lo, hi, True, step_score, shift, scratch)
                to_logs(lo, hi, True, scratch)
            else:
                to_logs(lo, hi, False, scratch)
        for j in range(lo + ONE, hi + ONE):
            scratch.stay[r, j] = total[j]
        scratch.begin[r], scratch.end[r] = lo, hi
        if posteriors:
            for j in range(lo + ONE, hi + ONE):
                scratch.weight[j] = alpha[j - ONE + shift] - log_z
            step_posteriors(f, end, lo, hi, steps, tiny, outside, step_score, shift, scratch)
            for u in range(low, behind):
                inside = lo <= u < hi
                state.blank_score[u + shift] = at_most_one(total[u + ONE]) if inside else outside
                state.label_score[u + shift] = at_most_one(scratch.power[u + ONE]) if inside else outside
            for n in range(steps.shape[1]):
                for u in range(low, lo):
                    step_score[n, u + shift] = outside
                for u in range(hi, behind):
                    step_score[n, u + shift] = outside
        else:
            for u in range(low, lo):
                alpha[u + shift] = CLOSED
            for u in range(lo, hi):
                alpha[u + shift] += total[u + ONE]
            for u in range(hi, behind):
                alpha[u + shift] = CLOSED
