"""Batched greedy decoding, and the label error rate."""

import numpy as np
from rapidfuzz.distance import Levenshtein

from .network import CONTEXT, Arrays, encoder_forward, predictor_forward
from .strings import BLANK, DigitStrings


def read_strings(parameters: Arrays, strings: DigitStrings) -> list[list[int]]:
    """The label ids that greedy decoding finds in each string."""
    encoder, _ = encoder_forward(parameters, strings.frames, strings.encoder_lengths)
    return greedy_decode(parameters, encoder, strings.encoder_lengths)


def greedy_decode(
    parameters: Arrays, encoder: np.ndarray, encoder_lengths: np.ndarray, *, max_labels_per_frame: int = 2
) -> list[list[int]]:
    """Take the best arc at every cell: a label moves up and stays on its frame, a blank moves to the next frame.

    Parameters
    ----------
    parameters : dict of arrays
    encoder : (B, T, H)
    encoder_lengths : (B,) int
    max_labels_per_frame : int
        An untrained network may never choose the blank; this ends its frame.

    Returns
    -------
    list of B lists of label ids
    """
    labels = [[] for _ in encoder]
    contexts = np.full((len(encoder), CONTEXT), BLANK)
    predictor, _ = predictor_forward(parameters, contexts)
    for t in range(encoder.shape[1]):
        rows = np.flatnonzero(t < encoder_lengths)
        for _ in range(max_labels_per_frame):
            hidden = np.tanh(encoder[rows, t] + predictor[rows])
            best = (hidden @ parameters["output.weight"].T + parameters["output.bias"]).argmax(axis=-1)
            rows, best = rows[best != BLANK], best[best != BLANK]
            contexts[rows] = np.column_stack((contexts[rows, 1:], best))
            predictor[rows], _ = predictor_forward(parameters, contexts[rows])
            for b, label in zip(rows, best):
                labels[b].append(int(label))
    return labels


def label_error_rate(decoded: list[list[int]], targets: np.ndarray, target_lengths: np.ndarray) -> float:
    """Insertions, deletions and substitutions over all strings, divided by the number of true labels."""
    truth = [row[:length].tolist() for row, length in zip(targets, target_lengths)]
    errors = sum(Levenshtein.distance(*pair) for pair in zip(decoded, truth))
    return errors / int(target_lengths.sum())
