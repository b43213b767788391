"""CUDA kernels from Python to the device: numba compiles them to PTX, CuPy loads and launches it.

Numba's own launch looks at each array through the CUDA array interface, which waits for the stream once for each
argument and costs about 90 us a launch. Here nothing waits, and the work goes to the caller's current stream. Both
sides keep to numba's calling convention (`ptx_types`). By it some kernels have over a hundred parameters. A
`DeviceView` has packed its own when it was made, so that a launch only strings them together, in slots whose addresses
never change.
"""

import contextlib
import ctypes
import re
import threading

from ..device import arrays
from . import ptx_store
from .device_view import DeviceView
from .ptx_compile import compile_kernel
from .ptx_types import NUMBERS, flattened, kind_of, packed, parameters, type_names

__all__ = ["NUMBERS", "compile_kernel", "flattened", "load", "parameters", "run"]

MOST_PARAMETERS = 512
SLOT = 8
"""Bytes of a packed parameter; a float32 fills half of one."""

# By kernel, number of the device and kinds of the arguments. What is kept holds its module. Without a lock: two threads
# at worst load a kernel twice.
_functions: dict = {}


class _Slots(threading.local):
    """Where a thread packs the parameters of its launches; `ready` are the devices whose context the thread has met."""

    def __init__(self):
        # A launch copies the parameters before it returns, so the next one may write over them.
        memory = (ctypes.c_ubyte * (MOST_PARAMETERS * SLOT))()
        base = ctypes.addressof(memory)
        self.memory = memoryview(memory).cast("B")
        self.addresses = (ctypes.c_void_p * MOST_PARAMETERS)(*range(base, base + MOST_PARAMETERS * SLOT, SLOT))
        self.address = ctypes.addressof(self.addresses)
        self.ready = set()


_slots = _Slots()


def run(kernel, blocks: tuple[int, ...], threads: int, arguments: tuple) -> None:
    """Launch a kernel on CuPy's current stream, compiled for the types of its arguments when it first meets them."""
    cuda = arrays.cupy().cuda
    number = cuda.runtime.getDevice()
    if number not in _slots.ready:
        # A thread that has done nothing on the device yet has no context. Neither a launch nor loading a module makes
        # one.
        cuda.runtime.memGetInfo()
        _slots.ready.add(number)
    kinds = [part.kind if type(part) is DeviceView else kind_of(part) for part in arguments]
    key = (kernel, number, *kinds)
    function = _functions.get(key)
    if function is None:
        flattened(arguments)  # refuses what no kernel takes
        made = _make(kernel, arguments, capability(cuda.Device()))
        # Of two threads that meet a kernel at once, one loads it in vain. The module of the other may run already.
        function = _functions.setdefault(key, made)
    row = b"".join([part.packed if type(part) is DeviceView else packed(part) for part in arguments])
    _slots.memory[: len(row)] = row
    x, y = blocks if len(blocks) == 2 else (*blocks, 1)
    # The 0 before the stream: kernels declare their shared memory, and no more is asked for.
    stream = cuda.get_current_stream(number).ptr
    cuda.driver.launchKernel(function.ptr, x, y, 1, threads, 1, 1, 0, stream, _slots.address, 0)


def capability(device) -> tuple[int, int]:
    """Compute capability of a CuPy device."""
    digits = device.compute_capability  # "90" for 9.0, "120" for 12.0
    return int(digits[:-1]), int(digits[-1])


def _make(kernel, arguments: tuple, cc: tuple[int, int]):
    """The kernel on the device: from the folder that `LATTICE_PTX` names, from the cache, or compiled.

    The folder comes first. Who names one says what is to run. The cache holds whatever an earlier process compiled,
    maybe by the very compiler that the folder is to stand in for. A wrong file of the cache is passed over. A wrong
    file of the folder is an error, because what was asked for is never replaced in silence.
    """
    types, passed = type_names(arguments), len(flattened(arguments))
    found = ptx_store.prepared(kernel, types, cc)
    if found is not None:
        path, text = found
        try:
            _check_parameters(text, passed)
            return load(text)
        except RuntimeError as error:
            raise RuntimeError(f"{path}: {error}") from error
    path = ptx_store.cached(kernel, types, cc)
    # Its name depends on the versions of numba and numba-cuda, so it was made by this calling convention.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return load(path.read_text())
    text = compile_kernel(kernel, arguments, cc)
    try:
        _check_parameters(text, passed)
    except RuntimeError as error:
        raise RuntimeError(f"this numba-cuda and {kernel.py_func.__name__}: {error}") from error
    function = load(text)
    # Kept only once the driver has taken it.
    ptx_store.keep(path, text)
    return function


def _check_parameters(text: str, passed: int) -> None:
    """Refuse PTX of another calling convention, whose kernel would read the wrong memory."""
    wanted = len(parameters(text))
    if wanted != passed:
        raise RuntimeError(
            f"the kernel takes {wanted} parameters, expected {passed}: it was compiled by another release of "
            "numba-cuda, 0.30 for one is needed"
        )


def load(text: str):
    """Hand PTX to the driver; the function launches it.

    Raises
    ------
    RuntimeError
        The driver is older than the compiler that wrote the PTX.
    """
    version, entry = re.search(r"\.version ([\d.]+)", text), re.search(r"\.entry\s+(\w+)", text)
    if not (version and entry):
        raise RuntimeError("no PTX: the text has no version or no kernel")
    module = arrays.cupy().cuda.Module()
    try:
        module.load(text.encode())
    except Exception as error:
        # Of whatever class: CuPy's are not imported here.
        raise RuntimeError(
            f"the driver refuses PTX of version {version[1]} ({error}): install the CUDA toolkit of the driver's own "
            "release, for a driver of CUDA 13.0 pip install 'cuda-toolkit==13.0.*'"
        ) from error
    return module.get_function(entry[1])
