"""Sampled softmax, CTC and decoding on a GPU: the same ids as the host's, draws, steps over drawn ids, searches."""

import functools
import itertools

import numpy as np

import lattice
import samplers

from .. import shapes
from ..samplers import ctc_logits
from . import problems, timing

STEP, SIZE = problems.full(64, 200, 40, 2000), 300
DRAW, DRAWN = (64, 100, 5000), 500
SEARCH, BEAM = problems.full(32, 400, 1, 1000), 8


def sampled(report) -> None:
    """The draw and what it is for."""
    report.case("same ids", same_ids_case, *DRAW, DRAWN)
    report.case("draw", draw_case, *DRAW, DRAWN)
    for kind in problems.KINDS:
        report.case(f"step {kind}", step_case, kind, STEP, SIZE)
    report.case("ctc", ctc_case, *DRAW)
    report.case("decode", decode_case, SEARCH, BEAM)


def posteriors(B: int, T: int, V: int):
    """Distributions (B, V), targets (B, 20) and their lengths on the host."""
    rng = np.random.default_rng(problems.SEED)
    p = rng.dirichlet(np.full(V, 0.1), B).astype(np.float32) + np.float32(1e-9)
    return p, rng.integers(1, V, (B, 20)).astype(np.int32), np.full(B, 20, np.int32)


def same_ids_case(B: int, T: int, V: int, size: int) -> dict:
    p, targets, lengths = posteriors(B, T, V)
    there = problems.device().upload(None, targets, lengths, p)
    different = 0
    for seed in range(20):
        host = samplers.sample_vocabulary(targets, lengths, size, distribution=p, seed=seed)
        ours = samplers.sample_vocabulary(*there[:2], size, distribution=there[2], seed=seed)
        different += int((ours.ids.get() != host.ids).sum())
    return {
        "draws": 20 * B * size,
        "different": different,
        **({"error": "other ids than on the host"} if different else {}),
    }


def draw_case(B: int, T: int, V: int, size: int) -> dict:
    p, targets, lengths, frames = problems.device().upload(None, *posteriors(B, T, V), np.full(B, T, np.int32))
    logits, seeds = problems.normals((B, T, V), np.dtype(np.float32)), itertools.count()
    calls = {
        "ctc_posterior": lambda: samplers.ctc_posterior(logits, frames),
        "sample_vocabulary": lambda: samplers.sample_vocabulary(
            targets, lengths, size, distribution=p, seed=next(seeds)
        ),
        "allowed_vocabulary": lambda: samplers.allowed_vocabulary(p, size),
        "copy of the CTC logits": lambda: logits.copy(),
    }
    return {"rows": timing.measure(calls, "copy of the CTC logits")}


def step_case(kind: str, shape: problems.Shape, size: int) -> dict:
    """Over all ids and over drawn ones, the draw counted."""
    problem = problems.joint(shape, kind, np.dtype(np.float32))
    host = shapes.Joint(*(array.get() for array in problem))
    logits, seeds = problems.device().upload(None, ctc_logits(host))[0], itertools.count()

    def drawn(**options):
        posterior = samplers.ctc_posterior(logits, problem.encoder_lengths)
        vocabulary = samplers.sample_vocabulary(
            problem.targets, problem.target_lengths, size, distribution=posterior, seed=next(seeds)
        )
        return lattice.joint_transducer_loss_and_grad(
            *problem, vocabulary=vocabulary.ids, vocabulary_lengths=vocabulary.lengths, **options
        )

    calls = {}
    for how, options in (("dense", {"posterior_floor": 0.0}), ("certified", {})):
        calls[f"{how}, all ids"] = functools.partial(lattice.joint_transducer_loss_and_grad, *problem, **options)
        calls[f"{how}, drawn"] = functools.partial(drawn, **options)
    return {**shape.described(), "S": size, "rows": timing.measure(calls, "dense, all ids")}


def ctc_case(B: int, T: int, V: int) -> dict:
    """Loss and gradient in units of a copy of the logits; torch's own beside it."""
    logits = problems.normals((B, T, V), np.dtype(np.float32))
    _, targets, lengths, frames = problems.device().upload(None, *posteriors(B, T, V), np.full(B, T, np.int32))
    out = problems.device().empty(logits.shape, np.float32)
    calls = {
        "copy": lambda: logits.copy(),
        "ctc_loss_and_grad": lambda: lattice.ctc_loss_and_grad(logits, targets, frames, lengths, out=out),
        "ctc_loss": lambda: lattice.ctc_loss(logits, targets, frames, lengths),
        "ctc_alignment": lambda: lattice.ctc_alignment(logits, targets, frames, lengths),
        "torch": timing.Lazily(torch_ctc, logits, targets, frames, lengths),
    }
    return {"rows": timing.measure(calls, "copy", prepare={"torch": calls["torch"].prepare}, optional=("torch",))}


def torch_ctc(logits, *integers):
    import torch

    targets, frames, lengths = (torch.from_dlpack(array).long() for array in integers)
    leaf = torch.from_dlpack(logits).requires_grad_()

    def run():
        log_probs = torch.log_softmax(leaf, -1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(log_probs, targets, frames, lengths, reduction="sum")
        return loss.detach(), torch.autograd.grad(loss, leaf)

    return run


def decode_case(shape: problems.Shape, beam: int) -> dict:
    """Seconds for all frames of a batch, against one product of all frames with the output layer."""
    problem = problems.joint(shape, "untrained", np.dtype(np.float32))
    problem.bias[0] += 4  # blanks must win most frames, as in speech
    rows = problem.encoder.reshape(-1, shape.H)
    predictors = problems.normals((shape.V, shape.H), np.dtype(np.float32))
    out = problems.device().empty((len(rows), shape.V), np.float32)
    likely = samplers.allowed_vocabulary(
        problems.device().upload(None, posteriors(len(shape.T), 1, shape.V)[0])[0], 100
    )

    def search(door, **options):
        return door(
            problem.encoder,
            problem.encoder_lengths,
            lambda labels, state: (predictors[labels], None),
            problem.weight,
            problem.bias,
            max_labels_per_frame=3,
            **options,
        )

    calls = {"one product": lambda: problems.device().matmul(rows, problem.weight.T, out)}
    for name, allowed in (("all ids", None), ("100 allowed", likely)):
        calls[f"greedy, {name}"] = functools.partial(search, lattice.greedy_decode, allowed=allowed)
        calls[f"beam {beam}, {name}"] = functools.partial(search, lattice.beam_decode, allowed=allowed, beam=beam)
    return {**shape.described(), "rows": timing.measure(calls, "one product", rounds=3)}
