"""Numba's cache on disk: no place for it, a broken file in it, a disk that is full.

The library works on, and says nothing.
"""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lattice.kernels import launch

ROOT = Path(__file__).resolve().parent.parent
KERNEL = """
from lattice.kernels.launch import cpu_sweep

@cpu_sweep
def double(begin, end, array):
    for i in range(begin, end):
        array[i] *= 2
"""
CALL = """
import numpy as np
from kernel import double
array = np.ones(4)
double(0, 4, array)
print(array.sum(), sum(double.stats.cache_misses.values()), sum(double.stats.cache_hits.values()))
"""


def call(folder, **options):
    """What a process that compiles a kernel in a folder says; the cache is in `folder / "cache"`."""
    source = folder / "kernel.py"
    if not source.exists():  # a file written anew is another one to the cache
        source.write_text(KERNEL)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", CALL],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def no_files():
    """What a full disk is to a process: no file takes a byte. Nor does one of the process's kernels."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_kernel_without_a_file_is_compiled_without_a_cache():
    """numba raises where it finds no directory it may write to; a function that lies in no file is the same to it."""
    names = {}
    exec(compile(KERNEL, "<no file>", "exec"), names)
    array = [1.0, 2.0]
    names["double"].py_func(0, 2, array)
    assert array == [2.0, 4.0] and isinstance(names["double"], type(launch.cpu_sweep(lambda begin, end: None)))


@pytest.mark.slow
def test_the_cache_is_used(tmp_path):
    assert call(tmp_path) == "8.0 1 0"
    assert call(tmp_path) == "8.0 0 1"


@pytest.mark.slow
def test_a_body_in_another_file_is_compiled_anew(tmp_path):
    """numba looks at the file of the sweep only."""
    body = "from numba.extending import register_jitable\n@register_jitable\ndef factor():\n    return {}\n"
    (tmp_path / "kernel.py").write_text(
        KERNEL.replace("*= 2", "*= factor()").replace("\n", "\nfrom body import factor\n", 1)
    )
    for value in (2, 3):
        (tmp_path / "body.py").write_text(body.format(value))
        assert call(tmp_path) == f"{4.0 * value} 1 0"
    assert call(tmp_path) == "12.0 0 1"


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    assert call(tmp_path, preexec_fn=no_files).startswith("8.0")
    assert call(tmp_path).startswith("8.0")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with a cache, and what each file of the cache holds."""
    folder = tmp_path_factory.mktemp("filled")
    assert call(folder) == "8.0 1 0"
    return folder, {path: path.read_bytes() for path in (folder / "cache").rglob("*.nb[ic]")}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x05."])
def test_a_broken_file_of_the_cache(filled, suffix, content):
    folder, sound = filled
    assert {path.suffix for path in sound} == {".nbi", ".nbc"}
    # The call before mended what was broken then, or compiled beside it.
    for path, held in sound.items():
        path.write_bytes(content if path.suffix == f".{suffix}" else held)
    assert call(folder).startswith("8.0")


def inner_functions(function, found):
    """By module and name, the functions that a compiled function holds in its closure, all the way down."""
    function = getattr(function, "py_func", function)
    for cell in getattr(function, "__closure__", None) or ():
        inner = getattr(cell.cell_contents, "py_func", cell.cell_contents)
        if callable(inner) and hasattr(inner, "__code__"):
            found.setdefault((inner.__module__, inner.__qualname__), set()).add(inner)
            inner_functions(inner, found)
    return found


def test_no_two_functions_that_sweeps_are_made_of_have_one_name():
    """Numba's cache holds them by name: compiled in two processes, one would stand for both in a third."""
    from lattice.kernels import hidden, hidden_transpose, upper_bounds

    found = {}
    for module in (hidden, hidden_transpose, upper_bounds):
        for kernels in module.KERNELS.values():
            for kernel in kernels:
                if kernel.__name__.endswith("_cpu"):
                    inner_functions(kernel, found)
    assert any(name.startswith("fill_") for _, name in found)
    assert not {name: several for name, several in found.items() if len(several) > 1}
