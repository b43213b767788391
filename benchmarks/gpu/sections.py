"""The sections that are measured on a GPU, each in a process of its own: `python -m benchmarks.gpu.sections NAME ...`.

An invalid access spoils a CUDA context for good, and a kernel that hangs can only be ended with its process. In a
process of its own, neither costs more than one section. Each case prints its result as a line of JSON as soon as it has
one.
"""

import argparse
import contextlib
import functools
import gc
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np

import lattice
from lattice.device import arrays

from . import checks, device, losses, problems, sampled, stages, three_stage, timing

HEADLINE = {"B": 1024, "T": 1000, "U": 100, "V": 1024, "H": 512}
HEADLINE_POOL = 3_000_000_000
HEADLINE_LIMITS = {"512 MiB": 512 << 20, "64 MiB": 64 << 20}
"""The first limit fits into the pool beside float32 inputs, 2.31e9 bytes, and holds 57 examples at once. The second
limit holds 3."""
SAME = 1e-5
"""Largest relative difference of a loss in a batch and alone: matrix products of other sizes sum in another order."""


class Report:
    """Runs cases until the time is up; what fails is reported and does not stop the next one."""

    def __init__(self, seconds: float, out=sys.stdout):
        self.deadline, self.out = time.monotonic() + seconds, out

    def case(self, name: str, measure, *arguments) -> None:
        if time.monotonic() >= self.deadline:
            result = {"not_measured": "out of time"}
        else:
            begin = time.monotonic()
            try:
                result = measure(*arguments)
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)[-5:]
                where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}: {frame.line}" for frame in frames]
                result = {"error": timing.text_of(error), "where": where}
            result = {**result, "took": time.monotonic() - begin}
        print(json.dumps({name: result}), file=self.out, flush=True)
        # A failed case may be kept alive by its traceback, in a cycle.
        gc.collect()
        # Where a case has spoiled the context, this fails like every case that follows: they shall say so themselves.
        with contextlib.suppress(Exception):
            arrays.cupy().get_default_memory_pool().free_all_blocks()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()


def headline(report, *dtypes: str, limits=HEADLINE_LIMITS) -> None:
    """B=1024, everything under 3e9 bytes of CuPy's pool."""
    for name in limits:
        for dtype in dtypes:
            report.case(f"{dtype}, {name}", headline_case, dtype, HEADLINE_LIMITS[name], *HEADLINE.values())


@functools.cache
def memory_before() -> int | None:
    """Bytes in use on the first GPU by every process before this one had a CUDA context; None where nobody knows."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return (
            int(subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]) << 20
        )
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def headline_case(dtype: str, limit: int, B: int, T: int, U: int, V: int, H: int) -> dict:
    """One loss and gradient that overwrites its inputs, with inputs and weights in the pool.

    The call fails where it passes the pool's limit.
    """
    before = memory_before()
    cupy, place = arrays.cupy(), problems.device()
    free, total = cupy.cuda.runtime.memGetInfo()
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=HEADLINE_POOL)
    real = problems.real_dtype(dtype)
    encoder, predictor = problems.normals((B, T, H), real), problems.normals((B, U + 1, H), real)
    drawn = problems.host_joint(problems.full(1, 1, 1, V, H), "untrained")
    targets = np.random.default_rng(problems.SEED).integers(1, V, (B, U), dtype=np.int32)
    lengths = np.full(B, T, np.int32), np.full(B, U, np.int32)
    rest = place.upload(None, drawn.weight.astype(real), drawn.bias.astype(real), targets, *lengths)
    inputs = sum(array.nbytes for array in (encoder, predictor, *rest))
    first = (encoder[:2], predictor[:2], *rest[:2], *(array[:2] for array in rest[2:]))
    alone = lattice.joint_transducer_loss_and_grad(*first, memory_limit=limit)[0].get()
    pool.free_all_blocks()
    results = []

    def run():
        results.append(
            lattice.joint_transducer_loss_and_grad(encoder, predictor, *rest, memory_limit=limit, overwrite=True)
        )

    seconds = []
    held = pool.used_bytes()
    growth = timing.peak_of(lambda: seconds.append(timing.timed(run)[0]))
    loss = results[0][0].get()
    apart = float(np.abs(loss[:2] - alone).max() / np.abs(alone).max())
    row = {
        "B": B,
        "T": T,
        "U": U,
        "V": V,
        "H": H,
        "seconds": seconds[0],
        "inputs": inputs,
        "growth": growth,
        "peak": held + growth,
        "pool": pool.total_bytes(),
        "pool_limit": HEADLINE_POOL,
        "memory_limit": limit,
        "process": None if before is None else total - cupy.cuda.runtime.memGetInfo()[0] - before,
        "context": None if before is None else total - free - before,
        "mean_loss": float(loss.mean()),
        "finite": bool(np.isfinite(loss).all()),
        "apart": apart,
        "bit_equal": bool((loss[:2] == alone).all()),
    }
    if not (row["finite"] and apart <= SAME):
        row["error"] = "the loss is not finite, or not that of the first two examples alone"
    return row


SECTIONS = {
    "contact": checks.contact,
    "check": checks.check,
    "device": device.device,
    "headline": headline,
    "logits": losses.logits,
    "joint": losses.joint,
    "stages": stages.stages,
    "sampled": sampled.sampled,
    "three_stage": three_stage.three_stage,
}


def read_arguments(arguments: list[str] | None = None) -> tuple:
    """The section, the seconds, its arguments, and the options that were given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("arguments", nargs="*", help="dtypes; of `contact`, how much of it")
    parser.add_argument("--seconds", type=float, required=True, help="no case starts after this long")
    parser.add_argument("--shapes", nargs="+", help="of `logits` and `joint`: these shapes alone")
    parser.add_argument("--limits", nargs="+", choices=HEADLINE_LIMITS, help="of `headline`: these limits alone")
    parser.add_argument("--without-peers", action="store_true", help="of `logits` and `joint`: leave torchaudio out")
    options = parser.parse_args(arguments)
    given = {"shapes": options.shapes, "limits": options.limits, "peers": False if options.without_peers else None}
    given = {name: value for name, value in given.items() if value is not None}
    return options.section, options.seconds, options.arguments, given


if __name__ == "__main__":
    name, seconds, positional, keywords = read_arguments()
    SECTIONS[name](Report(seconds), *positional, **keywords)
