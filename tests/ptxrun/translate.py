"""PTX to LLVM IR.

Each function runs one thread until it returns, waits for others, or does what a GPU would trap or forgive. A thread is
a row of 8-byte words (words.py). What is undefined in PTX is a fault or poison here. The translator knows only what the
kernels of this project need; anything else raises `NotImplementedError` with the instruction.
"""

from pathlib import Path
from string import Template
from typing import NamedTuple

from . import parse, words
from .arithmetic import Arithmetic
from .bits import Bits
from .control import Control, Sync
from .moves import Moves
from .words import COVER, ENDLESS, FUEL, GAP, REGISTERS, RESUME, SEEDED


class Translation(NamedTuple):
    """A kernel as LLVM IR, and what the machine has to know of it.

    Attributes
    ----------
    ir : str
    words : int
        8-byte words of a thread's row.
    parameters : tuple of int
        Bytes of each.
    shared : dict
        Name of a shared array -> (first byte, bytes).
    syncs : tuple of Sync
        Where threads wait; a thread's `RESUME` counts them from 1.
    texts : tuple of str
        Instructions, by their place.
    covered : tuple of str
        Blocks of instructions whose execution is noted.
    fused : int
        Products that a fusing assembler would take into sums.
    """

    ir: str
    words: int
    parameters: tuple[int, ...]
    shared: dict[str, tuple[int, int]]
    syncs: tuple[Sync, ...]
    texts: tuple[str, ...]
    covered: tuple[str, ...]
    fused: int


def translate(text: str, *, fuse: bool = False, seeded: dict | None = None) -> Translation:
    """The translation of a PTX text with one kernel.

    Parameters
    ----------
    text : str
    fuse : bool
        Take products without a rounding of their own into the sums that follow, as ptxas may.
    seeded : dict, optional
        Place of an instruction -> [(number, instructions)]. They run instead of it while a block's `SEEDED` is that
        number.

    Raises
    ------
    NotImplementedError
        Naming an instruction that is not known.
    """
    program = parse.program(text)
    shared, end = {}, GAP
    for name, align, size in program.shared:
        start = -(-end // align) * align
        shared[name], end = (start, size), start + size + GAP
    translator = _Translator(shared, fuse)
    translator.seeded = seeded or {}
    parts = [translator.function(function) for function in program.functions]
    (entry,) = (function for function in program.functions if function.entry)
    folder = Path(__file__).parent
    run = Template((folder / "run.ll").read_text()).substitute(vars(words), BODY=entry.name)
    ir = "\n".join([(folder / "prelude.ll").read_text(), *sorted(translator.declared), *parts, run])
    sizes = tuple(size for _, size in entry.parameters)
    lists = translator.syncs, translator.texts, translator.covered
    return Translation(ir, REGISTERS + len(translator.slots), sizes, shared, *map(tuple, lists), translator.fused)


class _Translator(Control, Moves, Arithmetic, Bits):
    """A method `op_X` for each instruction X, which is handed the parts of the opcode and the operands."""

    def function(self, function):
        """A function of the program; a kernel goes on where its thread had stopped."""
        self.scope, self.lines, self.entry = function.name, [], function.entry
        self.offsets = {name: 8 * index for index, (name, _) in enumerate(function.parameters)}
        self.exits = []
        labels = {label: f"b{index}" for index, (label, _) in enumerate(function.blocks)}
        self.labels = labels
        for index, (label, instructions) in enumerate(function.blocks):
            self.label(labels[label])
            self.products = {}
            self.cover(f"{label} {instructions[0].text if instructions else ''}")
            for instruction in instructions:
                self.instruction(instruction)
            following = f"b{index + 1}" if index + 1 < len(function.blocks) else "out"
            self.put(f"br label %{following}")
        self.label("out")
        self.put("ret i64 0")
        body, self.lines = self.lines, []
        if function.entry:
            resume = self.word("%thread", RESUME)
            cases = " ".join(f"i64 {place}, label %r{place}" for place in self.exits)
            self.put(f"switch i64 {resume}, label %b0 [{cases}]")
        else:
            self.put("br label %b0")
        start = ["start:", *self.lines]
        return "\n".join([f'define internal i64 @"{function.name}"(ptr %thread, ptr %block) {{', *start, *body, "}"])

    def cover(self, label):
        """Note that a block was reached, and use up fuel."""
        cover = self.name(f"inttoptr i64 {self.word('%block', COVER)} to ptr")
        self.put(f"store i8 1, ptr {self.name(f'getelementptr i8, ptr {cover}, i64 {len(self.covered)}')}")
        self.covered.append(label)
        fuel = self.name(f"sub i64 {self.word('%block', FUEL)}, 1")
        self.keep("%block", FUEL, "i64", fuel)
        self.demand(self.name(f"icmp sgt i64 {fuel}, 0"), ENDLESS)

    def instruction(self, instruction):
        self.texts.append(instruction.text)
        faults = self.seeded.get(len(self.texts) - 1, ())
        after = self.fresh()
        for number, others in faults:
            chosen, passed = self.fresh(), self.fresh()
            asked = self.name(f"icmp eq i64 {self.word('%block', SEEDED)}, {number}")
            self.put(f"br i1 {asked}, label %{chosen}, label %{passed}")
            self.label(chosen)
            for other in others:
                self.write(other)
            self.put(f"br label %{after}")
            self.label(passed)
        self.write(instruction)
        if faults:
            self.put(f"br label %{after}")
            self.label(after)
            self.products = {}

    def write(self, instruction):
        guard, opcode, operands = instruction[:3]
        after = None
        if guard:
            holds, taken, after = self.get(guard.lstrip("!"), "i1"), self.fresh(), self.fresh()
            ways = (after, taken) if guard[0] == "!" else (taken, after)
            self.put(f"br i1 {holds}, label %{ways[0]}, label %{ways[1]}")
            self.label(taken)
        method = getattr(self, f"op_{opcode[0]}", None)
        if method is None:
            raise NotImplementedError(instruction.text)
        try:
            method(opcode, *operands)
        except (TypeError, KeyError, ValueError) as error:
            raise NotImplementedError(f"{instruction.text} ({error})") from error
        if guard:
            if opcode[0] not in ("bra", "ret"):
                self.put(f"br label %{after}")
            self.label(after)
            self.products = {}

    # Control.
