"""Which faults a kernel's PTX can be given, one at a time.

Barriers are left out, parameters swapped, and loops go on for too long. Most faults are other instructions in the place
of one. They are translated along, and made while `Settings.seeded` is their number. A shared array is halved, and
parameters are swapped, when a kernel is launched.
"""

import re
from collections import Counter, defaultdict
from typing import NamedTuple

from . import parse

KINDS = (
    "barrier",
    "warp barrier",
    "shared array",
    "vote",
    "parameter",
    "argument",
    "loop",
    "conversion",
    "shuffle",
    "scale",
)
BEYOND = {"lt": "le", "ge": "gt", "le": "lt", "gt": "ge"}
"""A comparison that answers the other way where both sides are equal."""

SPARE = {"p": "%p1000000", "16": "%rs1000000", "32": "%r1000000", "64": "%rd1000000", "f32": "%f1000000"}
"""Registers that no kernel has, a predicate, three of so many bits, and a float32."""

ADDING = ("add", "sub", "cvta", "mov", "selp", "mad")
"""What makes an address of a register without a factor."""


class Fault(NamedTuple):
    """One fault of a kernel.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    what : str
        What is done, without names of registers, which a compiler may change.
    line : str
        "FILE LINE" of the source, as in `parse.Instruction`.
    place : int
        The instruction that is replaced, or -1.
    instead : tuple of str
        Instructions in its place.
    shared : str
        The shared array that is halved, or "".
    swapped : tuple of (int, int)
        Parameters that change places.
    """

    kind: str
    what: str
    line: str = ""
    place: int = -1
    instead: tuple[str, ...] = ()
    shared: str = ""
    swapped: tuple[tuple[int, int], ...] = ()


class Known(NamedTuple):
    """What a look at all instructions tells of registers.

    `addresses` are the registers that hold addresses, or are added to one. `guards` are the predicates that decide
    about loops. `steps` holds the constants that registers are advanced by, `constants` the values of registers that
    never change. `halves` says which half of 64 bits is in a register. `loaded` are the registers that memory was
    loaded into. `wraps` are those of what numba adds to a negative index, 0 where it is none.
    """

    addresses: set
    guards: set
    steps: dict
    constants: dict
    halves: dict
    loaded: set
    wraps: set


class Argument(NamedTuple):
    """An argument of a kernel: its name, what it is, and its first parameter."""

    name: str
    kind: str
    axes: int
    first: int

    @property
    def parts(self):
        """What numba passes for it, a name each."""
        if self.kind[0] != "[":
            return (self.name,)
        sizes = [f"{self.name}.{word}[{axis}]" for word in ("shape", "strides") for axis in range(self.axes)]
        return (*(f"{self.name}.{word}" for word in ("meminfo", "parent", "size", "itemsize", "data")), *sizes)


def seeded(text: str, arguments: tuple[Argument, ...]) -> list[Fault]:
    """All faults of a kernel, in an order that is always the same."""
    program = parse.program(text)
    place, found = 0, []
    for name, _, size in program.shared:
        # The end of numba's name of a shared array is a number.
        found.append(
            Fault("shared array", f"{size} bytes, {sorted(s[0] for s in program.shared).index(name)}", shared=name)
        )
    for function in program.functions:
        if function.entry:
            found += [fault._replace(place=place + fault.place) for fault in _of_entry(function)]
            found += _of_parameters(function, arguments)
        place += sum(len(instructions) for _, instructions in function.blocks)
    return found


def _of_entry(function):
    listed = [(number, one) for number, (_, block) in enumerate(function.blocks) for one in block]
    known = Known(
        _addresses(listed),
        _guards(function, listed),
        _steps(listed),
        _constants(listed),
        _halves(listed),
        _loaded(listed),
        _wraps(listed),
    )
    shuffles, barriers = [one for _, one in listed if one.opcode[0] == "shfl"], Counter()
    for place, (_, one) in enumerate(listed):
        for kind, what, instead in _of_instruction(one, shuffles, known):
            if kind == "barrier":
                barriers[one.line] += 1
                what = f"{what}, {barriers[one.line]} of its line"
            guard = f"@{one.guard} " if one.guard else ""
            yield Fault(kind, what, one.line, place, tuple(guard + text for text in instead))


def _of_instruction(one, shuffles, known):
    """(kind, what, instructions instead) of one instruction."""
    opcode, parts = one.opcode, one.operands
    code, joined = ".".join(opcode), ", ".join(parts)
    if opcode[0] == "bar":
        yield "warp barrier" if opcode[1] == "warp" else "barrier", "left out", ()
    elif opcode[0] == "shfl":
        yield from _of_shuffle(one, shuffles, known)
    elif opcode[0] == "vote":
        target, predicate, mask = parts
        yield (
            "vote",
            "the other predicate",
            (f"not.pred {SPARE['p']}, {predicate}", f"{code} {target}, {SPARE['p']}, {mask}"),
        )
        yield "vote", "all lanes", (f"setp.eq.s32 {SPARE['p']}, 0, 0", f"{code} {target}, {SPARE['p']}, {mask}")
        # Of a vote that no lane casts, none is lost.
        if known.constants.get(predicate) != "0":
            fewer = f"and.b32 {target}, {target}, 2147483647"
            yield "vote", "one lane fewer", (f"{code} {target}, {predicate}, {mask}", fewer)
    elif opcode[0] == "setp" and parts[0] in known.guards and opcode[2][0] in "su":
        if opcode[1] in BEYOND:
            other = ".".join((opcode[0], BEYOND[opcode[1]], opcode[2]))
            yield "loop", f"{opcode[1]} -> {BEYOND[opcode[1]]} {opcode[2]}", (f"{other} {joined}",)
        elif parts[1] in known.steps:
            spare = SPARE[opcode[2][1:]]
            back = f"sub.s{opcode[2][1:]} {spare}, {parts[1]}, {known.steps[parts[1]]}"
            yield "loop", f"once more {opcode[1]} {opcode[2]}", (back, f"{code} {parts[0]}, {spare}, {parts[2]}")
    elif parts and parts[0] in known.addresses and known.wraps.isdisjoint(parts[1:2]):
        yield from _of_scale(opcode, code, parts)
    if opcode[0] == "cvt":
        yield from _of_conversion(opcode, parts, known)
    if opcode[:2] in (("add", "s32"), ("add", "u32")) and parts[-1] == "32767":
        yield "conversion", "ties away from even", (f"{code} {parts[0]}, {parts[1]}, 32768",)
        yield "conversion", "towards zero", (f"{code} {parts[0]}, {parts[1]}, 0",)


def _of_shuffle(one, shuffles, known):
    """A shuffle of 32 bits, of which two move a float64."""
    code = ".".join(one.opcode)
    target, value, lane, clamp, mask = one.operands
    register, _, _ = target.partition("|")
    way, distance, half = one.opcode[2], known.constants.get(lane, lane), known.halves.get(value, "")
    distance = distance if distance.isdigit() else ""
    other = shuffles[(shuffles.index(one) + 1) % len(shuffles)].operands[1]

    def instead(what, value=value, lane=lane, clamp=clamp, mask=mask, code=code):
        return (
            "shuffle",
            " ".join(filter(None, (half, way, distance + what))),
            (f"{code} {target}, {value}, {lane}, {clamp}, {mask}",),
        )

    if distance not in ("", "0"):
        yield instead(f" -> {int(distance) // 2}", lane=int(distance) // 2)
        yield instead(f" -> {int(distance) * 2}", lane=int(distance) * 2)
    elsewhere = {"bfly": "down", "up": "down", "down": "up", "idx": "bfly"}[way]
    yield instead(f" -> {elsewhere}", code=code.replace(way, elsewhere), clamp=0 if elsewhere == "up" else 31)
    if way != "bfly" or distance == "16":
        # Lanes that are fewer apart lie in one half of the warp.
        yield instead(" within 16 lanes", clamp=(0 if way == "up" else 31) | 16 << 8)
    yield instead(" of half the lanes", mask=65535)
    if other != value:
        yield instead(" of another value", value=other)
    yield "shuffle", " ".join(filter(None, (half, way, distance + " left out"))), (f"mov.b32 {register}, {value}",)


def _of_scale(opcode, code, parts):
    """An address is made of an index times a constant; the constant halved."""
    number = int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else 0
    if opcode[0] == "shl" and 1 <= number <= 4:
        yield "scale", f"shl {number}", (f"{code} {parts[0]}, {parts[1]}, {number - 1}",)
    elif opcode[0] in ("mul", "mad") and number and number % 2 == 0:
        rest = "".join(f", {part}" for part in parts[3:])
        yield "scale", f"{opcode[0]} {number}", (f"{code} {parts[0]}, {parts[1]}, {number // 2}{rest}",)


def _of_conversion(opcode, parts, known):
    """Another sign, a smaller width, another rounding."""
    *modes, to, by = opcode[1:]
    target, source = parts
    if (to, by) == ("s64", "s32") and source in known.loaded:
        # Other numbers of 32 bits are places of threads, which are not negative, and halves, of which nothing else
        # is used.
        yield "conversion", "s64.s32 -> u64.u32", (f"cvt.u64.u32 {target}, {source}",)
    elif (to, by) in (("f32", "f64"), ("f64", "f32"), ("f16", "f32"), ("f32", "f16")):
        if "f16" not in (to, by):
            single = (f"cvt.rn.f32.f64 {SPARE['f32']}, {source}",) if by == "f64" else ()
            half = f"cvt.rn.f16.f32 {SPARE['16']}, {SPARE['f32'] if single else source}"
            yield "conversion", f"{to}.{by} by f16", (*single, half, f"cvt.{to}.f16 {target}, {SPARE['16']}")
        if to == "f16":
            # The last bit of what is rounded away decides: towards zero.
            yield (
                "conversion",
                "f16.f32 towards zero",
                (f"and.b32 {SPARE['32']}, {source}, -8192", f"cvt.rn.f16.f32 {target}, {SPARE['32']}"),
            )
    elif to == "bf16":
        towards_zero = f"and.b32 {SPARE['32']}, {source}, -65536", f"cvt.rn.bf16.f32 {target}, {SPARE['32']}"
        yield "conversion", "bf16.f32 towards zero", towards_zero
        # Between two bfloat16 whose lower one is even, the half is moved on, so the tie is none.
        away = f"or.b32 {SPARE['32']}, {source}, 1", f"cvt.rn.bf16.f32 {target}, {SPARE['32']}"
        yield "conversion", "bf16.f32 ties away from even", away
    elif modes and modes[0] == "rni":
        yield "conversion", "rni -> rmi", (".".join(("cvt", "rmi", *opcode[2:])) + f" {target}, {source}",)


def _addresses(listed):
    """Registers that are addresses, or are added to one."""
    found = {
        part.strip("[]").partition("+")[0]
        for _, one in listed
        if one.opcode[0] in ("ld", "st") and one.opcode[1] != "param"
        for part in one.operands
        if part.startswith("[")
    }
    while True:
        more = {
            part
            for _, one in listed
            if one.opcode[0] in ADDING and one.operands[0] in found
            for part in one.operands[1:]
            if part.startswith("%r") and one.opcode[-1].endswith("64")
        }
        if more <= found:
            return found
        found |= more


def _guards(function, listed):
    """Predicates that decide whether a loop is entered, left or gone round again."""
    number = {label: index for index, (label, _) in enumerate(function.blocks)}
    branches = [
        (block, one.guard.lstrip("!"), number[one.operands[0]]) for block, one in listed if one.opcode[0] == "bra"
    ]
    loops = {(target, block) for block, _, target in branches if target <= block}
    found = set()
    for block, guard, target in branches:
        ends = target <= block or any(low <= block <= high and not low <= target <= high for low, high in loops)
        enters = any(block < low <= high < target for low, high in loops)
        if guard and (ends or enters):
            found.add(guard)
    while True:
        more = {
            part
            for _, one in listed
            if one.operands and one.operands[0] in found and one.opcode[-1] == "pred"
            for part in one.operands[1:]
            if part.startswith("%p")
        }
        if more <= found:
            return found
        found |= more


def _steps(listed):
    """Register -> the constant that it is advanced by."""
    return {
        one.operands[0]: one.operands[2]
        for _, one in listed
        if one.opcode[0] == "add" and one.opcode[1][0] in "su" and re.fullmatch(r"-?\d+", one.operands[2])
    }


def _constants(listed):
    moved = [one.operands for _, one in listed if one.opcode[0] == "mov"]
    times = Counter(one.operands[0] for _, one in listed if one.operands)
    return {target: source for target, source in moved if times[target] == 1 and re.fullmatch(r"-?\d+", source)}


def _loaded(listed):
    return {one.operands[0] for _, one in listed if one.opcode[0] == "ld" and one.opcode[1] != "param"}


def _wraps(listed):
    signs = {one.operands[0] for _, one in listed if one.opcode == ("shr", "s64") and one.operands[2] == "63"}
    setp = (one for _, one in listed if one.opcode[:2] == ("setp", "lt"))
    below = {one.operands[0] for one in setp if re.fullmatch(r"0|-\d+", one.operands[2])}
    return {
        one.operands[0]
        for _, one in listed
        if (one.opcode[0] == "and" and signs & set(one.operands[1:]))
        or (one.opcode[0] == "selp" and one.operands[2] == "0" and one.operands[3] in below)
    }


def _halves(listed):
    shifted = {one.operands[0] for _, one in listed if one.opcode[0] == "shr" and one.operands[2] == "32"}
    found = {
        one.operands[0]: "upper" if one.operands[1] in shifted else "lower"
        for _, one in listed
        if one.opcode == ("cvt", "u32", "u64")
    }
    for _, one in listed:
        if one.opcode[0] == "mov" and one.operands[0].startswith("{"):
            found |= zip((part.strip() for part in one.operands[0].strip("{}").split(",")), ("lower", "upper"))
    return found


def _of_parameters(function, arguments):
    """Each used parameter changes places with the next one of its type; arguments of one type do as a whole."""
    used, names = defaultdict(list), [name for name, _ in function.parameters]
    for _, block in function.blocks:
        for one in block:
            if one.opcode[:2] == ("ld", "param") and one.operands[1].strip("[]") in names:
                used[one.opcode[-1]].append(names.index(one.operands[1].strip("[]")))
    parts = [part for argument in arguments for part in argument.parts]
    for numbers in used.values():
        numbers = sorted(set(numbers))
        for one, other in zip(numbers, numbers[1:]):
            yield Fault("parameter", f"{parts[one]} <-> {parts[other]}", swapped=((one, other),))
    touched = {number for numbers in used.values() for number in numbers}
    known = [
        argument for argument in arguments if touched & set(range(argument.first, argument.first + len(argument.parts)))
    ]
    for index, one in enumerate(known):
        for other in known[index + 1 :]:
            if one.kind == other.kind:
                pairs = tuple((one.first + k, other.first + k) for k in range(len(one.parts)))
                yield Fault("argument", f"{one.name} <-> {other.name}", swapped=pairs)
