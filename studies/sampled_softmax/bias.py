"""What a softmax over drawn ids leaves out: its loss against the loss over all ids, of one trained network."""

import statistics

import numpy as np

import lattice
from studies.speech.batches import batches
from studies.speech.corpus import Utterances
from studies.speech.encoder import Arrays, encoder_forward
from studies.speech.predictor import label_contexts, predictor_forward
from studies.speech.units import BLANK

from .conventional import dense_logits, positions_of
from .rows import Row, draw_vocabulary

BATCH = 8


def losses_of(parameters: Arrays, batch, row: Row, seed: int) -> tuple[float, float, float]:
    """Nats a label: over all ids, over drawn ids, and over drawn ids each counted by the inverse of its chance.

    The chance is to be drawn. Horvitz and Thompson's weights make the sum over the drawn ids right on average:
    1 / chance is added to a logit as a logarithm.
    """
    encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode=row.mode)
    predictor, _ = predictor_forward(parameters, label_contexts(batch.targets))
    joint = encoded.encoder, predictor, parameters["output.weight"], parameters["output.bias"]
    lengths = batch.frame_lengths, batch.target_lengths
    whole = lattice.joint_transducer_loss(*joint, batch.targets, *lengths, blank=BLANK)
    drawn = draw_vocabulary(row, batch, encoded, seed)
    part = lattice.joint_transducer_loss(
        *joint, batch.targets, *lengths, blank=BLANK, vocabulary=drawn.ids, vocabulary_lengths=drawn.lengths
    )
    _, logits = dense_logits(*joint, drawn)
    logits -= drawn.log_inclusion[:, None, None]
    corrected = lattice.transducer_loss(
        logits, positions_of(drawn, batch.targets, batch.target_lengths), *lengths, blank=0
    )
    return tuple(float(loss.sum() / batch.target_lengths.sum()) for loss in (whole, part, corrected))


def bias_lines(parameters: Arrays, utterances: Utterances, sizes: list[int], *, most: int = 12) -> list[str]:
    """A table in Markdown: how much lower the loss is over drawn ids, on held-out batches spread over all lengths.

    Sizes that do not hold the targets of every utterance are left out.
    """
    every = list(batches(utterances, BATCH))
    chosen = every[:: max(1, len(every) // most)]
    most_positives = 1 + max(len(set(target.tolist())) for target in utterances.targets)
    lines = [
        "| drawn from | S | loss over all ids, nats a label | over the drawn ids | corrected |",
        "|---|---:|---:|---:|---:|",
    ]
    for source in ("uniform", "ctc"):
        for size in (size for size in sizes if size >= most_positives):
            row = Row("", "none", source, "example", size)
            found = [losses_of(parameters, batch, row, seed) for seed, batch in enumerate(chosen)]
            lines.append(
                f"| {source} | {size} | " + " | ".join(f"{statistics.fmean(c):.3f}" for c in np.array(found).T) + " |"
            )
    return lines
