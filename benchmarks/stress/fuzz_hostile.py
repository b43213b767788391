"""Objects that claim to be arrays: they raise, lie, or hand over capsules that do not hold what they should."""

import ctypes
import importlib.util

import numpy as np

from lattice.device.dlpack import _look_into

DEVICES = (None, "cpu", (1,), (1, 0, 0), ("cpu", 0), (2, 0), (2, 99), (13, 0), (999, 0), (-1, 0), (1.5, None), 2**80)


class HostileError(RuntimeError):
    """What a hostile object raises by itself."""

    def __init__(self):
        super().__init__("hostile object")


class Wrapped:
    """An array behind DLPack alone, as another library's would be."""

    def __init__(self, array, device=(1, 0), change=None):
        self.array, self.device, self.change = array, device, change

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        capsule = self.array.__dlpack__(**options)
        if self.change is not None:
            self.change(_look_into(capsule)[0])
        return capsule


class Raises:
    """Every door into it raises."""

    def __init__(self, error, at: str):
        self.error, self.at = error, at

    def __dlpack_device__(self):
        if self.at == "device":
            raise self.error
        return (1, 0)

    def __dlpack__(self, **options):
        raise self.error


class Gives(Raises):
    """A `__dlpack__` that gives anything but a capsule of a tensor."""

    def __init__(self, given):
        super().__init__(None, "never")
        self.given = given

    def __dlpack__(self, **options):
        return self.given


class NoOptions(Wrapped):
    """A producer of the first version of the protocol."""

    def __dlpack__(self):
        return self.array.__dlpack__()


class ArrayInterface:
    """NumPy would take it; it is no array of the data API."""

    def __init__(self, array):
        self.__array_interface__ = {**array.__array_interface__, "shape": (2**40,)}

    def __array__(self, *arguments, **options):
        raise HostileError


class Predict:
    """A predictor that does wrong after a call or two; `inner` is one that does not."""

    def __init__(self, inner, wrong: int, calls: int):
        self.inner, self.wrong, self.calls = inner, wrong, calls

    def __call__(self, labels, state):
        self.calls -= 1
        try:
            predictor, new = self.inner(labels, state)
        except IndexError:
            raise HostileError from None
        if self.calls > 0:
            return predictor, new
        if self.wrong == 0:
            raise HostileError
        if self.wrong == 1:
            labels[:], state_arrays = -5, state or ()
            for part in state_arrays:
                part[:] = 7
        wrong = (
            None,
            (predictor,),
            (predictor, new, new),
            (predictor.T, new),
            (predictor[:0], new),
            (predictor.tolist(), new),
            (predictor.astype(np.int64), new),
            (predictor, list(new)),
            (predictor, ()),
            (predictor, new[0]),
            (predictor, (new[0].astype(object), new[1])),
            (predictor, (new[0].astype("S3"), new[1])),
            (predictor, (new[0][:0], new[1])),
            (predictor, (new[0], new[1][:, :0])),
            (predictor, None),
            (predictor * np.float16(np.nan), new),
            (np.broadcast_to(predictor[:1, :1], predictor.shape), new),
            (predictor.astype(">f4"), new),
            (predictor, (new[0][::-1], new[1].astype(np.longdouble))),
        )
        return (predictor, new) if self.wrong == 1 else wrong[self.wrong % len(wrong)]


def misnamed_capsule():
    create = ctypes.pythonapi.PyCapsule_New
    create.restype, create.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return create(1, b"used_dltensor", None)


def set_field(name: str, value):
    return lambda tensor: setattr(tensor, name, value)


CHANGES = (
    set_field("lanes", 2),
    set_field("ndim", 0),
    set_field("code", 77),
    set_field("bits", 24),
    set_field("device_type", 2),
    set_field("code", 5),
    set_field("ndim", 1),
    set_field("bits", 1),
)


def tensors(array):
    """torch tensors, where torch is: one that is fine and one that requires a gradient."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor, tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor.to(torch.int8)


def hostile(rng, array):
    """(what it is, the object) made round an array of a plain dtype."""
    choice = int(rng.integers(8 if importlib.util.find_spec("torch") is None else 9))
    error = (HostileError(), BufferError("hostile object"), KeyError("hostile object"), ValueError("hostile object"))
    error = error[rng.integers(len(error))]
    if choice == 0:
        return "raises", Raises(error, "device" if rng.random() < 0.5 else "capsule")
    if choice == 1:
        return "garbage", Gives((None, 5, "text", array, b"dltensor")[rng.integers(5)])
    if choice == 2:
        return "misnamed capsule", Gives(misnamed_capsule())
    if choice == 3:
        device = DEVICES[rng.integers(len(DEVICES))]
        return f"device {device}", Wrapped(array, device)
    if choice == 4:
        change = int(rng.integers(len(CHANGES)))
        return f"capsule {change}", Wrapped(array, change=CHANGES[change])
    if choice == 5:
        return "array interface", ArrayInterface(array)
    if choice == 6:
        return "no options", NoOptions(array)
    if choice == 7:
        return "a class", Wrapped
    return "tensor", tensors(array)[rng.integers(2)]
