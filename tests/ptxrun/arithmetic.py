"""Sums, products, quotients, extremes and approximations."""

from .words import DIVIDED, EX2, RCP
from .writer import Writer, bits_of, type_of


class Arithmetic(Writer):
    """Results are rounded as the ISA says; a product may be fused into a sum where nothing forbids it."""

    def op_add(self, opcode, target, a, b):
        self.sum(opcode, target, a, b, "add")

    def op_sub(self, opcode, target, a, b):
        self.sum(opcode, target, a, b, "sub")

    def sum(self, opcode, target, a, b, what):
        kind = type_of(opcode[-1])
        left, right = self.get(a, kind), self.get(b, kind)
        if kind[0] == "i":
            self.plain(opcode, 2)
            return self.set(target, kind, self.name(f"{what} {kind} {left}, {right}"))
        if opcode[1] == "rz" and kind == "float" and what == "add":
            return self.finish(target, kind, self.name(f"call float @add_rz(float {left}, float {right})"))
        self.rounded(opcode)
        product = self.products.get(b) or self.products.get(a)
        if opcode[1] != "rn" and product:
            self.fused += 1
            if self.fuse:
                x, y = product
                other = left if b in self.products else right
                if what == "sub" and b in self.products:
                    x = self.name(f"fneg {kind} {x}")
                elif what == "sub":
                    other = self.name(f"fneg {kind} {right}")
                intrinsic = f"call {kind} @llvm.fma.f{bits_of(kind)}({kind} {x}, {kind} {y}, {kind} {other})"
                return self.finish(target, kind, self.name(intrinsic))
        self.finish(target, kind, self.name(f"f{what} {kind} {left}, {right}"))

    def plain(self, opcode, length):
        if len(opcode) != length:
            raise ValueError("modifiers")

    def rounded(self, opcode):
        """Refuse what is neither rounded to nearest nor left to the assembler, and all other modifiers."""
        if opcode[1:-1] not in ((), ("rn",)):
            raise ValueError("rounding")

    def op_mul(self, opcode, target, a, b):
        suffix = opcode[-1]
        kind = type_of(suffix)
        left, right = self.get(a, kind), self.get(b, kind)
        if opcode[1:] == ("rn", "ftz", "f32"):
            self.finish(target, kind, self.name(f"call float @mul_ftz(float {left}, float {right})"))
        elif kind[0] != "i":
            self.rounded(opcode)
            self.finish(target, kind, self.name(f"fmul {kind} {left}, {right}"))
            if opcode[1] != "rn":
                self.products[target] = (left, right)
        elif len(opcode) != 3:
            raise ValueError("modifiers")
        elif opcode[1] == "lo":
            self.set(target, kind, self.name(f"mul {kind} {left}, {right}"))
        elif opcode[1] == "wide":
            extend, wider = "sext" if suffix[0] == "s" else "zext", f"i{2 * bits_of(kind)}"
            left, right = (self.name(f"{extend} {kind} {value} to {wider}") for value in (left, right))
            self.set(target, wider, self.name(f"mul {wider} {left}, {right}"))
        elif opcode[1] == "hi":
            extend, wider = "sext" if suffix[0] == "s" else "zext", f"i{2 * bits_of(kind)}"
            left, right = (self.name(f"{extend} {kind} {value} to {wider}") for value in (left, right))
            product = self.name(f"mul {wider} {left}, {right}")
            high = self.name(f"lshr {wider} {product}, {bits_of(kind)}")
            self.set(target, kind, self.name(f"trunc {wider} {high} to {kind}"))
        else:
            raise ValueError("which half")

    def op_mad(self, opcode, target, a, b, c):
        self.plain(opcode, 3)
        suffix = opcode[-1]
        if opcode[1] == "wide":
            kind, extend = f"i{2 * int(suffix[1:])}", "sext" if suffix[0] == "s" else "zext"
            a, b = (self.name(f"{extend} {type_of(suffix)} {self.get(x, type_of(suffix))} to {kind}") for x in (a, b))
        elif opcode[1] == "lo":
            kind = type_of(suffix)
            a, b = self.get(a, kind), self.get(b, kind)
        else:
            raise ValueError("which half")
        product = self.name(f"mul {kind} {a}, {b}")
        self.set(target, kind, self.name(f"add {kind} {product}, {self.get(c, kind)}"))

    def op_fma(self, opcode, target, a, b, c):
        _, rounding, suffix = opcode
        kind = type_of(suffix)
        a, b, c = (self.get(operand, kind) for operand in (a, b, c))
        if rounding == "rm" and kind == "float":
            return self.finish(target, kind, self.name(f"call float @fma_rm(float {a}, float {b}, float {c})"))
        if rounding != "rn":
            raise ValueError("rounding")
        self.finish(target, kind, self.name(f"call {kind} @llvm.fma.{suffix}({kind} {a}, {kind} {b}, {kind} {c})"))

    def op_div(self, opcode, target, a, b):
        kind = type_of(opcode[-1])
        a, b = self.get(a, kind), self.get(b, kind)
        if kind[0] == "i":
            return self.set(target, kind, self.quotient("div", opcode, kind, a, b))
        if opcode[1:-1] != ("rn",):
            raise ValueError("rounding")
        self.finish(target, kind, self.name(f"fdiv {kind} {a}, {b}"))

    def op_rem(self, opcode, target, a, b):
        kind = type_of(opcode[-1])
        self.set(target, kind, self.quotient("rem", opcode, kind, self.get(a, kind), self.get(b, kind)))

    def quotient(self, what, opcode, kind, a, b):
        self.demand(self.name(f"icmp ne {kind} {b}, 0"), DIVIDED)
        if opcode[-1][0] == "s":
            least = self.name(f"icmp eq {kind} {a}, {-(1 << (bits_of(kind) - 1))}")
            minus = self.name(f"icmp eq {kind} {b}, -1")
            over = self.name(f"and i1 {least}, {minus}")
            self.demand(self.name(f"xor i1 {over}, 1"), DIVIDED)
        return self.name(f"{opcode[-1][0]}{what} {kind} {a}, {b}")

    def op_rcp(self, opcode, target, a):
        kind = type_of(opcode[-1])
        if opcode[1:-1] == ("rn",):
            return self.finish(target, kind, self.name(f"fdiv {kind} 1.0, {self.get(a, kind)}"))
        if opcode[1:3] != ("approx", "ftz"):
            raise ValueError("rounding")
        factor = self.word("%block", RCP, "double")
        self.finish(
            target, kind, self.name(f"call {kind} @rcp_{opcode[-1]}({kind} {self.get(a, kind)}, double {factor})")
        )

    def op_ex2(self, opcode, target, a):
        if opcode[1:] not in (("approx", "ftz", "f32"), ("approx", "f32")):
            raise ValueError("kind")
        factor, name = self.word("%block", EX2, "double"), "ex2_ftz" if "ftz" in opcode else "ex2"
        self.finish(target, "float", self.name(f"call float @{name}(float {self.get(a, 'float')}, double {factor})"))

    def op_sqrt(self, opcode, target, a):
        kind = type_of(opcode[-1])
        if opcode[1:-1] != ("rn",):
            raise ValueError("rounding")
        self.finish(target, kind, self.name(f"call {kind} @llvm.sqrt.{opcode[-1]}({kind} {self.get(a, kind)})"))

    def op_neg(self, opcode, target, a):
        self.plain(opcode, 2)
        kind = type_of(opcode[1])
        value = self.get(a, kind)
        self.set(target, kind, self.name(f"sub {kind} 0, {value}" if kind[0] == "i" else f"fneg {kind} {value}"))

    def op_abs(self, opcode, target, a):
        self.plain(opcode, 2)
        kind = type_of(opcode[1])
        value = self.get(a, kind)
        if kind[0] == "i":
            negative = self.name(f"icmp slt {kind} {value}, 0")
            minus = self.name(f"sub {kind} 0, {value}")
            return self.set(target, kind, self.name(f"select i1 {negative}, {kind} {minus}, {kind} {value}"))
        self.set(target, kind, self.name(f"call {kind} @llvm.fabs.{opcode[1]}({kind} {value})"))

    def op_copysign(self, opcode, target, sign, value):
        kind = type_of(opcode[1])
        sign, value = self.get(sign, kind), self.get(value, kind)
        self.set(target, kind, self.name(f"call {kind} @llvm.copysign.{opcode[1]}({kind} {value}, {kind} {sign})"))

    def op_min(self, opcode, target, a, b):
        self.extreme(opcode, target, a, b, "lt", "or")

    def op_max(self, opcode, target, a, b):
        self.extreme(opcode, target, a, b, "gt", "and")

    def extreme(self, opcode, target, a, b, test, zeros):
        self.plain(opcode, 2)
        kind = type_of(opcode[1])
        a, b = self.get(a, kind), self.get(b, kind)
        if kind[0] == "i":
            better = self.name(f"icmp {opcode[1][0]}{test} {kind} {a}, {b}")
            return self.set(target, kind, self.name(f"select i1 {better}, {kind} {a}, {kind} {b}"))
        whole = f"i{bits_of(kind)}"
        parts = [self.name(f"bitcast {kind} {value} to {whole}") for value in (a, b)]
        mixed = self.name(f"bitcast {whole} {self.name(f'{zeros} {whole} {parts[0]}, {parts[1]}')} to {kind}")
        equal = self.name(f"fcmp oeq {kind} {a}, {b}")
        lost_a, lost_b = (self.name(f"fcmp uno {kind} {value}, {value}") for value in (a, b))
        better = self.name(f"fcmp o{test} {kind} {a}, {b}")
        value = self.name(f"select i1 {better}, {kind} {a}, {kind} {b}")
        value = self.name(f"select i1 {equal}, {kind} {mixed}, {kind} {value}")
        value = self.name(f"select i1 {lost_b}, {kind} {a}, {kind} {value}")
        self.finish(target, kind, self.name(f"select i1 {lost_a}, {kind} {b}, {kind} {value}"))
