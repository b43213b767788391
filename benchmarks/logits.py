"""Time of the loss from given logits, gradient in place, against one copy of the logits into warm memory."""

import numpy as np

import lattice

from . import peers, record, shapes

SHAPES = {
    "default": (8, 200, 40, 1024),
    "librispeech-100": (8, 343, 71, 500),
    "mandarin": (16, 115, 14, 4233),
    "smoke": (2, 20, 5, 32),
}


def check() -> float:
    """Largest deviation of the gradient from the float64 oracle on a small problem."""
    from tests import oracle

    problem = shapes.untrained(2, 12, 5, 20, 16)
    logits = shapes.logits_of(problem)
    _, ours = lattice.transducer_loss_and_grad(logits, *problem[4:])
    _, truth = oracle.batch_loss_and_grad(logits.astype(np.float64), *problem[4:])
    worst = float(np.abs(ours - truth).max())
    if worst > 1e-5:
        raise RuntimeError(f"gradient is {worst:.1e} from the oracle: not worth timing")
    return worst


def measure(shape: str, rounds: int, compared: list, ours: bool = True) -> dict:
    """Rows of the table for one shape."""
    B, T, U, V = SHAPES[shape]
    problem = shapes.untrained(B, T, U, V, 16)
    logits = shapes.logits_of(problem)
    work, copy = logits.copy(), np.empty_like(logits)
    copy[:] = 0
    calls = {"numpy.copyto": lambda: np.copyto(copy, logits)}
    if ours:
        calls |= {
            "lattice, out=logits": lambda: lattice.transducer_loss_and_grad(work, *problem[4:], out=work),
            "lattice, new gradient": lambda: lattice.transducer_loss_and_grad(logits, *problem[4:]),
            "lattice, loss only": lambda: lattice.transducer_loss(logits, *problem[4:]),
        }
    for peer in compared:
        if peer.from_logits is not None:
            calls[peer.name] = peer.from_logits(logits, *problem[4:])
    # Each is timed on memory it has just touched: what a peer before it threw out of the caches is not its own cost.
    prepare = {"numpy.copyto": lambda: np.copyto(copy, logits)}
    if ours:
        prepare["lattice, out=logits"] = lambda: np.copyto(work, logits)
    return record.ratios(record.interleaved(calls, rounds, prepare), "numpy.copyto")


def main(options) -> None:
    worst = check()
    compared, missing = peers.chosen(options.without, options.only)
    table = measure(options.shape, options.rounds, compared, ours=options.only in (None, peers.OURS))
    B, T, U, V = SHAPES[options.shape]
    record.show(
        f"from logits, B={B} T={T} U={U} V={V} float32 (gradient within {worst:.0e} of the oracle)",
        table,
        ("seconds", "ratio", "ratio_min", "ratio_max"),
    )
    record.write(
        options.json, {"benchmark": "logits", "shape": SHAPES[options.shape], "rows": table, "not_measured": missing}
    )
