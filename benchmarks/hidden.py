"""Errors of hidden vectors of tanh against extended precision: made of the inputs, and of factors."""

import numpy as np

from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.dropout import NO_DROPOUT
from lattice.kernels.factors import TAIL, make_factors
from lattice.kernels.hidden import compute_hidden

from . import record

TANH = ACTIVATIONS["tanh"]
INPUTS = (0.3, 1, 3, 10, "cancelling")
"""Standard deviations of both inputs; or inputs of +20 and -20, of which little is left."""
DTYPES = np.float32, np.float64
SIZE = {"default": 1 << 20, "smoke": 1 << 10}
WIDTH = 64


def main(options) -> None:
    rows = {}
    for name in INPUTS:
        row = rows[f"{name}"] = {}
        for dtype in DTYPES:
            given = inputs(name, dtype, SIZE[options.shape])
            for way in ("inputs", "factors"):
                of = f"{np.dtype(dtype).name[-2:]} {way}"
                row[f"{of} max"], row[f"{of} rms"] = errors(*given, way == "factors")
    record.show("errors of tanh(x + y), by the standard deviation of x and y", rows, tuple(rows["1"]))
    record.write(options.json, {"benchmark": "hidden", "entries": SIZE[options.shape], "rows": rows})


def inputs(name, dtype, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows x and y (n, WIDTH), `size` numbers each."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, size)) * (1 if name == "cancelling" else name)
    if name == "cancelling":
        x, y = 20 + x / 4, np.full_like(y, -20)
    return x.reshape(-1, WIDTH).astype(dtype), y.reshape(-1, WIDTH).astype(dtype)


def hidden_of(x, y, factored: bool) -> np.ndarray:
    """tanh of x + y, (n, H) each, row by row."""
    n, every = len(x), np.arange(len(x))
    factors = np.empty((2 * n * factored, x.shape[1] + TAIL), x.dtype)
    if factored:
        make_factors(TANH.rate, x, y, every, every, factors)
    hidden = np.empty_like(x)
    compute_hidden(TANH, x, y, factors, NO_DROPOUT, every, every, every, every, hidden)
    return hidden


def errors(x, y, factored: bool) -> tuple[float, float]:
    """Largest and root mean square error of tanh."""
    with np.errstate(invalid="ignore"):
        truth = np.tanh(x.astype(np.longdouble) + y.astype(np.longdouble))
    off = (hidden_of(x, y, factored) - truth).astype(np.float64)
    return float(np.abs(off).max()), float(np.sqrt((off**2).mean()))
