"""The edge cases of the field, each as one small question that every implementation is asked in the same words."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

FRAMES, LABELS = (9, 8, 5, 7), (5, 3, 4, 1)
V, H = 11, 6
LONG_LIMIT = 2e-5
"""Largest relative l2 error of the gradient of a long lattice in float32."""


class NotExpressible(Exception):
    """An implementation has no arguments that ask this."""


@dataclass(frozen=True)
class Question:
    """Arguments of one call: the logits, and the joint that they come from (None if no joint makes them)."""

    logits: np.ndarray  # (B, T, U+1, V)
    joint: tuple | None  # encoder (B, T, H), predictor (B, U+1, H), weight (V, H), bias (V,)
    targets: np.ndarray  # (B, U)
    frame_lengths: np.ndarray  # (B,)
    target_lengths: np.ndarray  # (B,)
    blank: int = 0
    upstream: np.ndarray | None = None  # (B,), ones if None
    integer: type | None = None  # what targets and lengths are passed as; None is what an implementation likes best
    refuse: bool = False  # there is no answer: an exception is what is asked for
    limit: float | None = None  # relative l2 error of the gradient, in place of the policy of tests/compare.py

    @property
    def integers(self) -> tuple:
        return self.targets, self.frame_lengths, self.target_lengths

    @property
    def real(self) -> np.ndarray:
        """Boolean (B, T, U+1): the cells that are no padding."""
        return cells(self.logits.shape, self.frame_lengths, self.target_lengths)


class Case(NamedTuple):
    """What is asked, in words and as a function that makes it."""

    asked: str
    make: Callable[[], Question]


def cells(shape, frame_lengths, target_lengths) -> np.ndarray:
    t, u = np.arange(shape[1])[None, :, None], np.arange(shape[2])
    return (t < frame_lengths[:, None, None]) & (u <= target_lengths[:, None, None])


def question(
    frames=FRAMES,
    labels=LABELS,
    *,
    vocab=V,
    width=H,
    padding=0.0,
    wider=(0, 0),
    dtype=np.float32,
    scale=1.0,
    shift=0.0,
    closed=(),
    **options,
) -> Question:
    """A ragged batch with random logits of unit variance, times `scale`, plus `shift`, -inf at the ids in `closed`.

    Real padding is `padding`, ids behind a target are 0, and both padded axes are `wider` than the longest example.
    """
    rng = np.random.default_rng(0)
    frame_lengths, target_lengths = np.asarray(frames), np.asarray(labels)
    B, T, U = len(frame_lengths), frame_lengths.max() + wider[0], target_lengths.max() + wider[1]
    encoder, predictor = rng.standard_normal((B, T, width)), rng.standard_normal((B, U + 1, width))
    weight, bias = scale * rng.standard_normal((vocab, width)) / np.sqrt(width), np.full(vocab, shift)
    bias[list(closed)] = -np.inf
    open_ids = np.setdiff1d(np.arange(vocab), [options.get("blank", 0) % vocab, *closed])
    targets = np.where(np.arange(U) < target_lengths[:, None], rng.choice(open_ids, (B, U)), 0)
    joint = tuple(array.astype(dtype) for array in (encoder, predictor, weight, bias))
    wide = [array.astype(np.float64) for array in joint]
    logits = (np.tanh(wide[0][:, :, None] + wide[1][:, None]) @ wide[2].T + wide[3]).astype(dtype)
    logits[~cells(logits.shape, frame_lengths, target_lengths)] = padding
    joint[0][np.arange(T) >= frame_lengths[:, None]] = padding
    joint[1][np.arange(U + 1) > target_lengths[:, None]] = padding
    return Question(logits, joint, targets, frame_lengths, target_lengths, **options)


def with_id(value: int, at=(1, 1)) -> Question:
    """One id of one target changed; there is no answer to that."""
    asked = question(refuse=True)
    asked.targets[at] = value
    return asked


def with_length(name: str, value: int) -> Question:
    """One length of one example changed; there is no answer to that."""
    asked = question(refuse=True)
    getattr(asked, name)[1] = value
    return asked


def poisoned() -> Question:
    asked = question()
    asked.logits[1, 2, 1, 3] = np.nan
    asked.joint[0][1, 2] = np.nan
    return asked


def garbage_ids() -> Question:
    asked = question()
    padded = np.arange(asked.targets.shape[1]) >= asked.target_lengths[:, None]
    asked.targets[padded] = np.resize([2**30, -7], padded.sum())
    return asked


def repeated() -> Question:
    asked = question()
    asked.targets[:] = np.where(np.arange(asked.targets.shape[1]) < asked.target_lengths[:, None], 4, 0)
    return asked


def no_path() -> Question:
    """Only example 1 has an id that is closed."""
    asked = question(closed=[7])
    asked.targets[1, 1] = 7
    return asked


def closed_arcs() -> Question:
    """Example 0 emits its first label at frame 4."""
    asked = question()
    asked.logits[0, :4, 0, 1:] = -np.inf
    asked.logits[0, 4, 0, 0] = -np.inf
    return replace(asked, joint=None)


def transposed() -> Question:
    """Time and label axis lie swapped in memory."""
    asked = question()
    swapped = [np.asfortranarray(array) for array in asked.joint]
    return replace(asked, logits=asked.logits.swapaxes(1, 2).copy().swapaxes(1, 2), joint=tuple(swapped))


def sliced() -> Question:
    """Every second entry of arrays twice as large."""

    def within(array):
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]

    asked = question()
    joint = tuple(within(array) for array in asked.joint)
    return replace(asked, logits=within(asked.logits), joint=joint, targets=within(asked.targets))


def bfloat16() -> Question:
    import ml_dtypes

    return question(dtype=ml_dtypes.bfloat16)


def asked_with(**options) -> Callable[[], Question]:
    return lambda: question(**options)


CASES = {
    "ragged batch": Case("four examples of different lengths, padded with zeros, blank 0", question),
    "T = 1": Case("every example has one frame", asked_with(frames=(1, 1, 1), labels=(3, 1, 2))),
    "empty target": Case("one target of the batch has no labels", asked_with(labels=(5, 0, 4, 1))),
    "all targets empty": Case("no target has a label: U = 0", asked_with(labels=(0, 0, 0, 0))),
    "repeated labels": Case("every label is the same", repeated),
    "NaN padding": Case("the logits' padding is NaN; its gradient has to be 0", asked_with(padding=np.nan)),
    "inf padding": Case("the logits' padding is +inf; its gradient has to be 0", asked_with(padding=np.inf)),
    "garbage target padding": Case("ids behind a target are 2**30 and -7", garbage_ids),
    "wide time padding": Case("T is 3 more than the longest example needs", asked_with(wider=(3, 0))),
    "wide label padding": Case("U is 2 more than the longest target needs", asked_with(wider=(0, 2))),
    "blank in the middle": Case("the blank is id 5 of 11", asked_with(blank=5)),
    "blank last": Case("the blank is id 10 of 11", asked_with(blank=V - 1)),
    "blank -1": Case("the blank is given as -1", asked_with(blank=-1)),
    "-inf ids": Case("two ids that no target has are -inf everywhere", asked_with(closed=[6, 10])),
    "-inf arcs": Case("arcs of one example are closed by -inf, some alignments remain", closed_arcs),
    "no path": Case("all arcs of one label are -inf: loss inf and gradient 0 there, the rest untouched", no_path),
    "NaN in one example": Case("a real cell is NaN: loss NaN there, the rest untouched", poisoned),
    "logits times 1e3": Case("logits of several hundred", asked_with(scale=1e3)),
    "logits plus 1e4": Case("the same constant is added to all logits", asked_with(shift=1e4)),
    "float64": Case("logits of 8 bytes", asked_with(dtype=np.float64)),
    "float16": Case("logits of 2 bytes", asked_with(dtype=np.float16)),
    "bfloat16": Case("logits of 2 bytes", bfloat16),
    "transposed": Case("time and label axis lie swapped in memory", transposed),
    "sliced": Case("logits and targets are every second entry of larger arrays", sliced),
    "int32 ids": Case("targets and lengths are int32", asked_with(integer=np.int32)),
    "int64 ids": Case("targets and lengths are int64", asked_with(integer=np.int64)),
    "negative upstream": Case("the gradient of minus the summed loss", asked_with(upstream=np.full(4, -1.0))),
    "zero upstream": Case("the gradient of 0 times the summed loss", asked_with(upstream=np.zeros(4))),
    "upstream per example": Case("upstream gradients 1, -2, 0 and 0.5", asked_with(upstream=np.array([1, -2, 0, 0.5]))),
    "zero frames": Case("a frame length is 0", lambda: with_length("frame_lengths", 0)),
    "too many frames": Case("a frame length is T + 1", lambda: with_length("frame_lengths", max(FRAMES) + 1)),
    "too many labels": Case("a target length is U + 1", lambda: with_length("target_lengths", max(LABELS) + 1)),
    "negative labels": Case("a target length is -1", lambda: with_length("target_lengths", -1)),
    "id too large": Case("an id of a target is V", lambda: with_id(V)),
    "id negative": Case("an id of a target is -3", lambda: with_id(-3)),
    "blank as a label": Case("an id of a target is the blank", lambda: with_id(0)),
    "long lattice": Case(
        f"T = 1000, U = 150, V = 32 in float32: gradient within {LONG_LIMIT:.0e} (relative l2)",
        asked_with(frames=(1000,), labels=(150,), vocab=32, width=16, limit=LONG_LIMIT),
    ),
    "U above 1024": Case(
        "T = 4, U = 1100: more labels than a GPU block has threads", asked_with(frames=(4, 3), labels=(1100, 7))
    ),
}
"""Name -> what is asked. Where an id or a length is out of range, refusing is right and any answer is wrong."""
