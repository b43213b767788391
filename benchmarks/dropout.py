"""Time of the fused joint by activation, and what dropout adds to it: loss and all gradients, in one run."""

import functools

import numpy as np

import lattice
from lattice.kernels.activations import ACTIVATIONS

from . import joint, record, shapes

RATE = 0.2
SPREAD = 64
"""Hidden values that tell what one does in other lattices that look trained. Dropout would make noise of one."""
FLOORS = {"untrained": {}, "every cell": {"posterior_floor": 0}, "trained-like": {}}
EVERY = ("tanh", "relu")
"""What is also measured with every cell."""


def problem_of(kind: str, *shape: int) -> shapes.Joint:
    if kind == "trained-like":
        return shapes.trained_like(*shape, spread=min(SPREAD, shape[-1] // 4))
    return shapes.untrained(*shape)


def check() -> float:
    """Largest deviation of the gradients from the float64 oracle on small problems, relative to the largest entry."""
    from tests import joint_oracle

    worst = 0.0
    for activation in ACTIVATIONS:
        for kind in ("untrained", "trained-like"):
            problem, how = problem_of(kind, 2, 12, 5, 20, 16), {"activation": activation, "dropout": (RATE, 3)}
            _, ours = lattice.joint_transducer_loss_and_grad(*problem, **how)
            wide = [array.astype(np.float64) for array in problem[:4]]
            _, truth = joint_oracle.joint_loss_and_grad(*wide, *problem[4:], **how)
            worst = max(worst, joint.deviation(ours, truth))
    return joint.worth_timing(worst, 1e-4)


def table_of(record: dict) -> str:
    """The table of docs/dropout.md."""
    lines = [
        "| | time, three matrix products = 1 | with dropout, rate 0 = 1 | occupied | with dropout |",
        "|---|---:|---:|---:|---:|",
    ]
    rows = record["rows"]
    for name in (name for name in rows if f"{name}, dropout" in rows):
        own, other = rows[name], rows[f"{name}, dropout"]
        range_of = f"{other['beside rate 0']:.2f} ({other['least']:.2f} to {other['most']:.2f})"
        shares = f"{100 * own['occupied']:.3g} % | {100 * other['occupied']:.3g} %"
        lines.append(f"| {name} | {own['ratio']:.2g} | {range_of} | {shares} |")
    return "\n".join(lines)


def main(options) -> None:
    worst, shape = check(), joint.SHAPES[options.shape]
    calls, shares = {"three GEMMs": joint.three_gemms(*shape)}, {}
    for kind, floor in FLOORS.items():
        problem = problem_of(kind, *shape)
        for activation in ACTIVATIONS if kind != "every cell" else EVERY:
            for rate in (0.0, RATE):
                how = {"activation": activation, "dropout": (rate, 1), **floor}
                name = f"{activation}, {kind}" + ", dropout" * (rate > 0)
                calls[name] = functools.partial(lattice.joint_transducer_loss_and_grad, *problem, **how)
                report = lattice.joint_transducer_report(*problem, **how)
                shares[name] = {of: getattr(report, of).sum() / report.cells.sum() for of in ("occupied", "certified")}
    seconds = record.interleaved(calls, options.rounds)
    table = record.ratios(seconds, "three GEMMs")
    for name, own in shares.items():
        table[name] |= {of: float(share) for of, share in own.items()}
        plain = name.removesuffix(", dropout")
        # Of each round, so that what slows a round down counts in both.
        beside = sorted(one / other for one, other in zip(seconds[name], seconds[plain]))
        table[name] |= {"beside rate 0": beside[len(beside) // 2], "least": beside[0], "most": beside[-1]}
    B, T, U, V, H = shape
    record.show(
        f"dropout of {RATE}, B={B} T={T} U={U} V={V} H={H} float32 (gradients within {worst:.0e} of the oracle)",
        table,
        ("seconds", "ratio", "beside rate 0", "least", "most", "occupied", "certified"),
    )
    record.write(options.json, {"benchmark": "dropout", "shape": shape, "rows": table})
