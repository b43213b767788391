"""What arcs make of a row of the logits' gradient: their weights, and the entries that they take.

A row is weight * softmax, less each arc's weight at the arc's own entry (gradient.py).
"""

from numba.extending import register_jitable

from .cells import flush, typed


@register_jitable
def arc_weights(blank_posterior, label_posterior, label_factor, grad_loss):
    """Weights of a cell's two arcs in the gradient: posterior times upstream gradient, FastEmit on the label arc."""
    return blank_posterior * grad_loss, label_posterior * label_factor * grad_loss


@register_jitable
def beside(e, rest):
    """The sum of a row's exponentials without e, one of them. `rest` leaves out the maximum's, which is 1."""
    # 1 - e is exact for e from 1/2 to 1.
    return rest + (typed(1, e) - e)


@register_jitable
def arc_entry(e, others, total, arc_weight, other_weight, tiny):
    """(arc_weight + other_weight) * p - arc_weight for the entry of an arc, p = e / total.

    Where p is near 1 the difference would keep no digits, so 1 - p is formed from the sum of the others.
    """
    return flush((other_weight * e - arc_weight * others) / total, tiny)


@register_jitable
def softmax_weight(hat, blank_weight, label_weight):
    """The weight of all arcs that take an entry of a row's softmax."""
    return label_weight if hat else blank_weight + label_weight


@register_jitable
def beside_label(hat, blank_weight):
    """The weight of the arcs that take an entry of the label's softmax, but for the label's own."""
    return typed(0, blank_weight) if hat else blank_weight
