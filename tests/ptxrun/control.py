"""Branches, calls, and the instructions at which a thread waits for others."""

from typing import NamedTuple

from .words import CLAMP, FLAG, LANE, MASK, RESULT, VALUE
from .writer import Writer


class Sync(NamedTuple):
    """A place where threads wait for others; `opcode` is the instruction's, its guard aside."""

    opcode: tuple[str, ...]
    text: str


class Control(Writer):
    """Where a thread goes on, and where it leaves its row to wait."""

    def op_bra(self, opcode, target):
        self.put(f"br label %{self.labels[target]}")
        if self.texts[-1][0] != "@":
            self.label(self.fresh())

    def op_ret(self, opcode):
        self.put("br label %out")
        if self.texts[-1][0] != "@":
            self.label(self.fresh())

    op_exit = op_ret

    def op_call(self, opcode, returned, name, arguments):
        good, bad = self.fresh(), self.fresh()
        result = self.name(f'call i64 @"{name}"(ptr %thread, ptr %block)')
        self.put(f"br i1 {self.name(f'icmp eq i64 {result}, 0')}, label %{good}, label %{bad}")
        self.label(bad)
        self.put(f"ret i64 {result}")
        self.label(good)

    def wait(self, opcode, words, results):
        if not self.entry:
            raise NotImplementedError("threads that wait in a function that is called")
        for index, value in words:
            self.keep("%thread", index, "i64", value)
        self.syncs.append(Sync(opcode, self.texts[-1]))
        place = len(self.syncs)
        self.exits.append(place)
        self.put(f"ret i64 {place}")
        self.label(f"r{place}")
        for register, index, kind in results:
            self.set(register, kind, self.name(f"trunc i64 {self.word('%thread', index)} to {kind}"))

    def wide(self, operand):
        return self.name(f"zext i32 {self.get(operand, 'i32')} to i64")

    def op_bar(self, opcode, which):
        if which != "0" and opcode != ("bar", "warp", "sync"):
            raise NotImplementedError("another barrier than 0")
        self.wait(opcode, [(MASK, self.wide(which))] if opcode[1] == "warp" else [], [])

    def op_shfl(self, opcode, target, value, lane, clamp, mask):
        register, _, flag = target.partition("|")
        words = [(VALUE, self.wide(value)), (LANE, self.wide(lane)), (CLAMP, self.wide(clamp)), (MASK, self.wide(mask))]
        self.wait(opcode, words, [(register, RESULT, "i32"), (flag, FLAG, "i1")])

    def op_vote(self, opcode, target, predicate, mask):
        if opcode[2] != "ballot":
            raise NotImplementedError(opcode[2])
        words = [(VALUE, self.name(f"zext i1 {self.get(predicate, 'i1')} to i64")), (MASK, self.wide(mask))]
        self.wait(opcode, words, [(target, RESULT, "i32")])
