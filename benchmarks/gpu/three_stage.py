"""The three training stages on a GPU: steps in units of a dense full-sum step, and the alignment of long audio."""

import numpy as np

import lattice
from lattice.device import arrays

from .. import shapes
from ..three_stage import LIMIT, LONG, step_calls
from . import problems, timing

STEP, HYPOTHESES = problems.full(32, 250, 50, 1024), 8


def three_stage(report) -> None:
    """Steps and alignments."""
    for kind in problems.KINDS:
        report.case(f"steps {kind}", steps_case, kind, STEP, HYPOTHESES)
    report.case("long alignment", alignment_case, **LONG["default"][0])


def on_device(problem: shapes.Joint) -> shapes.Joint:
    """Real arrays on the device, integers on the host."""
    return shapes.Joint(*problems.device().upload(None, *problem[:4]), *problem[4:])


def steps_case(kind: str, shape: problems.Shape, hypotheses: int) -> dict:
    calls = step_calls(on_device(problems.host_joint(shape, kind)), hypotheses)
    return {**shape.described(), "hypotheses": hypotheses, "rows": timing.measure(calls, next(iter(calls)), rounds=3)}


def alignment_case(T: int, U: int, V: int, H: int, band: int) -> dict:
    """One long lattice in units of its matrix product.

    Its frames must be the frames that the host finds in a band round them.
    """
    host = shapes.trained_like(1, T, U, V, H)
    problem, found = on_device(host), []

    def align():
        found[:] = arrays.to_host(found=lattice.joint_transducer_alignment(*problem, memory_limit=LIMIT))[0]

    rows, out = T * (U + 1), problems.device().empty((problems.CHUNK, V), np.float32)
    hidden = problems.normals((problems.CHUNK, H), np.dtype(np.float32))

    def product():
        for begin in range(0, rows, problems.CHUNK):
            count = min(problems.CHUNK, rows - begin)
            problems.device().matmul(hidden[:count], problem.weight.T, out[:count])

    measured = timing.measure({"one product": product, "alignment": align}, "one product", rounds=3)
    frames, score = found
    bounds = lattice.alignment_bounds(frames, host.target_lengths, host.encoder_lengths, left=2, right=2)
    same, expected = lattice.joint_transducer_alignment(*host, bounds=bounds)
    apart = float(abs(score[0] - expected[0]) / abs(expected[0]))
    different = int((same != frames).sum())
    error = {} if apart <= 1e-5 else {"error": f"score {score[0]}, the host's {expected[0]}"}
    return {"T": T, "U": U, "different": different, "apart": apart, "rows": measured, **error}
