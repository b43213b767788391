"""What stands between a kernel and its PTX on other machines: a newer NumPy, a toolkit that is not looked for, a part missing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("needs numba-cuda, and no simulator", allow_module_level=True)

from numba import cuda

from lattice.kernels import ptx, rows
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
    with ptx._toolkit():
        assert os.environ["CUDA_HOME"] == str(toolkit)
    assert "CUDA_HOME" not in os.environ


@pytest.mark.parametrize("name", ["CUDA_HOME", "CUDA_PATH"])
def test_a_toolkit_that_was_chosen_stays(toolkit, monkeypatch, name):
    monkeypatch.setenv(name, "/chosen")
    before = dict(os.environ)
    with ptx._toolkit():
        assert dict(os.environ) == before
    assert dict(os.environ) == before


def test_a_part_that_is_missing_is_named(monkeypatch):
    def missing(*arguments, **options):
        raise RuntimeError("Failure finding libnvvm.so")

    monkeypatch.setattr(cuda, "compile_ptx", missing)
    with pytest.raises(RuntimeError, match=r"mark_cuda.*libnvvm.*CUDA_HOME.*pip install"):
        ptx.compile_kernel(rows.mark_cuda, ARGUMENTS, (9, 0))
