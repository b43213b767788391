"""Time of the fused joint by topology: loss and all gradients of trained-like lattices, against the three products."""

import functools

import numpy as np

import lattice
from lattice.inputs.joint import DEFAULT_POSTERIOR_FLOOR
from lattice.topology import TIMED

from . import joint, record, shapes

VARIANTS = {
    "rnnt": lattice.Topology(),
    "rnnt, delay penalty": lattice.Topology(delay_penalty=0.005),
    "monotonic": lattice.Topology("monotonic"),
    "constrained": lattice.Topology("constrained"),
    "rnnt, HAT": lattice.Topology(hat=True),
    "monotonic, HAT": lattice.Topology("monotonic", hat=True),
    "constrained, HAT": lattice.Topology("constrained", hat=True),
    "tdt": lattice.Topology("tdt", durations=(0, 1, 2, 3, 4), sigma=0.05),
    "multiblank": lattice.Topology("multiblank", durations=(2, 4)),
}
EVERY = ("rnnt", "rnnt, HAT", "tdt", "multiblank")
"""What is also measured untrained, as it comes and with every cell."""
SHAPES = joint.SHAPES | {"tdt": (2, 400, 80, 1024, 640)}


def blank_of(topology: lattice.Topology) -> int:
    """Big blanks have the ids below the blank."""
    return len(topology.durations) if topology.name == "multiblank" else 0


def asked(topology: lattice.Topology) -> dict:
    """Arguments of every door."""
    return {"blank": blank_of(topology), "topology": topology}


def trained_like(topology: lattice.Topology, *shape: int) -> shapes.Joint:
    if topology.name == "multiblank":
        return shapes.multiblank_like(*shape, topology.durations)
    return shapes.trained_like(*shape, hat=topology.hat, durations=topology.durations)


def untrained(topology: lattice.Topology, *shape: int) -> shapes.Joint:
    problem, count = shapes.untrained(*shape), np.int32(blank_of(topology))
    problem = problem._replace(targets=np.maximum(problem.targets, count + 1))  # no big blank is a label
    if not topology.tail:
        return problem
    rows = np.random.default_rng(1).standard_normal((topology.tail, shape[-1]), np.float32)
    return shapes.with_rows(problem, rows * np.float32(1 / (0.75 * np.sqrt(shape[-1]))))


def truth_of(problem: shapes.Joint, topology: lattice.Topology):
    """Loss and gradients in float64."""
    from tests import joint_oracle, steps_oracle

    oracle = steps_oracle if topology.name in TIMED else joint_oracle
    wide = [array.astype(np.float64) for array in problem[:4]]
    return oracle.joint_loss_and_grad(*wide, *problem[4:], **asked(topology))


def check() -> float:
    """Largest deviation of the gradients from the float64 oracle on small problems, relative to the largest entry."""
    worst = 0.0
    for topology in VARIANTS.values():
        for make in (trained_like, untrained):
            problem = make(topology, 2, 12, 5, 20, 16)
            _, ours = lattice.joint_transducer_loss_and_grad(*problem, **asked(topology))
            _, truth = truth_of(problem, topology)
            worst = max(worst, joint.deviation(ours, truth))
    return joint.worth_timing(worst, 1e-4)


def main(options) -> None:
    worst = check()
    shape = SHAPES[options.shape]
    calls, shares = {"three GEMMs": joint.three_gemms(*shape)}, {}
    for name, topology in VARIANTS.items():
        problem, how = trained_like(topology, *shape), asked(topology)
        calls[name] = functools.partial(lattice.joint_transducer_loss_and_grad, *problem, **how)
        report = lattice.joint_transducer_report(*problem, **how)
        _, blank, label = lattice.joint_transducer_posteriors(*problem, **how)
        cells, visited = report.cells.sum(), (blank + label >= DEFAULT_POSTERIOR_FLOOR).sum()
        # Where labels alone are certified, fewer rows are made than cells are visited.
        counts = {"visited": visited, "occupied": report.occupied.sum(), "certified": report.certified.sum()}
        shares[name] = {kind: count / cells for kind, count in counts.items()}
    for name in EVERY:
        problem, how = untrained(VARIANTS[name], *shape), asked(VARIANTS[name])
        for kind, floor in (("untrained", {}), ("every cell", {"posterior_floor": 0})):
            calls[f"{name}, {kind}"] = functools.partial(
                lattice.joint_transducer_loss_and_grad, *problem, **how, **floor
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
