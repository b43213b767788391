"""How long a call would take on a GPU, kernel by kernel: `python -m benchmarks.gpu.model`. No GPU is needed.

What a call launches is read off the call itself (`dry`). What a launch costs is bytes, counted instructions and steps
that wait for one another, at the rates of a machine (`costs`). `--against RECORD` puts what was measured beside it.
"""

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .. import record, topologies
from . import costs, dry, problems, sections, stages
from .dry import Block
from .machines import MACHINES, Machine, found_in, machine_of
from .work import Step

PROGRAM = "python -m benchmarks.gpu.model"
RESULTS = record.ROOT / "benchmarks" / "results"
SHAPES = {
    "B=2": problems.full(*topologies.SHAPES["tdt"]),
    "B=32": problems.full(32, 400, 80, 1024, 640),
    "headline": problems.full(*(sections.HEADLINE[name] for name in "BTUVH")),
}
LIMITS = {"64 MiB": 64 << 20, "256 MiB": 256 << 20, "512 MiB": 512 << 20, "1 GiB": 1 << 30}
PRECISIONS = ("float32", "tf32", "bfloat16", "tf32x3")
TOPOLOGIES = ("rnnt", "tdt")
SHOWN = {"B=2": "256 MiB", "B=32": "256 MiB", "headline": "512 MiB", "long": ""}
"""The shapes, and limits, whose kernels are told one by one."""
OFF = 1.4
"""Quotient of measured and predicted time from which on a kernel is named."""


class Case(NamedTuple):
    """A call: "joint" or "logits", a shape, and for the joint what it finds, its workspace and its topology."""

    loss: str
    shape: str
    kind: str
    precision: str
    limit: str
    topology: str = "rnnt"

    @property
    def name(self) -> str:
        return " ".join(filter(None, self)).removesuffix(" rnnt")

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.precision == "bfloat16" else "float32"

    @property
    def launched_as(self) -> "Case":
        """The case that launches the same: TF32 is a setting of CuPy's."""
        return self._replace(precision="float32") if self.precision == "tf32" else self


def walk(case: Case) -> list[Block]:
    """The steps of a call."""
    if case.loss == "logits":
        return dry.logits(problems.LOGITS[case.shape], case.dtype)
    # Without `overwrite` the headline passes 3e9 bytes; what is launched is the same.
    shape = {**problems.JOINT, **SHAPES}[case.shape]
    how = {"precision": "tf32x3"} if case.precision == "tf32x3" else {}
    how["topology"] = topologies.VARIANTS[case.topology]
    return dry.joint(shape, dry.KINDS[case.kind], case.dtype, LIMITS[case.limit], **how)


def floor_of(case: Case, rates: costs.Rates) -> float:
    """Seconds of what the call is measured in: its three products, without durations, or one copy of the logits."""
    if case.loss == "logits":
        shape = problems.LOGITS[case.shape]
        rows = shape.cells if shape.packed else len(shape.T) * int(shape.T.max()) * (int(shape.U.max()) + 1)
        return 2 * rows * shape.V * problems.real_dtype(case.dtype).itemsize / rates.machine.copy
    shape = {**problems.JOINT, **SHAPES}[case.shape]
    # Three products in TF32 stand for one in float32, and are measured in those.
    rates = rates._replace(precision=case.precision.replace("tf32x3", "float32"))
    return costs.three_products(shape.cells, shape.H, shape.V, rates)


def predicted(case: Case, blocks: list[Block], rates: costs.Rates) -> dict:
    """Of a case: seconds in all, of host and device, of its floor, the ratio; and seconds and calls by kernel."""
    rates = rates._replace(precision=case.precision.replace("tf32x3", "tf32"))
    found, floor = costs.predict(blocks, rates), floor_of(case, rates)
    numbers = {"seconds": found.total, "host": found.host, "device": found.device, "floor": floor}
    return {**numbers, "ratio": found.total / floor, "rows": found.rows}


def packed(blocks: list[Block]) -> str:
    """The steps of a call for a record: each step once, each block once, then which block how often."""
    steps = list(dict.fromkeys(step for block in blocks for step in block.steps))
    at = {step: number for number, step in enumerate(steps)}
    kept = [(block.tile, tuple(at[step] for step in block.steps)) for block in blocks]
    different = list(dict.fromkeys(kept))
    order = [[different.index(one), block.repeat] for one, block in zip(kept, blocks)]
    # A line of text, since a record would give each number a line of its own.
    return json.dumps({"steps": steps, "blocks": different, "order": order})


def unpacked(text: str) -> list[Block]:
    """The inverse of `packed`."""
    found = json.loads(text)
    steps = [Step(*step[:-1], tuple(step[-1])) for step in found["steps"]]
    blocks = [(tile, tuple(steps[number] for number in numbers)) for tile, numbers in found["blocks"]]
    return [Block(*blocks[number], repeat) for number, repeat in found["order"]]


def cases(shapes, kinds, precisions, limits, topologies=TOPOLOGIES) -> Iterator[Case]:
    """The joint, then the loss from logits, for "rnnt" alone."""
    for shape, *others in itertools.product(shapes, kinds, precisions, limits, topologies):
        if shape in SHAPES:
            yield Case("joint", shape, *others)
    for shape, precision in itertools.product(shapes, precisions):
        if shape in problems.LOGITS and "tf32" not in precision:
            yield Case("logits", shape, "", precision, "")


def show(case: Case, found: dict) -> None:
    """The kernels of a case."""
    rows = {
        name: {"ms": 1e3 * row["seconds"], "of floor": row["seconds"] / found["floor"], "calls": row["calls"]}
        for name, row in sorted(found["rows"].items(), key=lambda item: -item[1]["seconds"])
    }
    whole = {"device": found["device"], "host": found["host"], "in all": found["seconds"]}
    rows |= {name: {"ms": 1e3 * seconds, "of floor": seconds / found["floor"]} for name, seconds in whole.items()}
    record.show(case.name, rows, ("ms", "of floor", "calls"))


def compared(found: dict, taken: dict) -> dict[str, dict]:
    """Predicted and measured seconds of each kernel, their quotient, and both numbers of calls."""
    rows, other = {}, taken["rows"]
    for name in dict.fromkeys([*found["rows"], *other]):
        one, two = found["rows"].get(name, {}), other.get(name, {})
        rows[name] = {"predicted": one.get("seconds"), "measured": two.get("seconds")}
        rows[name] |= {"calls": one.get("calls"), "measured calls": two.get("calls")}
        if one.get("seconds") and two.get("seconds"):
            rows[name]["quotient"] = two["seconds"] / one["seconds"]
    # What lies between the launches is CuPy's own, and a device that waits for the host.
    for apart in ("wait", "frames"):
        rows.pop(apart, None)
    whole = {"predicted": found["seconds"], "measured": taken["seconds"]}
    return {**rows, "in all": {**whole, "quotient": taken["seconds"] / found["seconds"]}}


def off(rows: dict[str, dict]) -> list[str]:
    """Names of what takes more or less than predicted, by `OFF`."""
    quotients = {name: row["quotient"] for name, row in rows.items() if "quotient" in row}
    return [name for name, quotient in quotients.items() if not 1 / OFF <= quotient <= OFF]


def against(known: dict, rates_of) -> dict:
    """Every case of `stages` in a record beside what is predicted for it."""
    results = {}
    for loss, shape, kind, dtype in stages.CASES:
        name = " ".join(word for word in (loss, shape, kind, dtype) if word)
        taken = found_in(known, name, "seconds", "rows")
        if taken is None:
            print(f"{name}: not in the record")
            continue
        # `stages` names no limit, so it is the one of a GPU.
        case = Case(loss, shape, kind, dtype, "1 GiB" if loss == "joint" else "")
        rows = compared(predicted(case, walk(case), rates_of(case)), taken)
        results[name] = {"rows": rows, "off": off(rows)}
        columns = ("predicted", "measured", "quotient", "calls", "measured calls")
        record.show(f"{name}, seconds", rows, columns)
        print(f"off by more than {OFF}: {', '.join(results[name]['off']) or 'nothing'}")
    return results


def record_of(path: str | None, benchmark: str) -> dict | None:
    """A record by its path, none for "none", or the newest of a benchmark, one from before a change being older."""
    if path is None:
        paths = RESULTS.glob(f"{benchmark}-*.json")
        path = max(paths, key=lambda path: (path.stem[-10:], "before" not in path.stem, path.stem), default="none")
    return None if path == "none" else json.loads(Path(path).read_text())


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    chosen = {
        "shapes": (*SHAPES, *problems.LOGITS),
        "kinds": tuple(dry.KINDS),
        "precisions": PRECISIONS,
        "limits": tuple(LIMITS),
        "topologies": TOPOLOGIES,
        "machines": tuple(MACHINES),
    }
    for name, choices in chosen.items():
        metavar, shown = {"topologies": "TOPOLOGY"}.get(name, name[:-1].upper()), "of %(choices)s; all by default"
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=choices, metavar=metavar, help=shown)
    parser.add_argument("--counts", help="record of instructions, the newest by default; `none`: those in costs.py")
    parser.add_argument("--host", help="record of the host, the newest by default; `none`: the numbers in costs.py")
    parser.add_argument("--against", metavar="RECORD", help="a record with the section stages, to compare with")
    parser.add_argument("--json", help="file for the record")
    return parser.parse_args(arguments)


def predictions(options: argparse.Namespace, machines: dict, rates_of) -> dict:
    """All cases that were chosen, on all machines; of those in `SHOWN` the kernels are printed and kept."""
    results, walks, summary = {name: {} for name in machines}, {}, {}
    chosen = options.shapes, options.kinds, options.precisions, options.limits, options.topologies
    for case in cases(*chosen):
        known = case.launched_as.name
        blocks = unpacked(walks[known]) if known in walks else walk(case)
        is_shown = SHOWN.get(case.shape) == case.limit
        if is_shown:
            walks.setdefault(known, packed(blocks))
        for name, machine in machines.items():
            found = predicted(case, blocks, rates_of(machine, case))
            if is_shown and machine is next(iter(machines.values())):
                show(case, found)
            whole = {key: value for key, value in found.items() if key != "rows"}
            results[name][case.name] = found if is_shown else whole
            summary[f"{name} {case.name}"] = whole
    record.show("seconds; ratio to three products, or to a copy", summary, ("device", "host", "seconds", "ratio"))
    return {"predictions": results, "walks": walks}


def main(arguments: list[str] | None = None) -> int:
    options = read_arguments(arguments)
    counts, host = costs.counts_of(record_of(options.counts, "instructions")), record_of(options.host, "host")
    machines = {name: MACHINES[name] for name in options.machines}

    def rates_of(machine: Machine, case: Case) -> costs.Rates:
        return costs.Rates(machine, case.precision, counts, costs.host_of(host, case.dtype))

    if options.against:
        known = json.loads(Path(options.against).read_text())
        names = [name for name in machines if name in json.dumps(known.get("environment", ""))] or list(machines)
        machines = {name: machine_of(known, machines[name]) for name in names}
        found = {name: against(known, partial(rates_of, machine)) for name, machine in machines.items()}
        results = {"against": found}
    else:
        results = predictions(options, machines, rates_of)
    environment = {**record.environment(), "command": f"{PROGRAM} {shlex.join(arguments or sys.argv[1:])}"}
    known = {"counts": {name: count._asdict() for name, count in counts.items()}, "host": host and host["host"]}
    known["machines"] = {name: machine._asdict() for name, machine in machines.items()}
    record.write(options.json, {"environment": environment, "benchmark": "model", **known, **results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
