"""Greedy and beam search for the labels of an utterance, with the caller's predictor."""

from typing import Any

import numpy as np

from .annotations import A, Activation, Array, Predict, Topology
from .device import arrays
from .inputs import decode as inputs_decode
from .inputs.decode import DecodeProblem
from .search.beam import BeamSearch
from .search.predictions import Predictor
from .search.scorer import Scorer


def greedy_decode(
    encoder: A, encoder_lengths: Array, predict: Predict, weight: Array, bias: Array | None, *, blank: int = 0,
    activation: Activation = "tanh", topology: Topology = "rnnt", allowed: Array | None = None,
    max_labels_per_frame: int = 10,
) -> tuple[Any, Any, A]:  # fmt: skip
    """Take the likeliest arc of each cell, from the first frame to the last.

    Parameters
    ----------
    encoder : (B, T, H) float32, float64, float16 or bfloat16
    encoder_lengths : (B,) int32 or int64
        1 <= T_b <= T; frames of padding are never read.
    predict : callable
        `predict(labels, state) -> (predictor, state)`: the predictor vectors (N, H) of N hypotheses that have just been
        extended by `labels` (N,) int64, in the kind of `encoder`. A state is a tuple of arrays whose first axis is N, or None.
        The first call, for the empty label sequence of every example, has `labels` = `blank` and `state` None; later ones have
        what was returned for the same hypotheses before, each in its kind and never twice in the same memory. N changes from
        call to call. What it returns must not be written to afterwards. The predictor has the dtype of `encoder`, or float32
        where that is half precision.
    weight : (V, H)
    bias : (V,) or None
        The logits of a cell are `activation(encoder[b, t] + predictor) @ weight.T + bias`. Dtypes as in
        `joint_transducer_loss`; half precision is computed in float32. Layouts that are not C-contiguous are copied.
    blank : int
        -V <= blank < V; negative ids count from the end.
    activation : {"tanh", "relu", "identity"}
    topology : {"rnnt", "monotonic"}
        A label arc stays on its frame, or consumes it.
    allowed : (B, K) int32 or int64, optional
        The only ids that an example may emit, in any order, -1 behind the last; the blank always may. The softmax runs over them
        and the blank (Lee et al. 2022), as that of the loss does over a `vocabulary`, and a step costs K, not V.
    max_labels_per_frame : int
        After so many labels in one frame the blank is taken, at its score. Not looked at with "monotonic", where a frame has one
        label at most.

    Returns
    -------
    labels : (B, U) int32
        -1 behind the last label; U is the length of the longest.
    lengths : (B,) int32
    score : (B,) float64 for float64 inputs, else float32
        Log-probability of the alignment that was taken, in nats. NaN for an example that meets a row of logits with NaN or +inf;
        its labels are those found until then.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound, or what `predict` returned.

    See Also
    --------
    samplers.allowed_vocabulary : Ids for `allowed`.

    Notes
    -----
    Equal scores go to the lower id. Examples advance together, one matrix product and at most one call of `predict` a step.
    Allocates a row of V logits (`allowed`: of K) and two of H for each example; with `allowed` (B, K, H) of the weight; for half
    precision the widened weight, and on the host the widened encoder. A GPU is waited for at the door and once a step.

    References
    ----------
    Graves 2012, arXiv 1211.3711. `allowed`: CTC-constrained decoding, Lee et al. 2022, arXiv 2203.16868.
    """
    problem = inputs_decode.read_decode(encoder, encoder_lengths, predict, weight, bias, blank, activation, topology, allowed,
                                        max_labels_per_frame)  # fmt: skip
    with problem.device.active():
        return _results(problem, *_greedy(problem))


def beam_decode(
    encoder: A, encoder_lengths: Array, predict: Predict, weight: Array, bias: Array | None, *, blank: int = 0,
    activation: Activation = "tanh", topology: Topology = "rnnt", allowed: Array | None = None,
    max_labels_per_frame: int = 10, beam: int = 10, nbest: int = 1,
) -> tuple[Any, Any, A]:  # fmt: skip
    """Search for the likeliest label sequences, frame by frame; alignments of equal labels are added up (Graves 2012).

    Parameters
    ----------
    encoder, ..., max_labels_per_frame
        As in `greedy_decode`.
    beam : int
        At least 1. As many label sequences of an example go from a frame to the next, and from a label to the next in a frame.
    nbest : int
        1 to `beam`. As many are returned, best first.

    Returns
    -------
    labels : (B, nbest, U) int32
    lengths : (B, nbest) int32
    score : (B, nbest)
        Log-probability of the labels in nats, summed over the alignments that the search kept: at most minus the transducer loss,
        and equal to it where nothing was dropped. Where fewer were found: labels -1, length 0, score -inf. NaN throughout for an
        example that meets a row of logits with NaN or +inf; its labels are those found before that frame.

    Raises
    ------
    ValueError, TypeError
        As in `greedy_decode`.

    See Also
    --------
    minimum_bayes_risk : What n-best lists are for in training.

    Notes
    -----
    As in `greedy_decode`, with rows for each hypothesis in place of each example. A GPU is waited for once a label in a frame and
    once more. Every label sequence that was ever kept takes about 200 bytes on the host until the search is over.

    References
    ----------
    As in `greedy_decode`; the search itself: `docs/decoding.md`.
    """
    problem = inputs_decode.read_decode(encoder, encoder_lengths, predict, weight, bias, blank, activation, topology, allowed,
                                        max_labels_per_frame)  # fmt: skip
    beam, nbest = inputs_decode.read_beam(beam, nbest)
    with problem.device.active():
        return _results(problem, *BeamSearch(problem, beam).run(nbest))


def _greedy(problem: DecodeProblem):
    """(sequences, score): the labels of each example, and their scores (B,)."""
    scorer, predictor, lengths = Scorer(problem, 1), Predictor(problem), problem.lengths
    example, frame, count = np.arange(len(lengths)), np.zeros_like(lengths), np.zeros_like(lengths)
    most = 1 if problem.monotonic else problem.most_labels
    sequences: list[list[int]] = [[] for _ in lengths]
    score, predictions = np.zeros(len(lengths)), predictor.start()
    while len(example):
        scores, labels = scorer(example, frame, predictions.rows[0])
        (blank_score, label_score), label = scores.T, labels[:, 0]
        wins = (label_score > blank_score) | ((label_score == blank_score) & (label < problem.blank))
        emits = wins & (label >= 0) & (count < most)
        score[example] += np.where(emits, label_score, blank_score)
        for b, v in zip(example[emits].tolist(), label[emits].tolist()):
            sequences[b].append(v)
        moves = ~emits | problem.monotonic
        frame, count = frame + moves, np.where(moves, 0, count + 1)
        live = (frame < lengths[example]) & ~np.isnan(blank_score)
        stays, goes = np.flatnonzero(live & ~emits), np.flatnonzero(live & emits)
        parts = [(predictions, stays)] if len(stays) else []
        if len(goes):
            parts.append((predictor.extend(predictions, goes, label[goes]), np.arange(len(goes))))
        if parts:
            predictions = predictor.join(parts)
        order = np.concatenate([stays, goes])
        example, frame, count = example[order], frame[order], count[order]
    return sequences, score


def _results(problem: DecodeProblem, sequences: list[list[int]], score):
    """Outputs in the kind of the encoder; `sequences` has one for each entry of `score`."""
    lengths = np.array([len(labels) for labels in sequences], np.int32)
    padded = np.full((len(sequences), lengths.max()), -1, np.int32)
    for row, labels in zip(padded, sequences):
        row[: len(labels)] = labels
    dtype = arrays.computing_dtype(problem.encoder.dtype)
    outputs = problem.device.upload(None, padded.reshape(*score.shape, -1 if padded.size else 0), lengths.reshape(score.shape),
                                    score.astype(dtype))  # fmt: skip
    return tuple(arrays.give_back(output, problem.like) for output in outputs)
