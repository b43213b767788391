"""Compiled kernels are kept on disk: found again, not taken when the driver refuses them, and not needed."""

import importlib.util
import os

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("needs numba-cuda, and no simulator", allow_module_level=True)

from numba import config

from lattice.kernels import ptx, ptx_store, rows
from tests.ptx.test_launch import Array

ARGUMENTS = (Array(64, (3,), np.int64), Array(128, (4,), np.uint8))


class Driver:
    """Loads what does not hold a forbidden word, and counts compilations."""

    def __init__(self, monkeypatch, folder):
        self.compiled, self.refused = 0, None
        monkeypatch.delenv("LATTICE_PTX", raising=False)
        monkeypatch.setattr(config, "CACHE_DIR", str(folder))
        monkeypatch.setattr(ptx, "load", self.load)
        monkeypatch.setattr(ptx, "compile_kernel", self.compile)
        monkeypatch.setattr(ptx, "parameters", lambda text: [8] * 14)

    def load(self, text):
        if self.refused and self.refused in text:
            raise RuntimeError("the driver refuses PTX")
        return text

    def compile(self, kernel, arguments, cc):
        self.compiled += 1
        return f"code {self.compiled}"


def test_a_kernel_is_compiled_once(monkeypatch, tmp_path):
    driver = Driver(monkeypatch, tmp_path / "new")
    assert ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0)) == ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0)) == "code 1"
    assert ptx._make(rows.mark_cuda, ARGUMENTS, (8, 0)) == "code 2"
    assert ptx._make(rows.mark_cuda, (Array(64, (3,), np.int32), ARGUMENTS[1]), (9, 0)) == "code 3"
    assert driver.compiled == 3
    monkeypatch.setattr(ptx_store, "sources", lambda kernel: {"lattice.kernels": "another version"})
    assert ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0)) == "code 4"
    monkeypatch.setattr(ptx_store, "compiler", lambda: ("another", "release"))
    assert ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0)) == "code 5"


def test_what_the_driver_refuses_is_compiled_anew(monkeypatch, tmp_path):
    driver = Driver(monkeypatch, tmp_path)
    ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0))
    driver.refused = "code 1"
    assert ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0)) == "code 2"
    driver.refused = "code"
    with pytest.raises(RuntimeError, match="refuses"):
        ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0))


def test_a_file_of_the_cache_that_is_no_text_is_passed_over(monkeypatch, tmp_path):
    Driver(monkeypatch, tmp_path)
    ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0))
    (path,) = tmp_path.glob("*.ptx")
    path.write_bytes(b"\xff\xfe")
    assert ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0)) == "code 2"


def test_another_calling_convention_is_noticed(monkeypatch, tmp_path):
    Driver(monkeypatch, tmp_path)
    monkeypatch.setattr(ptx, "parameters", lambda text: [8] * 13)
    with pytest.raises(RuntimeError, match="mark_cuda: the kernel takes 13 parameters, expected 14"):
        ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0))


@pytest.mark.parametrize("text", ["", ".version 9.0"])
def test_a_damaged_file_is_no_kernel(text):
    with pytest.raises(RuntimeError, match="no PTX"):
        ptx.load(text)


def test_a_folder_that_cannot_be_written_to_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    Driver(monkeypatch, tmp_path / "file")
    assert [ptx._make(rows.mark_cuda, ARGUMENTS, (9, 0)) for _ in range(2)] == ["code 1", "code 2"]
