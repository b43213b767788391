"""Command line of the benchmarks."""

import argparse

from . import bounds, decode, joint, logits, memory, samplers, sharpness, startup, table, three_stage
from .gpu import command as gpu


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, module in (("joint", joint), ("logits", logits), ("sharpness", sharpness)):
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--shape", choices=getattr(module, "SHAPES", joint.SHAPES), default="default")
        command.add_argument("--rounds", type=int, default=5, help="counted rounds; medians are taken over them")
        command.add_argument("--without", nargs="*", default=[], metavar="PEER", help="peers to leave out, or `all`")
        command.set_defaults(run=module.main)
    for name, module in (("samplers", samplers), ("decode", decode), ("three_stage", three_stage)):
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--shape", choices=module.SIZES, default="default")
        command.add_argument("--rounds", type=int, default=5, help="counted rounds; medians are taken over them")
        command.set_defaults(run=module.main)
    commands.choices["sharpness"].add_argument("--png", help="file for the picture; needs matplotlib")
    commands.choices["sharpness"].add_argument("--record", help="draw this record instead of measuring")
    command = commands.add_parser("memory", help=memory.__doc__.splitlines()[0])
    command.add_argument("--case", choices=memory.CASES, help="one case; by default limit-64MiB and headline")
    command.set_defaults(run=memory.main)
    commands.add_parser("bounds", help=bounds.__doc__.splitlines()[0]).set_defaults(run=bounds.main)
    command = commands.add_parser("startup", help=startup.__doc__.splitlines()[0])
    command.set_defaults(run=startup.main)
    command = commands.add_parser("gpu", help=gpu.__doc__.splitlines()[0])
    gpu.add_arguments(command)
    command.set_defaults(run=gpu.main)
    commands.add_parser("table", help=table.__doc__.splitlines()[0]).set_defaults(run=table.main)
    for command in commands.choices.values():
        command.add_argument("--json", help="file for the record")
    options = parser.parse_args()
    options.run(options)


main()
