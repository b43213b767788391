"""The numbers that make a row along a path: its loss, and the factors of its gradient.

With p the distribution of a row, y its arc's id and q the smoothed target (1 - e at y, e / (V - 1) at all others), a
row's loss is factor * (1 - p[y])**focal * sum_v -q[v] log p[v]. The power and the sum are both differentiated;
docs/math.md has the gradient. p is the softmax of the row, or with HAT what two heads give (hat.py).
"""

import math

from numba.extending import register_jitable

from .cells import CLOSED, NEGLIGIBLE, flush, typed
from .hat import sigmoids, two_way


@register_jitable
def own_loss(own, e, rest, log_total):
    """-log p of an entry of a softmax, from its logit less the maximum, e = exp(own), and the sum of the others."""
    # Where p is above 1/2, log_total and own may agree in most digits, so they are not subtracted.
    return math.log1p(rest / e) if rest < e else log_total - own


@register_jitable
def focal_factor(loss, wrong, taken, focal):
    """((1 - p[y])**focal, and its slope), from the cross-entropy, 1 - p[y] and p[y]."""
    factor, slope = typed(1, loss), typed(0, loss)
    # An infinite cross-entropy stays infinite, whatever it is multiplied by.
    if focal > 0 and loss < -typed(CLOSED, loss):
        factor = wrong**focal
        slope = focal * factor * loss * taken
    return factor, slope


@register_jitable
def weigh(own, e, rest, others, count, smoothing, focal, tiny):
    """(loss, scale, slope, inverse, uniform, taken): what `path_entry` takes, and minus the gradient at the arc's id.

    `own` is the arc's logit and `others` the mean of the `count` other logits, both less the row's maximum. e is
    exp(own), and `rest` the sum of the other exponentials (in normaliser.py the maximum's term is left out, here the
    arc's). 1 - p is formed from `rest`, because the p of a certain row holds no digits of it.
    """
    one, total = typed(1, own), e + rest
    log_total, wrong = math.log(total), rest / total  # log of the sum of exp(logit - maximum); 1 - p[y]
    loss, uniform = own_loss(own, e, rest, log_total), typed(0, own)
    if smoothing > 0:
        # The mean of -log p over the others is log_total less the mean of their logits.
        loss = (one - smoothing) * loss + smoothing * (log_total - others)
        uniform = smoothing / count
    factor, slope = focal_factor(loss, wrong, e / total, focal)
    # docs/math.md's G p[v] is slope * e[v] / rest, so nothing is divided by 1 - p[y], which may be 0. With a rest of 0
    # every e[v] is 0, and so is its quotient by tiny.
    inverse = one / max(rest, tiny)
    return factor * loss, factor / total, slope, inverse, factor * uniform, factor * (wrong - smoothing) + slope


@register_jitable
def weigh_hat(takes_blank, blank_logit, own, e, rest, others, count, smoothing, focal, tiny):
    """`weigh` of a row with two heads, and behind it the gradient at the blank.

    own, e and rest belong to the softmax of the labels, and mean nothing but `rest` where the arc is the blank. The sum
    of the other labels' logits, less the maximum, is count * others.
    """
    one, zero = typed(1, rest), typed(0, rest)
    blank_score, label_share = two_way(blank_logit)
    is_blank, is_label = sigmoids(blank_logit)
    e, labels = (zero, count) if takes_blank else (e, count - one)
    total = e + rest
    # Without a label of any probability all exponentials are 0. So are their quotients.
    total = one if total == zero else total
    log_total = math.log(total)
    # NaN where a label's logit is NaN or +inf, which the row's maximum may not tell.
    nothing = total - total
    blank_score, is_blank, is_label = blank_score + nothing, is_blank + nothing, is_label + nothing
    if takes_blank:
        loss, wrong, taken = -blank_score, is_label, is_blank
    else:
        loss = own_loss(own, e, rest, log_total) - label_share
        wrong, taken = is_blank + is_label * (rest / total), is_label * (e / total)
    uniform = zero
    if smoothing > 0:
        alike = labels * (log_total - label_share) - (zero if takes_blank else blank_score)
        loss = (one - smoothing) * loss + smoothing * (alike / count - others)
        uniform = smoothing / count
    factor, slope = focal_factor(loss, wrong, taken, focal)
    if takes_blank:
        left = slope + factor * (wrong - smoothing)
        return factor * loss, factor * smoothing / total, zero, zero, factor * uniform, left, -left
    # Of docs/math.md's G, slope / wrong, only products with shares of `wrong` are formed.
    inverse = one / max(wrong * total, tiny)
    left = factor * ((one - smoothing) * rest - uniform * labels * e) / total + (rest * inverse) * slope
    at_blank = factor * (is_blank - uniform) + (is_blank / max(wrong, tiny)) * slope
    return factor * loss, factor * (one - uniform) / total, slope, inverse, factor * uniform, left, at_blank


@register_jitable
def path_entry(e, scale, slope, inverse, uniform):
    """The gradient at an id v other than the arc's, from its e: F p[v] + G p[v] - F q[v] of docs/math.md."""
    # In this order: e is a term of the rest, so e * inverse is at most 2, where inverse * slope might overflow.
    return flush(e * scale + (e * inverse) * slope - uniform, typed(NEGLIGIBLE, e))
