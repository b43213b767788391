"""Instructions that numba has no name for: each kernel takes those of its own architecture."""

import importlib.util
import os

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("needs numba-cuda, and no simulator", allow_module_level=True)

from lattice.kernels import ptx, rows
from tests.ptx.test_launch import Array

ARGUMENTS = (Array(64, (1, 3), np.float32), Array(128, (1, 3), np.uint16))


@pytest.mark.parametrize("order", [(75, 80, 90), (90, 80, 75)], ids=str)
def test_bfloat16_is_rounded_by_an_instruction_where_there_is_one(order):
    """numba keeps the code of a device function, whatever it was compiled for first."""
    for cc in order:
        text = ptx.compile_kernel(rows.cast_cuda, ARGUMENTS, divmod(cc, 10))
        assert ("cvt.rn.bf16.f32" in text) == (cc >= 80), cc
        # The other way to round is gone, and so is the question.
        assert ("32767" in text) == (cc < 80), cc
        assert "reflect" not in text and "lattice_architecture" not in text
