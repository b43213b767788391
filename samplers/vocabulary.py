"""Vocabularies of single examples: to train with (positives and drawn negatives), and to decode with."""

from typing import Any, Literal, NamedTuple

import numpy as np

from lattice.annotations import Array
from lattice.device import arrays
from lattice.device.memory import device_of
from lattice.inputs.checks import MOST_SEED, read_blank, read_choice, read_natural

from .draw import choose, fill_keys
from .inclusion import fill_inclusion
from .inputs import hand_back, read_labels, read_probabilities, read_size, refuse_probabilities
from .mean import pool_rows

STRATEGIES = ("example", "batch")
MOST_ROW = 2**63 - 1
"""Largest number of a row: kernels take it as an int64."""


class SampledVocabulary(NamedTuple):
    """Ids that each example's softmax runs over.

    Attributes
    ----------
    ids : (B, S) int32
        The blank, then the example's distinct targets in rising order, then its negatives in the order they were drawn.
        No id stands twice in a row.
    lengths : (B,) int32
        S throughout. They are `vocabulary_lengths` of the losses, which may be left out.
    num_positive : (B,) int32
        How many of the ids, from the first, are the blank and targets.
    log_inclusion : (B, S) float64 for a float64 distribution, else float32
        Log-probability of a negative to be drawn, given the largest rejected key; 0 for positives.
    """

    ids: np.ndarray
    lengths: np.ndarray
    num_positive: np.ndarray
    log_inclusion: np.ndarray


def sample_vocabulary(
    targets: Array, target_lengths: Array, size: int, *, distribution: Array,
    strategy: Literal["example", "batch"] = "example", blank: int = 0, seed: int, row_offset: int = 0,
) -> SampledVocabulary:  # fmt: skip
    """Draw each example's vocabulary: the blank, its targets, and negatives from a distribution (Lee et al. 2022).

    Negatives are drawn without replacement, in proportion to `distribution` off the positives. The draw is a function
    of the seed, the row and the id. The same probabilities and seed give the same ids on every device, and a smaller
    `size` gives the beginning of the same row.

    Parameters
    ----------
    targets : (B, U) int32 or int64
        Label ids, never `blank`; entries beyond a target's length may hold anything.
    target_lengths : (B,) int32 or int64
    size : int
        S, at most V: the blank, positives and negatives together.
    distribution : (V,) or (B, V) real
        Not negative, and not necessarily normalised. Ids of probability 0 are never drawn.
    strategy : {"example", "batch"}
        A vocabulary for each example, or one for all. The one for all has the targets of the whole batch as positives,
        and its negatives come from the sum of the distributions.
    blank : int
        -V <= blank < V; negative ids count from the end.
    seed : int
        0 to 2**64 - 1. Another one for every step.
    row_offset : int
        Number of the first row, for batches that are spread over devices. Rows of different numbers are drawn
        independently.

    Returns
    -------
    SampledVocabulary
        Arrays in the kind of `targets`, where they lie.

    Raises
    ------
    ValueError, TypeError
        `size` below the number of positives or above V; a probability that is negative, NaN or infinite; fewer ids of
        positive probability than negatives are wanted; rows that do not fit. The text names the row.

    Notes
    -----
    Works where `distribution` lies, and allocates 20 bytes for each of B * V ids (of V with "batch"). On a GPU it
    waits twice, once for targets that lie there, once for the count of ids that could be drawn.

    References
    ----------
    Lee et al. 2022, arXiv 2203.16868. Draws: Efraimidis and Spirakis 2006 (the order of Gumbel top-k), with
    the random numbers of Salmon et al. 2011. `log_inclusion`: Kool et al. 2019, arXiv 1903.06059.
    """
    labels, target_lengths = arrays.to_host(targets=targets, target_lengths=target_lengths)
    given = read_probabilities(distribution, "distribution")  # (1, V) or (B, V)
    V = given.shape[1]
    blank_id = read_blank(blank, V)
    labels = read_labels(labels, target_lengths, blank_id, V)  # (B, longest), V beyond each target
    B = len(labels)
    if len(given) not in (1, B):
        raise ValueError(
            f"distribution has shape {given.shape}, expected (V,) or ({B}, V), a row for each example of targets"
        )
    batch = read_choice(strategy, "strategy", STRATEGIES) == "batch"
    size = read_size(size, 1, V, f"the ids of distribution {given.shape}")
    seed, row_offset = read_natural(seed, "seed", MOST_SEED), read_natural(row_offset, "row_offset", MOST_ROW - B)
    # R rows are drawn: B, or with "batch" one, whose target is the targets of all.
    ids, num_positive = _positives(labels.reshape(1, -1) if batch else labels, size, blank_id, V, batch)
    device = device_of(given)
    with device.active():
        probabilities = given
        if batch and len(given) > 1:
            probabilities = device.empty((1, V), np.float64)
            # NaN where any row has a wrong entry; the error then looks for it in the rows that were given.
            pool_rows(given, probabilities.reshape(-1))
        ids, start = device.upload(None, ids, num_positive)
        rejected = _chosen(device, given, probabilities, ids, start, "distribution", seed=seed, row_offset=row_offset)
        log_inclusion = device.empty(ids.shape, arrays.computing_dtype(given.dtype))
        fill_inclusion(probabilities, ids, start, rejected, log_inclusion)
        device.hold_until_read(distribution, given)
        if batch:
            ids, log_inclusion = (_repeated(device, part, B) for part in (ids, log_inclusion))
            num_positive = num_positive.repeat(B)
    counts = np.full(B, size, np.int32), num_positive.astype(np.int32)
    lengths, num_positive = (hand_back(part, targets) for part in counts)
    return SampledVocabulary(hand_back(ids, targets), lengths, num_positive, hand_back(log_inclusion, targets))


def _positives(labels, size: int, blank_id: int, V: int, batch: bool):
    """Rows of `size` ids that begin with the blank and the distinct labels, and how many ids each begins with.

    Parameters
    ----------
    labels : (R, longest) int32
        V stands where a row has no label.

    Returns
    -------
    ids : (R, size) int32
        0 behind the positives.
    num_positive : (R,) int64
    """
    ordered = np.sort(labels, axis=1)  # equal ids side by side, V last
    distinct = ordered < V  # (R, longest) bool, the first of each run of equal ids
    distinct[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    num_positive = 1 + distinct.sum(axis=1)
    for n in np.flatnonzero(num_positive > size)[:1]:
        owner = "the batch" if batch else f"row {n} of targets"
        raise ValueError(
            f"size is {size}, expected at least {num_positive[n]}: {owner} has {num_positive[n] - 1} distinct ids "
            "beside the blank"
        )
    ids = np.zeros((len(labels), size), np.int32)
    ids[:, 0] = blank_id
    row, column = np.nonzero(distinct)
    # The count of distinct ids up to and with a label is its column: the blank has column 0.
    ids[row, np.cumsum(distinct, axis=1)[row, column]] = ordered[row, column]
    return ids, num_positive


def _chosen(device, given, probabilities, ids, start, name, **draw):
    """Complete rows of ids, and return the arrival times of the first ids that were turned away.

    Parameters
    ----------
    given : (1, V) or (B, V)
        The argument as it was read: what an error text speaks of, by `name`.
    probabilities : (1, V) or (R, V)
        What is drawn from.
    ids, start : (R, S) int32, (R,) int64
        Filled from `start` on.
    **draw
        `seed` and `row_offset`; without them ids come by falling probability.

    Returns
    -------
    rejected : (R,) float64
    """
    shape = len(ids), probabilities.shape[1]
    keys, order, listed = device.empty(shape, np.int64), device.empty(shape, np.int64), device.empty(shape, np.int32)
    status, rejected = device.empty((2, shape[0]), np.int64), device.empty(shape[0], np.float64)
    fill_keys(probabilities, keys, **draw)
    candidates, refused = status[0], status[1]
    choose(keys, start, ids, listed, order, candidates, refused, rejected)
    status, start = arrays.to_host(status=status, start=start)  # the one wait for a GPU
    candidates, refused = status
    if refused.any():
        refuse_probabilities(given, name)
    wanted = ids.shape[1] - start
    for n in np.flatnonzero(candidates < wanted)[:1]:
        row = f"{name}[{n}]" if len(given) == len(ids) else name
        raise ValueError(
            f"{row} has {candidates[n]} ids of positive probability beside the positives, expected at least "
            f"{wanted[n]} to fill size {ids.shape[1]}"
        )
    return rejected


def _repeated(device, row, count: int):
    """(1, S) to (count, S), in memory of its own: users may write into what they get."""
    rows = device.empty((count, row.shape[1]), row.dtype)
    rows[:] = row
    return rows


def allowed_vocabulary(probabilities: Array, size: int, *, blank: int = 0) -> Any:
    """The most probable ids of each row without the blank: what decoding may emit in CTC-constrained decoding.

    Parameters
    ----------
    probabilities : (B, V) or (V,) real
        The averaged CTC posterior of each utterance, `ctc_posterior`. (V,) is one row.
    size : int
        Ids a row, at most V - 1.
    blank : int
        -V <= blank < V; negative ids count from the end.

    Returns
    -------
    ids : (B, size) int32
        By falling probability, of equal probabilities the lower id first; for `allowed` of `lattice.greedy_decode`. In
        the kind of `probabilities`.

    Raises
    ------
    ValueError, TypeError
        Naming the row.

    Notes
    -----
    Allocates 20 bytes for each entry of `probabilities`. On a GPU it waits once.

    References
    ----------
    Lee et al. 2022, arXiv 2203.16868.
    """
    given = read_probabilities(probabilities, "probabilities")  # (B, V)
    B, V = given.shape
    blank_id = read_blank(blank, V)
    size = read_size(size, 1, V - 1, f"the ids of probabilities {given.shape} without the blank")
    # The blank stands first, so that it cannot be chosen, and is cut off at the end.
    rows = np.zeros((B, size + 1), np.int32)
    rows[:, 0] = blank_id
    device = device_of(given)
    with device.active():
        rows, start = device.upload(None, rows, np.ones(B, np.int64))
        _chosen(device, given, given, rows, start, "probabilities")
        device.hold_until_read(probabilities, given)
        ids = device.empty((B, size), np.int32)
        ids[:] = rows[:, 1:]
        return arrays.give_back(ids, probabilities)
