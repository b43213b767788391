"""The bands of k2's pruned recipe: its smoothed loss with gradients, and the label positions that it keeps.

The recipe is that of icefall (Kuang et al. 2022, arXiv 2206.13236), for arrays of NumPy and topology "rnnt".
docs/migrating.md has the same functions for torch.
"""

import numpy as np

from lattice import scores_loss_and_grad

LM_SCALE = 0.25
"""Share of the scores that is the predictor's alone: the default of icefall's recipes."""


def smoothed_loss(am, lm, targets, encoder_lengths, target_lengths, *, blank: int, lm_scale: float = LM_SCALE):
    """k2's simple loss, smoothed by the predictor alone, with its gradients and the posteriors that choose a band.

    Parameters
    ----------
    am, lm : (B, T, V), (B, U+1, V)
        Logits of encoder and predictor.
    targets, encoder_lengths, target_lengths : (B, U), (B,), (B,) int
        Ids of padding are looked up, and change nothing.
    blank : int
    lm_scale : float

    Returns
    -------
    loss : (B,)
        In nats.
    grad_am, grad_lm : as am and lm
    posteriors : pair of (B, T, U+1)
        Of blank and label arcs.
    """
    am_most, lm_most = am.max(-1, keepdims=True), lm.max(-1, keepdims=True)
    am_parts, lm_parts = np.exp(am - am_most), np.exp(lm - lm_most)
    product = am_parts @ lm_parts.swapaxes(1, 2) + np.finfo(am.dtype).tiny  # (B, T, U+1)
    both = np.log(product) + am_most + lm_most.swapaxes(1, 2)
    lm_sum = lm_parts.sum(-1, keepdims=True)  # (B, U+1, 1)
    alone = np.log(lm_sum) + lm_most
    # (B, U+1, V) each. No label is left at the last position: what stands there is never read.
    ids = np.stack([np.full((len(am), lm.shape[1]), blank), np.pad(targets, ((0, 0), (0, 1)))])
    chosen = [(row[..., None] == np.arange(am.shape[-1])).astype(am.dtype) for row in ids]
    scores = []
    for arc in chosen:
        own = (lm * arc).sum(-1, keepdims=True)  # (B, U+1, 1)
        mixed = (1 - lm_scale) * own + lm_scale * (own - alone)
        scores.append((1 - lm_scale) * (am @ arc.swapaxes(1, 2) - both) + mixed.swapaxes(1, 2))
    loss, *grads = scores_loss_and_grad(*scores, encoder_lengths, target_lengths)  # (B, T, U+1) each
    total = grads[0] + grads[1]
    share = (1 - lm_scale) * total / product
    grad_am = -am_parts * (share @ lm_parts)
    grad_lm = -lm_parts * (share.swapaxes(1, 2) @ am_parts)
    grad_lm -= lm_scale * total.sum(1)[..., None] * lm_parts / lm_sum
    for arc, grad in zip(chosen, grads, strict=True):
        grad_am += (1 - lm_scale) * grad @ arc
        grad_lm += grad.sum(1)[..., None] * arc
    return loss, grad_am, grad_lm, tuple(-grad for grad in grads)


def pruned_bounds(posteriors, encoder_lengths, target_lengths, size: int):
    """First and last label position of each frame, `size` of them where the posteriors are largest: k2's prune ranges.

    Parameters
    ----------
    posteriors : pair of (B, T, U+1)
        Of blank and label arcs.
    encoder_lengths, target_lengths : (B,) int
    size : int

    Returns
    -------
    bounds : pair of (B, T) int
        As `bounds` of the losses. They may reach beyond a short target.
    """
    blank, label = posteriors
    t, size = np.arange(blank.shape[1]), min(size, blank.shape[2])
    inside = np.lib.stride_tricks.sliding_window_view(blank, size, axis=2).sum(-1)  # (B, T, U + 2 - size)
    # What enters by a label, from the position before.
    entering = np.pad(label, ((0, 0), (0, 0), (1, 0)))[..., : inside.shape[2]]
    at_end = np.maximum(0, target_lengths[:, None] + 1 - size)  # (B, 1)
    first = np.where(t < encoder_lengths[:, None] - 1, (inside - entering).argmax(-1), at_end)
    # A band never falls, starts at position 0, and climbs so slowly that an alignment can follow it.
    climb = t * (size - 1)
    first = climb - rising(np.maximum(0, climb - rising(first)))
    return first, first + size - 1


def rising(x):
    """The largest rows that never fall and are nowhere above rows x (B, T)."""
    return np.minimum.accumulate(x[:, ::-1], axis=1)[:, ::-1]
