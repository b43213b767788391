"""Bits, and conversions between types."""

from .writer import Writer, bits_of, type_of


class Bits(Writer):
    """Shifts and conversions clamp as on a GPU."""

    def logic(self, opcode, target, a, b):
        kind = type_of(opcode[1])
        self.set(target, kind, self.name(f"{opcode[0]} {kind} {self.get(a, kind)}, {self.get(b, kind)}"))

    op_and = op_or = op_xor = logic

    def op_not(self, opcode, target, a):
        kind = type_of(opcode[1])
        self.set(target, kind, self.name(f"xor {kind} {self.get(a, kind)}, {1 if kind == 'i1' else -1}"))

    def op_shl(self, opcode, target, a, amount):
        self.shift(opcode, target, a, amount, "shl")

    def op_shr(self, opcode, target, a, amount):
        self.shift(opcode, target, a, amount, "ashr" if opcode[1][0] == "s" else "lshr")

    def shift(self, opcode, target, a, amount, what):
        """Amounts beyond the width shift everything out."""
        kind = type_of(opcode[1])
        bits, value, count = bits_of(kind), self.get(a, kind), self.get(amount, "i32")
        most = self.name(f"icmp ult i32 {count}, {bits}")
        clamped = self.name(f"select i1 {most}, i32 {count}, i32 {bits - 1}")
        if bits != 32:
            clamped = self.name(f"{'zext' if bits == 64 else 'trunc'} i32 {clamped} to {kind}")
        shifted = self.name(f"{what} {kind} {value}, {clamped}")
        if what != "ashr":
            shifted = self.name(f"select i1 {most}, {kind} {shifted}, {kind} 0")
        self.set(target, kind, shifted)

    def op_bfi(self, opcode, target, a, b, start, length):
        kind, start, length = type_of(opcode[1]), int(start), int(length)
        if start + length > bits_of(kind):
            raise ValueError("a field over the end")
        mask = ((1 << length) - 1) << start
        field = self.name(f"and {kind} {self.name(f'shl {kind} {self.get(a, kind)}, {start}')}, {mask}")
        rest = self.name(f"and {kind} {self.get(b, kind)}, {~mask}")
        self.set(target, kind, self.name(f"or {kind} {field}, {rest}"))

    def op_popc(self, opcode, target, a):
        kind = type_of(opcode[1])
        count = self.name(f"call {kind} @llvm.ctpop.{kind}({kind} {self.get(a, kind)})")
        self.set(target, "i32", count if kind == "i32" else self.name(f"trunc {kind} {count} to i32"))

    def op_clz(self, opcode, target, a):
        kind = type_of(opcode[1])
        count = self.name(f"call {kind} @llvm.ctlz.{kind}({kind} {self.get(a, kind)}, i1 0)")
        self.set(target, "i32", count if kind == "i32" else self.name(f"trunc {kind} {count} to i32"))

    def op_cvt(self, opcode, target, source):
        *modes, to, by = opcode[1:]
        if opcode[1:] == ("rn", "bf16", "f32"):
            return self.set(target, "i16", self.name(f"call i16 @to_bf16(float {self.get(source, 'float')})"))
        into, of = type_of(to), type_of(by)
        value = self.get(source, of)
        if into[0] == "i" and of[0] == "i":
            if modes:
                raise ValueError("modifiers")
            if bits_of(into) > bits_of(of):
                value = self.name(f"{'sext' if by[0] == 's' else 'zext'} {of} {value} to {into}")
            elif bits_of(into) < bits_of(of):
                value = self.name(f"trunc {of} {value} to {into}")
            return self.fill(target, to, value)
        if of[0] == "i":
            if modes != ["rn"]:
                raise ValueError("rounding")
            return self.set(target, into, self.name(f"{'s' if by[0] == 's' else 'u'}itofp {of} {value} to {into}"))
        if into[0] == "i":
            return self.set(target, into, self.truncated(modes, to, by, value))
        whole = {"rni": "roundeven", "rmi": "floor", "rpi": "ceil", "rzi": "trunc"}
        for mode in modes:
            if mode in whole and into == of:
                value = self.name(f"call {of} @llvm.{whole[mode]}.{by}({of} {value})")
            elif mode == "sat" and into == of:
                value = self.saturated(of, value)
            elif mode != "rn" or bits_of(into) >= bits_of(of):
                raise ValueError("rounding")
        if (into, of) == ("half", "double"):
            raise ValueError("no such function at hand")
        if bits_of(into) < bits_of(of):
            value = self.name(f"fptrunc {of} {value} to {into}")
        elif bits_of(into) > bits_of(of):
            value = self.name(f"fpext {of} {value} to {into}")
        if into == "half":
            unordered = self.name(f"fcmp uno half {value}, {value}")
            value = self.name(f"select i1 {unordered}, half bitcast (i16 32767 to half), half {value}")
        self.finish(target, into, value)

    def saturated(self, kind, value):
        above = self.name(f"fcmp ogt {kind} {value}, 0.0")
        value = self.name(f"select i1 {above}, {kind} {value}, {kind} 0.0")
        over = self.name(f"fcmp ogt {kind} {value}, 1.0")
        return self.name(f"select i1 {over}, {kind} 1.0, {kind} {value}")

    def truncated(self, modes, to, by, value):
        """To an integer: what does not fit saturates."""
        whole = {"rzi": "", "rni": "roundeven", "rmi": "floor", "rpi": "ceil"}[modes[0]]
        into, of = type_of(to), type_of(by)
        if len(modes) != 1:
            raise ValueError("modifiers")
        if whole:
            value = self.name(f"call {of} @llvm.{whole}.{by}({of} {value})")
        intrinsic = f"@llvm.fpto{'s' if to[0] == 's' else 'u'}i.sat.{into}.{by}"
        self.declared.add(f"declare {into} {intrinsic}({of})")
        result = self.name(f"call {into} {intrinsic}({of} {value})")
        # NaN is 0, but the lone highest bit where 64 bits are on either side.
        lost = 0 if 64 not in (bits_of(into), bits_of(of)) else -(1 << (bits_of(into) - 1))
        unordered = self.name(f"fcmp uno {of} {value}, {value}")
        return self.name(f"select i1 {unordered}, {into} {lost}, {into} {result}")
