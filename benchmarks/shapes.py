"""The problems that are measured, in float32: random ones, and ones that look like a trained model's."""

from typing import NamedTuple

import numpy as np

import lattice


class Joint(NamedTuple):
    """Arguments of `joint_transducer_loss_and_grad`, in its order."""

    encoder: np.ndarray
    predictor: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    targets: np.ndarray
    encoder_lengths: np.ndarray
    target_lengths: np.ndarray


Lengths = tuple[tuple[int, ...], tuple[int, ...]]
"""Frames and labels of each example."""


def untrained(B: int, T: int, U: int, V: int, H: int, seed: int = 0, lengths: Lengths | None = None) -> Joint:
    """Random vectors and weights: logits of unit variance, blank id 0; no padding without `lengths`."""
    rng = np.random.default_rng(seed)
    encoder = rng.standard_normal((B, T, H), np.float32)
    predictor = rng.standard_normal((B, U + 1, H), np.float32)
    weight = rng.standard_normal((V, H), np.float32)
    weight *= np.float32(1 / (0.75 * np.sqrt(H)))
    targets = rng.integers(1, V, (B, U), dtype=np.int32)
    frames, labels = (np.full(B, T), np.full(B, U)) if lengths is None else map(np.array, lengths)
    return Joint(encoder, predictor, weight, np.zeros(V, np.float32), targets, frames, labels)


def near_uniform(B: int, T: int, U: int, V: int, H: int, seed: int = 0, lengths: Lengths | None = None) -> Joint:
    """Logits that hardly differ, as at initialisation: no input leaves more cells occupied."""
    problem = untrained(B, T, U, V, H, seed, lengths)
    problem.weight[:] *= np.float32(0.01)
    return problem


def trained_like(
    B: int, T: int, U: int, V: int, H: int, seed: int = 0, sharpness: float = 1.0, lengths: Lengths | None = None,
    hat: bool = False, durations: tuple[int, ...] = (), spread: int = 1,
) -> Joint:  # fmt: skip
    """A lattice as after training: each label falls due at a known frame, blanks win before and labels behind it.

    The first hidden value is tanh of how many due labels cell (t, u) still lacks; it moves the blank down and all
    labels up. The others carry the identity of the next label, which picks one of the labels. With `hat` the blank's
    logit stands for itself. It then moves by as much as the blank and the labels part elsewhere.

    A network that was trained with dropout says nothing by one hidden value alone. With `spread` as many values tell
    what the first does, and share its weights.

    With `durations` the output layer has their rows behind those of the ids. A hidden value for each tells whether it
    is the longest that passes no due frame.
    """
    rng = np.random.default_rng(seed)
    problem = untrained(B, T, U, V, H, seed, lengths)
    codes = rng.standard_normal((V, H - spread), np.float32)
    encoder, predictor, weight = problem.encoder, problem.predictor, problem.weight
    encoder *= np.float32(0.1)
    predictor *= np.float32(0.1)
    dues = []
    for b in range(B):
        due = np.sort(rng.choice(np.arange(1, problem.encoder_lengths[b]), problem.target_lengths[b], replace=False))
        dues.append(due)
        encoder[b, :, :spread] = 1.5 * np.searchsorted(due, np.arange(T), side="right")[:, None]
        predictor[b, :, :spread] = -1.5 * (np.arange(U + 1) + 0.5)[:, None]
        predictor[b, :U, spread:] += codes[problem.targets[b]]
    weight[:, spread:] = codes * np.float32(20 / H)
    weight[:, :spread] = 4 * sharpness / spread
    weight[0, :spread] = -4 * sharpness / spread
    problem.bias[0] = 12
    if hat:
        weight[0, :spread], problem.bias[0] = -8 * sharpness / spread, 0
    return _with_durations(problem, dues, durations, sharpness) if durations else problem


def _with_durations(problem: Joint, dues: list, durations: tuple[int, ...], sharpness: float) -> Joint:
    """`dues` are the frames at which the labels of each example fall due."""
    D, H = len(durations), problem.weight.shape[1]
    own = slice(1, D + 1)  # of the hidden values
    for array in (problem.predictor[:, :, own], problem.weight[:, own]):
        array[:] = 0
    problem.encoder[:, :, own] = -3
    for b, due in enumerate(dues):
        frames = np.arange(problem.encoder_lengths[b])
        ahead = np.append(due, len(frames))[np.searchsorted(due, frames, side="right")] - frames  # at least 1
        problem.encoder[b, frames, np.searchsorted(durations, ahead, side="right")] = 3
    rows = np.zeros((D, H), np.float32)
    rows[np.arange(D), np.arange(D) + 1] = 3 * sharpness
    return with_rows(problem, rows)


def with_rows(problem: Joint, rows: np.ndarray) -> Joint:
    """A problem whose output layer has `rows` (D, H) behind those of the ids."""
    bias = np.append(problem.bias, np.zeros(len(rows), np.float32))
    return problem._replace(weight=np.concatenate([problem.weight, rows]), bias=bias)


def multiblank_like(
    B: int, T: int, U: int, V: int, H: int, durations: tuple[int, ...], seed: int = 0, sharpness: float = 1.0
) -> Joint:  # fmt: skip
    """`trained_like` with big blanks, the longest of which is id 0; the blank is id len(durations).

    Before a label falls due, the blank wins that takes most frames and passes no due one.
    """
    K = len(durations)
    timed = trained_like(B, T, U, V - K, H, seed, sharpness, durations=(1, *durations))
    tokens, steps = timed.weight[: V - K], timed.weight[V - K :]
    blanks = (tokens[0] + steps)[::-1]  # the longest first
    bias = np.append(np.full(K, timed.bias[0]), timed.bias[: V - K])
    return timed._replace(weight=np.concatenate([blanks, tokens[1:]]), bias=bias, targets=timed.targets + np.int32(K))


def scaled(B: int, T: int, U: int, V: int, H: int, scale: float, seed: int = 0) -> Joint:
    """`trained_like` with its logits multiplied by `scale`.

    A network of scale 0 knows nothing, a network of scale 1 is trained. Training passes through what lies between.
    """
    problem = trained_like(B, T, U, V, H, seed)
    problem.weight[:] *= np.float32(scale)
    problem.bias[:] *= np.float32(scale)
    return problem


def cells(problem: Joint) -> int:
    """How many cells are real."""
    return int(problem.encoder_lengths @ (problem.target_lengths + 1))


def shares(problem: Joint) -> dict[str, float]:
    """Shares of the cells that the default floor leaves to the backward pass, and to the forward pass."""
    report = lattice.joint_transducer_report(*problem)
    return {name: float(getattr(report, name).sum() / report.cells.sum()) for name in ("occupied", "certified")}


def logits_of(problem: Joint) -> np.ndarray:
    """The logits (B, T, U+1, V) that the fused joint never makes."""
    hidden = np.tanh(problem.encoder[:, :, None] + problem.predictor[:, None])
    return hidden @ problem.weight.T + problem.bias
