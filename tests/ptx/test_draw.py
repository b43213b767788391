"""What makes two devices draw the same ids, read from the compiled kernel."""

import importlib.util
import os
import re

import numpy as np
import pytest

from lattice.kernels import ptx

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("needs numba-cuda, and no simulator", allow_module_level=True)

from samplers import draw
from tests.launches import stand_in

WRITTEN = 10
"""Times that the logarithm says fma: eight in the sum, and two in the end."""


def test_nothing_is_fused_but_what_the_source_fuses():
    with stand_in() as cupy:
        keys, p = (cupy.asarray(np.zeros((2, 3), dtype)) for dtype in (np.int64, np.float32))
        text = ptx.compile_kernel(draw.keys_cuda, (p, 1, 0, 0, 0, keys), (9, 0))
    assert len(re.findall(r"\bfma\.rn\.f64\b", text)) == WRITTEN
    assert not re.search(r"\b(mad|fma)\.(?!rn\.f64|lo|hi|wide)", text)
    assert "div.rn.f64" in text and not re.search(r"\b(div|rcp)\.(approx|full)", text)
