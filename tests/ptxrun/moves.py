"""Loads, stores, moves and choices."""

import re

from .words import ARGUMENT, PARAMETERS, REGISTERS, RETURNED
from .writer import Writer, bits_of, type_of

COMPARE = {"eq": "oeq", "ne": "one", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "num": "ord", "nan": "uno"}
COMPARE |= {f"{name}u": "u" + code[1:] for name, code in COMPARE.items() if code[0] == "o" and name != "num"}
"""PTX's comparisons of floats in LLVM: ordered ones, and those that hold for NaN too."""


class Moves(Writer):
    """What brings a value from one place to another."""

    def op_ld(self, opcode, target, address):
        space, suffix = opcode[1], opcode[-1]
        kind = type_of(suffix)
        if space == "param":
            value = self.parameter(address, kind)
        elif space in ("global", "shared") and len(opcode) == 3:
            value = self.access(space, address, bits_of(kind) // 8, kind=kind)
        else:
            raise NotImplementedError(".".join(opcode))
        self.fill(target, suffix, value)

    def parameter(self, address, kind):
        name = address.strip("[]").partition("+")[0]
        if name in self.offsets and self.entry:
            base = self.name(f"inttoptr i64 {self.word('%block', PARAMETERS)} to ptr")
            return self.name(f"load {kind}, ptr {self.name(f'getelementptr i8, ptr {base}, i64 {self.offsets[name]}')}")
        return self.word("%thread", self.passed(name), kind)

    def passed(self, name):
        """The word of what is handed to a function that is called, or comes back."""
        if "retval" in name:
            return RETURNED
        number = int(re.search(r"(\d+)$", name)[1])
        if number >= REGISTERS - ARGUMENT:
            raise NotImplementedError("too many arguments of a call")
        return ARGUMENT + number

    def op_st(self, opcode, address, value):
        space, kind = opcode[1], type_of(opcode[-1])
        given = self.get(value, kind)
        if space == "param":
            self.keep("%thread", self.passed(address.strip("[]").partition("+")[0]), kind, given)
        elif space in ("global", "shared") and len(opcode) == 3:
            self.access(space, address, bits_of(kind) // 8, store=given, kind=kind)
        else:
            raise NotImplementedError(".".join(opcode))

    def op_mov(self, opcode, target, source):
        kind = type_of(opcode[1])
        if opcode[1] != "b64" and "{" in target + source:
            raise ValueError("halves of other than 64 bits")
        if target.startswith("{"):
            whole = self.get(source, "i64")
            for register, shift in zip(target.strip("{} ").split(","), (0, 32)):
                part = self.name(f"lshr i64 {whole}, {shift}")
                self.set(register.strip(), "i32", self.name(f"trunc i64 {part} to i32"))
        elif source.startswith("{"):
            low, high = (self.wide(part.strip()) for part in source.strip("{} ").split(","))
            self.set(target, "i64", self.name(f"or i64 {low}, {self.name(f'shl i64 {high}, 32')}"))
        else:
            self.set(target, kind, self.get(source, kind))

    def op_cvta(self, opcode, target, source):
        self.set(target, "i64", self.get(source, "i64"))

    def op_selp(self, opcode, target, a, b, condition):
        kind = type_of(opcode[1])
        a, b = self.get(a, kind), self.get(b, kind)
        self.set(target, kind, self.name(f"select i1 {self.get(condition, 'i1')}, {kind} {a}, {kind} {b}"))

    def op_setp(self, opcode, target, a, b):
        _, test, suffix = opcode
        if "|" in target:
            raise ValueError("two results")
        kind = type_of(suffix)
        a, b = self.get(a, kind), self.get(b, kind)
        if kind[0] == "i":
            sign = "" if test in ("eq", "ne") else {"s": "s", "u": "u"}[suffix[0]]
            self.set(target, "i1", self.name(f"icmp {sign}{test} {kind} {a}, {b}"))
        else:
            self.set(target, "i1", self.name(f"fcmp {COMPARE[test]} {kind} {a}, {b}"))
