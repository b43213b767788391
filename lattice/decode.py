"""Greedy and beam search for the labels of an utterance, with the caller's predictor."""

from typing import Any

import numpy as np

from .annotations import A, Activation, Array, Predict, TopologyLike
from .device import arrays
from .inputs.decode import DecodeProblem, read_beam, read_decode
from .search.beam import BeamSearch
from .search.greedy import greedy


def greedy_decode(
    encoder: A, encoder_lengths: Array, predict: Predict, weight: Array, bias: Array | None, *,
    blank: int = 0, activation: Activation = "tanh", topology: TopologyLike = "rnnt", allowed: Array | None = None,
    max_labels_per_frame: int = 10,
) -> tuple[Any, Any, A]:  # fmt: skip
    """Take the likeliest arc of each cell, from the first frame to the last.

    Parameters
    ----------
    encoder : (B, T, H) float32, float64, float16 or bfloat16
    encoder_lengths : (B,) int32 or int64
        1 <= T_b <= T. Frames of padding are never read.
    predict : callable
        `predict(labels, state) -> (predictor, state)` gives the predictor vectors (N, H) of N hypotheses that have just
        been extended by `labels` (N,) int64, in the kind of `encoder`. A state is a tuple of arrays whose first axis is
        N, or None. The first call is for the empty label sequence of every example, with `labels` = `blank` and `state`
        None. Every later call gets the state that was returned for the same hypotheses before. Its arrays come in the
        kinds in which they were returned, and never twice in the same memory. N changes from call to call. Returned
        arrays must not be written to afterwards. The predictor has the dtype of `encoder`, or float32 where `encoder`
        is half precision.
    weight : (V, H)
    bias : (V,) or None
        The logits of a cell are `activation(encoder[b, t] + predictor) @ weight.T + bias`. Dtypes are as in
        `joint_transducer_loss`. Half precision is computed in float32. Layouts that are not C-contiguous are copied.
    blank : int
        -V <= blank < V; negative ids count from the end.
    activation : {"tanh", "relu", "identity"}
    topology : {"rnnt", "monotonic", "constrained"} or Topology
        A label arc stays on its frame ("rnnt"), or consumes it ("monotonic"), or stays for the blank behind it and no
        other label ("constrained").
    allowed : (B, K) int32 or int64, optional
        The only ids that an example may emit, in any order, with -1 behind the last. The blank is always allowed. The
        softmax runs over these ids and the blank (Lee et al. 2022), as the loss's softmax does over a `vocabulary`. A
        step then costs K, not V.
    max_labels_per_frame : int
        Most labels in one frame, after which the blank is taken at its score. Looked at with "rnnt" alone. Elsewhere a
        frame has one label at most.

    Returns
    -------
    labels : (B, U) int32
        -1 behind the last label; U is the length of the longest.
    lengths : (B,) int32
    score : (B,) float64 for float64 inputs, else float32
        Log-probability of the alignment that was taken, in nats. It is NaN for an example that meets a row of logits
        with NaN or +inf, whose labels are those found until then.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound, or what `predict` returned.

    See Also
    --------
    samplers.allowed_vocabulary : Ids for `allowed`.

    Notes
    -----
    Equal scores go to the lower id. Examples advance together. A step is one matrix product and at most one call of
    `predict`.

    Allocates a row of V logits (with `allowed`, of K) and two rows of H numbers for each example. With `allowed` it
    takes the rows in use of the weight, (B, K, H) in all. For half precision it takes the widened weight, and on the
    host the widened encoder. The host waits for a GPU at the door and once a step.

    References
    ----------
    Graves 2012, arXiv 1211.3711. `allowed`: CTC-constrained decoding, Lee et al. 2022, arXiv 2203.16868.
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
) -> tuple[Any, Any, A]:  # fmt: skip
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
    labels : (B, nbest, U) int32
    lengths : (B, nbest) int32
    score : (B, nbest)
        Log-probability of the labels in nats, summed over the alignments that the search kept. It is at most minus the
        transducer loss, and equal to it where nothing was dropped. Entries beyond the sequences found have labels -1,
        length 0 and score -inf. Scores are NaN throughout for an example that meets a row of logits with NaN or +inf,
        whose labels are those found before that frame.

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
    until the search is over.

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
    with problem.device.active():
        return _results(problem, *BeamSearch(problem, beam).run(nbest))


def _results(problem: DecodeProblem, sequences: list[list[int]], score):
    """Outputs in the kind of the encoder; `sequences` has one for each entry of `score`, (B,) or (B, nbest)."""
    lengths = np.array([len(labels) for labels in sequences], np.int32)  # (sequences,)
    padded = np.full((len(sequences), lengths.max()), -1, np.int32)  # (sequences, U)
    for row, labels in zip(padded, sequences):
        row[: len(labels)] = labels
    dtype = arrays.computing_dtype(problem.encoder.dtype)
    # NumPy cannot find the size of an axis from no elements, which is what U of 0 leaves.
    padded = padded.reshape(*score.shape, -1 if padded.size else 0)
    outputs = problem.device.upload(None, padded, lengths.reshape(score.shape), score.astype(dtype))
    return tuple(arrays.give_back(output, problem.like) for output in outputs)
