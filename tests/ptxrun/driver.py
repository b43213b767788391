"""As much of CuPy's driver binding as `lattice.kernels.ptx` uses: modules are translated, launches run in the machine.

The launch goes all the way that it goes on a GPU: the arguments are packed by `ptx.run`, and read back here by address.
"""

import contextlib
import ctypes
import itertools
from collections import defaultdict
from types import SimpleNamespace
from unittest import mock

from lattice.device import arrays
from lattice.kernels import hidden_transpose, ptx, ptx_store
from lattice.kernels.device_view import DeviceView
from tests.cudasim import fake_cublas, fake_cupy

from . import machine

_numbers = itertools.count(1)
functions: dict[int, tuple[str, dict]] = {}
"""PTX of each loaded kernel, and what was made of it: by number."""
_known: dict[str, int] = {}
_arrays: list[tuple[int, int]] = []
_name = ""
_run = ptx.run
_cached = ptx_store.cached
_loaded: dict[int, dict] = defaultdict(dict)
"""What `ptx` has loaded, by what tests change of the kernels."""


class Module:
    def load(self, text):
        self.text = text.decode()

    def get_function(self, entry):
        if self.text not in _known:
            _known[self.text] = next(_numbers)
            functions[_known[self.text]] = self.text, {}
        return SimpleNamespace(ptr=_known[self.text], module=self)


def function_of(number) -> machine.Function:
    text, made = functions[number]
    if machine.settings.fuse not in made:
        made[machine.settings.fuse] = machine.Function(text, machine.settings.fuse)
    return made[machine.settings.fuse]


def launch_kernel(number, x, y, z, bx, by, bz, shared, stream, parameters, extra):
    assert (z, by, bz, shared, extra) == (1, 1, 1, 0, 0)
    function = function_of(number)
    addresses = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))
    sizes = function.translation.parameters
    passed = [ctypes.string_at(addresses[index], size) for index, size in enumerate(sizes)]
    machine.launch(function, machine.Launch(_name, (x, y), bx, passed, list(_arrays)))


def run(kernel, blocks, threads, arguments):
    """`ptx.run`, with the memory of its arguments written down first."""
    global _arrays, _name
    _name = kernel.py_func.__name__
    placed = [argument for argument in arguments if not isinstance(argument, ptx.NUMBERS)]
    for array in placed:
        # A view must lie within the memory of its owner.
        if isinstance(array, DeviceView):
            array.array()
    _arrays = [(array.data.ptr, array.nbytes) for array in placed]
    _run(kernel, blocks, threads, arguments)


def cached(kernel, types, cc):
    """`ptx_store.cached`, with what tests change of a kernel in the name: no user's process must find it."""
    path = _cached(kernel, types, cc)
    return (
        path.with_name(f"{hidden_transpose.SEARCHED}-{path.name}")
        if "SEARCHED" in kernel.py_func.__code__.co_names
        else path
    )


@contextlib.contextmanager
def device():
    """The stand-in for CuPy, with kernels that run as compiled."""
    arrays.cupy.cache_clear()
    cupy = fake_cupy.install()
    fakes = {
        "cublas": fake_cublas,
        "device": SimpleNamespace(get_cublas_handle=lambda: 0),
        "Module": Module,
        "driver": SimpleNamespace(launchKernel=launch_kernel),
    }
    with contextlib.ExitStack() as stack:
        for name, value in fakes.items():
            stack.enter_context(mock.patch.object(cupy.cuda, name, value, create=True))
        stack.enter_context(mock.patch.object(ptx, "run", run))
        stack.enter_context(mock.patch.object(ptx, "_functions", _loaded[hidden_transpose.SEARCHED]))
        stack.enter_context(mock.patch.object(ptx_store, "cached", cached))
        yield cupy
    fake_cupy.uninstall()
    arrays.cupy.cache_clear()
