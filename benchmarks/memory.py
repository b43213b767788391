"""Peak resident memory of a whole process: the workspace under its limit, and the headline of Braun et al. 2022.

Each case runs in a process of its own. `workspace` is what the library and the BLAS take beyond inputs and outputs.
"""

import argparse
import json
import resource
import time

import numpy as np

import lattice

from . import record, shapes

CASES = {
    "limit-64MiB": {"B": 16, "T": 1000, "U": 100, "V": 4096, "H": 512, "limit_mib": 64},
    "headline": {"B": 1024, "T": 1000, "U": 100, "V": 512, "H": 512, "limit_mib": 64, "overwrite": 1},
    "smoke": {"B": 2, "T": 50, "U": 10, "V": 64, "H": 32, "limit_mib": 8, "overwrite": 1},
}


def run(B: int, T: int, U: int, V: int, H: int, limit_mib: int, overwrite: int) -> dict:
    """One loss and gradient in this process, inputs drawn straight in float32."""
    lattice.warm_up()
    problem = shapes.untrained(B, T, U, V, H)
    begin = time.perf_counter()
    with record.PeakMemory() as peak:
        loss, gradients = lattice.joint_transducer_loss_and_grad(
            *problem, memory_limit=limit_mib << 20, overwrite=bool(overwrite)
        )
    seconds = time.perf_counter() - begin
    fresh = gradients if not overwrite else (gradients.weight, gradients.bias)
    return {
        "seconds": seconds,
        "process_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "inputs": sum(array.nbytes for array in problem),
        "outputs": sum(array.nbytes for array in fresh),
        "limit": limit_mib << 20,
        "workspace": peak.growth - sum(array.nbytes for array in fresh),
        "mean_loss": float(np.mean(loss)),
    }


def main(options) -> None:
    names = [options.case] if options.case else ["limit-64MiB", "headline"]
    table = {}
    for name in names:
        case = {"overwrite": 0, **CASES[name]}
        # A process that has done no matrix product yet also allocates the buffers of the BLAS: they are counted.
        table[name] = {**case, **record.in_child("benchmarks.memory", **case)}
    record.show("peak memory, bytes", table, ("seconds", "inputs", "outputs", "limit", "workspace", "process_peak"))
    record.write(options.json, {"benchmark": "memory", "rows": table})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("B", "T", "U", "V", "H", "limit-mib", "overwrite"):
        parser.add_argument(f"--{flag}", type=int, required=True)
    print(json.dumps(run(**vars(parser.parse_args()))))
