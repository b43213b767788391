"""Other implementations of the transducer loss on the CPU, behind one interface. Importing this module imports none.

Two callables of a peer prepare a call and return it as a function without arguments, which is what gets timed:

- `from_logits(logits, targets, logit_lengths, target_lengths)`
  -> loss (B,), gradient (B, T, U+1, V)
- `joint(encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths)`
  -> loss summed over the batch (), gradients of the first four arguments
  of hidden = tanh(encoder[:, :, None] + predictor[:, None]), logits = hidden @ weight.T + bias

Everything is NumPy: float32 logits (B, T, U+1, V), encoder (B, T, H), predictor (B, U+1, H), weight (V, H), bias (V,);
integer targets (B, U) and lengths (B,). The blank is id 0. T and U are the largest lengths and no target is empty,
because some peers refuse anything else; real padding is finite, because most compute on it.
"""

import functools
import importlib
import importlib.metadata
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

PRUNED_WIDTH = 5
"""Label positions kept per frame in the pruned losses: what their authors' recipes use."""

OURS = "lattice"

CLOSED = -1e30
"""Score of an arc that does not exist in the naive peer: finite, because logaddexp(-inf, -inf) has the gradient NaN."""

FOLDERS = re.compile(r"(?<!\S)/\S*/")
"""Reasons go into benchmark records, and the folders of one machine do not belong there."""


class Peer(NamedTuple):
    """One implementation of the transducer loss."""

    name: str
    version: str
    exact: bool  # the loss of the full lattice, not an approximation
    from_logits: Callable | None  # None for a pruned loss: it never sees the logits of all cells
    joint: Callable


def available() -> list[Peer]:
    """The peers that import, in a fixed order."""
    return list(_load()[0])


def missing() -> dict[str, str]:
    """Name of each peer that does not import, and the class and first line of its error."""
    return dict(_load()[1])


def chosen(without: list[str], only: str | None = None) -> tuple[list[Peer], dict[str, str]]:
    """The peers that import, less those named or `all`, or one of them, and why the others are not measured."""
    if "all" in without or only == OURS:
        return [], {}
    if only is not None:
        return [peer for peer in available() if peer.name == only], {}
    left_out = {peer.name: "left out by --without" for peer in available() if peer.name in without}
    return [peer for peer in available() if peer.name not in left_out], {**missing(), **left_out}


@functools.cache
def _load() -> tuple[list[Peer], dict[str, str]]:
    peers, reasons = [], {}
    for name, (distribution, exact, make) in PEERS.items():
        # Broken installations fail in many ways: OSError for a missing library, ImportError for another torch.
        try:
            functions = make()
            peers.append(Peer(name, importlib.metadata.version(distribution), exact, *functions))
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            reasons[name] = f"{type(error).__name__}: {FOLDERS.sub('', line)}"
    return peers, reasons


def _integers(targets, frame_lengths, target_lengths):
    """Targets (B, U) with 0 on padding, and both lengths (B,), as int64 tensors."""
    import torch

    targets = np.where(np.arange(targets.shape[1]) < np.asarray(target_lengths)[:, None], targets, 0)
    return tuple(torch.from_numpy(np.ascontiguousarray(a, np.int64)) for a in (targets, frame_lengths, target_lengths))


def _with_gradients(loss_of: Callable, *arrays) -> Callable:
    """Function without arguments: loss_of(*arrays) and, by autograd, the gradients of its sum."""
    import torch

    leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]

    def run():
        loss = loss_of(*leaves)
        gradients = torch.autograd.grad(loss, leaves, torch.ones_like(loss))
        return loss.detach().numpy(), tuple(gradient.numpy() for gradient in gradients)

    return run


def _hidden(encoder, predictor):
    """(B, T, H) and (B, U+1, H) -> (B, T, U+1, H)."""
    import torch

    return torch.tanh(encoder[:, :, None] + predictor[:, None])


def _by_autograd(prepare: Callable) -> tuple[Callable, Callable]:
    """Both callables of a peer whose loss is an autograd function of padded logits.

    `prepare(targets, frame_lengths, target_lengths)` takes int64 tensors and returns a function from logits
    (B, T, U+1, V) to losses (B,).
    """
    from torch.nn.functional import linear

    def from_logits(logits, *integers):
        call = _with_gradients(prepare(*_integers(*integers)), logits)

        def run():
            loss, (gradient,) = call()
            return loss, gradient

        return run

    def joint(encoder, predictor, weight, bias, *integers):
        logits_loss = prepare(*_integers(*integers))

        def loss_of(encoder, predictor, weight, bias):
            return logits_loss(linear(_hidden(encoder, predictor), weight, bias)).sum()

        return _with_gradients(loss_of, encoder, predictor, weight, bias)

    return from_logits, joint


def naive_loss(targets, frame_lengths, target_lengths, blank=0):
    """log_softmax, then alpha along anti-diagonals in torch operations, all differentiated by autograd.

    Takes int64 tensors; returns a function from logits (B, T, U+1, V) to losses (B,).
    """
    import torch

    (batch, labels), frames = targets.shape, int(frame_lengths.max())
    examples = torch.arange(batch)
    # Row d holds the cells t + u = d, position u within it: both arcs into a cell come from row d - 1.
    t = torch.arange(frames + labels)[:, None] - torch.arange(labels + 1)
    exists, t = (t >= 0) & (t < frames), t.clamp(0, frames - 1)
    index = targets[:, None, :, None].expand(batch, frames, labels, 1)

    def skew(scores):
        """(B, T, N) -> (T+U, B, N)"""
        width = scores.shape[2]
        skewed = scores.gather(1, t[:, :width].expand(batch, -1, width))
        return skewed.masked_fill(~exists[:, :width], CLOSED).transpose(0, 1)

    def loss_of(logits):
        scores = logits.log_softmax(-1)
        blank_scores = scores[..., blank]
        blank_arcs, label_arcs = skew(blank_scores), skew(scores[:, :, :labels].gather(3, index)[..., 0])
        closed = torch.full((batch, 1), CLOSED)
        rows = [torch.cat([torch.zeros(batch, 1), closed.expand(batch, labels)], 1)]
        for d in range(frames + labels - 1):
            by_label = torch.cat([closed, rows[d][:, :labels] + label_arcs[d]], 1)
            rows.append(torch.logaddexp(rows[d] + blank_arcs[d], by_label))
        last = frame_lengths - 1
        alpha = torch.stack(rows)[last + target_lengths, examples, target_lengths]
        return -(alpha + blank_scores[examples, last, target_lengths])

    return loss_of


def _naive():
    return _by_autograd(naive_loss)


def _torchaudio():
    import torchaudio

    def prepare(*integers):
        integers = [tensor.int() for tensor in integers]
        return lambda logits: torchaudio.functional.rnnt_loss(logits, *integers, blank=0, reduction="none")

    return _by_autograd(prepare)


def _warprnnt_numba():
    from warprnnt_numba.rnnt_loss.rnnt_pytorch import rnnt_loss

    def prepare(*integers):
        integers = [tensor.int() for tensor in integers]
        return lambda logits: rnnt_loss(logits, *integers, blank=0, reduction="none")

    return _by_autograd(prepare)


def _optimized_transducer():
    """Its logits are packed, (cells, V), and overwritten with their gradient: a call from logits copies them first."""
    import optimized_transducer
    import torch
    from _optimized_transducer import compute_transducer_loss
    from torch.nn.functional import linear

    def prepare(*integers):
        """Flat indices of the real cells, None where nothing is padded, and the arguments both calls share."""
        targets, frame_lengths, target_lengths = _integers(*integers)
        real_frames = torch.arange(int(frame_lengths.max())) < frame_lengths[:, None]
        real_labels = torch.arange(targets.shape[1] + 1) <= target_lengths[:, None]
        real = real_frames[:, :, None] & real_labels[:, None]
        names = ("targets", "logit_lengths", "target_lengths")
        arguments = {name: tensor.int() for name, tensor in zip(names, (targets, frame_lengths, target_lengths))}
        cells = None if real.all() else real.flatten().nonzero()[:, 0]
        return cells, {**arguments, "blank": 0, "from_log_softmax": False, "one_sym_per_frame": False}

    def from_logits(logits, *integers):
        cells, arguments = prepare(*integers)
        padded = torch.from_numpy(logits).flatten(0, 2)
        packed = padded if cells is None else padded[cells]

        def run():
            work = packed.clone().requires_grad_()
            # The binding itself, because the function round it has no loss per example.
            with torch.no_grad():
                score, gradient = compute_transducer_loss(logits=work, **arguments)
                if cells is not None:
                    gradient = torch.zeros_like(padded).index_copy_(0, cells, gradient)
            return -score.numpy(), gradient.detach().numpy().reshape(logits.shape)

        return run

    def joint(encoder, predictor, weight, bias, *integers):
        cells, arguments = prepare(*integers)

        def loss_of(encoder, predictor, weight, bias):
            hidden = _hidden(encoder, predictor).flatten(0, 2)
            if cells is not None:
                hidden = hidden.index_select(0, cells)
            return optimized_transducer.transducer_loss(linear(hidden, weight, bias), **arguments, reduction="sum")

        return _with_gradients(loss_of, encoder, predictor, weight, bias)

    return from_logits, joint


def _boundary(frame_lengths, target_lengths):
    """(B, 4) int64: first label position, first frame, number of labels, number of frames."""
    import torch

    zero = torch.zeros_like(frame_lengths)
    return torch.stack([zero, zero, target_lengths, frame_lengths], 1)


def _k2_exact(module: str):
    """fast_rnnt and k2 share these functions; fast_rnnt is k2's losses without the rest."""
    k2 = importlib.import_module(module)

    def prepare(targets, *lengths):
        boundary = _boundary(*lengths)
        return lambda logits: k2.rnnt_loss(logits, targets, 0, boundary=boundary, reduction="none")

    return _by_autograd(prepare)


def _k2_pruned(module: str):
    """Joint over `PRUNED_WIDTH` label positions per frame: those that a cheap additive joint finds likely.

    Here the output layer itself projects encoder and predictor for the cheap joint, and only positions are taken from
    it. Recipes give it projections of its own and train them too, so the peer is timed at its cheapest.
    """
    k2 = importlib.import_module(module)
    import torch
    from torch.nn.functional import linear

    def joint(encoder, predictor, weight, bias, *integers):
        targets, *lengths = _integers(*integers)
        boundary = _boundary(*lengths)

        def loss_of(encoder, predictor, weight, bias):
            with torch.no_grad():
                additive = linear(predictor, weight), linear(encoder, weight, bias)
                _, posteriors = k2.rnnt_loss_smoothed(*additive, targets, 0, boundary=boundary, return_grad=True)
                ranges = k2.get_rnnt_prune_ranges(*posteriors, boundary, PRUNED_WIDTH)
            near, kept = k2.do_rnnt_pruning(encoder, predictor, ranges)
            logits = linear(torch.tanh(near + kept), weight, bias)
            return k2.rnnt_loss_pruned(logits, targets, ranges, 0, boundary=boundary, reduction="sum")

        return _with_gradients(loss_of, encoder, predictor, weight, bias)

    return None, joint


PEERS = {
    "torch, naive": ("torch", True, _naive),
    "torchaudio": ("torchaudio", True, _torchaudio),
    "optimized_transducer": ("optimized-transducer", True, _optimized_transducer),
    "fast_rnnt": ("fast-rnnt", True, functools.partial(_k2_exact, "fast_rnnt")),
    "fast_rnnt, pruned": ("fast-rnnt", False, functools.partial(_k2_pruned, "fast_rnnt")),
    "k2": ("k2", True, functools.partial(_k2_exact, "k2")),
    "k2, pruned": ("k2", False, functools.partial(_k2_pruned, "k2")),
    "warprnnt_numba": ("warprnnt_numba", True, _warprnnt_numba),
}
"""Name -> distribution, whether the loss is exact, and what imports it and returns `from_logits` and `joint`."""
