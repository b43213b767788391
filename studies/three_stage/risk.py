"""Stage 3: expected edits over lists of hypotheses, scored by model and language model (Zhou et al. 2022)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

import lattice
from studies.speech.batches import Batch, batches, pad
from studies.speech.corpus import Utterances
from studies.speech.encoder import Arrays, encoder_forward
from studies.speech.predictor import label_contexts, predictor_forward
from studies.speech.units import BLANK

from .decoding import best_lists
from .language_model import LanguageModel
from .objectives import MEMORY_LIMIT, TOPOLOGY, StepResult, backward, output_of, per_label

BATCH = 8


class Hypotheses(NamedTuple):
    """The hypotheses for one utterance, best first.

    labels : list of tuples of ids.
    language : (n,) float64, their log-probabilities by the language model, in nats.
    edits : (n,) int64, their edit distances to what was said.
    """

    labels: list[tuple[int, ...]]
    language: np.ndarray
    edits: np.ndarray


def decode_lists(
    parameters: Arrays, utterances: Utterances, beam: int, models: Sequence[LanguageModel]
) -> list[Hypotheses]:
    """The lists of all utterances; utterance n is scored by `models[n % len(models)]`."""
    lists: list = [None] * len(utterances.targets)
    for batch in batches(utterances, BATCH):
        for place, found in zip(batch.rows, best_lists(parameters, batch, beam)):
            truth, model = utterances.targets[place].tolist(), models[place % len(models)]
            language = np.array([model.score(labels) for labels in found])
            lists[place] = Hypotheses(
                found, language, np.array([Levenshtein.distance(labels, truth) for labels in found])
            )
    return lists


def padded_lists(columns: list[np.ndarray], value) -> tuple[np.ndarray, np.ndarray]:
    """Columns side by side, (B, n), and their lengths (B,)."""
    return pad([np.asarray(column, np.float64) for column in columns], value)


def score_lists(loss: np.ndarray, lists: list[Hypotheses], lm_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-scores of model and language model together, list by list.

    Parameters
    ----------
    loss : (N,)
        Of the hypotheses one after another.
    lists : list of Hypotheses
    lm_scale : float

    Returns
    -------
    scores : (B, n) float64
        NaN where no hypothesis is.
    real : (B, n) bool
        Where one is.
    """
    language, lengths = padded_lists([found.language for found in lists], np.nan)
    real = np.arange(language.shape[1]) < lengths[:, None]
    scores = lm_scale * language
    scores[real] -= loss
    return scores, real


def hypothesis_arguments(
    parameters: Arrays, encoder: np.ndarray, batch: Batch, lists: list[Hypotheses], references: bool
):
    """Predictor, its saved part, and the arguments of the loss of all hypotheses, of the references too if wanted."""
    sequences = [np.array(labels, np.int32) for found in lists for labels in found.labels]
    example = np.repeat(np.arange(len(lists)), [len(found.labels) for found in lists])
    if references:
        sequences += [row[:length] for row, length in zip(batch.targets, batch.target_lengths)]
        example = np.concatenate([example, np.arange(len(lists))])
    targets, target_lengths = pad(sequences, BLANK)
    predictor, saved = predictor_forward(parameters, label_contexts(targets))
    arguments = (encoder, predictor, *output_of(parameters), targets, batch.frame_lengths[example], target_lengths)
    return (
        arguments,
        {"blank": BLANK, "topology": TOPOLOGY, "encoder_index": example, "memory_limit": MEMORY_LIMIT},
        saved,
    )


def risk_step(
    parameters: Arrays, batch: Batch, lists: list[Hypotheses], *, lm_scale: float, scale: float, full_sum_weight: float
) -> StepResult:
    """Expected edits a label, plus a little of the full-sum loss of what was said.

    The hypotheses of an utterance share its encoder row. The references ride along as further targets of the same call.
    """
    encoded, encoder_saved = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
    arguments, keywords, predictor_saved = hypothesis_arguments(parameters, encoded.encoder, batch, lists, True)
    loss, vjp = lattice.joint_transducer_loss_vjp(*arguments, **keywords)
    count = len(loss) - len(lists)
    scores, real = score_lists(loss[:count], lists, lm_scale)
    edits, lengths = padded_lists([found.edits for found in lists], np.nan)
    risk, grad_scores = lattice.minimum_bayes_risk(scores, edits, lengths, scale=scale)
    share = per_label(batch, np.float64)
    # A score is minus a loss.
    grad_loss = np.concatenate([-(grad_scores * share[:, None])[real], full_sum_weight * share])
    grads = backward(parameters, encoder_saved, predictor_saved, vjp(grad_loss.astype(loss.dtype)), None)
    return StepResult(float(risk @ share), full_sum_weight * float(loss[count:] @ share), grads)


def rescore(
    parameters: Arrays, utterances: Utterances, lists: list[Hypotheses], *, lm_scale: float, scale: float
) -> tuple[float, dict[int, list[int]]]:
    """Expected edits a label over given lists, and the hypothesis of each that scores best."""
    total, best = 0.0, {}
    for batch in batches(utterances, BATCH):
        some = [lists[place] for place in batch.rows]
        encoded, _ = encoder_forward(parameters, batch.frames, batch.frame_lengths, mode="none")
        arguments, keywords, _ = hypothesis_arguments(parameters, encoded.encoder, batch, some, False)
        scores, real = score_lists(lattice.joint_transducer_loss(*arguments, **keywords), some, lm_scale)
        edits, lengths = padded_lists([found.edits for found in some], np.nan)
        total += float(lattice.minimum_bayes_risk(scores, edits, lengths, scale=scale)[0].sum())
        for place, found, row in zip(batch.rows, some, np.where(real, scores, -np.inf)):
            best[int(place)] = list(found.labels[int(row.argmax())])
    return total / sum(map(len, utterances.targets)), best
