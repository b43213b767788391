"""Time of the fused joint by topology: loss and all gradients of trained-like lattices, against the three products."""

import functools

import numpy as np

import lattice
from lattice.inputs.joint import DEFAULT_POSTERIOR_FLOOR

from . import joint, record, shapes

VARIANTS = {
    "rnnt": lattice.Topology(),
    "rnnt, delay penalty": lattice.Topology(delay_penalty=0.005),
    "monotonic": lattice.Topology("monotonic"),
    "constrained": lattice.Topology("constrained"),
    "rnnt, HAT": lattice.Topology(hat=True),
    "monotonic, HAT": lattice.Topology("monotonic", hat=True),
    "constrained, HAT": lattice.Topology("constrained", hat=True),
}
EVERY = ("rnnt", "rnnt, HAT")
"""What is also measured untrained, as it comes and with every cell."""


def check() -> float:
    """Largest deviation of the gradients from the float64 oracle on small problems, relative to the largest entry."""
    from tests import joint_oracle

    worst = 0.0
    for topology in VARIANTS.values():
        problem = shapes.trained_like(2, 12, 5, 20, 16, hat=topology.hat)
        _, ours = lattice.joint_transducer_loss_and_grad(*problem, topology=topology)
        wide = [array.astype(np.float64) for array in problem[:4]]
        _, truth = joint_oracle.joint_loss_and_grad(*wide, *problem[4:], topology=topology)
        worst = max(worst, *(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, truth)))
    if worst > 1e-4:
        raise RuntimeError(f"gradients are {worst:.1e} from the oracle: not worth timing")
    return worst


def main(options) -> None:
    worst = check()
    shape = joint.SHAPES[options.shape]
    calls, shares = {"three GEMMs": joint.three_gemms(*shape)}, {}
    for name, topology in VARIANTS.items():
        problem = shapes.trained_like(*shape, hat=topology.hat)
        calls[name] = functools.partial(lattice.joint_transducer_loss_and_grad, *problem, topology=topology)
        report = lattice.joint_transducer_report(*problem, topology=topology)
        _, blank, label = lattice.joint_transducer_posteriors(*problem, topology=topology)
        cells, visited = report.cells.sum(), (blank + label >= DEFAULT_POSTERIOR_FLOOR).sum()
        # Where labels alone are certified, fewer rows are made than cells are visited.
        counts = {"visited": visited, "occupied": report.occupied.sum(), "certified": report.certified.sum()}
        shares[name] = {kind: count / cells for kind, count in counts.items()}
    untrained = shapes.untrained(*shape)
    for name in EVERY:
        for kind, floor in (("untrained", {}), ("every cell", {"posterior_floor": 0})):
            calls[f"{name}, {kind}"] = functools.partial(
                lattice.joint_transducer_loss_and_grad, *untrained, topology=VARIANTS[name], **floor
            )
    table = record.ratios(record.interleaved(calls, options.rounds), "three GEMMs")
    for name, own in shares.items():
        table[name] |= {kind: float(share) for kind, share in own.items()}
    B, T, U, V, H = shape
    record.show(
        f"topologies, B={B} T={T} U={U} V={V} H={H} float32 (gradients within {worst:.0e} of the oracle)",
        table,
        ("seconds", "ratio", "ratio_min", "ratio_max", "visited", "occupied", "certified"),
    )
    record.write(options.json, {"benchmark": "topologies", "shape": shape, "rows": table})
