"""What stands between a kernel and its PTX on other machines.

The tests have a newer NumPy, a toolkit that is not looked for, and a missing part.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("needs numba-cuda, and no simulator", allow_module_level=True)

from numba import cuda

from lattice.kernels import ptx, ptx_compile, rows
from samplers import draw
from tests.ptx.test_launch import Array

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = (Array(64, (3,), np.int64), Array(128, (4,), np.uint8))
WITHOUT_ROW_STACK = """
import numpy as np
vars(np).pop("row_stack", None)
def gone(name, before=np.__getattr__):
    if name == "row_stack":
        raise AttributeError(name)
    return before(name)
np.__getattr__ = gone
from lattice.kernels import ptx, rows
from tests.ptx.test_launch import Array
text = ptx.compile_kernel(rows.mark_cuda, (Array(64, (3,), np.int64), Array(128, (4,), np.uint8)), (9, 0))
assert ".entry" in text and not hasattr(np, "row_stack")
"""


def test_a_numpy_without_row_stack_compiles():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_ROW_STACK]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """A toolkit with `nvcc` on the PATH, and no variable that names it."""
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.touch(mode=0o755)
    libdevice = tmp_path / "nvvm" / "libdevice" / "libdevice.10.bc"
    libdevice.parent.mkdir(parents=True)
    libdevice.touch()
    monkeypatch.setenv("PATH", str(nvcc.parent), prepend=os.pathsep)
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_toolkit_of_nvcc_is_shown_for_as_long_as_it_is_needed(toolkit):
    with ptx_compile._toolkit():
        assert os.environ["CUDA_HOME"] == str(toolkit)
    assert "CUDA_HOME" not in os.environ


@pytest.mark.parametrize("name", ["CUDA_HOME", "CUDA_PATH"])
def test_a_toolkit_that_was_chosen_stays(toolkit, monkeypatch, name):
    monkeypatch.setenv(name, "/chosen")
    before = dict(os.environ)
    with ptx_compile._toolkit():
        assert dict(os.environ) == before
    assert dict(os.environ) == before


def test_a_part_that_is_missing_is_named(monkeypatch):
    def missing(*arguments, **options):
        raise RuntimeError("Failure finding libnvvm.so")

    monkeypatch.setattr(cuda, "compile_ptx", missing)
    with pytest.raises(RuntimeError, match=r"mark_cuda.*libnvvm.*CUDA_HOME.*pip install.*LATTICE_PTX"):
        ptx.compile_kernel(rows.mark_cuda, ARGUMENTS, (9, 0))


APART = """
from lattice.kernels import ptx
from samplers import draw
from tests.ptx.test_compiler import KEYS, driver_is_left_alone
driver_is_left_alone()
print(ptx.compile_kernel(draw.keys_cuda, KEYS, (9, 0)))
"""
KEYS = (Array(64, (3, 5), np.float32), 1, 0, 0, 0, Array(128, (3, 5), np.int64))


def driver_is_left_alone():
    """From here on, asking numba for the current device is an error."""
    from numba.cuda import api, dispatcher

    def asked():
        raise AssertionError("the driver was asked")

    for module in (api, dispatcher):
        module.get_current_device = asked
    return asked


def test_one_process_compiles_for_several_devices_without_a_driver(monkeypatch):
    """A device function keeps the capability that it was first compiled for.

    The kernels that call it must still be the kernels of a fresh process.
    """
    from numba.cuda import api, dispatcher

    for module in (api, dispatcher):
        monkeypatch.setattr(module, "get_current_device", module.get_current_device)
    asked = driver_is_left_alone()
    older, newer = (ptx.compile_kernel(draw.keys_cuda, KEYS, cc) for cc in ((8, 0), (9, 0)))
    assert ".target sm_80" in older and ".target sm_90" in newer
    assert dispatcher.get_current_device is asked
    command = [sys.executable, "-W", "ignore", "-c", APART]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert instructions(done.stdout) == instructions(newer)


def instructions(text):
    """PTX without comments, and without the numbers that numba gives to what it compiles."""
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("//")]
    return re.sub(r"_ZN[\w$]*", "name", "\n".join(kept))
