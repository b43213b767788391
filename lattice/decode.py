"""Greedy and beam search for the labels of an utterance, with the caller's predictor."""

from typing import Any, Generic, NamedTuple

import numpy as np

from .annotations import A, Activation, Array, Predict, TopologyLike
from .device import arrays
from .inputs.decode import DecodeProblem, read_beam, read_decode
from .search.beam import BeamSearch
from .search.greedy import greedy
from .search.timed_beam import TimedBeamSearch
from .topology import TIMED


class Hypotheses(NamedTuple, Generic[A]):
    """Label sequences that a search has found, in the kind of the encoder.

    `greedy_decode` finds one for each example. For `beam_decode` every array has the axis nbest behind B, best first.

    Attributes
    ----------
    labels : (B, U) int32
        -1 behind the last label; U is the length of the longest.
    lengths : (B,) int32
    score : (B,) float64 for float64 inputs, else float32
        Log-probability in nats.
    frames : (B, U) int32
        The frame in which each label was emitted, -1 behind the last. Those of `beam_decode` are of the best alignment
        that the search kept.
    label_scores : (B, U), like `score`
        Log-probability in nats of the arc by which each label was emitted there; 0 behind the last. With "tdt" it holds
        the duration's, and with "tdt" and "multiblank" it is less `sigma`.
    """

    labels: Any
    lengths: Any
    score: A
    frames: Any
    label_scores: A


def greedy_decode(
    encoder: A, encoder_lengths: Array, predict: Predict, weight: Array, bias: Array | None, *,
    blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt", allowed: Array | None = None,
    max_labels_per_frame: int = 10,
) -> Hypotheses[A]:  # fmt: skip
    """Take the likeliest arc of each cell, from the first frame to the last.

    Parameters
    ----------
    encoder : (B, T, H) float32, float64, float16 or bfloat16
        B is at least 1.
    encoder_lengths : (B,) int32 or int64
        1 <= T_b <= T. Frames of padding are never read.
    predict : callable
        `predict(labels, state) -> (predictor, state)` gives the predictor vectors (N, H) of N hypotheses that have just
        been extended by `labels` (N,) int64, in the kind of `encoder`. A state is a tuple of arrays whose first axis is
        N, or None. The first call is for the empty label sequence of every example, with `labels` = `blank` and `state`
        None. Every later call gets the state that was returned for the same hypotheses before. Its arrays come in the
        kinds in which they were returned, and never twice in the same memory. N changes from call to call. Returned
        arrays must not be written to afterwards. The predictor is float32, float16 or bfloat16, and float64
        where `encoder` is.
    weight : (V, H)
        With "tdt" (V + D, H): D rows for the durations behind those of the V ids.
    bias : (V,) or (V + D,), or None
        The logits of a cell are `activation(encoder[b, t] + predictor) @ weight.T + bias`. Dtypes are as in
        `joint_transducer_loss`. Half precision is computed in float32. Layouts that are not C-contiguous are copied.
    blank : int
        -V <= blank < V; negative ids count from the end.
    activation : str
        As in `joint_transducer_loss`. There is no dropout in a search.
    topology : {"rnnt", "monotonic", "constrained"} or Topology
        A label arc stays on its frame ("rnnt"), consumes it ("monotonic"), or consumes it together with the blank of
        the cell behind it ("constrained"). With `hat`, scores are those of two heads. `delay_penalty` is not looked at.
        With "tdt" and "multiblank" an arc leads several frames further, and those between are not scored. Every arc's
        score is less `sigma`, as in the losses, so leave `sigma` out of a search.
    allowed : (B, K) int32 or int64, optional
        The only ids that an example may emit, in any order, with -1 behind the last. Blanks and durations are always
        allowed. The softmax runs over these ids and the blanks (Lee et al. 2022), as the loss's softmax does over a
        `vocabulary`. A step then costs K, not V.
    max_labels_per_frame : int
        Most labels in one frame, after which a blank is taken at its score. Not looked at with "monotonic" and
        "constrained", nor with "tdt" without a duration of 0, where a frame has one label at most.

    Returns
    -------
    hypotheses : Hypotheses
        `score` is the log-probability of the alignment that was taken, and `frames` and `label_scores` are its own. The
        score is NaN for an example that meets a row of logits with NaN or +inf, whose labels are those found until
        then. With "tdt" and "multiblank" the last arc may lead beyond the last frame, or a label's arc to its end. No
        alignment of the loss does. The score is that of the arcs taken all the same, and may be above minus the loss.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound, or what `predict` returned.

    See Also
    --------
    samplers.allowed_vocabulary : Ids for `allowed`.

    Notes
    -----
    Equal scores go to the lower id. With "tdt" the likeliest token and the likeliest duration are chosen apart, of
    equal durations the shorter. A blank with a duration of 0 takes the shortest duration that a blank may take, at the
    score of that one. Examples advance together. A step is one matrix product and at most one call of
    `predict`.

    Allocates a row of V logits (with `allowed`, of K) and two rows of H numbers for each example. With `allowed` it
    takes the rows in use of the weight, (B, K, H) in all. For half precision it takes the widened weight, and on the
    host the widened encoder. The host waits for a GPU at the door and once a step.

    References
    ----------
    Graves 2012, arXiv 1211.3711. `allowed`: CTC-constrained decoding, Lee et al. 2022, arXiv 2203.16868. "tdt": Xu et
    al. 2023, arXiv 2304.06795. "multiblank": Xu et al. 2022, arXiv 2211.03541.
    """
    problem = read_decode(
        encoder,
        encoder_lengths,
        predict,
        weight,
        bias,
        blank=blank,
        activation=activation,
        topology=topology,
        allowed=allowed,
        max_labels_per_frame=max_labels_per_frame,
    )
    with problem.device.active():
        return _results(problem, *greedy(problem))


def beam_decode(
    encoder: A, encoder_lengths: Array, predict: Predict, weight: Array, bias: Array | None, *,
    blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt", allowed: Array | None = None,
    max_labels_per_frame: int = 10, beam: int = 10, nbest: int = 1,
) -> Hypotheses[A]:  # fmt: skip
    """Search for the likeliest label sequences, frame by frame, adding up alignments of equal labels (Graves 2012).

    Parameters
    ----------
    encoder, ..., max_labels_per_frame
        As in `greedy_decode`.
    beam : int
        At least 1. At most `beam` label sequences of an example go on from a frame to the next, and from a label to the
        next label in a frame.
    nbest : int
        1 to `beam`. The number of label sequences that are returned, best first.

    Returns
    -------
    hypotheses : Hypotheses
        `nbest` of each example, best first: labels, frames and their scores (B, nbest, U), lengths and score (B,
        nbest). `score` is the log-probability of the labels, summed over the alignments that the search kept. It is at
        most minus the transducer loss, and equal to it where nothing was dropped. With "tdt" and "multiblank" only
        alignments whose last blank leads to the end of the last frame are found, and there may be none. `frames` and
        `label_scores` are those of the best alignment that the search kept. Entries beyond the sequences found have
        labels and frames -1, length 0 and score -inf. Scores are NaN throughout for an example that meets a row of
        logits with NaN or +inf, whose labels are those found before that frame.

    Raises
    ------
    ValueError, TypeError
        As in `greedy_decode`.

    See Also
    --------
    minimum_bayes_risk : What n-best lists are for in training.

    Notes
    -----
    As in `greedy_decode`, with rows for each hypothesis in place of each example. The host waits for a GPU once for
    each label in a frame, and once more. Every label sequence that was ever kept takes about 200 bytes on the host
    until the search is over, and every frame in which it was extended 32 more.

    References
    ----------
    As in `greedy_decode`; the search itself: `docs/decoding.md`.
    """
    problem = read_decode(
        encoder,
        encoder_lengths,
        predict,
        weight,
        bias,
        blank=blank,
        activation=activation,
        topology=topology,
        allowed=allowed,
        max_labels_per_frame=max_labels_per_frame,
    )
    beam, nbest = read_beam(beam, nbest)
    search = TimedBeamSearch if problem.topology.name in TIMED else BeamSearch
    with problem.device.active():
        return _results(problem, *search(problem, beam).run(nbest))


def _results(problem: DecodeProblem, alignments: list[list[tuple[int, int, float]]], score) -> Hypotheses:
    """Outputs in the kind of the encoder; `alignments` has one for each entry of `score`, (B,) or (B, nbest)."""
    lengths = np.array([len(alignment) for alignment in alignments], np.int32)  # (sequences,)
    shape, dtype = (len(alignments), lengths.max()), arrays.computing_dtype(problem.encoder.dtype)
    labels, frames, label_scores = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32), np.zeros(shape, dtype)
    for i, alignment in enumerate(alignments):
        for u, emission in enumerate(alignment):
            labels[i, u], frames[i, u], label_scores[i, u] = emission
    # NumPy cannot find the size of an axis from no elements, which is what U of 0 leaves.
    labels, frames, label_scores = (
        padded.reshape(*score.shape, -1 if padded.size else 0) for padded in (labels, frames, label_scores)
    )
    found = Hypotheses(labels, lengths.reshape(score.shape), score.astype(dtype), frames, label_scores)
    return Hypotheses(*(arrays.give_back(x, problem.like) for x in problem.device.upload(None, *found)))
