"""Kernels compiled once for all tests of this tier, whichever of its processes asks first."""

import hashlib
import os
from unittest import mock

import pytest

from lattice.kernels import ptx, ptx_store
from lattice.kernels.ptx_types import type_names

OLDEST, NEWEST = (8, 0), (9, 0)
"""Compute capabilities."""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """`compiled(kernel, arguments)` is the PTX {compute capability: text} for `OLDEST` and `NEWEST`."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each process has a folder of its own in that of the run.
        folder = folder.parent

    def texts_of(kernel, arguments):
        name = f"{kernel.py_func.__name__}{type_names(arguments)}"
        paths = {cc: folder / f"{hashlib.sha256(f'{name}{cc}'.encode()).hexdigest()}.ptx" for cc in (OLDEST, NEWEST)}
        if all(path.exists() for path in paths.values()):
            return {cc: path.read_text() for cc, path in paths.items()}
        texts = compile_both(kernel, arguments)
        for cc, text in texts.items():
            ptx_store.keep(paths[cc], text)
        # Kept for tier ptxrun, which finds it in numba's cache.
        ptx_store.keep(ptx_store.cached(kernel, type_names(arguments), NEWEST), texts[NEWEST])
        return texts

    return texts_of


def compile_both(kernel, arguments):
    """The PTX of a kernel for `NEWEST`, compiled as ever, and for `OLDEST`, of the same LLVM code."""
    from numba.cuda import codegen

    texts, of_code = {}, codegen.CUDACodeLibrary.get_asm_strs

    def of_both(code, cc):
        (texts[OLDEST],) = of_code(code, cc=OLDEST)
        return of_code(code, cc=cc)

    with mock.patch.object(codegen.CUDACodeLibrary, "get_asm_strs", of_both):
        texts[NEWEST] = ptx.compile_kernel(kernel, arguments, NEWEST)
    return texts
