"""What NumPy's own DLPack leaves out: bfloat16 in both directions, and whether memory may be written to.

NumPy has no bfloat16 of its own, so its `from_dlpack` refuses the type. The bits are the same under another label. So
the element type in the producer's capsule is changed from bfloat to unsigned integer before NumPy sees it, and back on
the way out. No framework is imported for it. The structs are DLTensor and DLManagedTensorVersioned of DLPack 1.x. A
capsule without a version begins with a DLTensor.
"""

import ctypes

import numpy as np

# Numbers of DLPack's header: device types, codes of element types, and a bit of the flags.
CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
UNSIGNED, BFLOAT = 1, 4
READ_ONLY = 1


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]


def _look_into(capsule) -> tuple[_Tensor, bool]:
    """The tensor that a capsule holds, and whether it is read-only, as one without a version is taken to be.

    The tensor lies in the capsule's memory. It lives as long as the capsule, and writing to it changes the capsule.
    """
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = ctypes.cast(_pointer_of(capsule, b"dltensor_versioned"), ctypes.POINTER(_Versioned)).contents
        if versioned.major != 1:
            raise BufferError(f"DLPack version {versioned.major}.{versioned.minor}, expected 1.x")
        return versioned.tensor, bool(versioned.flags & READ_ONLY)
    if not _is_valid(capsule, b"dltensor"):
        raise BufferError(
            f"__dlpack__ gave {type(capsule).__name__}, expected a capsule of a tensor that nobody has taken"
        )
    # Here the DLTensor comes first, and neither version nor flags precede it.
    return ctypes.cast(_pointer_of(capsule, b"dltensor"), ctypes.POINTER(_Tensor)).contents, True


class Relabelled:
    """A producer whose capsules carry another element type of the same size.

    Parameters
    ----------
    producer : object with `__dlpack__`
    code : int
        Element type code to look for, of 16-bit elements.
    becomes : int
        Code it is changed to.
    """

    def __init__(self, producer, code: int, becomes: int):
        self.producer, self.code, self.becomes = producer, code, becomes
        self.changed = False

    def __dlpack_device__(self):
        return self.producer.__dlpack_device__()

    def __dlpack__(self, **options):
        capsule = self.producer.__dlpack__(**options)
        tensor, _ = _look_into(capsule)
        # Before anybody has taken the capsule, so nobody has seen the old code.
        if tensor.code == self.code and tensor.bits == 16:
            tensor.code = self.becomes
            self.changed = True
        return capsule


def to_numpy(producer) -> np.ndarray:
    """A NumPy view of host memory, zero copy; bfloat16 as ml_dtypes has it."""
    relabelled = Relabelled(producer, BFLOAT, UNSIGNED)
    array = np.from_dlpack(relabelled)
    if relabelled.changed:
        # The library does not require it, so it is imported only where bfloat16 comes.
        import ml_dtypes

        array = array.view(ml_dtypes.bfloat16)
    return array


def is_read_only(producer) -> bool:
    """Whether an array of another library may not be written to, or does not say."""
    try:
        capsule = producer.__dlpack__(max_version=(1, 0))
    except TypeError:
        # A library of before DLPack 1.0, which knows no versions.
        capsule = producer.__dlpack__()
    return _look_into(capsule)[1]


def exporter(array):
    """What another library's `from_dlpack` is handed: the array, or for bfloat16 its bits under the right label."""
    if array.dtype.name != "bfloat16":
        return array
    return Relabelled(array.view(np.uint16), UNSIGNED, BFLOAT)
