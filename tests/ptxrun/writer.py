"""LLVM IR, line by line: values, registers in a thread's row, and accesses of memory.

Each access is checked before it is made.
"""

import re

from . import words

SPECIAL = {
    "%ntid.x": words.NTID,
    "%ctaid.x": words.CTAID_X,
    "%ctaid.y": words.CTAID_Y,
    "%nctaid.x": words.NCTAID_X,
    "%nctaid.y": words.NCTAID_Y,
}
"""Special registers that all threads of a block read alike."""
REGISTER = re.compile(r"%(p|rs|rd|r|fd|f)\d+")
"""What a compiler calls registers; any other name with a % is a special register."""
WIDTHS = {"r": 32, "f": 32, "rd": 64, "fd": 64, "rs": 16}
"""Bits of a register, by the letters of its name."""
NAN32 = "bitcast (i32 2147483647 to float)"


def type_of(suffix: str) -> str:
    """LLVM's type for the last part of an opcode."""
    if suffix == "pred":
        return "i1"
    return {"f32": "float", "f64": "double", "f16": "half"}.get(suffix, f"i{suffix[1:]}")


def bits_of(kind: str) -> int:
    """Bits that a value of an LLVM type takes in memory."""
    return {"float": 32, "double": 64, "half": 16, "i1": 8}.get(kind) or int(kind[1:])


class Writer:
    """What every instruction is written with.

    Parameters
    ----------
    shared : dict
        Name of a shared array -> (first byte, bytes).
    fuse : bool
        Whether products go into sums without a rounding of their own.

    Attributes
    ----------
    products : dict
        Register -> operands of the product it holds, within a block: what may be fused into a sum.
    """

    def __init__(self, shared, fuse):
        self.shared, self.fuse, self.fused = shared, fuse, 0
        self.slots, self.syncs, self.texts, self.covered, self.declared = {}, [], [], [], set()
        self.number, self.lines, self.products = 0, [], {}

    def put(self, line):
        """Write a line without a result."""
        self.lines.append(f"  {line}")

    def name(self, expression):
        """Write a line with a result; its name."""
        self.number += 1
        self.put(f"%t{self.number} = {expression}")
        return f"%t{self.number}"

    def label(self, name):
        """Begin a block."""
        self.lines.append(f"{name}:")

    def fresh(self):
        """A label that nobody has."""
        self.number += 1
        return f"l{self.number}"

    def word(self, base, index, kind="i64"):
        """Read a word of the row at `base`."""
        return self.name(f"load {kind}, ptr {self.name(f'getelementptr i64, ptr {base}, i64 {index}')}")

    def keep(self, base, index, kind, value):
        """Write a word of the row at `base`."""
        self.put(f"store {kind} {value}, ptr {self.name(f'getelementptr i64, ptr {base}, i64 {index}')}")

    def slot(self, register):
        """The word of a register; names are those of a function."""
        return words.REGISTERS + self.slots.setdefault((self.scope, register), len(self.slots))

    def get(self, operand, kind):
        """The value of a register, a special register, a shared array's address or a literal."""
        if operand == "%tid.x":
            return self.word("%thread", words.TID, kind)
        if operand in SPECIAL:
            return self.word("%block", SPECIAL[operand], kind)
        if operand.startswith("%"):
            if not REGISTER.fullmatch(operand):
                raise NotImplementedError(operand)
            if kind == "i1":
                return self.name(f"trunc i8 {self.word('%thread', self.slot(operand), 'i8')} to i1")
            return self.word("%thread", self.slot(operand), kind)
        if re.match(r"0[fFdD]", operand):
            bits = 32 if operand[1] in "fF" else 64
            value = self.name(f"bitcast i{bits} {int(operand[2:], 16)} to {'float' if bits == 32 else 'double'}")
            return (
                self.name(f"bitcast {'float' if bits == 32 else 'double'} {value} to {kind}")
                if kind[0] == "i"
                else value
            )
        if operand in self.shared:
            return str(self.shared[operand][0])
        number = int(operand.rstrip("U"), 0)
        return str(number & 1) if kind == "i1" else str(number)

    def set(self, register, kind, value):
        """Write a register."""
        self.products.pop(register, None)
        if register in ("_", ""):
            return
        if kind == "i1":
            kind, value = "i8", self.name(f"zext i1 {value} to i8")
        self.keep("%thread", self.slot(register), kind, value)

    def fill(self, register, suffix, value):
        """Write a register that may be wider than an integer that comes from memory or from a conversion."""
        kind = type_of(suffix)
        wanted = WIDTHS.get(re.match(r"%([a-z]+)", register)[1], bits_of(kind))
        if kind[0] == "i" and bits_of(kind) < wanted:
            value = self.name(f"{'sext' if suffix[0] == 's' else 'zext'} {kind} {value} to i{wanted}")
            kind = f"i{wanted}"
        self.set(register, kind, value)

    def finish(self, register, kind, value):
        """A float32 result: its NaN has but one pattern."""
        if kind == "float":
            unordered = self.name(f"fcmp uno float {value}, {value}")
            value = self.name(f"select i1 {unordered}, float {NAN32}, float {value}")
        self.set(register, kind, value)

    def demand(self, condition, fault, address="0"):
        """Go on if the condition holds, else end with a fault."""
        good, bad = self.fresh(), self.fresh()
        self.put(f"br i1 {condition}, label %{good}, label %{bad}")
        self.label(bad)
        for index, value in (
            (words.FAULT, fault),
            (words.FAULT_ADDRESS, address),
            (words.FAULT_PLACE, len(self.texts) - 1),
        ):
            self.keep("%block", index, "i64", value)
        self.put("ret i64 -1")
        self.label(good)

    def access(self, space, operand, size, store=None, kind="i64"):
        """The pointer of a load or store, after its checks; `store` is what is about to be written."""
        base, _, offset = operand.strip("[]").partition("+")
        address = self.get(base, "i64")
        if offset:
            address = self.name(f"add i64 {address}, {int(offset)}")
        self.demand(
            self.name(f"icmp eq i64 {self.name(f'and i64 {address}, {size - 1}')}, 0"), words.MISALIGNED, address
        )
        table, count = (words.SHAREDS, words.SHARED_COUNT) if space == "shared" else (words.GLOBALS, words.GLOBAL_COUNT)
        ranges = self.name(f"inttoptr i64 {self.word('%block', table)} to ptr")
        inside = f"call i1 @inside(ptr {ranges}, i64 {self.word('%block', count)}, i64 {address}, i64 {size})"
        self.demand(self.name(inside), words.OUTSIDE, address)
        place = self.name(f"add i64 {address}, {self.word('%block', words.SHARED)}") if space == "shared" else address
        pointer = self.name(f"inttoptr i64 {place} to ptr")
        value = self.name(f"load {kind}, ptr {pointer}") if store is None else store
        if store is not None:
            self.put(f"store {kind} {value}, ptr {pointer}")
        whole = value if kind[0] == "i" else self.name(f"bitcast {kind} {value} to i{bits_of(kind)}")
        whole = whole if bits_of(kind) == 64 else self.name(f"zext i{bits_of(kind)} {whole} to i64")
        meta = len(self.texts) - 1 | size << 32 | (store is not None) << 40 | (space == "shared") << 41
        self.put(f"call void @note(ptr %block, ptr %thread, i64 {place}, i64 {whole}, i64 {meta})")
        return value

    # Functions.
