"""Errors of matrix products in float32, in TF32, and in three products of TF32 halves; and of the joint over them.

A GPU's products are emulated: operands are rounded to TF32, and multiplied and summed in float32. How a tensor core
rounds its sums is not documented. "sums cut" takes it to cut a sum to float32 after every eight terms, which is a
guess at the worst.
"""

import contextlib
from unittest import mock

import numpy as np

import lattice
from lattice.device.memory import Host
from lattice.kernels.halves import Halves, split, terms

from . import record, shapes

LENGTHS = (512, 640, 8192)
"""Terms of a sum: widths of a joint, and a tile of cells, over which the weight's gradient is summed."""
ROWS, COLUMNS = 2048, 256
JOINT = {"B": 2, "T": 200, "U": 40, "V": 1024, "H": 512}
SMOKE = {"B": 1, "T": 10, "U": 3, "V": 20, "H": 16}


def halves(matrix) -> Halves:
    """A matrix in two halves, in its own layout, as far as TF32 holds them."""
    if not matrix.flags.c_contiguous:
        return halves(np.ascontiguousarray(matrix.T)).T
    high, low = split(matrix, np.empty_like(matrix), np.empty_like(matrix))
    # A tensor core does not see the lower bits. cuBLAS may round them away before, which costs less.
    return Halves(high, (low.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32))


def in_float32(a, b):
    return a @ b


def in_tf32(a, b):
    return halves(a).high @ halves(b).high


def in_three(a, b):
    first, *others = terms(halves(a), halves(b))
    product = first[0] @ first[1]
    for one, other in others:
        product += one @ other
    return product


def in_three_cut(a, b):
    product = np.zeros((len(a), b.shape[1]), np.float32)
    for one, other in terms(halves(a), halves(b)):
        for begin in range(0, one.shape[1], STEP):
            here = one[:, begin : begin + STEP].astype(np.float64) @ other[begin : begin + STEP]
            product = cut(product + here)
    return product


def cut(values):
    """float64 to float32, towards 0."""
    nearest = values.astype(np.float32)
    return np.where(abs(nearest) > abs(values), np.nextafter(nearest, np.float32(0)), nearest)


WAYS = {"float32": in_float32, "TF32": in_tf32, "3xTF32": in_three}
CUT = "3xTF32, sums cut"
"""Of products only, since it takes long."""
STEP = 8
"""Terms that a tensor core sums at once in TF32."""


@contextlib.contextmanager
def multiplying(way):
    """Within it the host's products are made in that way."""

    def matmul(host, a, b, out):
        out[...] = way(a, b)

    def add_matmul(host, a, b, out, space, rows):
        out += way(a, b)

    with mock.patch.object(Host, "matmul", matmul), mock.patch.object(Host, "add_matmul", add_matmul):
        yield


def error(found, truth) -> float:
    """The root of the mean square of the errors, in units of that of the truth."""
    truth = np.asarray(truth, np.float64)
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def products(lengths=LENGTHS) -> dict[str, dict]:
    """Errors of products of values of tanh and normal numbers, by the terms of a sum."""
    rng, rows = np.random.default_rng(0), {}
    for K in lengths:
        a = np.tanh(rng.standard_normal((ROWS, K))).astype(np.float32)
        b = rng.standard_normal((K, COLUMNS)).astype(np.float32)
        truth = a.astype(np.float64) @ b
        ways = {**WAYS, CUT: in_three_cut}
        rows[f"product, {K} terms"] = {name: error(way(a, b), truth) for name, way in ways.items()}
    return rows


def joints(sizes) -> dict[str, dict]:
    """Errors of loss and gradients of the fused joint, all its cells computed, against float64."""
    rows = {}
    for kind, make in (("untrained", shapes.untrained), ("trained-like", shapes.trained_like)):
        problem = make(**sizes)
        wide = problem._replace(**{name: getattr(problem, name).astype(np.float64) for name in problem._fields[:4]})
        truth = call(wide)
        for name, way in WAYS.items():
            with multiplying(way):
                found = call(problem)
            for part, one, other in zip(("loss", *lattice.JointGradients._fields), found, truth):
                rows.setdefault(f"{kind}, {part}", {})[name] = error(one, other)
    return rows


def call(problem) -> tuple:
    loss, gradients = lattice.joint_transducer_loss_and_grad(*problem, posterior_floor=0)
    return loss, *gradients


def table_of(results: dict) -> str:
    """The table as it stands in docs/numerics.md."""
    ways = (*WAYS, CUT)
    lines = [f"| error, float64 = 0 | {' | '.join(ways)} |", "|---|" + "---:|" * len(ways)]
    for name, row in results["rows"].items():
        lines.append(f"| {name} | " + " | ".join(f"{row[way]:.1e}" if way in row else "-" for way in ways) + " |")
    return "\n".join(lines)


def main(options) -> None:
    sizes = SMOKE if options.shape == "smoke" else JOINT
    results = {"benchmark": "tf32", "joint": sizes}
    results["rows"] = {**products(LENGTHS[:1] if options.shape == "smoke" else LENGTHS), **joints(sizes)}
    print(table_of(results))
    record.write(options.json, results)
