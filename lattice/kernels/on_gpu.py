"""Instructions of a GPU that numba has no name for. Only CUDA kernels may call these functions."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

ARCHITECTURE = bytearray(b"__CUDA_ARCH\0")


def _assembled(builder, text, result, arguments):
    """Call one instruction without side effects; `text` is "NAME; constraints"."""
    name, constraints = text.split("; ")
    places = ", ".join(f"${k}" for k in range(len(arguments) + 1))
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(ir.InlineAsm(kind, f"{name} {places};", constraints), arguments)


@intrinsic
def multiply_and_flush(typing_context, a, b):
    """The product of two float32; it is 0 where it, or a factor, would be subnormal."""

    def generate(context, builder, signature, arguments):
        return _assembled(builder, "mul.rn.ftz.f32; =f,f,f", ir.FloatType(), arguments)

    return types.float32(types.float32, types.float32), generate


@intrinsic
def multiply_words(typing_context, a, b):
    """The uint64 product of two uint32. Of `*` the compiler makes two products, one for each half."""

    def generate(context, builder, signature, arguments):
        return _assembled(builder, "mul.wide.u32; =l,r,r", ir.IntType(64), arguments)

    return types.uint64(types.uint32, types.uint32), generate


@intrinsic
def reciprocal(typing_context, x):
    """1 / x of a float32, off by 2**-23 of it at most, for x from 1 to 2**126."""

    def generate(context, builder, signature, arguments):
        return _assembled(builder, "rcp.approx.ftz.f32; =f,f", ir.FloatType(), arguments)

    return types.float32(types.float32), generate


@intrinsic
def round_to_bfloat16(typing_context, x):
    """The bits of the bfloat16 next to a float32, ties to even. From compute capability 8.0 on."""

    def generate(context, builder, signature, arguments):
        return _assembled(builder, "cvt.rn.bf16.f32; =h,f", ir.IntType(16), arguments)

    return types.uint16(types.float32), generate


@intrinsic
def architecture(typing_context):
    """What is compiled for, 900 for compute capability 9.0, or 0 where the compiler does not tell.

    The compiler puts the number in and drops what it rules out. numba could not: it keeps the code of a function that
    was compiled for one architecture, and puts it into kernels for another.
    """

    def generate(context, builder, signature, arguments):
        module, text = builder.module, ir.Constant(ir.ArrayType(ir.IntType(8), len(ARCHITECTURE)), ARCHITECTURE)
        name = module.globals.get("lattice_architecture")
        if name is None:
            name = ir.GlobalVariable(module, text.type, "lattice_architecture", addrspace=4)
            name.global_constant, name.initializer, name.linkage = True, text, "internal"
        pointer = ir.IntType(8).as_pointer()
        reflect = module.globals.get("__nvvm_reflect")
        if reflect is None:
            reflect = ir.Function(module, ir.FunctionType(ir.IntType(32), [pointer]), "__nvvm_reflect")
        generic = builder.addrspacecast(name, text.type.as_pointer(), "generic")
        return builder.call(reflect, [builder.bitcast(generic, pointer)])

    return types.int32(), generate
