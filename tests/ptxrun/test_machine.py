"""The machine itself.

What each instruction gives is held against NumPy, fractions and the ISA's own words. Faults are told.
"""

import struct
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from tests.ptxrun import machine, parse, races

HEAD = ".version 9.0\n.target sm_90\n.address_size 64\n"
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1.5, 2.5, -2.5, 3e-39, -3e-39, 1e-30, 3.4e38, -3.4e38, 1 / 3, 127.0, -126.5]
SPECIAL += [np.inf, -np.inf, np.nan]


def run(body, outputs, *inputs, threads=32, shared="", blocks=1):
    """`body` finds %rd1 and on: the arrays; %r0, the thread. Runs, and returns the first array."""
    arrays = [outputs, *inputs]
    listed = ",\n".join(f".param .u64 k_param_{i}" for i in range(len(arrays)))
    loads = "\n".join(f"ld.param.u64 %rd{i + 1}, [k_param_{i}];" for i in range(len(arrays)))
    text = f"{HEAD}{shared}.visible .entry k(\n{listed}\n)\n{{\n{loads}\nmov.u32 %r0, %tid.x;\n{body}\nret;\n}}\n"
    function = machine.Function(text, machine.settings.fuse)
    parameters = [struct.pack("<q", array.ctypes.data) for array in arrays]
    machine.launch(
        function, machine.Launch("k", (blocks, 1), threads, parameters, [(a.ctypes.data, a.nbytes) for a in arrays])
    )
    return outputs


def of_each(instruction, dtype, *inputs, out=None):
    """An instruction on each element: %a, %b, %c in, %d out."""
    size, width = len(inputs[0]), {2: "rs", 4: "r", 8: "rd"}

    def address(i, dtype):
        place = f"%rd{20 + i}"
        return f"mul.wide.u32 {place}, %r0, {np.dtype(dtype).itemsize};\nadd.s64 {place}, {place}, %rd{1 + i};\n"

    arrays = [np.asarray(values, dtype) if not isinstance(values, np.ndarray) else values for values in inputs]
    out = np.zeros(size, out or dtype)
    registers = {"%d": f"%{width[out.itemsize]}90"} | {
        f"%{'abc'[i]}": f"%{width[array.itemsize]}{80 + i}" for i, array in enumerate(arrays)
    }
    body = address(0, out.dtype)
    for i, array in enumerate(arrays):
        body += (
            address(i + 1, array.dtype)
            + f"ld.global.u{8 * array.itemsize} {registers[f'%{chr(97 + i)}']}, [%rd{21 + i}];\n"
        )
    for name, register in registers.items():
        instruction = instruction.replace(name, register)
    body += instruction + f";\nst.global.u{8 * out.itemsize} [%rd20], {registers['%d']};"
    return run(body, out, *arrays, threads=size)


def pairs(values, dtype):
    a, b = np.meshgrid(np.array(values, dtype), np.array(values, dtype))
    return a.ravel(), b.ravel()


@pytest.mark.parametrize("dtype, suffix", [(np.float32, "f32"), (np.float64, "f64")])
@pytest.mark.parametrize(
    "name, function", [("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div.rn", np.divide)]
)
def test_float_arithmetic(name, function, dtype, suffix):
    a, b = pairs(SPECIAL, dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(of_each(f"{name}.{suffix} %d, %a, %b", dtype, a, b), function(a, b))


def test_nan_of_float32_has_one_pattern():
    found = of_each("add.f32 %d, %a, %b", np.float32, [np.inf, np.nan], [-np.inf, 1])
    assert found.view(np.uint32).tolist() == [0x7FFFFFFF] * 2
    halves = of_each(
        "cvt.rn.f16.f32 %d, %a", np.float32, [np.nan, 65520, 2**-25, 1 + 2.0**-11, 1 + 3 * 2.0**-11], out=np.uint16
    )
    assert halves.tolist() == [0x7FFF, 0x7C00, 0, 0x3C00, 0x3C02]


def test_bfloat16_is_rounded_to_even():
    given = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -0.0, 3.4e38, np.inf, -np.inf, 1e-40, np.nan]
    given = np.concatenate([given, np.random.default_rng(0).standard_normal(200)]).astype(np.float32)
    found = of_each("cvt.rn.bf16.f32 %d, %a", np.float32, given, out=np.uint16)
    expected = given.astype(ml_dtypes.bfloat16).view(np.uint16)
    expected[8] = 0x7FFF
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name, function", [("min", np.fmin), ("max", np.fmax)])
def test_extremes_drop_nan(name, function):
    a, b = pairs(SPECIAL, np.float32)
    np.testing.assert_array_equal(of_each(f"{name}.f32 %d, %a, %b", np.float32, a, b), function(a, b))
    zeros = of_each(f"{name}.f32 %d, %a, %b", np.float32, [0.0, -0.0], [-0.0, 0.0])
    assert np.signbit(zeros).tolist() == [name == "min"] * 2


def rounded(exact, down):
    """The float32 next to a fraction, towards -inf or towards 0."""
    near = np.float32(float(exact))
    if Fraction(float(near)) > exact and (down or exact > 0):
        near = np.nextafter(near, np.float32(-np.inf))
    elif Fraction(float(near)) < exact and not down and exact < 0:
        near = np.nextafter(near, np.float32(np.inf))
    return near


def test_directed_rounding():
    rng = np.random.default_rng(0)
    a, b, c = (np.float32(rng.standard_normal(500) * 10.0 ** rng.integers(-8, 8, 500)) for _ in range(3))
    down = of_each("fma.rm.f32 %d, %a, %b, %c", np.float32, a, b, c)
    zero = of_each("add.rz.f32 %d, %a, %b", np.float32, a, b)
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c)]
    assert down.tolist() == [float(rounded(value, True)) for value in exact]
    exact = [Fraction(float(x)) + Fraction(float(y)) for x, y in zip(a, b)]
    assert zero.tolist() == [float(rounded(value, False)) for value in exact]


def test_fused_products_are_rounded_once():
    a, b = np.float64([1 + 2.0**-30]), np.float64([1 - 2.0**-30])
    assert of_each("fma.rn.f64 %d, %a, %b, %c", np.float64, a, b, [-1.0]) == [-(2.0**-60)]


@pytest.mark.parametrize("fuse, expected", [(False, 0.0), (True, -(2.0**-60))])
def test_an_assembler_may_fuse(fuse, expected, monkeypatch):
    monkeypatch.setattr(machine, "settings", machine.Settings(fuse=fuse))
    a, b = np.float64([1 + 2.0**-30]), np.float64([1 - 2.0**-30])
    assert of_each("mul.f64 %rd70, %a, %b;\nadd.f64 %d, %rd70, %c", np.float64, a, b, [-1.0]) == [expected]
    assert of_each("mul.rn.f64 %rd70, %a, %b;\nadd.f64 %d, %rd70, %c", np.float64, a, b, [-1.0]) == [0.0]
    assert of_each("mul.f64 %rd70, %a, %b;\nsub.f64 %d, %c, %rd70", np.float64, a, b, [1.0]) == [-expected]


@pytest.mark.parametrize(
    "what, dtype, expected",
    [
        ("cvt.rzi.s32.f32", np.int32, [-(2**31), 2**31 - 1, 0, 2, -2]),
        ("cvt.rzi.s64.f32", np.int64, [-(2**63), 2**63 - 1, -(2**63), 2, -2]),
    ],
)
def test_integers_saturate(what, dtype, expected):
    assert of_each(f"{what} %d, %a", np.float32, [-1e30, 1e30, np.nan, 2.9, -2.9], out=dtype).tolist() == expected


def test_rounding_to_integers_and_to_the_unit_interval():
    values = [0.5, 1.5, -0.5, -1.5, 2.5]
    assert of_each("cvt.rni.f32.f32 %d, %a", np.float32, values).tolist() == [0, 2, 0, -2, 2]
    assert of_each("cvt.rmi.f32.f32 %d, %a", np.float32, values).tolist() == [0, 1, -1, -2, 2]
    assert of_each("cvt.sat.f32.f32 %d, %a", np.float32, [*values, np.nan]).tolist() == [0.5, 1, 0, 0, 1, 0]


def test_integers_wrap_and_widen():
    assert of_each("add.s32 %d, %a, %b", np.int32, [2**31 - 1], [1]).tolist() == [-(2**31)]
    assert of_each("mul.lo.s32 %d, %a, %b", np.int32, [65536], [65536]).tolist() == [0]
    assert of_each("mul.wide.s32 %d, %a, %b", np.int32, [-65536], [65536], out=np.int64).tolist() == [-(2**32)]
    assert of_each("cvt.s64.s32 %d, %a", np.int32, [-1], out=np.int64).tolist() == [-1]
    assert of_each("cvt.u64.u32 %d, %a", np.int32, [-1], out=np.int64).tolist() == [2**32 - 1]


@pytest.mark.parametrize(
    "name, amounts",
    [("shl.b32", [-4, -8, 0, 0]), ("shr.s32", [-2, -1, -1, -1]), ("shr.u32", [2**31 - 2, 2**30 - 1, 0, 0])],
)
def test_shifts_beyond_the_width(name, amounts):
    given = np.full(4, -4, np.int32)
    counts = np.array([0 if name == "shl.b32" else 1, 1 if name == "shl.b32" else 2, 32, 33], np.int32)
    assert of_each(f"{name} %d, %a, %b", np.int32, given, counts).tolist() == amounts


def test_bits():
    assert of_each("bfi.b64 %d, %a, %b, 32, 32", np.uint64, [0x11], [0x2200000033]).tolist() == [0x1100000033]
    assert of_each("popc.b64 %d, %a", np.int64, [-1, 5], out=np.int32).tolist() == [64, 2]
    assert of_each("copysign.f32 %d, %a, %b", np.float32, [-0.0, 1.0], [3.0, -3.0]).tolist() == [-3, 3]


def test_products_without_subnormals():
    """Subnormal factors and products are 0, with their sign."""
    least = float(np.finfo(np.float32).tiny)
    a, b = [3, least, -least, least / 2, np.inf, np.nan], [0.5, 0.5, 0.5, -4, least / 2, 0]
    found = of_each("mul.rn.ftz.f32 %d, %a, %b", np.float32, a, b)
    np.testing.assert_array_equal(found, [1.5, 0, 0, 0, np.nan, np.nan])
    assert np.signbit(found[:4]).tolist() == [False, False, True, True]


def test_approximations_stay_within_what_is_promised():
    x = np.linspace(-120, 120, 481, dtype=np.float32)
    found = of_each("ex2.approx.ftz.f32 %d, %a", np.float32, x)
    np.testing.assert_allclose(found, np.exp2(x.astype(np.float64)), rtol=2.0**-22)
    # Without flushing, small results are subnormal.
    far = np.array([-130.25, -148.0, 1e-40], np.float32)
    np.testing.assert_array_equal(of_each("ex2.approx.ftz.f32 %d, %a", np.float32, far), np.float32([0, 0, 1]))
    found = of_each("ex2.approx.f32 %d, %a", np.float32, far)
    np.testing.assert_array_equal(found, np.exp2(far.astype(np.float64)).astype(np.float32))
    y = np.linspace(0.1, 9, 300)
    found = of_each("rcp.approx.ftz.f64 %d, %a", np.float64, y)
    np.testing.assert_allclose(found, 1 / y, rtol=2.0**-18)
    assert not (found.view(np.uint64) & 0xFFFFFFFF).any()


@pytest.mark.parametrize(
    "way, amount, clamp, source",
    [
        ("bfly", 5, 31, lambda lane: lane ^ 5),
        ("up", 3, 0, lambda lane: lane - 3 if lane >= 3 else lane),
        ("down", 4, 31, lambda lane: lane + 4 if lane + 4 < 32 else lane),
        ("idx", 7, 31, lambda lane: 7),
        ("bfly", 1, 31 | 28 << 8, lambda lane: lane ^ 1),
        ("idx", 2, 31 | 24 << 8, lambda lane: lane & 24 | 2),
    ],
)
def test_shuffles(way, amount, clamp, source):
    body = f"""mul.lo.s32 %r1, %r0, 10;
    shfl.sync.{way}.b32 %r2|%p1, %r1, {amount}, {clamp}, -1;
    mul.wide.u32 %rd9, %r0, 4; add.s64 %rd9, %rd9, %rd1; st.global.u32 [%rd9], %r2;"""
    assert run(body, np.zeros(64, np.int32), threads=64).tolist() == [
        10 * (warp + source(lane)) for warp in (0, 32) for lane in range(32)
    ]


def test_votes_are_counted_where_lanes_are_missing():
    body = """setp.lt.s32 %p1, %r0, 40; @!%p1 bra OUT;
    and.b32 %r1, %r0, 1; setp.eq.s32 %p2, %r1, 1;
    vote.sync.ballot.b32 %r2, %p2, -1;
    mul.wide.u32 %rd9, %r0, 4; add.s64 %rd9, %rd9, %rd1; st.global.u32 [%rd9], %r2;
OUT:"""
    found = run(body, np.zeros(64, np.uint32), threads=64)
    assert found[:40].tolist() == [0xAAAAAAAA] * 32 + [0xAA] * 8 and not found[40:].any()


SHARED = ".visible .shared .align 8 .b8 buffer[256];\n"
EXCHANGE = """mov.u64 %rd8, buffer; mul.wide.u32 %rd9, %r0, 4; add.s64 %rd7, %rd8, %rd9; st.shared.u32 [%rd7], %r0;
    BARRIER
    sub.s32 %r1, 63, %r0; mul.wide.u32 %rd6, %r1, 4; add.s64 %rd6, %rd6, %rd8; ld.shared.u32 %r2, [%rd6];
    add.s64 %rd9, %rd9, %rd1; st.global.u32 [%rd9], %r2;"""


def test_a_barrier_orders_and_its_lack_is_told(monkeypatch):
    monkeypatch.setattr(machine, "totals", machine.Totals())
    monkeypatch.setattr(machine, "settings", machine.Settings(log_room=10000))
    out = np.zeros(64, np.int32)
    assert run(EXCHANGE.replace("BARRIER", "bar.sync 0;"), out, threads=64, shared=SHARED).tolist() == list(
        range(63, -1, -1)
    )
    assert not machine.totals.races
    assert run(EXCHANGE.replace("BARRIER", ""), out, threads=64, shared=SHARED).tolist() != list(range(63, -1, -1))
    assert {key[1] for key in machine.totals.races} == {"shared"}


@pytest.mark.parametrize(
    "body, message",
    [
        ("mul.wide.u32 %rd9, %r0, 8; add.s64 %rd9, %rd9, %rd1; st.global.u32 [%rd9], %r0;", "outside"),
        ("add.s64 %rd9, %rd1, 2; ld.global.u32 %r2, [%rd9];", "misaligned"),
        ("mov.u64 %rd9, buffer; ld.shared.u32 %r2, [%rd9+256];", "outside"),
        ("div.s32 %r2, %r0, %r0;", "division"),
        ("setp.eq.s32 %p1, %r0, 3; @%p1 bra OUT; bar.sync 0;\nOUT:", "63 of 64"),
        ("setp.eq.s32 %p1, %r0, 3; @%p1 bra OTHER; bar.sync 0; bra.uni OUT;\nOTHER:\nbar.sync 0;\nOUT:", "2 places"),
        (
            "setp.eq.s32 %p1, %r0, 3; @%p1 bra OTHER; bar.warp.sync -1; bra.uni OUT;\nOTHER:\nbar.sync 0;\nOUT:",
            "wait for ever",
        ),
        ("shfl.sync.idx.b32 %r2|%p1, %r0, 0, 31, 1;", "own mask"),
    ],
)
def test_faults(body, message):
    with pytest.raises(RuntimeError, match=message):
        run(body, np.zeros(64, np.int32), threads=64, shared=SHARED)


def test_no_end(monkeypatch):
    monkeypatch.setattr(machine, "FUEL", 1000)
    with pytest.raises(RuntimeError, match="no end"):
        run("AGAIN:\nbra.uni AGAIN;", np.zeros(1, np.int32))


def test_the_gross_reciprocal_takes_subnormals_for_zero():
    given = [2.0**-1023, -(2.0**-1023), 0.0, -0.0, np.inf, -np.inf]
    found = of_each("rcp.approx.ftz.f64 %d, %a", np.float64, given)
    assert found.tolist() == [np.inf, -np.inf, np.inf, -np.inf, 0, 0] and np.signbit(found[5])


def test_narrow_integers_fill_the_register_they_are_converted_into():
    given = [-1, 127, 128, 255, 256]
    signed = of_each("cvt.s8.s32 %rs70, %a;\ncvt.s32.s16 %d, %rs70", np.int32, given)
    assert signed.tolist() == [-1, 127, -128, -1, 0]
    unsigned = of_each("cvt.u8.u32 %rs70, %a;\ncvt.u32.u16 %d, %rs70", np.int32, given)
    assert unsigned.tolist() == [255, 127, 128, 255, 0]


@pytest.mark.parametrize(
    "unknown",
    [
        "sin.approx.f32 %r2, %r1",
        "add.rm.f32 %r1, %r2, %r3",
        "ld.global.v2.u32 {%r1,%r2}, [%rd1]",
        "mov.u32 %r1, %laneid",
        "mov.u32 %r1, %tid.y",
        "mov.b32 {%rs1,%rs2}, %r1",
        "mov.b32 %r1, {%rs1,%rs2}",
        "setp.lt.s32 %p1|%p2, %r1, %r2",
        "add.rn.ftz.f32 %r1, %r2, %r3",
        "mul.ftz.f32 %r1, %r2, %r3",
        "mul.rn.ftz.f64 %r1, %r2, %r3",
        "div.rn.ftz.f32 %r1, %r2, %r3",
        "sqrt.rn.ftz.f32 %r1, %r2",
        "rcp.rn.ftz.f32 %r1, %r2",
        "neg.ftz.f32 %r1, %r2",
        "abs.ftz.f32 %r1, %r2",
        "mad.lo.cc.s32 %r1, %r2, %r3, %r4",
        "mad.hi.s32 %r1, %r2, %r3, %r4",
        "cvt.rn.f16.f64 %rs1, %fd1",
        "cvt.rz.bf16.f32 %rs1, %f1",
        "cvt.rn.bf16.f64 %rs1, %fd1",
    ],
)
def test_what_is_not_known_is_refused(unknown):
    with pytest.raises(NotImplementedError):
        run(unknown + ";", np.zeros(1, np.int32))


def test_races_between_blocks(monkeypatch):
    monkeypatch.setattr(machine, "totals", machine.Totals())
    monkeypatch.setattr(machine, "settings", machine.Settings(log_room=1000))
    run("mov.u32 %r1, %ctaid.x; st.global.u32 [%rd1], %r1;", np.zeros(1, np.int32), threads=1, blocks=2)
    assert [key[1:] for key in machine.totals.races] == [
        ("global", "st.global.u32 [%rd1], %r1", "st.global.u32 [%rd1], %r1", "differing values")
    ]
    assert races.find(np.zeros((0, 6), np.int64), ()) == []


def test_parameters_that_are_known_to_be_pointers():
    """As the compiler declares them for the newest architectures; one of another form is an error, not left out."""
    entry = ".visible .entry k(\n.param .u64 .ptr .align 1 k_param_0,\n.param .u32 k_param_1\n)\n{\nret;\n}\n"
    (function,) = parse.program(HEAD + entry).functions
    assert function.parameters == (("k_param_0", 8), ("k_param_1", 4))
    with pytest.raises(NotImplementedError, match="parameters of k"):
        parse.program(HEAD + entry.replace(".param .u32 k_param_1", ".param .align 4 .b8 k_param_1[12]"))
