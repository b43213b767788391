"""Numba's cache of compiled code on disk, done without where there is no place for it.

Numba raises where a package lies in a read-only directory and its user has no home, where the disk is full, and where a
file of the cache is broken. It does so at import, or in the middle of a first call. The code is then compiled in every
process.

Numba compiles a sweep anew if the file that holds the sweep has changed. Most bodies lie in other files. So here it
compiles anew if any file of the kernels' folders has changed, as `ptx_store` does for CUDA.
"""

import contextlib
import pickle

from numba.core.caching import FunctionCache

from . import ptx_store

BROKEN = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
)
"""Errors of the disk, and errors that reading bytes raises which are no pickle."""


class _Cache(FunctionCache):
    """Compiled code of one function. Numba loads and saves under its compiler lock."""

    def __init__(self, dispatcher):
        super().__init__(dispatcher.py_func)
        # What an index on disk must say, or it is written anew.
        self._cache_file._source_stamp = self._cache_file._source_stamp, ptx_store.sources(dispatcher)

    def load_overload(self, sig, target_context):
        # None says that there is no compiled code, so numba compiles.
        try:
            return super().load_overload(sig, target_context)
        except BROKEN:
            return None

    def save_overload(self, sig, data):
        with contextlib.suppress(*BROKEN):
            super().save_overload(sig, data)


def cached(dispatcher):
    """The same function of `numba.njit`, its compiled code kept on disk where that can be done."""
    # With NUMBA_DISABLE_JIT there is no dispatcher, and with no directory to write to there is no cache.
    with contextlib.suppress(AttributeError, RuntimeError):
        dispatcher._cache = _Cache(dispatcher)
    return dispatcher
