"""Error rates of held-out speech, decoded freely and over the ids that the CTC posterior allows."""

import numpy as np
from rapidfuzz.distance import Levenshtein

import lattice
import samplers
from studies.speech.batches import batches
from studies.speech.corpus import Utterances
from studies.speech.encoder import Arrays, encoder_forward
from studies.speech.predictor import decoding_predictor
from studies.speech.units import BLANK, Units

from .rows import Row, ctc_distribution

BATCH = 50


def decode(parameters: Arrays, utterances: Utterances, row: Row, *, allowed: int | None) -> dict[int, list[int]]:
    """The ids found in each utterance, by its place; `allowed` of each may be emitted, None for all."""
    found = {}
    for batch in batches(utterances, BATCH):
        encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode=row.mode)
        ids = None
        if allowed is not None:
            ids = samplers.allowed_vocabulary(ctc_distribution(row, encoded, batch.frame_lengths), allowed, blank=BLANK)
        labels, lengths, *_ = lattice.greedy_decode(
            encoded.encoder,
            batch.frame_lengths,
            decoding_predictor(parameters),
            parameters["output.weight"],
            parameters["output.bias"],
            blank=BLANK,
            allowed=ids,
            max_labels_per_frame=4,
        )
        found |= {int(place): labels[i, : lengths[i]].tolist() for i, place in enumerate(batch.rows)}
    return found


def error_rates(found: dict[int, list[int]], utterances: Utterances, units: Units) -> dict[str, float]:
    """Insertions, deletions and substitutions by true units, and by true words."""
    pairs = [(found[i], target.tolist()) for i, target in enumerate(utterances.targets)]
    words = [(units.decode(found[i]).split(), text.split()) for i, text in enumerate(utterances.texts)]
    return {
        name: sum(Levenshtein.distance(*pair) for pair in given) / sum(len(truth) for _, truth in given)
        for name, given in (("unit_error_rate", pairs), ("word_error_rate", words))
    }


def evaluate(parameters: Arrays, utterances: Utterances, units: Units, row: Row, sizes: list[int]) -> dict:
    """Error rates of greedy decoding: over all ids, and over each of the numbers of allowed ids."""
    rates = {"free": error_rates(decode(parameters, utterances, row, allowed=None), utterances, units)}
    for size in sizes:
        rates[f"top {size}"] = error_rates(decode(parameters, utterances, row, allowed=size), utterances, units)
    targets = [set(target.tolist()) for target in utterances.targets]
    for size in sizes:
        rates[f"top {size}"]["missing"] = missing_share(parameters, utterances, row, size, targets)
    return rates


def missing_share(parameters: Arrays, utterances: Utterances, row: Row, size: int, targets: list[set[int]]) -> float:
    """Share of the utterances' distinct units that the allowed ids leave out: no search can find those."""
    missing, total = 0, 0
    for batch in batches(utterances, BATCH):
        encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode=row.mode)
        ids = samplers.allowed_vocabulary(ctc_distribution(row, encoded, batch.frame_lengths), size, blank=BLANK)
        for place, allowed in zip(batch.rows, np.asarray(ids)):
            missing += len(targets[place] - set(allowed.tolist()))
            total += len(targets[place])
    return missing / total
