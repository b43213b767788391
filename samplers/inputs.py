"""What the samplers' doors are given -> arrays that the kernels can trust."""

import math

import numpy as np

from lattice.device import arrays
from lattice.device.memory import HOST, device_of
from lattice.inputs.checks import index, read_integer, read_real, refuse
from lattice.inputs.targets import read_targets


def read_probabilities(x, name: str, rows: int | None = None, owner: str = ""):
    """Probabilities as a (R, V) array; (V,) is one row for all. Their values are judged where they are used.

    Parameters
    ----------
    x : (V,) or (B, V) array, float32, float64, float16 or bfloat16
    name : str
    rows : int, optional
        What B must be.
    owner : str
        Where `rows` comes from, for the error text.
    """
    array = read_real(x, name, (1, 2))
    if array.shape[-1] < 1:
        raise ValueError(f"{name} has shape {array.shape}, expected at least one id on the last axis")
    if array.ndim == 2 and rows is not None and array.shape[0] != rows:
        raise ValueError(
            f"{name} has shape {array.shape}, expected (V,) or ({rows}, V), a row for each example of {owner}"
        )
    # Kernels of a GPU read half precision themselves.
    if isinstance(array, np.ndarray) and array.dtype.itemsize == 2:
        array = array.astype(np.float32)
    return array if array.ndim == 2 else array.reshape(1, -1)


def refuse_probabilities(probabilities, name: str) -> None:
    """Raise the error for the first entry that is no probability, if there is one. Copies a device's array."""
    values = arrays.to_host(values=probabilities)[0].astype(np.float64)
    wrong = ~(values >= 0) | np.isinf(values)  # not `values < 0`, which passes a NaN by
    refuse(wrong, lambda at: f"{name}{index(at)} is {values[at]}, expected a finite number of at least 0")


def read_size(size, low: int, high: int, what: str) -> int:
    """A number of ids from `low` to `high`; `what` says in the error text what `high` counts."""
    size = read_integer(size, "size")
    if not low <= size <= high:
        raise ValueError(f"size is {size}, expected {low} to {high}, {what}")
    return size


def read_labels(targets, target_lengths, blank_id: int, size: int):
    """Target ids (B, longest) int32, with everything beyond a target's length replaced by `size`."""
    # `read_targets` refuses targets without a first axis, and says so better than an index error.
    shape = arrays.read(targets, "targets").shape
    rows = shape[0] if shape else 0
    # A target may be as long as the array says: there is no lattice here whose label axis could be shorter.
    unbounded = {"label_axis": math.inf, "label_source": ""}
    labels, _, lengths = read_targets(
        targets, target_lengths, blank_id, None, count=rows, size=size, owner="targets", **unbounded
    )
    # Above every id, so what lies beyond a target sorts behind it.
    return np.where(np.arange(labels.shape[1]) < lengths[:, None], labels, size)


def hand_back(found, like):
    """A result on the device of the argument `like`, in the kind of that argument."""
    array = arrays.read(like, "the first argument")
    there = device_of(array)
    if there != device_of(found):
        host = arrays.to_host(found=found)[0]
        with there.active():
            found = host if there is HOST else there.upload(None, host)[0]
    with there.active():
        return arrays.give_back(found, like)
