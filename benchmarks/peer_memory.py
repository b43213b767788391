"""Peak memory of one loss with all gradients from the joint: this library, or one peer, alone in a process."""

import functools
import resource

import lattice

from . import joint, peers, record, shapes

SHAPES = joint.SHAPES
OURS = {f"{peers.OURS}, {name}": limit for name, limit in joint.LIMITS.items()}
WARM = (2, 20, 5, 32, 16)
"""A small problem comes first: what an implementation loads and compiles is not what a step of training takes."""


def call_of(who: str, problem: shapes.Joint):
    """Function without arguments that returns the loss and four gradients."""
    if who in OURS:
        return functools.partial(lattice.joint_transducer_loss_and_grad, *problem, memory_limit=OURS[who])
    (peer,), _ = peers.chosen([], who)
    return peer.joint(*problem)


def measure(shape: str, who: str) -> dict[str, int]:
    """Bytes of inputs and outputs, which are the floor, and what the process takes beyond them at its peak."""
    call_of(who, shapes.untrained(*WARM))()
    problem = joint.problem_of("untrained", shape)
    call = call_of(who, problem)
    with record.PeakMemory() as peak:
        _, gradients = call()
    inputs, outputs = (sum(array.nbytes for array in arrays) for arrays in (problem, gradients))
    beyond = max(0, peak.growth - outputs)
    return {
        "inputs": inputs,
        "outputs": outputs,
        "beyond": beyond,
        "total": inputs + outputs + beyond,
        "process_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main(options) -> None:
    rows = {options.only: measure(options.shape, options.only)}
    record.show(
        f"peak memory, bytes, {options.shape} {SHAPES[options.shape]}",
        rows,
        ("inputs", "outputs", "beyond", "total", "process_peak"),
    )
    record.write(options.json, {"benchmark": "peer_memory", "shape": SHAPES[options.shape], "rows": rows})
