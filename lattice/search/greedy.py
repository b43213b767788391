"""The walk of the greedy search: each example takes the likeliest arc of its cell, all examples at once."""

import numpy as np

from ..inputs.decode import DecodeProblem
from .predictions import Predictor
from .scorer import Scorer


def greedy(problem: DecodeProblem):
    """(alignments, score): (label, frame, score) of each label of an example, and scores (B,) float64 of alignments."""
    scorer, predictor, lengths = Scorer(problem, 1), Predictor(problem), problem.lengths
    # (n,) of the examples that are still on their way: number, frame, and labels emitted in that frame.
    example, frame, count = np.arange(len(lengths)), np.zeros_like(lengths), np.zeros_like(lengths)
    monotonic, paired = problem.topology.moves
    most = 1 if monotonic else problem.most_labels
    alignments: list[list[tuple[int, int, float]]] = [[] for _ in lengths]
    score, predictions = np.zeros(len(lengths)), predictor.start()
    while len(example):
        scores, labels = scorer(example, frame, predictions.rows[0])  # (n, 2), (n, 1): the blank and the best label
        (blank_score, label_score), label = scores.T, labels[:, 0]
        wins = (label_score > blank_score) | ((label_score == blank_score) & (label < problem.blank_id))
        # Comparisons with NaN are False, so a broken row takes the blank and with it a score of NaN.
        emits = wins & (label >= 0) & (count < most)
        score[example] += np.where(emits, label_score, blank_score)
        emitted = (column[emits].tolist() for column in (example, label, frame, label_score))
        for b, *emission in zip(*emitted):
            alignments[b].append(tuple(emission))
        # (n,) whether the arc consumes the frame. In a pair the blank behind the label does.
        moves = ~emits | (monotonic and not paired)
        frame, count = frame + moves, np.where(moves, 0, count + 1)
        live = (frame < lengths[example]) & ~np.isnan(blank_score)
        # After a blank the old prediction holds, after a label there is a new one. Rows follow in the order of the two.
        stays, goes = np.flatnonzero(live & ~emits), np.flatnonzero(live & emits)
        parts = [(predictions, stays)] if len(stays) else []
        if len(goes):
            parts.append((predictor.extend(predictions, goes, label[goes]), np.arange(len(goes))))
        if parts:
            predictions = predictor.join(parts)
        order = np.concatenate([stays, goes])
        example, frame, count = example[order], frame[order], count[order]
    return alignments, score
