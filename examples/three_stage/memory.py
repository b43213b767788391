"""The most memory that one training step of each stage takes, and one with dense logits."""

import tracemalloc
from collections.abc import Callable

import numpy as np
from sampled_softmax.conventional import dense_logits
from speech.batches import Batch, batches
from speech.corpus import Utterances, take
from speech.encoder import Arrays
from speech.units import BLANK

import lattice

from .align import align
from .chunks import chunk_batches
from .language_model import LanguageModel
from .objectives import TOPOLOGY, ctc_step, full_sum_step, viterbi_step
from .recipe import CTC, FULL_SUM, VITERBI
from .risk import decode_lists, risk_step
from .stages import VITERBI_OPTIONS

DENSE, RISK = "full sum, dense logits", "minimum Bayes risk"


def dense_joint(encoder, predictor, weight, bias, batch, grad_loss, bounds):
    """Loss and gradients of the joint over logits of all padded cells; the arguments and results of `fused_joint`."""
    hidden, logits = dense_logits(encoder, predictor, weight, bias, None)
    loss, grad_logits = lattice.transducer_loss_and_grad(
        logits, batch.targets, batch.frame_lengths, batch.target_lengths, blank=BLANK, topology=TOPOLOGY, bounds=bounds,
        grad_loss=grad_loss,
    )  # fmt: skip
    rows, cells = grad_logits.reshape(-1, len(weight)), hidden.reshape(-1, hidden.shape[-1])
    grad_before = (rows @ weight).reshape(hidden.shape) * (1 - hidden * hidden)
    grads = lattice.JointGradients(grad_before.sum(axis=2), grad_before.sum(axis=1), rows.T @ cells, rows.sum(axis=0))
    return loss, grads


def peak_bytes(step: Callable[[], object]) -> int:
    """The most memory that arrays of a step take at a time, its parameters and data aside."""
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def largest_batch(train_set: Utterances, batch: int) -> Batch:
    """Of the batches of the first epoch, the one with most padded cells."""
    every = batches(train_set, batch, np.random.default_rng(0))
    return max(every, key=lambda one: len(one.frames) * one.frames.shape[1] * (one.targets.shape[1] + 1))


def measure_memory(parameters: Arrays, train_set: Utterances, options: dict) -> dict[str, int]:
    """Peak bytes of a step by its name, from trained parameters, on the largest batch (Viterbi: chunks of as many frames)."""
    largest = largest_batch(train_set, options["batch"])
    utterances = take(train_set, largest.rows)
    alignment = align(parameters, utterances, "CTC")
    chunks = next(chunk_batches(utterances, alignment, chunk=options["chunk"], hop=max(1, options["chunk"] // 2),
                                frames=largest.frame_lengths.sum(), rng=np.random.default_rng(0)))  # fmt: skip
    lists = decode_lists(parameters, utterances, options["beam"], [LanguageModel(1, utterances.targets)])
    ordered = largest._replace(rows=np.arange(len(largest.rows)))
    weights = {"lm_scale": options["lm_scale"], "scale": options["risk_scale"], "full_sum_weight": options["risk_full_sum"]}
    steps = {
        CTC: lambda: ctc_step(parameters, largest),
        VITERBI: lambda: viterbi_step(parameters, chunks, **{name: options[name] for name in VITERBI_OPTIONS}),
        FULL_SUM: lambda: full_sum_step(parameters, largest, ctc_weight=options["ctc_weight"]),
        RISK: lambda: risk_step(parameters, ordered, [lists[place] for place in ordered.rows], **weights),
        DENSE: lambda: full_sum_step(parameters, largest, ctc_weight=options["ctc_weight"], joint=dense_joint),
    }
    return {name: peak_bytes(step) for name, step in steps.items()}
