"""The most memory that one training step of each stage takes, and one with dense logits."""

import numpy as np

from studies.sampled_softmax.conventional import conventional_joint
from studies.speech.batches import batches
from studies.speech.corpus import Utterances, take
from studies.speech.encoder import Arrays
from studies.speech.peak import largest, peak_bytes

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
    return conventional_joint(
        encoder, predictor, weight, bias, batch, None, grad_loss, topology=TOPOLOGY, bounds=bounds
    )


def measure_memory(parameters: Arrays, train_set: Utterances, options: dict) -> dict[str, int]:
    """Peak bytes of a step by its name, from trained parameters, on the largest batch (Viterbi: as many frames)."""
    most = largest(batches(train_set, options["batch"], np.random.default_rng(0)))
    utterances = take(train_set, most.rows)
    alignment = align(parameters, utterances, "CTC")
    chunks = next(
        chunk_batches(
            utterances,
            alignment,
            chunk=options["chunk"],
            hop=max(1, options["chunk"] // 2),
            frames=most.frame_lengths.sum(),
            rng=np.random.default_rng(0),
        )
    )
    lists = decode_lists(parameters, utterances, options["beam"], [LanguageModel(1, utterances.targets)])
    ordered = most._replace(rows=np.arange(len(most.rows)))
    weights = {
        "lm_scale": options["lm_scale"],
        "scale": options["risk_scale"],
        "full_sum_weight": options["risk_full_sum"],
    }
    steps = {
        CTC: lambda: ctc_step(parameters, most),
        VITERBI: lambda: viterbi_step(parameters, chunks, **{name: options[name] for name in VITERBI_OPTIONS}),
        FULL_SUM: lambda: full_sum_step(parameters, most, ctc_weight=options["ctc_weight"]),
        RISK: lambda: risk_step(parameters, ordered, [lists[place] for place in ordered.rows], **weights),
        DENSE: lambda: full_sum_step(parameters, most, ctc_weight=options["ctc_weight"], joint=dense_joint),
    }
    return {name: peak_bytes(step) for name, step in steps.items()}
