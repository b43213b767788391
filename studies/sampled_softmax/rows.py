"""The rows of the study: which CTC losses train the encoder, and where the vocabulary of the softmax comes from."""

from typing import NamedTuple

import samplers


class Row(NamedTuple):
    """One way to train.

    name : str.
    mode : "none", "inter" or "self", as in `speech.encoder`.
    source : of negatives: "uniform", "ctc" or "mixture" of all CTC posteriors; None for the full softmax.
    strategy : "example" or "batch", as in `samplers.sample_vocabulary`.
    size : ids in the softmax; 0 for all.
    """

    name: str
    mode: str = "none"
    source: str | None = None
    strategy: str = "example"
    size: int = 0


def study_rows(sizes: list[int]) -> list[Row]:
    """The rows of Lee et al. 2022, Tables 1 and 2.

    One vocabulary for a whole batch has to hold the targets of all examples: only the largest size has that row.
    """
    rows = [
        Row("full softmax"),
        Row("full softmax + InterCTC", "inter"),
        Row("full softmax + self-conditioned CTC", "self"),
    ]
    for size in sorted(sizes):
        if size == max(sizes):
            rows.append(Row(f"S={size} uniform, one for the batch", "none", "uniform", "batch", size))
        rows += [
            Row(f"S={size} uniform", "none", "uniform", "example", size),
            Row(f"S={size} CTC", "none", "ctc", "example", size),
            Row(f"S={size} self-conditioned CTC", "self", "mixture", "example", size),
        ]
    return rows


def ctc_distribution(row: Row, encoded, lengths):
    """Each example's averaged CTC posterior, (B, V): of the last CTC layer, or of all of them."""
    last = samplers.ctc_posterior(encoded.ctc_logits, lengths)
    if row.mode == "none":
        return last
    middle = [samplers.ctc_posterior(logits, lengths) for logits in encoded.intermediate_logits]
    return samplers.mixture([last, *middle], [1.0] * (1 + len(middle)))


def draw_vocabulary(row: Row, batch, encoded, seed: int) -> samplers.SampledVocabulary | None:
    """The ids that each example's softmax runs over in this step; None for all.

    Negatives are drawn by a little of the uniform distribution too: CTC posteriors become so sharp that ids of
    probability 0 could leave too few to draw from.
    """
    if row.source is None:
        return None
    vocab_size = encoded.ctc_logits.shape[-1]
    distribution = samplers.uniform(vocab_size)
    if row.source != "uniform":
        distribution = samplers.mixture(
            [ctc_distribution(row, encoded, batch.frame_lengths), distribution], [0.99, 0.01]
        )
    return samplers.sample_vocabulary(
        batch.targets, batch.target_lengths, row.size, distribution=distribution, strategy=row.strategy, seed=seed
    )
