"""The loss of "tdt" from given logits: time and peak memory beside the loss of transformers, where it is installed."""

import argparse
import importlib.metadata
import json
from collections.abc import Callable

import numpy as np

import lattice

from . import record, shapes, topologies
from .peers import FOLDERS, OURS

SHAPES = {"default": (2, 200, 40, 1024), "long": (2, 400, 80, 1024), "smoke": (2, 20, 5, 32)}
TDT = topologies.VARIANTS["tdt"]
PEER = "transformers"
WARM = 2, 12, 5, 20
AGREE = 1e-4
"""Of losses, relative: peers keep alpha in float32."""


def problem_of(B: int, T: int, U: int, V: int) -> tuple[np.ndarray, ...]:
    """Logits (B, T, U+1, V + D), targets and lengths, as of an untrained network."""
    problem = topologies.untrained(TDT, B, T, U, V, 16)
    return shapes.logits_of(problem), *problem[4:]


def ours(logits, *integers) -> Callable:
    """Function without arguments: loss (B,) and gradient, in new memory."""
    return lambda: lattice.transducer_loss_and_grad(logits, *integers, topology=TDT)


def transformers(logits, *integers) -> Callable:
    """The same of `tdt_loss`, by autograd, with the gradients of tokens and of durations apart.

    The logits of both heads are tensors of their own, which is the cheapest way to call it.
    """
    import torch
    from transformers.loss.loss_tdt import tdt_loss

    V = logits.shape[-1] - TDT.tail
    heads = [torch.from_numpy(head.copy()).requires_grad_() for head in (logits[..., :V], logits[..., V:])]
    given = [torch.from_numpy(np.asarray(array, np.int64)) for array in integers]

    def run():
        loss = tdt_loss(*heads, *given, 0, list(TDT.durations), TDT.sigma, "none")
        grads = torch.autograd.grad(loss.sum(), heads)
        return loss.detach().numpy(), tuple(grad.numpy() for grad in grads)

    return run


CALLS = {OURS: ours, PEER: transformers}


def missing() -> dict[str, str]:
    """The peer's name and why it cannot be called; empty where it can."""
    try:
        transformers(*problem_of(*WARM))()
        return {}
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        return {PEER: f"{type(error).__name__}: {FOLDERS.sub('', line)}"}


def check(names: list[str]) -> dict[str, dict[str, float]]:
    """Largest relative deviation of losses and gradients from the float64 oracle, on small problems of two lengths.

    Raises
    ------
    RuntimeError
        A loss is further than `AGREE` from the oracle.
    """
    from tests import steps_oracle

    logits, targets, *_ = problem_of(*WARM)
    integers = targets, np.array([12, 9]), np.array([5, 3])
    loss, grad = steps_oracle.batch_loss_and_grad(logits.astype(np.float64), *integers, topology=TDT)
    found = {}
    for name in names:
        own_loss, own = CALLS[name](logits, *integers)()
        own = own if isinstance(own, np.ndarray) else np.concatenate(own, -1)
        errors = {"loss": np.abs(own_loss / loss - 1).max(), "gradient": np.abs(own - grad).max() / np.abs(grad).max()}
        found[name] = {what: float(error) for what, error in errors.items()}
        if not errors["loss"] <= AGREE:
            raise RuntimeError(f"the loss of {name} is {errors['loss']:.1e} from the oracle: not worth timing")
    return found


def memory_of(name: str, shape: str) -> dict[str, int]:
    """Bytes of logits and gradient, and what this process takes beyond the logits at its peak."""
    CALLS[name](*problem_of(*WARM))()
    logits, *integers = problem_of(*SHAPES[shape])
    call = CALLS[name](logits, *integers)
    with record.PeakMemory() as peak:
        call()
    return {"logits": logits.nbytes, "growth": peak.growth}


def main(options) -> None:
    absent = {PEER: "left out by --without"} if {PEER, "all"} & {*options.without} else missing()
    names = [name for name in CALLS if name not in absent]
    errors = check(names)
    logits, *integers = problem_of(*SHAPES[options.shape])
    copy = np.zeros_like(logits)
    calls = {"numpy.copyto": lambda: np.copyto(copy, logits)}
    calls |= {name: CALLS[name](logits, *integers) for name in names}
    table = record.ratios(record.interleaved(calls, options.rounds), "numpy.copyto")
    for name in names:
        memory = record.in_child("benchmarks.durations", name=name, shape=options.shape)
        table[name] |= {**memory, **{f"{what}_error": error for what, error in errors[name].items()}}
    B, T, U, V = SHAPES[options.shape]
    columns = ("seconds", "ratio", "ratio_min", "ratio_max", "logits", "growth", "loss_error", "gradient_error")
    record.show(f'"tdt" from logits, B={B} T={T} U={U} V={V}+{TDT.tail} float32', table, columns)
    for name, reason in absent.items():
        print(f"not measured: {name}: {reason}")
    versions = {} if absent else {PEER: importlib.metadata.version(PEER)}
    results = {"benchmark": "durations", "shape": SHAPES[options.shape], "rows": table}
    record.write(options.json, {**results, "peer_versions": versions, "not_measured": absent})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", choices=CALLS, required=True)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    print(json.dumps(memory_of(**vars(parser.parse_args()))))
