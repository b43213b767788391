"""What the stand-in for CuPy does with arrays as bytes, and what it leaves to compiled kernels.

CuPy's compiled kernels of bfloat16 include `cuda_bf16.h`, which a machine may lack. The stand-in therefore refuses for
bfloat16 whatever CuPy compiles a kernel for: arithmetic, casts, fills but with 0, and copies, `copy` among them.
Assigning one run of bytes to another compiles nothing.
"""

import ctypes

import numpy as np


def compiled(*values):
    """What CuPy compiles a kernel for: no bfloat16, unless there is nothing to do."""
    if any(getattr(value, "dtype", np.dtype(bool)).name == "bfloat16" and value.size for value in values):
        raise RuntimeError(
            "CuPy would compile a kernel of bfloat16, with headers that a machine may lack: use one of ours"
        )


def moved_by_bytes(source, target) -> bool:
    """Whether CuPy assigns one NumPy array of ours to another by a plain copy of memory."""
    same = source.dtype == target.dtype and source.shape == target.shape and source.strides == target.strides
    return same and (target.flags.c_contiguous or source.ctypes.data == target.ctypes.data)


def capsule(array, device):
    """A DLPack capsule of the memory, marked as lying on `device`; NumPy itself cannot export bfloat16."""
    half = array.dtype.name == "bfloat16"
    capsule = (array.view(np.uint16) if half else array).__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = pointer(capsule, b"dltensor")
    # struct DLTensor: data, then the device type at byte 8; the code of the dtype at byte 20, where 4 says bfloat.
    ctypes.c_int32.from_address(tensor + 8).value = device
    if half:
        ctypes.c_uint8.from_address(tensor + 20).value = 4
    return capsule
