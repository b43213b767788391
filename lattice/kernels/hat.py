"""The two heads of a row of logits of a hybrid autoregressive transducer (HAT; Variani et al. 2020).

The blank's logit b is a head of its own: p(blank) = sigmoid(b). A softmax over all other ids shares out sigmoid(-b). So
`maximum` and `rest` of such a row leave the blank out. Both probabilities are made of exp(-|b|), and never as 1 less
the other one, which keeps no digits of a blank that is nearly sure.
"""

import math

from numba.extending import register_jitable

from .cells import CLOSED, flush, score, typed


@register_jitable
def two_way(blank_logit):
    """(log sigmoid(b), log sigmoid(-b)) in nats; NaN for NaN and for +inf. A logit of -inf closes the blank."""
    zero = typed(0, blank_logit)
    high = blank_logit if blank_logit > zero else zero
    # NaN where the logit is +inf, and 0 elsewhere. A NaN stays in the logarithm.
    wrong = high - high
    log_total = math.log1p(math.exp(-abs(blank_logit))) + wrong
    return (blank_logit - high) - log_total, -high - log_total


@register_jitable
def hat_scores(blank_logit, label_logit, maximum, rest):
    """Scores in nats of the two arcs of a cell; `label_logit` is -inf where no label is left."""
    blank_score, label_share = two_way(blank_logit)
    closed = typed(CLOSED, maximum)
    # No other id has a probability. In such a row, logit - maximum would be NaN.
    if maximum == closed:
        return blank_score, closed
    # NaN where the row holds NaN or +inf, so that both scores tell.
    wrong = rest - rest
    return blank_score + wrong, score(label_logit, maximum, math.log1p(rest)) + label_share


@register_jitable
def sigmoids(blank_logit):
    """(sigmoid(b), sigmoid(-b)); NaN for NaN."""
    e = math.exp(-abs(blank_logit))
    share = typed(1, e) / (typed(1, e) + e)
    above = blank_logit > 0
    return share if above else e * share, e * share if above else share


@register_jitable
def blank_entry(blank_logit, blank_weight, label_weight, tiny):
    """The gradient at the blank: label_weight * sigmoid(b) - blank_weight * sigmoid(-b)."""
    taken, left = sigmoids(blank_logit)
    return flush(label_weight * taken - blank_weight * left, tiny)
