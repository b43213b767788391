"""Is what a GPU computes right? Products, conversions and gradients against float64, two runs against one another."""

import functools

import numpy as np

import lattice
from lattice.device import arrays

from .. import shapes
from . import problems, timing

FLOAT32_BOUND, BFLOAT16_BOUND = 1e-5, 3e-2
"""Largest deviation from the float64 oracle on the same inputs, relative to the largest entry."""
SIZES = ((300, 64, 96), (1, 64, 96), (17, 33, 1), (17, 1, 33))
"""Cells, hidden size and vocabulary of a tile, of one cell, and where a side of a product is 1."""
PRODUCT_BOUNDS = {"float32": 2e-6, "bfloat16": 2e-6, "float64": 1e-14}
"""Largest error of an entry, relative to the magnitudes it sums up; bfloat16 operands are summed in float32."""


def contact(report, depth: str = "whole") -> None:
    """The first things that may go wrong with a new machine, in the order in which the losses need them."""
    for dtype in PRODUCT_BOUNDS:
        report.case(f"products {dtype}", products_case, dtype)
    for dtype in ("bfloat16", "float16"):
        report.case(f"convert {dtype}", convert_case, dtype)
    for dtype, bound in (("float32", FLOAT32_BOUND), ("bfloat16", BFLOAT16_BOUND)):
        report.case(f"oracle {dtype}", oracle_case, dtype, bound)
    if depth == "whole":
        for dtype in ("float32", "bfloat16"):
            report.case(f"warm_up {dtype}", warm_up_case, dtype)
    else:
        report.case("dropout", dropout_case, problems.full(2, 12, 5, 20, 300), problems.JOINT["default"])


def products_case(dtype: str) -> dict:
    """The joint's matrix products by `Cuda.matmul`, at the corners of their sizes, against float64 on the host."""
    real, place, rng = problems.real_dtype(dtype), problems.device(), np.random.default_rng(problems.SEED)
    bound, off, wrong = PRODUCT_BOUNDS[dtype], [], []
    for cells, H, V in SIZES:
        # hidden, weight, dlogits, and the row of ones that adds up the gradient of the bias
        drawn = (rng.standard_normal(shape) for shape in ((cells, H), (V, H), (cells, V)))
        host = [array.astype(real) for array in (*drawn, np.ones((1, cells)))]
        there, wide = place.upload(None, *host), [array.astype(np.float64) for array in host]
        for name, operands in PRODUCTS.items():
            (a, b), (wide_a, wide_b) = operands(*there), operands(*wide)
            out = place.empty((a.shape[0], b.shape[1]), real if dtype == "float64" else np.float32)
            place.matmul(a, b, out)
            off.append(float((np.abs(out.get() - wide_a @ wide_b) / (np.abs(wide_a) @ np.abs(wide_b))).max()))
            # Written so that NaN is wrong too.
            wrong += [] if off[-1] <= bound else [f"{name} of {cells} cells, H={H}, V={V}: {off[-1]:.1e}"]
    return {"worst": float(np.max(off)), "bound": bound, **({"error": "; ".join(wrong)} if wrong else {})}


PRODUCTS = {
    "hidden @ weight.T": lambda hidden, weight, grad, ones: (hidden, weight.T),
    "dlogits @ weight": lambda hidden, weight, grad, ones: (grad, weight),
    "dlogits.T @ hidden": lambda hidden, weight, grad, ones: (grad.T, hidden),
    "ones @ dlogits": lambda hidden, weight, grad, ones: (ones, grad),
}


def convert_case(dtype: str) -> dict:
    """Half precision rounded and widened by a kernel of ours, cleared and moved by CuPy."""
    half, place = problems.real_dtype(dtype), problems.device()
    host = np.random.default_rng(problems.SEED).standard_normal(1000, np.float32)
    rounded = place.convert(place.upload(None, host)[0], half)
    widened = place.convert(rounded, np.dtype(np.float32))
    rounded[:100].fill(0)
    rounded[100:200] = rounded[:100]
    expected = host.astype(half)
    same = (widened.get() == expected.astype(np.float32)).all() and not rounded[:200].get().astype(np.float32).any()
    return {"same": bool(same), **({} if same else {"error": "other numbers than on the host"})}


def warm_up_case(dtype: str) -> dict:
    """Every kernel of the losses compiled, or found, and loaded."""
    lattice.warm_up(problems.real_dtype(dtype), device="cuda")
    arrays.cupy().cuda.get_current_stream().synchronize()
    return {}


def check(report) -> None:
    """Gradients against the float64 oracle, and two runs bit for bit."""
    for dtype, bound in (("float32", FLOAT32_BOUND), ("bfloat16", BFLOAT16_BOUND)):
        report.case(f"oracle {dtype}", oracle_case, dtype, bound)
    for dtype in ("float32", "bfloat16"):
        report.case(f"two runs {dtype}", determinism_case, dtype)


def oracle_case(dtype: str, bound: float) -> dict:
    from tests import joint_oracle, oracle

    real = problems.real_dtype(dtype)
    problem = problems.joint(problems.full(2, 12, 5, 20, 16), "untrained", real)
    on_host = [array.get() for array in problem]
    wide = [array.astype(np.float64) for array in on_host[:4]]
    _, ours = lattice.joint_transducer_loss_and_grad(*problem)
    _, truth = joint_oracle.joint_loss_and_grad(*wide, *on_host[4:])
    worst = {"joint": max(deviation(a, b) for a, b in zip(ours, truth))}
    logits = shapes.logits_of(shapes.Joint(*wide, *on_host[4:])).astype(real)
    _, ours = lattice.transducer_loss_and_grad(problems.device().upload(None, logits)[0], *problem[4:])
    _, truth = oracle.batch_loss_and_grad(logits.astype(np.float64), *on_host[4:])
    worst["logits"] = deviation(ours, truth)
    # Written so that NaN is an error too.
    wrong = [name for name, value in worst.items() if not value <= bound]
    return {**worst, "bound": bound, **({"error": f"{', '.join(wrong)} too far from the oracle"} if wrong else {})}


def deviation(ours, truth) -> float:
    return float(np.abs(ours.get().astype(np.float64) - truth).max() / np.abs(truth).max())


def dropout_case(small: problems.Shape, large: problems.Shape) -> dict:
    """The mask of a seed is that of the host, and what it takes to draw it."""
    door, dropout = lattice.joint_transducer_loss_and_grad, (0.2, 2**40 + problems.SEED)
    problem = problems.joint(small, "untrained", np.float32)
    on_host = [array.get() for array in problem]
    (_, ours), (_, truth) = door(*problem, dropout=dropout), door(*on_host, dropout=dropout)
    worst = max(deviation(a, b) for a, b in zip(ours, truth))
    problem = problems.joint(large, "untrained", np.float32)
    seconds, without = (
        timing.median_of(functools.partial(door, *problem, dropout=chosen), 3) for chosen in (dropout, None)
    )
    found = {"joint": worst, "bound": FLOAT32_BOUND, "seconds": seconds, "without": without, "ratio": seconds / without}
    return found if worst <= FLOAT32_BOUND else {**found, "error": "other gradients than on the host"}


def determinism_case(dtype: str) -> dict:
    real = problems.real_dtype(dtype)
    shape = problems.ragged(8, 500)
    inputs = {"joint": problems.joint(shape, "untrained", real), "logits": problems.logits(shape, real)}
    doors = {"joint": lattice.joint_transducer_loss_and_grad, "logits": lattice.transducer_loss_and_grad}
    equal = {}
    for name, door in doors.items():
        runs = [bits(*door(*inputs[name])) for _ in range(2)]
        equal[name] = runs[0] == runs[1]
    return {**equal, **({} if all(equal.values()) else {"error": "two runs differ"})}


def bits(loss, gradients) -> list[bytes]:
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return [array.get().tobytes() for array in (loss, *gradients)]
