"""Sampled softmax: time of a draw, of a step over S ids against one over all V, and peak memory against dense logits.

The vocabularies are drawn anew in every round, from the posterior of CTC logits; that is counted.
"""

import argparse
import itertools
import json

import numpy as np

import lattice
import samplers

from . import record, shapes

SIZES = {
    # B, T, U, V, H, S
    "default": (8, 200, 40, 2000, 512, 300),
    "smoke": (2, 20, 5, 64, 16, 12),
}
DRAWS = {"default": (64, 100, 20, 5000, 512, 500), "smoke": (4, 10, 3, 50, 16, 12)}
LIMIT = 64 << 20
MEMORY = ("conventional, all ids", "ours, all ids", "ours, drawn")


def ctc_logits(problem: shapes.Joint, seed: int = 0) -> np.ndarray:
    """Logits (B, T, V) of a CTC head that expects the targets and a few others somewhere."""
    (B, T, _), V = problem.encoder.shape, len(problem.weight)
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((B, T, V), np.float32)
    logits[:, :, 0] += 6
    for b, row in enumerate(problem.targets):
        logits[b, rng.integers(0, T, len(row)), row] += 8
    return logits


def draw(problem: shapes.Joint, logits: np.ndarray, size: int, seed: int) -> samplers.SampledVocabulary:
    """One step's vocabularies, from the CTC logits on."""
    posterior = samplers.ctc_posterior(logits, problem.encoder_lengths)
    return samplers.sample_vocabulary(problem.targets, problem.target_lengths, size, distribution=posterior, seed=seed)


def step(problem: shapes.Joint, vocabulary=None, **options):
    ids = {} if vocabulary is None else {"vocabulary": vocabulary.ids, "vocabulary_lengths": vocabulary.lengths}
    return lattice.joint_transducer_loss_and_grad(*problem, memory_limit=LIMIT, **ids, **options)


def measure_draw(sizes: tuple[int, ...], rounds: int) -> dict:
    """A draw against the joint that it is for."""
    *shape, size = sizes
    problem = shapes.trained_like(*shape)
    logits = ctc_logits(problem)
    posterior = samplers.ctc_posterior(logits, problem.encoder_lengths)
    vocabulary = draw(problem, logits, size, 0)
    seeds = itertools.count()
    calls = {
        f"joint over S={size}, trained-like": lambda: step(problem, vocabulary),
        "ctc_posterior": lambda: samplers.ctc_posterior(logits, problem.encoder_lengths),
        "sample_vocabulary": lambda: samplers.sample_vocabulary(
            problem.targets, problem.target_lengths, size, distribution=posterior, seed=next(seeds)
        ),
        "allowed_vocabulary": lambda: samplers.allowed_vocabulary(posterior, size),
    }
    return record.ratios(record.interleaved(calls, rounds), next(iter(calls)))


def measure_step(sizes: tuple[int, ...], rounds: int) -> dict:
    """Steps over all ids and over drawn ids.

    The steps are dense or certified, on untrained and on trained-like lattices.
    """
    *shape, size = sizes
    seeds, calls, workspaces = itertools.count(), {}, {}
    for kind, make in (("untrained", shapes.untrained), ("trained-like", shapes.trained_like)):
        problem = make(*shape)
        logits = ctc_logits(problem)
        for how, options in (("dense", {"posterior_floor": 0.0}), ("certified", {})):
            name = f"{kind}, {how}"
            calls[f"{name}, all V={shape[3]}"] = lambda p=problem, o=options: step(p, **o)
            calls[f"{name}, drawn S={size}"] = lambda p=problem, x=logits, o=options: step(
                p, draw(p, x, size, next(seeds)), **o
            )
            for over, vocabulary in ((f"all V={shape[3]}", None), (f"drawn S={size}", draw(problem, logits, size, 0))):
                ids = None if vocabulary is None else vocabulary.ids
                report = lattice.joint_transducer_report(*problem, memory_limit=LIMIT, vocabulary=ids, **options)
                workspaces[f"{name}, {over}"] = {"workspace": report.workspace_bytes}
    table = record.ratios(record.interleaved(calls, rounds), next(iter(calls)))
    return {name: row | workspaces[name] for name, row in table.items()}


def conventional(problem: shapes.Joint):
    """Loss and all gradients over dense logits (B, T, U+1, V).

    A framework's autograd would hold these arrays at the least.
    """
    hidden = np.tanh(problem.encoder[:, :, None] + problem.predictor[:, None])
    logits = hidden @ problem.weight.T + problem.bias
    loss, grad_logits = lattice.transducer_loss_and_grad(logits, *problem[4:])
    grad_before = (grad_logits @ problem.weight) * (1 - hidden * hidden)
    grad_weight = grad_logits.reshape(-1, len(problem.weight)).T @ hidden.reshape(-1, hidden.shape[-1])
    return loss, (grad_before.sum(axis=2), grad_before.sum(axis=1), grad_weight, grad_logits.sum(axis=(0, 1, 2)))


def run(kind: str, B: int, T: int, U: int, V: int, H: int, S: int) -> dict:
    """Peak memory of one step in this process, its inputs included."""
    lattice.warm_up()
    small = shapes.untrained(1, 4, 2, 16, 4)
    step(small, draw(small, ctc_logits(small), 8, 0))
    problem = shapes.untrained(B, T, U, V, H)
    logits = ctc_logits(problem) if kind == "ours, drawn" else None
    with record.PeakMemory() as peak:
        if kind == "conventional, all ids":
            conventional(problem)
        elif kind == "ours, all ids":
            step(problem)
        else:
            step(problem, draw(problem, logits, S, 0))
    inputs = sum(array.nbytes for array in problem) + (0 if logits is None else logits.nbytes)
    return {"inputs": inputs, "growth": peak.growth, "step": inputs + peak.growth}


def main(options) -> None:
    sizes = SIZES[options.shape]
    memory = {kind: record.in_child("benchmarks.samplers", kind=kind, **dict(zip("BTUVHS", sizes))) for kind in MEMORY}
    whole = memory[MEMORY[0]]["step"]
    memory = {kind: row | {"ratio": row["step"] / whole} for kind, row in memory.items()}
    draws, steps = measure_draw(DRAWS[options.shape], options.rounds), measure_step(sizes, options.rounds)
    B, T, U, V, H, S = sizes
    record.show(
        f"peak memory of a step, bytes, B={B} T={T} U={U} V={V} H={H} S={S} float32",
        memory,
        ("inputs", "growth", "step", "ratio"),
    )
    B, T, U, V, H, S = DRAWS[options.shape]
    columns = ("seconds", "ratio", "ratio_min", "ratio_max")
    record.show(f"drawing, B={B} T={T} U={U} V={V} H={H} S={S}", draws, columns)
    record.show("steps, against the first", steps, (*columns, "workspace"))
    record.write(
        options.json,
        {
            "benchmark": "samplers",
            "shape": sizes,
            "draw_shape": DRAWS[options.shape],
            "memory": memory,
            "draws": draws,
            "steps": steps,
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=MEMORY, required=True)
    for flag in "BTUVHS":
        parser.add_argument(f"--{flag}", type=int, required=True)
    print(json.dumps(run(**vars(parser.parse_args()))))
