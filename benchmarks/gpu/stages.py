"""Where the time of one call goes on a GPU: events round every kernel launch and every matrix product."""

import contextlib
import functools
import statistics
from unittest import mock

import lattice
from lattice.device import arrays
from lattice.device.gemm import turned
from lattice.device.memory import Cuda
from lattice.kernels import ptx

from . import problems, timing

CASES = (
    ("joint", "default", "untrained", "bfloat16"),
    ("logits", "long", "", "float32"),
    ("joint", "default", "untrained", "float32"),
    ("joint", "default", "trained-like", "float32"),
    ("logits", "long", "", "bfloat16"),
    ("joint", "librispeech", "untrained", "float32"),
)
"""In the order of what would be missed most: time may end them."""
ROUNDS = 3


def stages(report) -> None:
    """One row a kernel or product, for each case."""
    for case in CASES:
        report.case(" ".join(word for word in case if word), stages_case, *case)


def stages_case(loss: str, shape: str, kind: str, dtype: str) -> dict:
    real = problems.real_dtype(dtype)
    if loss == "joint":
        call = functools.partial(
            lattice.joint_transducer_loss_and_grad, *problems.joint(problems.JOINT[shape], kind, real)
        )
    else:
        values, *integers = problems.logits(problems.LOGITS[shape], real)
        # Not in place, or every call but the first would read gradients; the bytes moved are the same.
        out = problems.device().empty(values.shape, real)
        call = functools.partial(lattice.transducer_loss_and_grad, values, *integers, out=out)
    whole = timing.median_of(call, ROUNDS)
    return {"seconds": whole, "rows": split(call)}


def split(call) -> dict[str, dict]:
    """Rows of the kernels and products of a call: seconds, share, calls, and the rate of bytes or of operations.

    Bytes are the sizes of a kernel's arguments. The rate is a bandwidth only where a kernel reads or writes each array
    once. `between` is what lies between the launches: CuPy's own kernels, copies, and a device that waits for the host.
    """
    taken = []
    for _ in range(ROUNDS):
        watch = Watch()
        with watch.watching():
            total = timing.timed(call)[0]
        taken.append((total, watch.sums()))
    total, rows = statistics.median_low([total for total, _ in taken]), {}
    rows["all, watched"] = {"seconds": total, "share": 1.0}
    for name in taken[0][1]:
        seconds = statistics.median([sums[name]["seconds"] for _, sums in taken])
        one = taken[0][1][name]
        rows[name] = {"seconds": seconds, "share": seconds / total, "calls": one["calls"]}
        rows[name] |= {
            rate: one[unit] / seconds for unit, rate in (("bytes", "bandwidth"), ("operations", "flops")) if one[unit]
        }
    left = total - sum(row["seconds"] for name, row in rows.items() if name != "all, watched")
    rows["between"] = {"seconds": left, "share": left / total}
    return rows


class Watch:
    """Puts events round every launch and every matrix product of the library."""

    def __init__(self):
        self.seen = []

    @contextlib.contextmanager
    def watching(self):
        launch, matmul = ptx.run, Cuda.matmul

        def watched_launch(kernel, blocks, threads, arguments):
            moved = sum(argument.nbytes for argument in arguments if getattr(argument, "ndim", 0))
            name = getattr(kernel, "py_func", kernel).__name__
            self.around(name, moved, 0, launch, kernel, blocks, threads, arguments)

        def watched_matmul(place, a, b, out, *add, **options):
            operations, call = 2 * a.shape[0] * out.shape[1] * a.shape[1], functools.partial(matmul, **options)
            self.around(product_of(a, b), 0, operations, call, place, a, b, out, *add)

        with mock.patch.object(ptx, "run", watched_launch), mock.patch.object(Cuda, "matmul", watched_matmul):
            yield

    def around(self, name, moved, operations, call, *arguments) -> None:
        begin, end = (arrays.cupy().cuda.Event() for _ in range(2))
        begin.record()
        call(*arguments)
        end.record()
        self.seen.append((name, begin, end, moved, operations))

    def sums(self) -> dict[str, dict]:
        """Name -> seconds, calls, bytes, operations, when the device is done."""
        elapsed, sums = arrays.cupy().cuda.get_elapsed_time, {}
        for name, begin, end, moved, operations in self.seen:
            row = sums.setdefault(name, {"seconds": 0.0, "calls": 0, "bytes": 0, "operations": 0})
            row["seconds"] += elapsed(begin, end) / 1e3
            row["calls"] += 1
            row["bytes"] += moved
            row["operations"] += operations
        return sums


def product_of(a, b) -> str:
    """Which of the joint's products it is, by the operand that is turned."""
    if a.shape[0] == 1:
        return "ones @ dlogits"
    if turned(a):
        return "dlogits.T @ hidden"
    return "hidden @ weight.T" if turned(b) else "dlogits @ weight"
