"""The two losses on a GPU against their floors.

The floor of the loss from logits is a copy of the logits; the floor of the joint is its three matrix products.
"""

import functools
import os

import lattice
from lattice.device import arrays

from .. import shapes
from . import problems, timing

LIMITS = {"64 MiB": 64 << 20, "256 MiB": 256 << 20, "1 GiB": 1 << 30}
SLACK = 1 << 20
"""What a call may take beyond outputs and `memory_limit`: a few numbers an example, and the rounding of CuPy's pool."""


def logits(report, *dtypes: str, shapes=problems.LOGITS, peers: bool = True) -> None:
    """Loss and gradient in place, and the loss alone, for every shape."""
    for name in shapes:
        for dtype in dtypes:
            report.case(f"{name} {dtype}", logits_case, problems.LOGITS[name], dtype, peers)


def logits_case(shape: problems.Shape, dtype: str, peers: bool = True) -> dict:
    copyto = arrays.cupy().copyto
    source, *integers = problem = problems.logits(shape, problems.real_dtype(dtype))
    work, copy = (problems.device().empty(source.shape, source.dtype) for _ in range(2))
    calls = {
        "copy": functools.partial(copyto, copy, source),
        "out=logits": lambda: lattice.transducer_loss_and_grad(work, *integers, out=work),
        "loss only": lambda: lattice.transducer_loss(source, *integers),
    }
    prepare = {"out=logits": functools.partial(copyto, work, source)}
    if peers and not shape.packed:
        calls["torchaudio"] = peer = timing.Lazily(problems.torchaudio_logits, problem)
        prepare["torchaudio"] = peer.prepare
    rows = timing.measure(calls, "copy", prepare=prepare, optional={"torchaudio"})
    real, whole = shape.cells * shape.V * source.itemsize, source.nbytes
    add_fractions(rows, real, whole)
    return {**shape.described(), "bytes": whole, "real_bytes": real, "rows": rows}


def add_fractions(rows: dict, real: int, whole: int) -> None:
    """Shares of the copy's bandwidth: by the bytes that have to be moved once, and by what the library moves.

    The gradient is written everywhere, padding included. The logits of real cells are read, at the least once. The
    library reads them twice, because its second read rests on the sums of the first. A copy moves `whole` twice.
    """
    moved = {
        "out=logits": (real + whole, 2 * real + whole),
        "loss only": (real, real),
        "torchaudio": (real + whole, None),
    }
    rows["copy"]["bandwidth"] = 2 * whole / rows["copy"]["seconds"]
    for name, (least, traffic) in moved.items():
        if "ratio" in rows.get(name, ()):
            rows[name]["fraction"] = least / (2 * whole) / rows[name]["ratio"]
            if traffic:
                rows[name]["traffic_fraction"] = traffic / (2 * whole) / rows[name]["ratio"]


def joint(report, *dtypes: str, shapes=problems.JOINT, peers: bool = True) -> None:
    """Loss and all gradients of the fused joint, for every shape; `tf32` is float32 in a process with CUPY_TF32=1."""
    for name in shapes:
        for dtype in dtypes:
            report.case(f"{name} {dtype}", joint_case, problems.JOINT[name], dtype, peers)


def joint_case(shape: problems.Shape, dtype: str, peers: bool = True) -> dict:
    tf32 = dtype == "tf32"
    if tf32 and os.environ.get("CUPY_TF32") != "1":
        raise RuntimeError("TF32 is measured in a process with CUPY_TF32=1")
    real = problems.real_dtype("float32" if tf32 else dtype)
    drawn = {kind: problems.joint(shape, kind, real) for kind in problems.KINDS}
    calls = {"three GEMMs": problems.three_gemms(shape, real)}
    for kind, problem in drawn.items():
        for name, limit in LIMITS.items():
            calls[f"{kind}, {name}"] = functools.partial(
                lattice.joint_transducer_loss_and_grad, *problem, memory_limit=limit
            )
    calls["untrained, loss only"] = functools.partial(lattice.joint_transducer_loss, *drawn["untrained"])
    peer = timing.Lazily(problems.torchaudio_joint, drawn["untrained"], tf32)
    if peers:
        calls["untrained, torchaudio"] = peer
    rows = timing.measure(
        calls, "three GEMMs", prepare={"untrained, torchaudio": peer.prepare}, optional={"untrained, torchaudio"}
    )
    add_scratch(rows, sum(array.nbytes for array in drawn["untrained"][:4]))
    rows["three GEMMs"]["flops"] = 6 * shape.cells * shape.H * shape.V / rows["three GEMMs"]["seconds"]
    result = {**shape.described(), "rows": rows}
    for kind, problem in drawn.items():
        try:
            result |= {f"{kind}, {name}": share for name, share in shapes.shares(problem).items()}
        except Exception as error:
            # The times have been taken by now, and stay.
            result["error"] = timing.text_of(error)
    return result


def add_scratch(rows: dict, outputs: int) -> None:
    """Bytes beyond the outputs, which are an error where they pass `memory_limit`."""
    for kind in problems.KINDS:
        for name, limit in LIMITS.items():
            row = rows[f"{kind}, {name}"]
            if "peak" in row:
                row["scratch"] = row["peak"] - outputs
                if row["scratch"] > limit + SLACK:
                    row["error"] = f"takes {row['scratch']} bytes beyond its outputs, memory_limit is {limit}"
