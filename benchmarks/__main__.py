"""Command line of the benchmarks."""

import argparse

from . import (
    accuracy,
    behaviour,
    bounds,
    decode,
    dropout,
    durations,
    hidden,
    house,
    joint,
    joint_stages,
    linear,
    logits,
    memory,
    peer_memory,
    pictures,
    pruned,
    record,
    recursion,
    samplers,
    sharpness,
    startup,
    table,
    tf32,
    three_stage,
    topologies,
)
from . import all as everything
from .gpu import command as gpu
from .stress import command as stress


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    compared = {"joint": joint, "logits": logits, "durations": durations, "pruned": pruned, "sharpness": sharpness}
    for name, module in compared.items():
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--shape", choices=getattr(module, "SHAPES", joint.SHAPES), default="default")
        command.add_argument("--rounds", type=int, default=5, help="counted rounds; medians are taken over them")
        command.add_argument("--without", nargs="*", default=[], metavar="PEER", help="peers to leave out, or `all`")
        command.set_defaults(run=module.main)
    for name, module in (("joint_stages", joint_stages), ("topologies", topologies), ("dropout", dropout)):
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--shape", choices=getattr(module, "SHAPES", joint.SHAPES), default="default")
        command.add_argument("--rounds", type=int, default=5, help="counted rounds; medians are taken over them")
        command.set_defaults(run=module.main)
    for name in ("joint", "logits"):
        commands.choices[name].add_argument("--only", metavar="NAME", help="`lattice`, or one peer")
    for name, module in (("samplers", samplers), ("decode", decode), ("three_stage", three_stage), ("linear", linear)):
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--shape", choices=module.SIZES, default="default")
        command.add_argument("--rounds", type=int, default=5, help="counted rounds; medians are taken over them")
        command.set_defaults(run=module.main)
    for name, module in (("tf32", tf32), ("hidden", hidden)):
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument("--shape", choices=("default", "smoke"), default="default")
        command.set_defaults(run=module.main)
    commands.choices["sharpness"].add_argument("--png", help="file for the picture; needs matplotlib")
    commands.choices["sharpness"].add_argument("--record", help="draw this record instead of measuring")
    command = commands.add_parser("memory", help=memory.__doc__.splitlines()[0])
    command.add_argument("--case", choices=memory.CASES, help="one case; by default limit-64MiB and headline")
    command.set_defaults(run=memory.main)
    command = commands.add_parser("peer_memory", help=peer_memory.__doc__.splitlines()[0])
    command.add_argument("--shape", choices=peer_memory.SHAPES, default="default")
    command.add_argument(
        "--only", required=True, metavar="NAME", help="a peer, or one of " + "; ".join(peer_memory.OURS)
    )
    command.set_defaults(run=peer_memory.main)
    command = commands.add_parser("all", help=everything.__doc__.splitlines()[0])
    everything.add_arguments(command)
    command.set_defaults(run=everything.main)
    commands.add_parser("pictures", help=pictures.__doc__.splitlines()[0]).set_defaults(run=pictures.main)
    commands.add_parser("bounds", help=bounds.__doc__.splitlines()[0]).set_defaults(run=bounds.main)
    command = commands.add_parser("accuracy", help=accuracy.__doc__.splitlines()[0])
    command.add_argument("--shape", choices=[*accuracy.SHAPES, "all"], default="all")
    command.add_argument("--without", nargs="*", default=[], metavar="PEER", help="peers to leave out, or `all`")
    command.add_argument("--png", help="file for the picture; needs matplotlib")
    command.add_argument("--record", help="draw this record instead of measuring")
    command.set_defaults(run=accuracy.main)
    command = commands.add_parser("behaviour", help=behaviour.__doc__.splitlines()[0])
    command.add_argument("--without", nargs="*", default=[], metavar="NAME", help="implementations to leave out")
    command.set_defaults(run=behaviour.main)
    command = commands.add_parser("recursion", help=recursion.__doc__.splitlines()[0])
    command.add_argument("--rounds", type=int, default=9, help="counted rounds; medians are taken over them")
    command.set_defaults(run=recursion.main)
    command = commands.add_parser("startup", help=startup.__doc__.splitlines()[0])
    command.set_defaults(run=startup.main)
    command = commands.add_parser("house", help=house.__doc__.splitlines()[0])
    command.add_argument("--tree", default=record.ROOT, help="root of the source tree to measure, by default this one")
    command.set_defaults(run=house.main)
    command = commands.add_parser("gpu", help=gpu.__doc__.splitlines()[0])
    gpu.add_arguments(command)
    command.set_defaults(run=gpu.main)
    command = commands.add_parser("stress", help=stress.__doc__.splitlines()[0])
    stress.add_arguments(command)
    command.set_defaults(run=stress.main)
    commands.add_parser("table", help=table.__doc__.splitlines()[0]).set_defaults(run=table.main)
    for name in commands.choices.keys() - {"all", "pictures", "table"}:
        commands.choices[name].add_argument("--json", help="file for the record")
    options = parser.parse_args()
    options.run(options)


main()
