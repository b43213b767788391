"""Distributions that negatives are drawn from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lattice.annotations import A, Array
from lattice.device import arrays
from lattice.device.memory import HOST, device_of
from lattice.inputs.checks import read_factor, read_integer, read_lengths, read_real
from lattice.kernels.emissions import emit
from lattice.kernels.rows import NO_IDS

from .inputs import hand_back, read_probabilities, refuse_probabilities
from .mean import mean_softmax

MOST_IDS = 1 << 24
"""Largest `vocab_size`: one that is garbage must not take the machine's memory."""


def _read_vocab_size(vocab_size) -> int:
    vocab_size = read_integer(vocab_size, "vocab_size")
    if not 1 <= vocab_size <= MOST_IDS:
        raise ValueError(f"vocab_size is {vocab_size}, expected at least 1 and at most {MOST_IDS}")
    return vocab_size


def uniform(vocab_size: int) -> np.ndarray:
    """The same probability for every id.

    Parameters
    ----------
    vocab_size : int
        V, at least 1.

    Returns
    -------
    probabilities : (V,) float64, NumPy

    Raises
    ------
    ValueError, TypeError
        `vocab_size` is no integer, or below 1.

    Notes
    -----
    Allocates only the result, 8 bytes an id.

    References
    ----------
    Sampled softmax: Lee et al. 2022, arXiv 2203.16868.
    """
    vocab_size = _read_vocab_size(vocab_size)
    return np.full(vocab_size, 1 / vocab_size)


def log_uniform(vocab_size: int) -> np.ndarray:
    """log((v + 2) / (v + 1)) / log(V + 1) for id v: Zipf's law for ids that are sorted by falling frequency.

    Parameters
    ----------
    vocab_size : int
        V, at least 1.

    Returns
    -------
    probabilities : (V,) float64, NumPy

    Raises
    ------
    ValueError, TypeError
        `vocab_size` is no integer, or below 1.

    Notes
    -----
    Allocates 8 bytes an id beside the result.

    References
    ----------
    Sampled softmax: Lee et al. 2022, arXiv 2203.16868.
    """
    vocab_size = _read_vocab_size(vocab_size)
    return np.diff(np.log(np.arange(1.0, vocab_size + 2))) / np.log(vocab_size + 1.0)


def unigram(counts: Array) -> Any:
    """Probabilities in proportion to counts.

    Parameters
    ----------
    counts : (V,) integers or reals
        Not negative, not all 0. An id that never occurred is never drawn: add a constant to the counts to smooth them.

    Returns
    -------
    probabilities : (V,) float64, in the kind of `counts`

    Raises
    ------
    ValueError, TypeError
        Naming the id and its count.

    Notes
    -----
    Counted on the host: counts on a GPU are waited for once. Allocates about 12 bytes an id beside the result.

    References
    ----------
    Sampled softmax: Lee et al. 2022, arXiv 2203.16868.
    """
    values = arrays.read(arrays.to_host(counts=counts)[0], "counts")
    if values.dtype.kind not in "iu" and values.dtype.name not in arrays.REAL_NAMES:
        raise TypeError(f"counts has dtype {values.dtype}, expected integers or reals")
    if values.ndim != 1 or not len(values):
        raise ValueError(f"counts has shape {values.shape}, expected (V,) with V at least 1")
    values = values.astype(np.float64)
    refuse_probabilities(values, "counts")
    # Each count is finite, their sum may not be: an error of ours instead of NumPy's warning.
    with np.errstate(over="ignore"):
        total = values.sum()
    if np.isinf(total):
        raise ValueError(f"counts add up to more than {np.finfo(np.float64).max:.0e}, what float64 can hold")
    if total == 0:
        raise ValueError(
            f"counts holds nothing but 0 in all {len(values)} places, expected at least one count above it"
        )
    return hand_back(values / total, counts)


def ctc_posterior(logits: A, lengths: Array) -> A:
    """The softmax of an example's CTC logits, averaged over its real frames (Lee et al. 2022).

    What a CTC head expects anywhere in an utterance is likely to be confused with what is said in it. Intermediate and
    self-conditioned CTC have logits of their own. `mixture` joins their posteriors.

    Parameters
    ----------
    logits : (B, T, V) float32, float64, float16 or bfloat16
        Unnormalised scores, on any device. A layout that is not C-contiguous is copied.
    lengths : (B,) int32 or int64
        1 <= T_b <= T. Frames beyond are not read.

    Returns
    -------
    probabilities : (B, V) float64 for float64 logits, else float32
        In the kind of `logits`, the blank included. A row is NaN where a frame of its example holds NaN or +inf, or
        nothing but -inf.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the index, the value and the bound.

    Notes
    -----
    Allocates about 40 bytes a frame beside the result (52 in float64), and on the host one example widened from
    half precision. On a GPU it waits once, and only for lengths that lie on the device.

    References
    ----------
    Lee et al. 2022, arXiv 2203.16868.
    """
    array = read_real(logits, "logits", (3,))
    (B, T, V), device = array.shape, device_of(array)
    if V < 1:
        raise ValueError(f"logits has shape {array.shape}, expected (B, T, V) with V at least 1")
    lengths = arrays.to_host(lengths=lengths)[0]
    owner = f"logits {array.shape}"
    frames = read_lengths(lengths, "lengths", B, low=1, high=T, source=f"axis 1 of {owner}", owner=owner)
    dtype = arrays.computing_dtype(array.dtype)
    with device.active():
        mean = device.empty((B, V), dtype)
        if device.on_gpu or array.dtype == dtype:
            _average(device, array.reshape(B * T, V), np.arange(B) * T, frames, mean)
        else:
            # Half precision is widened one example at a time.
            for b in range(B):
                rows = array[b, : frames[b]].astype(dtype)  # (T_b, V)
                _average(device, rows, np.zeros(1, np.int64), frames[b : b + 1], mean[b : b + 1])
        device.hold_until_read(logits, array)
        return arrays.give_back(mean, logits)


def _average(device, logits, first, frames, mean) -> None:
    """Fill `mean` (B, V) from `logits` (rows, V); an example has the `frames` (B,) rows from `first` (B,) on."""
    starts = np.concatenate(([0], np.cumsum(frames)))  # (B + 1,) first frame of each example, padding left out
    rows = np.arange(starts[-1]) + np.repeat(first - starts[:-1], frames)  # (frames,) row of each frame
    no_label = np.full(len(rows), -1, np.int32)  # `emit` is here for the normaliser
    rows, no_label, first, frames, none = device.upload(None, rows, no_label, starts[:-1], frames, NO_IDS)
    # From here on `first` counts frames, which follow one another. Only their rows of logits lie apart.
    blank_score, label_score, maximum, rest = (device.empty(len(rows), mean.dtype) for _ in range(4))
    # Without a bias `emit` leaves the logits as they are.
    emit(logits, device.empty(0, mean.dtype), rows, none, no_label, 0, blank_score, label_score, maximum, rest)
    mean_softmax(logits, rows, first, frames, maximum, rest, mean)


def _listed(x, name: str) -> list:
    try:
        return list(x)
    except TypeError as error:
        raise TypeError(f"{name} is {type(x).__name__}, expected a sequence") from error


def mixture(distributions: Sequence[Array], weights: Sequence[float]) -> Any:
    """A weighted mean of distributions: the posteriors of several CTC heads, or one of them and a little of `uniform`.

    Parameters
    ----------
    distributions : sequence of (V,) or (B, V) arrays
        (V,) stands for all rows. Host arrays may be mixed with arrays of one GPU.
    weights : sequence of float
        One for each distribution, not negative, not all 0. They are divided by their sum.

    Returns
    -------
    probabilities : (V,) or (B, V) float64 if any distribution is, else float32
        On the GPU if any distribution is there, in the kind of the first that is; otherwise in the kind of the first.

    Raises
    ------
    ValueError, TypeError
        Naming the distribution or the weight.

    Notes
    -----
    Allocates at most twice the bytes of the result beside it, and copies of distributions in half precision or on
    another device.

    References
    ----------
    Sampled softmax: Lee et al. 2022, arXiv 2203.16868.
    """
    distributions, weights = _listed(distributions, "distributions"), _listed(weights, "weights")
    weights = [read_factor(weight, f"weights[{i}]") for i, weight in enumerate(weights)]
    if not distributions or len(weights) != len(distributions):
        raise ValueError(
            f"weights has {len(weights)} entries for {len(distributions)} distributions, expected one for each of "
            "at least one"
        )
    if not sum(weights):
        raise ValueError(f"weights are {weights}, expected at least one above 0")
    parts = [read_probabilities(x, f"distributions[{i}]") for i, x in enumerate(distributions)]  # (1, V) or (B, V) each
    flat = all(arrays.read(x, "distributions").ndim == 1 for x in distributions)
    rows = max(len(part) for part in parts)
    for i, part in enumerate(parts):
        if part.shape[1] != parts[0].shape[1] or len(part) not in (1, rows):
            raise ValueError(
                f"distributions[{i}] has shape {part.shape}, expected (V,) or (B, V) with V = {parts[0].shape[1]} "
                f"and B = {rows} as the others"
            )
    # The first distribution on a GPU, or else the first, decides the device and the kind.
    leader = next((i for i, part in enumerate(parts) if device_of(part) is not HOST), 0)
    device = device_of(parts[leader])
    dtype = np.dtype(np.float64 if any(part.dtype == np.float64 for part in parts) else np.float32)
    with device.active():
        mixed = device.empty((rows, parts[0].shape[1]), dtype)
        mixed.fill(0)
        for i, (part, weight) in enumerate(zip(parts, weights)):
            if device_of(part) not in (device, HOST):
                raise ValueError(f"distributions[{i}] is on {device_of(part).name}, expected {device.name} or the host")
            here = part if device_of(part) == device else device.upload(None, part)[0]
            mixed += device.convert(here, dtype) * dtype.type(weight / sum(weights))
            device.hold_until_read(distributions[i], here)
        return arrays.give_back(mixed.reshape(-1) if flat else mixed, distributions[leader])
