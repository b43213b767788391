"""Which kernels are launched for which types.

The cases of `tests/kernel_cases.py` launch them, and so do the doors of the library.
"""

import contextlib
from unittest import mock

from lattice.device import arrays
from lattice.kernels import launch, ptx
from lattice.kernels.activations import ACTIVATIONS
from lattice.kernels.ptx_types import type_names
from tests import door_calls, kernel_cases, kernel_compare
from tests.cudasim import fake_cupy
from tests.problems import DTYPES


def library() -> set[str]:
    """Names of the kernels of both packages; tests define others."""
    packages = ("lattice.", "samplers.")
    return {name for name, kernel in launch.kernels.items() if kernel.py_func.__module__.startswith(packages)}


@contextlib.contextmanager
def recorded(run):
    """Launches in the order in which they first appear, {(kernel, type names): arguments}; each goes on to `run`."""
    found = {}

    def record(kernel, blocks, threads, arguments):
        found.setdefault((kernel, type_names(arguments)), arguments)
        run(kernel, blocks, threads, arguments)

    with mock.patch.object(ptx, "run", record):
        yield found


@contextlib.contextmanager
def stand_in():
    """The stand-in for CuPy, without kernels."""
    arrays.cupy.cache_clear()
    try:
        yield fake_cupy.install()
    finally:
        fake_cupy.uninstall()
        arrays.cupy.cache_clear()


def of_cases() -> dict:
    """What every case would launch, nothing being run: {(kernel, type names): (arguments, dtype of the case)}."""
    found = {}
    with stand_in() as cupy:
        for case in kernel_cases.every_case():
            with recorded(lambda *launch: None) as launches:
                case.function(*(kernel_compare.place(value, cupy.asarray) for value in case.arguments), **case.options)
            for key, arguments in launches.items():
                found.setdefault(key, (arguments, case.dtype))
    return found


def of_doors(cupy, dtypes=DTYPES, activations=ACTIVATIONS) -> dict:
    """What the doors launch on small problems of every kind, {(kernel, type names): arguments}.

    `cupy` has kernels that run.
    """
    with recorded(ptx.run) as found:
        for call in door_calls.every_call(cupy, dtypes, activations):
            call()
    return found
