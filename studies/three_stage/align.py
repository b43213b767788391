"""The training set aligned, by the CTC layer or by the transducer: the frame at which each label is emitted."""

import numpy as np

import lattice
from studies.speech.batches import Batch, batches
from studies.speech.corpus import Utterances
from studies.speech.encoder import Arrays, encoder_forward
from studies.speech.predictor import label_contexts, predictor_forward
from studies.speech.units import BLANK

from .chunks import Alignment
from .objectives import MEMORY_LIMIT, TOPOLOGY, output_of

BATCH = 16


def ctc_frames(parameters: Arrays, batch: Batch) -> np.ndarray:
    """(B, U) of the best CTC alignment, made peaky: of each run of a label, its last frame (Zhou et al. 2022)."""
    encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    lengths = batch.frame_lengths, batch.target_lengths
    return lattice.ctc_alignment(encoded.ctc_logits, batch.targets, *lengths, blank=BLANK, keep="last")[0]


def transducer_frames(parameters: Arrays, batch: Batch) -> np.ndarray:
    """(B, U) of the best alignment of the transducer."""
    encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    predictor, _ = predictor_forward(parameters, label_contexts(batch.targets))
    return lattice.joint_transducer_alignment(
        encoded.encoder,
        predictor,
        *output_of(parameters),
        batch.targets,
        batch.frame_lengths,
        batch.target_lengths,
        blank=BLANK,
        topology=TOPOLOGY,
        memory_limit=MEMORY_LIMIT,
    )[0]


ALIGNERS = {"CTC": ctc_frames, "transducer": transducer_frames}


def align(parameters: Arrays, utterances: Utterances, by: str) -> Alignment:
    """The frames of all labels of every utterance.

    Raises
    ------
    ValueError
        An utterance cannot be aligned: see `speech.corpus.alignable`.
    """
    alignment: Alignment = [np.empty(0, np.int32)] * len(utterances.targets)
    for batch in batches(utterances, BATCH):
        frames = ALIGNERS[by](parameters, batch)
        for place, row, length in zip(batch.rows, frames, batch.target_lengths):
            if (row[:length] < 0).any():
                raise ValueError(f"utterance {place} has no alignment: {utterances.texts[place]!r}")
            alignment[place] = row[:length].copy()
    return alignment
