"""Instructions an element of the inner loops of kernels, in machine code: `python -m benchmarks.gpu.instructions`.

No GPU is needed. A kernel is compiled to PTX, assembled for sm_90 and disassembled. All that stands in the inner loop
counts, whether every lane takes part in it or not.
"""

import argparse
import sys
from collections import Counter
from typing import NamedTuple

from lattice.kernels.ptx_compile import compile_kernel

from .. import record
from . import sass

CC = (9, 0)
PACKAGES = ("numpy", "numba", "numba-cuda", "nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-nvdisasm")


class Loop(NamedTuple):
    """How the inner loop over a row is told from others: what it does an element of the row.

    `loaded` and `stored` are bytes of global memory. `exponentials` are MUFU.EX2, of which a loop may have some more,
    but less than one more an element. With `barrier` it is a loop of steps that all threads of a block make together,
    and its element is a step.
    """

    loaded: int = 0
    stored: int = 0
    exponentials: int = 0
    barrier: bool = False


class Row(NamedTuple):
    """A row of the table: a kernel, the types of its first arguments, and the loops that an element passes through."""

    kernel: str
    types: tuple[str, ...]
    loops: tuple[Loop, ...]


FLOAT, HALF, DRAWS = "float32[2]", "uint16[2]", "int64[1]"
"""With `DRAWS` a kernel is compiled for dropout."""
ROWS = {
    "hidden tanh": Row("hidden_tanh_cuda", (FLOAT, FLOAT), (Loop(8, 4, 1),)),
    "hidden tanh bfloat16": Row("hidden_tanh_cuda", (HALF, HALF), (Loop(4, 2, 1),)),
    "hidden relu": Row("hidden_relu_cuda", (FLOAT, FLOAT), (Loop(8, 4),)),
    "hidden sigmoid, factors": Row("hidden_sigmoid_cuda", (FLOAT, FLOAT), (Loop(8, 4),)),
    "hidden gelu": Row("hidden_gelu_cuda", (FLOAT, FLOAT), (Loop(8, 4, 1),)),
    "hidden gelu_slope": Row("hidden_gelu_slope_cuda", (FLOAT, FLOAT), (Loop(8, 4, 1),)),
    "hidden silu": Row("hidden_silu_cuda", (FLOAT, FLOAT), (Loop(8, 4, 1),)),
    "hidden relu, dropout": Row("hidden_relu_cuda", (FLOAT, FLOAT, FLOAT, DRAWS), (Loop(8, 4),)),
    "hidden relu, dropout bfloat16": Row("hidden_relu_cuda", (HALF, HALF, FLOAT, DRAWS), (Loop(4, 2),)),
    "hidden tanh, dropout": Row("hidden_tanh_cuda", (FLOAT, FLOAT, FLOAT, DRAWS), (Loop(8, 4, 1),)),
    "hidden tanh, factors, dropout": Row("hidden_tanh_cuda", (FLOAT, FLOAT, FLOAT, DRAWS), (Loop(8, 4),)),
    "bound tanh, factors, dropout": Row("bound_tanh_cuda", (FLOAT, FLOAT, FLOAT, DRAWS), (Loop(16),)),
    "hidden identity": Row("hidden_identity_cuda", (FLOAT, FLOAT), (Loop(8, 4),)),
    "hidden tanh, factors": Row("hidden_tanh_cuda", (FLOAT, FLOAT), (Loop(8, 4),)),
    "hidden tanh, factors bfloat16": Row("hidden_tanh_cuda", (HALF, HALF), (Loop(8, 2),)),
    "bound tanh, factors": Row("bound_tanh_cuda", (FLOAT, FLOAT), (Loop(16),)),
    "bound tanh, factors bfloat16": Row("bound_tanh_cuda", (HALF, HALF), (Loop(12),)),
    "bound tanh": Row("bound_tanh_cuda", (FLOAT, FLOAT), (Loop(16, 0, 1),)),
    "bound tanh bfloat16": Row("bound_tanh_cuda", (HALF, HALF), (Loop(8, 0, 1),)),
    "emit": Row("emit_cuda", (FLOAT,), (Loop(4, 0, 1),)),
    "emit, bias": Row("emit_cuda", (FLOAT,), (Loop(8, 0, 1),)),
    "emit bfloat16": Row("emit_cuda", (HALF,), (Loop(2, 0, 1),)),
    "gradient": Row("gradient_cuda", (FLOAT, FLOAT), (Loop(4, 4, 1),)),
    "gradient, bias": Row("gradient_cuda", (FLOAT, FLOAT), (Loop(8, 4, 1),)),
    "gradient anew": Row("gradient_cuda", (FLOAT, FLOAT), (Loop(4, 0, 1), Loop(4, 4, 1))),
    "gradient anew, bias": Row("gradient_cuda", (FLOAT, FLOAT), (Loop(8, 0, 1), Loop(8, 4, 1))),
    "gradient bfloat16": Row("gradient_cuda", (HALF, HALF), (Loop(2, 2, 1),)),
    "gradient anew, bias, to bfloat16": Row("gradient_cuda", (FLOAT, HALF), (Loop(8, 0, 1), Loop(8, 2, 1))),
    "emit, HAT": Row("emit_hat_cuda", (FLOAT,), (Loop(4, 0, 1),)),
    "gradient, HAT": Row("gradient_hat_cuda", (FLOAT, FLOAT), (Loop(4, 4, 1),)),
    "gradient anew, bias, HAT": Row("gradient_hat_cuda", (FLOAT, FLOAT), (Loop(8, 0, 1), Loop(8, 4, 1))),
    "emit, tdt": Row("emit_tdt_cuda", (FLOAT,), (Loop(4, 0, 1),)),
    "emit, bias, tdt": Row("emit_tdt_cuda", (FLOAT,), (Loop(8, 0, 1),)),
    "gradient, tdt": Row("gradient_tdt_cuda", (FLOAT, FLOAT), (Loop(4, 4, 1),)),
    "gradient anew, bias, tdt": Row("gradient_tdt_cuda", (FLOAT, FLOAT), (Loop(8, 0, 1), Loop(8, 4, 1))),
    "emit, multiblank": Row("emit_multiblank_cuda", (FLOAT,), (Loop(4, 0, 1),)),
    "emit, bias, multiblank": Row("emit_multiblank_cuda", (FLOAT,), (Loop(8, 0, 1),)),
    "gradient, multiblank": Row("gradient_multiblank_cuda", (FLOAT, FLOAT), (Loop(4, 4, 1),)),
    "gradient anew, bias, multiblank": Row("gradient_multiblank_cuda", (FLOAT, FLOAT), (Loop(8, 0, 1), Loop(8, 4, 1))),
    "bound tanh, HAT": Row("bound_hat_tanh_cuda", (FLOAT, FLOAT), (Loop(12, 0, 1),)),
    "bound tanh, factors, HAT": Row("bound_hat_tanh_cuda", (FLOAT, FLOAT), (Loop(12),)),
    "bound_steps tanh": Row("bound_steps_tanh_cuda", (FLOAT, FLOAT), (Loop(16, 0, 1),)),
    "bound_steps tanh bfloat16": Row("bound_steps_tanh_cuda", (HALF, HALF), (Loop(8, 0, 1),)),
    "bound_steps tanh, factors": Row("bound_steps_tanh_cuda", (FLOAT, FLOAT), (Loop(16),)),
    "bound_steps tanh, factors bfloat16": Row("bound_steps_tanh_cuda", (HALF, HALF), (Loop(12),)),
    "ctc emit": Row("ctc_emit_cuda", ("int64", FLOAT), (Loop(4, 0, 1),)),
    "ctc gradient": Row("ctc_gradient_cuda", ("int64", FLOAT), (Loop(4, 4, 1),)),
    "to_frames tanh": Row("to_frames_tanh_cuda", (FLOAT,), (Loop(8),)),
    "to_slots tanh": Row("to_slots_tanh_cuda", (FLOAT,), (Loop(8),)),
    "to_frames tanh, dropout": Row("to_frames_tanh_cuda", (FLOAT, FLOAT, DRAWS), (Loop(8),)),
    "to_slots tanh, dropout": Row("to_slots_tanh_cuda", (FLOAT, FLOAT, DRAWS), (Loop(8),)),
    "sums": Row("sums_cuda", (), (Loop(barrier=True),)),
    "step_sums": Row("step_sums_cuda", (), (Loop(113, 8),)),
}
"""Of each kernel and the types of its first arguments, the loops that an element passes through."""


class Counted(NamedTuple):
    """A row of the table. `elements` and `calls` are a round of each loop, what follows is an element."""

    registers: int
    spilled: int
    elements: list[int]
    calls: int
    instructions: float
    loaded: float
    stored: float
    special: dict[str, float]


def launches() -> dict:
    """{(name of a kernel, type names): (kernel, arguments)} of all cases of the tests."""
    from tests import launches as recorder

    cases = recorder.of_cases().items()
    return {(kernel.py_func.__name__, types): (kernel, arguments) for (kernel, types), (arguments, _) in cases}


def chosen(row: Row, known: dict):
    """The kernel of a row, and the arguments of its first launch with these types."""
    for (name, types), launch in known.items():
        if name == row.kernel and types[: len(row.types)] == row.types:
            return launch
    raise LookupError(f"no case launches {row.kernel} for {row.types}")


def elements(loop: Loop, counts: Counter) -> int:
    """Elements that one round of a loop with these counts takes, 0 where the loop is another one."""
    if loop.barrier:
        # A round may be of several steps.
        return counts["BAR"]
    n = counts["loaded"] // loop.loaded
    same = (counts["loaded"], counts["stored"]) == (n * loop.loaded, n * loop.stored)
    return n if same and n * loop.exponentials <= counts["MUFU.EX2"] < n * (loop.exponentials + 1) else 0


def inner(loop: Loop, code: sass.Assembled) -> tuple[int, Counter]:
    """Elements and counts of the loop. Of several that fit it is an innermost one, the one with most elements."""
    fits = []
    # A loop comes before the loops around it.
    for body in sass.loops(code.blocks):
        counts = sass.count([instruction for label in body for instruction in code.blocks[label]])
        n = elements(loop, counts)
        if n and not any(other < body for _, _, other in fits):
            fits.append((n, counts, body))
    if not fits:
        raise LookupError(f"there is no loop that does {loop} an element")
    return max(fits, key=lambda fit: fit[0])[:2]


def counted(row: Row, code: sass.Assembled) -> Counted:
    """A row of the table, from the code of its kernel."""
    each = [inner(loop, code) for loop in row.loops]

    def an_element(name: str) -> float:
        return sum(counts[name] / n for n, counts in each)

    names = {name for _, counts in each for name in counts if name.startswith("MUFU.") and name.count(".") == 1}
    return Counted(
        code.registers,
        code.spilled,
        [n for n, _ in each],
        sum(counts["CALL"] for _, counts in each),
        *map(an_element, ("instructions", "loaded", "stored")),
        {name: an_element(name) for name in sorted(names)},
    )


def count(names=tuple(ROWS)) -> dict[str, Counted]:
    """The table, of the rows that are named."""
    known, codes, found = launches(), {}, {}
    for name in names:
        kernel, arguments = chosen(ROWS[name], known)
        key = ROWS[name].kernel, ROWS[name].types
        if key not in codes:
            codes[key] = sass.assembled(compile_kernel(kernel, arguments, CC), CC)
        found[name] = counted(ROWS[name], codes[key])
    return found


def table_of(found: dict[str, dict]) -> str:
    """The table that the command prints."""
    lines = [
        "| kernel | registers | elements a round | instructions | special functions | bytes read | written |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        rounds = " + ".join(map(str, row["elements"]))
        counts = f"{row['registers']} | {rounds} | {instructions_of(row)} | {special_of(row)}"
        lines.append(f"| {name} | {counts} | {row['loaded']:.3g} | {row['stored']:.3g} |")
    return "\n".join(lines)


def comparison_of(before: dict[str, dict], now: dict[str, dict]) -> str:
    """The table of docs/gpu.md, from two records."""
    lines = ["| kernel | instructions before | now | special functions | registers |", "|---|---:|---:|---|---:|"]
    for name, row in now.items():
        once = instructions_of(before[name]) if name in before else "-"
        lines.append(f"| {name} | {once} | {instructions_of(row)} | {special_of(row)} | {row['registers']} |")
    return "\n".join(lines)


def instructions_of(row: dict) -> str:
    return f"{row['instructions']:.1f}" + (f" and {row['calls']} calls" if row["calls"] else "")


def special_of(row: dict) -> str:
    kinds = (f"{value:.3g} {kind.removeprefix('MUFU.')}" for kind, value in row["special"].items())
    return ", ".join(kinds) or "-"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.instructions", description=__doc__)
    parser.add_argument("--json", help="file for the record")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=tuple(ROWS), metavar="ROW", help="rows to count")
    options = parser.parse_args(arguments)
    missing = [name for name in ("ptxas", "nvdisasm") if sass.tool(name) is None]
    if missing:
        parser.error(f"not found: {', '.join(missing)}; pip install '.[test-cuda]'")
    found = {name: row._asdict() for name, row in count(options.only).items()}
    print(table_of(found))
    if options.json:
        environment = {**record.environment(PACKAGES), "command": parser.prog}
        record.write(options.json, {"environment": environment, "benchmark": "instructions", "kernels": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
