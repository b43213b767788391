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
    most = 1 if problem.topology.moves.monotonic else problem.most_labels
    alignments: list[list[tuple[int, int, float]]] = [[] for _ in lengths]
    score, predictions = np.zeros(len(lengths)), predictor.start()
    while len(example):
        scores, labels, step_score = scorer(example, frame, predictions.rows[0])
        label = labels[:, 0]
        emits, arc_score, taken = likeliest(problem, scores, label, step_score, count < most)
        score[example] += arc_score
        for b, *emission in zip(*(column[emits].tolist() for column in (example, label, frame, arc_score))):
            alignments[b].append(tuple(emission))
        frame, count = frame + taken, np.where(taken > 0, 0, count + 1)
        live = (frame < lengths[example]) & ~np.isnan(scores[:, 0])
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


def likeliest(problem: DecodeProblem, scores, label, step_score, may_emit):
    """The arcs that examples take.

    Parameters
    ----------
    scores, label, step_score : (n, 2), (n,), (D, n)
        As from `Scorer`: of the blank, of the best label, and of the steps.
    may_emit : (n,) bool

    Returns
    -------
    emits, arc_score, taken : (n,) bool, float64, int64
        Whether the arc is that of the label, its score, and the frames that it takes.
    """
    (blank_score, label_score), blank_id, topology = scores.T, problem.blank_ids[0], problem.topology
    every = np.arange(len(label))
    if topology.name == "multiblank":
        # Of equal ones the lowest id, which is that of the longest step.
        blank_step = len(step_score) - 1 - np.argmax(step_score[:0:-1], axis=0)
        blank_score, blank_id = blank_score + step_score[blank_step, every], problem.blank_ids[blank_step - 1]
        label_score = label_score + step_score[0]
    wins = (label_score > blank_score) | ((label_score == blank_score) & (label < blank_id))
    # Comparisons with NaN are False, so a broken row takes the blank and with it a score of NaN.
    emits = wins & (label_score > -np.inf) & may_emit
    if topology.name == "tdt":
        # The duration is chosen for itself. A blank takes one that is not 0, in whose place the shortest other stands.
        frames = topology.steps[0].astype(np.int64)
        step = np.argmax(step_score, axis=0)
        step = np.where(emits, step, np.maximum(step, np.argmax(frames > 0)))
        return emits, np.where(emits, label_score, blank_score) + step_score[step, every], frames[step]
    if topology.name == "multiblank":
        return emits, np.where(emits, label_score, blank_score), np.where(emits, 0, topology.steps[0, blank_step])
    # In a pair the blank behind the label consumes the frame.
    monotonic, paired = topology.moves
    return emits, np.where(emits, label_score, blank_score), np.where(emits, int(monotonic and not paired), 1)
