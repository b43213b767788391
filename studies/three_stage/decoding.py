"""Held-out speech decoded: greedily, and as lists of the best hypotheses of a beam search."""

import numpy as np
from rapidfuzz.distance import Levenshtein

import lattice
from studies.speech.batches import Batch, batches
from studies.speech.corpus import Utterances
from studies.speech.encoder import Arrays, encoder_forward
from studies.speech.predictor import decoding_predictor
from studies.speech.units import BLANK

from .objectives import TOPOLOGY, output_of

BATCH = 30

Found = dict[int, list[int]]  # the ids found in each utterance, by its place


def greedy(parameters: Arrays, utterances: Utterances) -> Found:
    """The likeliest arc of each cell."""
    found = {}
    for batch in batches(utterances, BATCH):
        encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
        labels, lengths, *_ = lattice.greedy_decode(
            encoded.encoder,
            batch.frame_lengths,
            decoding_predictor(parameters),
            *output_of(parameters),
            blank=BLANK,
            topology=TOPOLOGY,
        )
        found |= {int(place): labels[i, : lengths[i]].tolist() for i, place in enumerate(batch.rows)}
    return found


def ctc_greedy(parameters: Arrays, utterances: Utterances) -> Found:
    """The likeliest id of each frame by the CTC layer, runs merged and blanks left out."""
    found = {}
    for batch in batches(utterances, BATCH):
        encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
        ids = encoded.ctc_logits.argmax(axis=-1)
        for place, row, length in zip(batch.rows, ids, batch.frame_lengths):
            runs = row[:length][np.diff(row[:length], prepend=BLANK) != 0]
            found[int(place)] = runs[runs != BLANK].tolist()
    return found


def best_lists(parameters: Arrays, batch: Batch, beam: int) -> list[list[tuple[int, ...]]]:
    """The `beam` best distinct label sequences of each utterance, best first; fewer where the search found fewer."""
    encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    labels, lengths, score, *_ = lattice.beam_decode(
        encoded.encoder,
        batch.frame_lengths,
        decoding_predictor(parameters),
        *output_of(parameters),
        blank=BLANK,
        topology=TOPOLOGY,
        beam=beam,
        nbest=beam,
    )
    return [
        [tuple(labels[b, n, : lengths[b, n]].tolist()) for n in np.flatnonzero(np.isfinite(score[b]))]
        for b in range(len(labels))
    ]


def error_rate(found: Found, utterances: Utterances) -> float:
    """Insertions, deletions and substitutions by true labels."""
    targets = [target.tolist() for target in utterances.targets]
    return sum(Levenshtein.distance(found[i], target) for i, target in enumerate(targets)) / sum(map(len, targets))
