"""Machine code of the kernels' inner loops: what it may cost an element, and how a loop is found."""

import contextlib
import functools
import importlib.util
import os
from unittest import mock

import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("needs numba-cuda, and no simulator", allow_module_level=True)

from benchmarks.gpu import instructions, sass

CEILINGS = {
    "hidden tanh": 21,
    "hidden tanh bfloat16": 25,
    "hidden tanh, factors": 11,
    "hidden tanh, factors bfloat16": 12,
    "hidden relu": 8,
    "hidden sigmoid, factors": 11,
    "hidden gelu": 31,
    "hidden gelu_slope": 32,
    "hidden silu": 22,
    "hidden relu, dropout": 19,
    "hidden relu, dropout bfloat16": 22,
    "hidden tanh, dropout": 32,
    "hidden tanh, factors, dropout": 22,
    "bound tanh, factors, dropout": 26,
    "bound tanh": 26,
    "bound tanh bfloat16": 31,
    "bound tanh, factors": 15,
    "bound tanh, factors bfloat16": 19,
    "emit": 16,
    "emit, bias": 18,
    "emit bfloat16": 17,
    "gradient": 15,
    "gradient, bias": 17,
    "gradient bfloat16": 17,
    "gradient anew, bias": 31,
    "gradient anew, bias, to bfloat16": 32,
    "emit, HAT": 19,
    "gradient, HAT": 15,
    "gradient anew, bias, HAT": 31,
    "emit, tdt": 15,
    "emit, bias, tdt": 17,
    "gradient, tdt": 15,
    "gradient anew, bias, tdt": 31,
    "emit, multiblank": 15,
    "emit, bias, multiblank": 18,
    "gradient, multiblank": 15,
    "gradient anew, bias, multiblank": 31,
    "bound_steps tanh": 26,
    "bound_steps tanh bfloat16": 32,
    "bound_steps tanh, factors": 18,
    "bound_steps tanh, factors bfloat16": 22,
    "bound tanh, HAT": 23,
    "bound tanh, factors, HAT": 13,
    "ctc emit": 16,
    "ctc gradient": 15,
    "to_frames tanh": 10,
    "to_slots tanh": 19,
    "to_frames tanh, dropout": 17,
    "to_slots tanh, dropout": 24,
    "step_sums": 645,
}
"""Instructions an element at most. A change that needs fewer lowers its line, so that they are not lost again."""
SPECIAL = {"emit": 1, "gradient": 1, "gradient anew, bias": 2, "emit, HAT": 1, "gradient, HAT": 1}
"""Special functions an element: an exponential each time that the row is read, and none for its maximum."""
LOOPS = """
        /*0000*/                   S2R R1, SR_TID.X ;
        /*0010*/               @P0 EXIT ;
.L_x_1:
        /*0020*/                   LDG.E.64 R2, desc[UR4][R4.64] ;
.L_x_0:
        /*0030*/                   LDG.E.U16 R3, desc[UR4][R4.64+0x80] ;
        /*0040*/                   BRA.DIV ~URZ, `(.L_x_3) ;
        /*0050*/              @!P1 BRA `(.L_x_2) ;
        /*0060*/                   MUFU.EX2 R6, R3 ;
.L_x_2:
        /*0070*/                   STG.E desc[UR4][R4.64], R6 ;
        /*0080*/               @P2 BRA `(.L_x_0) ;
        /*0090*/               @P3 BRA `(.L_x_1) ;
        /*00a0*/                   EXIT ;
.L_x_3:
        /*00b0*/                   FADD R6, R6, R6 ;
        /*00c0*/                   BRA `(.L_x_2) ;
.L_x_4:
        /*00d0*/                   BRA `(.L_x_4) ;
"""


def test_loops_of_a_listing():
    """Code out of line belongs to its loop. The loop behind the last exit, which nothing reaches, is none."""
    blocks = sass.blocks_of(LOOPS)
    inner, outer = sass.loops(blocks)
    assert inner < outer and {".L_x_0", ".L_x_2", ".L_x_3"} < inner and outer - inner == {".L_x_1", "block 6"}
    counts = sass.count([instruction for label in outer for instruction in blocks[label]])
    assert counts["instructions"] == 10 and counts["LDG"] == 2 and counts["LDG.E.U16"] == counts["MUFU"] == 1
    assert counts["loaded"] == 10 and counts["stored"] == 4


def test_the_row_s_loop_is_told_by_what_it_does_an_element():
    code = sass.Assembled(8, 0, sass.blocks_of(LOOPS))
    n, counts = instructions.inner(instructions.Loop(2, 4, 1), code)
    assert n == 1 and counts["instructions"] == 8
    for other in (instructions.Loop(2, 2, 1), instructions.Loop(2, 4, 2), instructions.Loop(barrier=True)):
        with pytest.raises(LookupError, match="no loop"):
            instructions.inner(other, code)


def test_a_branch_to_an_address_is_refused():
    with pytest.raises(NotImplementedError, match="BRX"):
        sass.blocks_of("/*0000*/  BRX R2 -0x10 ;")


@pytest.fixture(scope="module")
def counted(compiled):
    """What is counted of a row. Its kernel is compiled once for all tests, and taken apart once for all rows."""
    missing = [name for name in ("ptxas", "nvdisasm") if sass.tool(name) is None]
    assert not missing or not os.environ.get("CI"), "both are part of the requirements of this tier"
    if missing:
        pytest.skip(f"not found: {', '.join(missing)}")
    known = instructions.launches()
    shared = (
        (instructions, "launches", lambda: known),
        (instructions, "compile_kernel", lambda kernel, arguments, cc: compiled(kernel, arguments)[cc]),
        (sass, "assembled", functools.cache(sass.assembled)),
    )
    with contextlib.ExitStack() as stack:
        for place, name, value in shared:
            stack.enter_context(mock.patch.object(place, name, value))
        yield lambda name: instructions.count([name])[name]


@pytest.mark.parametrize("name", CEILINGS)
def test_instructions_an_element(counted, name):
    found = counted(name)
    assert found.instructions <= CEILINGS[name], f"{name}: {found}"
    assert sum(found.special.values()) == SPECIAL.get(name, sum(found.special.values())) and not found.spilled
