"""What is measured of a network: label errors, the way of greedy decoding through the frames, and shares of cells."""

from typing import NamedTuple

import numpy as np

from examples.digit_strings.decode import label_error_rate
from examples.digit_strings.network import CONTEXT, Arrays, encoder_forward, predictor_forward
from examples.digit_strings.sparsity import cell_shares
from examples.digit_strings.strings import BLANK, DigitStrings
from lattice import Topology, greedy_decode

MOST_LABELS = 2
"""In a frame, as in examples/02: an untrained network may never choose the blank."""


class Walk(NamedTuple):
    """Of a greedy search through one utterance: frames in which it computed logits, and how many rows of them."""

    frames: int
    rows: int


def predict_by(parameters: Arrays):
    """The predictor as searches call it: a state is the last labels."""

    def predict(labels, state):
        before = np.full((len(labels), CONTEXT), BLANK) if state is None else state[0]
        contexts = np.column_stack((before[:, 1:], labels))
        return predictor_forward(parameters, contexts)[0], (contexts,)

    return predict


def longest_steps(encoder, predictor, weight, bias, topology: Topology) -> np.ndarray:
    """(T, U+1) int: the likeliest duration of each cell, in frames.

    encoder : (T, H). predictor : (U+1, H).
    """
    hidden = np.tanh(encoder[:, None] + predictor)
    scores = hidden @ weight[-topology.tail :].T + bias[-topology.tail :]  # (T, U+1, D)
    return np.array(topology.durations)[scores.argmax(-1)]


def walk_of(label_frames: np.ndarray, steps: np.ndarray, topology: Topology) -> Walk:
    """The walk that has emitted a label in each of `label_frames` (U,), with the steps (T, U+1) that cells would take.

    Raises
    ------
    ValueError
        The walk passes a frame in which there is a label.
    """
    shortest = min(step for step in topology.durations if step)
    t, u, visited, rows = 0, 0, set(), 0
    while t < len(steps):
        visited.add(t)
        rows += 1
        emits = u < len(label_frames) and label_frames[u] == t
        if u < len(label_frames) and label_frames[u] < t:
            raise ValueError(f"label {u} is in frame {label_frames[u]}, and the walk in frame {t}")
        t, u = t + (steps[t, u] if emits else max(steps[t, u], shortest)), u + emits
    return Walk(len(visited), rows)


def walks(parameters: Arrays, encoder, strings: DigitStrings, found, topology: Topology) -> list[Walk]:
    """The walk of the search through each string that ended in the hypotheses `found`."""
    lengths, counts = strings.encoder_lengths, found.lengths
    if topology.name == "rnnt":
        # A blank is one frame, and every label one row more.
        return [Walk(int(T), int(T + count)) for T, count in zip(lengths, counts, strict=True)]
    output, gathered = (parameters["output.weight"], parameters["output.bias"]), []
    for b, (T, count) in enumerate(zip(lengths, counts, strict=True)):
        history = np.concatenate([np.full(CONTEXT, BLANK), found.labels[b, :count]])
        contexts = np.lib.stride_tricks.sliding_window_view(history, CONTEXT)  # (U+1, CONTEXT)
        predictor, _ = predictor_forward(parameters, contexts)
        steps = longest_steps(encoder[b, :T], predictor, *output, topology)
        gathered.append(walk_of(found.frames[b, :count], steps, topology))
    return gathered


def measured(parameters: Arrays, strings: DigitStrings, topology: Topology) -> dict[str, float]:
    """Of held-out strings.

    error_rate : of labels. frames, rows : what greedy decoding visited and computed, in frames of the strings.
    occupied, certified : shares of the cells of the first strings' lattices (`cell_shares`).
    """
    encoder, _ = encoder_forward(parameters, strings.frames, strings.encoder_lengths)
    found = greedy_decode(
        encoder,
        strings.encoder_lengths,
        predict_by(parameters),
        parameters["output.weight"],
        parameters["output.bias"],
        blank=BLANK,
        topology=topology,
        max_labels_per_frame=MOST_LABELS,
    )
    decoded = [row[:count].tolist() for row, count in zip(found.labels, found.lengths, strict=True)]
    frames, rows = np.sum(walks(parameters, encoder, strings, found, topology), axis=0)
    occupied, certified = cell_shares(parameters, strings, topology=topology)
    total = int(strings.encoder_lengths.sum())
    return {
        "error_rate": label_error_rate(decoded, strings.targets, strings.target_lengths),
        "frames": float(frames / total),
        "rows": float(rows / total),
        "occupied": occupied,
        "certified": certified,
    }
