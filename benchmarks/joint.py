"""Time of the fused joint, loss and all gradients, against its floor.

The floor is the three matrix products that no dense implementation can avoid.
"""

import functools

import numpy as np

import lattice

from . import peers, record, shapes

SHAPES = {
    "default": (2, 500, 100, 1024, 512),
    "librispeech-100": (4, 343, 71, 500, 512),
    "long": (1, 1000, 100, 1024, 512),
    "short": (8, 200, 40, 1024, 512),
    "mandarin": (16, 115, 14, 4233, 512),
    "ragged": (8, 448, 107, 500, 512),
    "smoke": (2, 20, 5, 32, 16),
}
LENGTHS = {"ragged": ((160, 215, 280, 335, 350, 370, 405, 448), (34, 46, 58, 68, 74, 77, 90, 107))}
"""Frames and labels where they differ: quantiles of LibriSpeech-100h. The batch is padded 1.98-fold, as a random batch
of 30 utterances is there."""
KINDS = {"untrained": shapes.untrained, "near-uniform": shapes.near_uniform, "trained-like": shapes.trained_like}
LIMITS = {"256 MiB": 256 << 20, "64 MiB": 64 << 20}


def check() -> float:
    """Largest deviation of the gradients from the float64 oracle on a small problem, relative to the largest entry."""
    from tests import joint_oracle

    problem = shapes.untrained(2, 12, 5, 20, 16)
    _, ours = lattice.joint_transducer_loss_and_grad(*problem)
    wide = [array.astype(np.float64) for array in problem[:4]]
    _, truth = joint_oracle.joint_loss_and_grad(*wide, *problem[4:])
    return worth_timing(deviation(ours, truth), 1e-5)


def deviation(ours, truth) -> float:
    """Largest deviation of gradients from those of the oracle, relative to the largest entry of each."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, truth))


def worth_timing(worst: float, most: float) -> float:
    """The deviation, if it is at most so large."""
    if worst > most:
        raise RuntimeError(f"gradients are {worst:.1e} from the oracle: not worth timing")
    return worst


def problem_of(kind: str, shape: str) -> shapes.Joint:
    return KINDS[kind](*SHAPES[shape], lengths=LENGTHS.get(shape))


def three_gemms(B: int, T: int, U: int, V: int, H: int, cells: int | None = None):
    """hidden @ weight.T, dlogits @ weight and dlogits.T @ hidden over the real cells (None: all), into warm memory."""
    rng = np.random.default_rng(0)
    cells = cells or B * T * (U + 1)
    hidden, weight = rng.standard_normal((cells, H), np.float32), rng.standard_normal((V, H), np.float32)
    logits, grad_hidden, grad_weight = np.empty((cells, V), np.float32), np.empty_like(hidden), np.empty_like(weight)

    def run():
        np.matmul(hidden, weight.T, out=logits)
        np.matmul(logits, weight, out=grad_hidden)
        np.matmul(logits.T, hidden, out=grad_weight)

    return run


def our_calls(problems: dict[str, shapes.Joint]) -> dict:
    """The fused joint on each problem and in each limit."""
    ours = lattice.joint_transducer_loss_and_grad
    calls = {
        f"lattice, {kind}, {name}": functools.partial(ours, *problem, memory_limit=limit)
        for kind, problem in problems.items()
        for name, limit in LIMITS.items()
    }
    every = functools.partial(ours, *problems["untrained"], posterior_floor=0, memory_limit=LIMITS["64 MiB"])
    return calls | {"lattice, untrained, every cell": every}


def measure(shape: str, rounds: int, compared: list, ours: bool = True) -> dict:
    """Rows of the table for one shape."""
    problems = {kind: problem_of(kind, shape) for kind in KINDS}
    calls = {"three GEMMs": three_gemms(*SHAPES[shape], shapes.cells(problems["untrained"]))}
    if ours:
        calls |= our_calls(problems)
    for peer in compared:
        # What peers compute does not depend on the posteriors, but the subnormal numbers they make do.
        for kind, problem in (("untrained", problems["untrained"]), ("trained-like", problems["trained-like"])):
            calls[f"{peer.name}, {kind}"] = peer.joint(*problem)
    table = record.ratios(record.interleaved(calls, rounds), "three GEMMs")
    for kind, problem in problems.items():
        shares = shapes.shares(problem) if ours else {}
        for name in table:
            if name.startswith("lattice") and kind in name:
                table[name] |= {"occupied": 1.0, "certified": 1.0} if "every cell" in name else shares
    return table


def main(options) -> None:
    worst = check()
    compared, missing = peers.chosen(options.without, options.only)
    table = measure(options.shape, options.rounds, compared, ours=options.only in (None, peers.OURS))
    B, T, U, V, H = SHAPES[options.shape]
    record.show(
        f"fused joint, B={B} T={T} U={U} V={V} H={H} float32 (gradients within {worst:.0e} of the oracle)",
        table,
        ("seconds", "ratio", "ratio_min", "ratio_max", "occupied", "certified"),
    )
    for name, reason in missing.items():
        print(f"not measured: {name}: {reason}")
    record.write(
        options.json, {"benchmark": "joint", "shape": SHAPES[options.shape], "rows": table, "not_measured": missing}
    )
