"""What the doors are given -> a frozen Problem that the stages can trust. Checks of single arguments are in checks.py."""

from dataclasses import dataclass

import numpy as np

from . import arrays
from .checks import (
    index,
    one_device,
    read_blank,
    read_choice,
    read_integer,
    read_integers,
    read_lengths,
    read_number,
    read_real,
    read_writable,
    refuse,
)
from .devices import Cuda, Host, device_of
from .inputs_restrictions import read_bounds, read_vocabulary
from .kernels.hidden import ACTIVATIONS

TOPOLOGIES = ("rnnt", "monotonic")


@dataclass(frozen=True)
class Targets:
    """Labels and lengths of N lattices.

    Attributes
    ----------
    positions : (N, U) int32
        Positions of the labels in the vocabulary in use; 0 beyond a target's length.
    blank : (N,) int64
        Position of the blank in the vocabulary in use.
    frame_lengths, target_lengths : (N,) int64
    monotonic : bool
    bounds : pair of (N, T) integer arrays, or None
    label_axis : int
        U, the size of the second axis of the argument `targets`.
    """

    positions: np.ndarray
    blank: np.ndarray
    frame_lengths: np.ndarray
    target_lengths: np.ndarray
    monotonic: bool
    bounds: tuple[np.ndarray, np.ndarray] | None
    label_axis: int


@dataclass(frozen=True)
class LogitsProblem:
    """A loss from given logits: `logits` is (rows, V), cell (t, u) of example b lies in row `base[b] + t * step[b] + u`."""

    device: Host | Cuda
    logits: np.ndarray
    base: np.ndarray
    step: np.ndarray
    targets: Targets
    shape: tuple[int, ...]


@dataclass(frozen=True)
class JointProblem:
    """A loss from encoder, predictor and output layer; `vocabulary` is a list of N id arrays, or None."""

    device: Host | Cuda
    encoder: np.ndarray
    predictor: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    targets: Targets
    activation: int
    vocabulary: list[np.ndarray] | None
    encoder_index: np.ndarray | None
    memory_limit: int
    posterior_floor: float


def read_targets(targets, target_lengths, blank, vocabulary, *, count: int, size: int, label_axis: int, label_source: str,
                 owner: str):  # fmt: skip
    """Check labels and map them to positions in the vocabulary in use.

    Returns
    -------
    positions : (count, U) int32
    blank_positions : (count,) int64
    target_lengths : (count,) int64
    """
    targets = read_integers(targets, "targets", (count, None), f"(B, U) for {owner}")
    U = min(targets.shape[1], label_axis)
    source = f"the size of targets {targets.shape}" if targets.shape[1] <= label_axis else label_source
    lengths = read_lengths(target_lengths, "target_lengths", count, 0, U, source, owner)
    real = np.arange(targets.shape[1]) < lengths[:, None]
    refuse(real & ((targets < 0) | (targets >= size)),
           lambda at: f"targets{index(at)} is {targets[at]}, expected 0 to {size - 1}, the ids of the vocabulary")  # fmt: skip
    refuse(real & (targets == blank), lambda at: f"targets{index(at)} is {targets[at]}, the blank")
    longest = int(lengths.max(initial=0))
    positions = np.zeros((count, max(1, longest)), np.int32)
    blank_positions = np.full(count, blank, np.int64)
    if vocabulary is None:
        np.copyto(positions[:, :longest], targets[:, :longest], casting="same_kind", where=real[:, :longest])
        return positions, blank_positions, lengths
    for n, ids in enumerate(vocabulary):
        order = np.argsort(ids)
        wanted = np.append(targets[n, : lengths[n]], blank)
        found = np.searchsorted(ids, wanted, sorter=order)
        found = order[np.minimum(found, len(ids) - 1)]
        missing = ids[found] != wanted
        if missing.any():
            u = int(np.argmax(missing))
            what = f"targets[{n}, {u}] = {wanted[u]}" if u < lengths[n] else f"the blank {blank}"
            raise ValueError(f"vocabulary[{n}] lacks {what}: it must hold the blank and every target of its example")
        positions[n, : lengths[n]] = found[:-1]
        blank_positions[n] = found[-1]
    return positions, blank_positions, lengths


def read_logits(logits, targets, logit_lengths, target_lengths, blank, topology, bounds) -> LogitsProblem:
    """Check the arguments of `transducer_loss`."""
    array = read_real(logits, "logits", (2, 4))
    targets, logit_lengths, target_lengths, bounds = arrays.to_host(
        targets=targets, logit_lengths=logit_lengths, target_lengths=target_lengths, bounds=bounds
    )
    monotonic = read_choice(topology, "topology", TOPOLOGIES) == "monotonic"
    V = array.shape[-1]
    blank = read_blank(blank, V)
    packed = array.ndim == 2
    count = arrays.read(logit_lengths, "logit_lengths").size if packed else array.shape[0]
    owner = "logit_lengths" if packed else f"logits {array.shape}"
    label_axis = array.shape[0] if packed else array.shape[2] - 1
    positions, blanks, U = read_targets(targets, target_lengths, blank, None, count=count, size=V, label_axis=label_axis,
                                        label_source=f"axis 2 of logits {array.shape} less one", owner=owner)  # fmt: skip
    T_max, source = (array.shape[0], "the rows of logits") if packed else (array.shape[1], f"axis 1 of logits {array.shape}")
    T = read_lengths(logit_lengths, "logit_lengths", count, 1, T_max, source, owner)
    if packed:
        step = U + 1
        base = np.append(0, np.cumsum(T * step))
        if base[-1] != array.shape[0]:
            raise ValueError(f"logits has {array.shape[0]} rows, but logit_lengths and target_lengths make {base[-1]} cells")
        base = base[:-1]
    else:
        step = np.full(count, array.shape[2], np.int64)
        base = np.arange(count) * (array.shape[1] * array.shape[2])
    bounds = read_bounds(bounds, count, int(T.max(initial=0)), owner)
    return LogitsProblem(
        device_of(array), array.reshape(-1, V), base, step,
        Targets(positions, blanks, T, U, monotonic, bounds, arrays.read(targets, "targets").shape[1]), array.shape,
    )  # fmt: skip


def read_out(out, problem):
    """Check `out` against the logits of a problem; the array it is, as (rows, V)."""
    array = read_writable(out, "out")
    if array.shape != problem.shape or array.dtype != problem.logits.dtype:
        raise ValueError(f"out is {array.dtype}{array.shape}, expected {problem.logits.dtype}{problem.shape} as logits")
    one_device(problem.device, out=array)
    if arrays.address(array) != arrays.address(problem.logits) and arrays.overlap(array, problem.logits):
        raise ValueError("out overlaps logits in part, expected the logits themselves or memory apart from them")
    return array.reshape(problem.logits.shape)


def read_joint(
    encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, blank, activation, topology, vocabulary,
    vocabulary_lengths, bounds, encoder_index, memory_limit, posterior_floor,
) -> JointProblem:  # fmt: skip
    """Check the arguments of `joint_transducer_loss`."""
    encoder, predictor = read_real(encoder, "encoder", (3,)), read_real(predictor, "predictor", (3,))
    weight = read_real(weight, "weight", (2,))
    bias = None if bias is None else read_real(bias, "bias", (1,))
    device = device_of(encoder)
    one_device(device, predictor=predictor, weight=weight, bias=bias)
    targets, encoder_lengths, target_lengths, vocabulary, vocabulary_lengths, bounds, encoder_index = arrays.to_host(
        targets=targets, encoder_lengths=encoder_lengths, target_lengths=target_lengths, vocabulary=vocabulary,
        vocabulary_lengths=vocabulary_lengths, bounds=bounds, encoder_index=encoder_index,
    )  # fmt: skip
    monotonic = read_choice(topology, "topology", TOPOLOGIES) == "monotonic"
    activation = ACTIVATIONS[read_choice(activation, "activation", tuple(ACTIVATIONS))]
    check_dtypes(encoder, predictor, weight, bias)
    (B, T_max, H), (N, U1, _), V = encoder.shape, predictor.shape, weight.shape[0]
    for name, array in (("predictor", predictor), ("weight", weight)):
        if array.shape[-1] != H:
            raise ValueError(f"{name} {array.shape} and encoder {encoder.shape} disagree about H, their last axis")
    if bias is not None and bias.shape != (V,):
        raise ValueError(f"bias has shape {bias.shape}, expected ({V},) as the rows of weight {weight.shape}")
    if encoder_index is not None:
        encoder_index = read_integers(encoder_index, "encoder_index", (N,), "one for each row of predictor").astype(np.int64)
        refuse((encoder_index < 0) | (encoder_index >= B),
               lambda at: f"encoder_index{index(at)} is {encoder_index[at]}, expected 0 to {B - 1}, rows of encoder")  # fmt: skip
    elif N != B:
        raise ValueError(f"predictor {predictor.shape} and encoder {encoder.shape} disagree about B, their first axis")
    if H < 1 or V < 1:
        raise ValueError(f"weight has shape {weight.shape}, expected (V, H) with both at least 1")
    if U1 < 1:
        raise ValueError(f"predictor has shape {predictor.shape}, expected (B, U+1, H) with U+1 at least 1")
    blank, owner = read_blank(blank, V), f"predictor {predictor.shape}"
    vocabulary = read_vocabulary(vocabulary, vocabulary_lengths, N, V, owner)
    positions, blanks, U = read_targets(targets, target_lengths, blank, vocabulary, count=N, size=V, label_axis=U1 - 1,
                                        label_source=f"axis 1 of predictor {predictor.shape} less one", owner=owner)  # fmt: skip
    T = read_lengths(encoder_lengths, "encoder_lengths", N, 1, T_max, f"axis 1 of encoder {encoder.shape}", owner)
    bounds = read_bounds(bounds, N, int(T.max(initial=0)), owner)
    limit = device.memory_limit if memory_limit is None else read_integer(memory_limit, "memory_limit")
    if limit < 1:
        raise ValueError(f"memory_limit is {limit}, expected at least 1 byte")
    floor = read_number(posterior_floor, "posterior_floor", 0.0, bound="a number from 0 up to 1")
    if floor >= 1.0:
        raise ValueError(f"posterior_floor is {floor}, expected a number from 0 up to 1")
    read = Targets(positions, blanks, T, U, monotonic, bounds, arrays.read(targets, "targets").shape[1])
    return JointProblem(device, encoder, predictor, weight, bias, read, activation, vocabulary, encoder_index, limit, floor)


def check_dtypes(encoder, predictor, weight, bias) -> None:
    """One real dtype throughout, or half-precision encoder and predictor with float32 weight and bias."""
    for name, array, like_name, like in (("predictor", predictor, "encoder", encoder), ("bias", bias, "weight", weight)):
        if array is not None and array.dtype != like.dtype:
            raise TypeError(f"{name} is {array.dtype} and {like_name} is {like.dtype}, expected one dtype")
    mixed = encoder.dtype.itemsize == 2 and weight.dtype == np.float32
    if weight.dtype != encoder.dtype and not mixed:
        raise TypeError(f"weight is {weight.dtype} and encoder is {encoder.dtype}: expected one dtype, "
                        "or float32 weight and bias with half-precision encoder and predictor")  # fmt: skip
