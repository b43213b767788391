"""Every kernel compiles for sm_80 and sm_90 without a GPU or a driver, with the types its host function passes.

The cases of `tests/kernel_cases.py` are called on stand-ins for device arrays. The kernels that they would launch are
compiled instead.
"""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import lattice.kernels
import samplers
from benchmarks.gpu import sass
from lattice.kernels import ptx
from lattice.kernels.activations import ACTIVATIONS
from tests import launches as recorder
from tests.ptx.conftest import OLDEST

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("needs numba-cuda, and no simulator", allow_module_level=True)

FLOAT64_KERNELS = {
    "sums_cuda",
    "sums_paired_cuda",
    "bests_cuda",
    "bests_paired_cuda",
    "posteriors_cuda",
    "posteriors_paired_cuda",
    "pair_visits_cuda",
    "select_cuda",
    "delay_cuda",
    "read_scores_cuda",
    "label_visits_cuda",
    "leave_out_cuda",
    "leave_rows_cuda",
    "narrow_cuda",
    "ctc_sums_cuda",
    "ctc_posteriors_cuda",
    "ctc_path_cuda",
    "keys_cuda",
    "choose_cuda",
    "inclusion_cuda",
    "pool_cuda",
    "expected_risk_cuda",
    "factors_cuda",
    *(f"reach_{name}_cuda" for name in ACTIVATIONS),
    "extend_cuda",
    "extend_paired_cuda",
    "trace_cuda",
    "sum_rows_cuda",
    "step_sums_cuda",
    "step_posteriors_cuda",
    "trace_steps_cuda",
}
"""Sums over alignments are float64 whatever dtype the scores have, and two kernels compare with them and add up
posteriors. Sums over N-best lists are float64, too. Factors and delay penalties are made in float64, so that they are
rounded once. Draws are float64 so that no two ids arrive at the same time, and every device draws the same."""
PARTS = 16
"""Tests that share the kernels, so that several processes can. Neighbours have device functions in common, which a
process compiles once."""
NEWEST_PTX = (9, 0)
"""What a driver of CUDA 13.0 reads."""
REGISTERS = 80
"""With more, fewer than three blocks of 256 threads find room on a multiprocessor."""
LARGER = {
    "to_frames_identity_cuda": 96,
    "gradient_multiblank_cuda": 88,
    "best_tdt_cuda": 88,
    "sums_cuda": 128,
    "sums_paired_cuda": 128,
    "bests_cuda": 112,
    "bests_paired_cuda": 112,
    **{f"reach_{name}_cuda": 168 for name in ACTIVATIONS},
    "bound_steps_tanh_cuda": 104,
}
"""The loop of the first has no activation, so the compiler unrolls it once more. Two blocks have as many loads under
way as four. The second needs that many in float64 alone. The others are bound by their chain of steps and have few
blocks. Of 128 registers, a block of 512 threads finds room once."""


@pytest.fixture(scope="module")
def launches():
    return recorder.of_cases()


def test_every_kernel_is_launched(launches):
    assert recorder.library() == {kernel.py_func.__name__ for kernel, _ in launches}


def test_kernels_are_called_apart():
    """The name of a kernel finds its compiled code: one that is defined twice would be launched for another."""
    defined = 0
    for path in (
        path for package in (lattice.kernels, samplers) for path in Path(package.__file__).parent.glob("*.py")
    ):
        text = path.read_text()
        defined += len(re.findall(r"^@cuda_kernel\ndef", text, re.MULTILINE))
        defined += len(ACTIVATIONS) * len(re.findall(r"^    @cuda_kernel\n", text, re.MULTILINE))
    assert len(recorder.library()) == defined


@pytest.mark.parametrize("part", range(PARTS))
def test_kernels_compile_and_assemble(launches, part, tmp_path, compiled):
    ptxas = sass.tool("ptxas")
    assert ptxas or not os.environ.get("CI"), "ptxas is part of the requirements of this tier"
    first, behind = (number * len(launches) // PARTS for number in (part, part + 1))
    for (kernel, types), (arguments, dtype) in list(launches.items())[first:behind]:
        name = f"{kernel.py_func.__name__} {types}"
        texts = compiled(kernel, arguments)
        for cc, text in texts.items():
            assert f".target sm_{cc[0]}{cc[1]}" in text, (name, cc)
            version = tuple(map(int, re.search(r"\.version (\d+)\.(\d+)", text).groups()))
            assert version <= NEWEST_PTX, f"{name}: PTX {version}, expected at most {NEWEST_PTX}"
            if dtype != np.float64 and kernel.py_func.__name__ not in FLOAT64_KERNELS:
                assert not re.search(r"\.f64\b", text), f"{name} computes in float64"
            assert not re.search(r"\b(add|sub|mul|fma|max|min)(\.\w+)*\.(f16|bf16)", text), (
                f"{name} computes in half precision"
            )
            assert ptx.parameters(text) == passed_sizes(arguments), name
            if ptxas:
                assert_fits(ptxas, text, cc, tmp_path, name, LARGER.get(kernel.py_func.__name__, REGISTERS))


def test_kernels_of_the_older_architecture_are_made_of_the_same_code(launches, compiled):
    """The test above makes them of what numba made for the newest one; here some are compiled from the source."""
    for (kernel, types), (arguments, _) in list(launches.items())[:: len(launches) // 4]:
        alone = ptx.compile_kernel(kernel, arguments, OLDEST)
        assert nameless(alone) == nameless(compiled(kernel, arguments)[OLDEST]), (kernel.py_func.__name__, types)


def nameless(text) -> str:
    """PTX with its names counted: in numba's stand the architecture and how much was compiled before."""
    names = {}
    return re.sub(r"(_Z|_cudapy_smem)\w+", lambda found: names.setdefault(found[0], f"name{len(names)}"), text)


def passed_sizes(arguments) -> list[int]:
    """Bytes of each parameter as a launch passes it."""
    return [value.dtype.itemsize if isinstance(value, np.generic) else 8 for value in ptx.flattened(arguments)]


def assert_fits(ptxas, text, cc, folder, name, most):
    """The assembler takes the text, keeps everything in registers, and does not need too many of them."""
    source = folder / "kernel.ptx"
    source.write_text(text)
    command = [ptxas, "-v", f"-arch=sm_{cc[0]}{cc[1]}", str(source), "-o", str(folder / "kernel.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    frame = re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr
    ).groups()
    assert set(frame) == {"0"}, f"{name}: {done.stderr}"
    used = int(re.search(r"Used (\d+) registers", done.stderr)[1])
    assert used <= most, f"{name}: {used} registers, expected at most {most}"
