"""What is measured on a GPU: shapes, inputs on the device, the bare matrix products, torchaudio on the same memory."""

import functools
from typing import NamedTuple

import numpy as np

from lattice.device import arrays
from lattice.device.memory import Cuda

from .. import shapes

QUANTILES = (0, 0.1, 0.5, 0.9, 1)
FRAMES, LABELS = (60, 160, 343, 416, 680), (10, 34, 71, 93, 151)
"""T and U of LibriSpeech-100h at these quantiles (40 ms frames, BPE-500); values below the first decile are a guess."""
TAIL = 8
"""How the last decile thins out: with this a batch of 30 is padded 2.2-fold, about as the corpus is (1.98)."""
PERIOD = (1 << 24) - 3
CHUNK = 1 << 17
"""Cells that the bare matrix products work on at once: several times the cache, and far from filling a GPU."""
SEED = 7


class Shape(NamedTuple):
    """Sizes of a batch: frames and labels of each example, vocabulary, hidden size; `packed` logits have no padding."""

    T: np.ndarray
    U: np.ndarray
    V: int
    H: int
    packed: bool = False

    @property
    def cells(self) -> int:
        return int(np.sum(self.T * (self.U + 1)))

    def described(self) -> dict:
        return {
            "B": len(self.T),
            "T": int(self.T.max()),
            "U": int(self.U.max()),
            "V": self.V,
            "H": self.H,
            "cells": self.cells,
        }


def full(B: int, T: int, U: int, V: int, H: int = 512) -> Shape:
    """Examples of one size."""
    return Shape(np.full(B, T), np.full(B, U), V, H)


def ragged(B: int, V: int, H: int = 512, packed: bool = False, seed: int = 0) -> Shape:
    """Lengths drawn like those of LibriSpeech, long audio with long transcripts."""
    rng = np.random.default_rng(seed)
    at = (rng.permutation(B) + rng.random(B)) / B
    last, edge = at > QUANTILES[3], QUANTILES[3]
    at[last] = edge + (1 - edge) * ((at[last] - edge) / (1 - edge)) ** TAIL
    T, U = (np.rint(np.interp(at, QUANTILES, values)).astype(np.int64) for values in (FRAMES, LABELS))
    return Shape(T, U, V, H, packed)


LOGITS = {
    "short": full(64, 100, 20, 1024),
    "librispeech": ragged(30, 500),
    "librispeech packed": ragged(30, 500, packed=True),
    "long": full(8, 1000, 100, 1024),
    "mandarin": full(16, 115, 14, 4233),
}
JOINT = {"default": full(8, 500, 100, 1024), "short": full(64, 100, 20, 1024), "librispeech": ragged(30, 500)}
KINDS = ("untrained", "trained-like")


def device() -> Cuda:
    return Cuda(0)


def real_dtype(name: str) -> np.dtype:
    """A dtype by its name; NumPy knows bfloat16 once ml_dtypes is there."""
    if name == "bfloat16":
        import ml_dtypes  # noqa: F401
    return np.dtype(name)


@functools.lru_cache(maxsize=2)
def _drawn(count: int) -> np.ndarray:
    """Normal numbers on the host, which take half a second for a period and are the same for every array."""
    return np.random.default_rng(SEED).standard_normal(count, np.float32)


def normals(shape, dtype):
    """Normal numbers on the device. They repeat after `PERIOD`, so that drawing is short and takes 64 MiB at most."""
    target = device().empty(shape, dtype)
    flat = target.reshape(-1)
    drawn = _drawn(min(PERIOD, flat.size)).astype(dtype)
    block = device().upload(None, drawn)[0]
    for begin in range(0, flat.size, len(drawn)):
        part = flat[begin : begin + len(drawn)]
        arrays.cupy().copyto(part, block[: len(part)])
    return target


def logits(shape: Shape, dtype) -> tuple:
    """(logits, targets, logit_lengths, target_lengths) on the device, the integers int32 as peers want them."""
    B, T, U, V = len(shape.T), int(shape.T.max()), int(shape.U.max()), shape.V
    values = normals((shape.cells, V) if shape.packed else (B, T, U + 1, V), dtype)
    targets = np.random.default_rng(SEED).integers(1, V, (B, U))
    return values, *device().upload(None, *(array.astype(np.int32) for array in (targets, shape.T, shape.U)))


def host_joint(shape: Shape, kind: str) -> shapes.Joint:
    """A problem in float32 on the host, its lengths those of the shape."""
    B, T, U, (V, H) = len(shape.T), int(shape.T.max()), int(shape.U.max()), shape[2:4]
    problem = shapes.untrained(B, T, U, V, H)._replace(encoder_lengths=shape.T, target_lengths=shape.U)
    if kind == "untrained":
        return problem
    for b, (frames, labels) in enumerate(zip(shape.T, shape.U)):
        # Each example has its own length, so that all its labels fall due. One seed gives all one output layer.
        single = shapes.trained_like(1, int(frames), int(labels), V, H, seed=SEED)
        problem.encoder[b, :frames], problem.predictor[b, : labels + 1] = single.encoder[0], single.predictor[0]
        problem.targets[b, :labels] = single.targets[0]
    return problem._replace(weight=single.weight, bias=single.bias)


def joint(shape: Shape, kind: str, dtype) -> shapes.Joint:
    """A problem on the device, all four real arrays of one dtype."""
    problem = host_joint(shape, kind)
    real = (array.astype(dtype) for array in problem[:4])
    return shapes.Joint(*device().upload(None, *real, *(array.astype(np.int32) for array in problem[4:])))


def three_gemms(shape: Shape, dtype):
    """hidden @ weight.T, dlogits @ weight and dlogits.T @ hidden over all cells.

    Operands have `dtype`, sums float32.
    """
    matmul, empty, count = device().matmul, device().empty, min(CHUNK, shape.cells)
    hidden, weight = normals((count, shape.H), dtype), normals((shape.V, shape.H), dtype)
    grad_logits, logits = normals((count, shape.V), dtype), empty((count, shape.V), np.float32)
    grad_hidden, grad_weight = empty((count, shape.H), np.float32), empty((shape.V, shape.H), np.float32)

    def run():
        for begin in range(0, shape.cells, count):
            n = min(count, shape.cells - begin)
            matmul(hidden[:n], weight.T, logits[:n])
            matmul(grad_logits[:n], weight, grad_hidden[:n])
            matmul(grad_logits[:n].T, hidden[:n], grad_weight)

    return run


def _with_gradients(loss_of, real):
    """Function without arguments: the loss and, by autograd, its gradients, on the memory of CuPy's arrays."""
    import torch

    leaves = [torch.from_dlpack(array).requires_grad_() for array in real]

    def run():
        loss = loss_of(*leaves)
        return loss.detach(), torch.autograd.grad(loss, leaves)

    return run


def _rnnt_loss(integers):
    import torch
    import torchaudio

    integers = [torch.from_dlpack(array) for array in integers]
    return functools.partial(_call_rnnt_loss, torchaudio.functional.rnnt_loss, integers)


def _call_rnnt_loss(loss, integers, logits):
    return loss(logits, *integers, blank=0, reduction="sum")


def torchaudio_logits(problem: tuple):
    """torchaudio's loss and gradient from given logits."""
    return _with_gradients(_rnnt_loss(problem[1:]), problem[:1])


def torchaudio_joint(problem: shapes.Joint, tf32: bool):
    """torch's output layer over all cells, padding included, and torchaudio's loss in float32."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = tf32
    logits_loss = _rnnt_loss(problem[4:])

    def loss_of(encoder, predictor, weight, bias):
        hidden = torch.tanh(encoder[:, :, None] + predictor[:, None])
        return logits_loss(torch.nn.functional.linear(hidden, weight, bias).float())

    return _with_gradients(loss_of, problem[:4])
