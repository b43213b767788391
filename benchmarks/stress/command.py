"""One stress test: `fuzz`, `bits`, `large`, `growth`, `threads`, `fork`, `determinism`, `interrupt` or `cache`."""

import importlib

from .. import record, stress

NAMES = ("fuzz", "bits", "large", "growth", "threads", "fork", "determinism", "interrupt", "cache")


def add_arguments(command) -> None:
    from . import bits, fuzz

    command.add_argument("name", choices=NAMES)
    fuzz.add_arguments(command)
    bits.add_arguments(command)


def main(options) -> None:
    module = importlib.import_module(f"{stress.__name__}.{options.name}")
    results = module.run(options)
    record.write(options.json, {"benchmark": f"stress {options.name}", **results})
    if results["failures"]:
        raise SystemExit(f"{len(results['failures'])} failures")
