"""What the doors of CTC are given -> a frozen Problem that the stages can trust."""

import math
from dataclasses import dataclass

import numpy as np

from ..device import arrays
from ..device.memory import Cuda, Host, device_of
from .checks import read_blank, read_lengths, read_real
from .targets import read_targets

KEEPS = ("first", "last")
"""Which frame of its run stands for a label."""


@dataclass(frozen=True)
class CtcProblem:
    """CTC from given logits.

    Attributes
    ----------
    device : Host or Cuda
        Where the logits lie. All integers are on the host.
    logits : (B * T, V)
        Frame t of example b lies in row b * T + t.
    targets : (B, longest U_b, at least 1) int32
        0 beyond a target's length.
    blank_id : int
    frame_lengths, target_lengths : (B,) int64
    shape : (B, T, V)
    label_axis : int
        U, the size of the targets' second axis.
    """

    device: Host | Cuda
    logits: np.ndarray
    targets: np.ndarray
    blank_id: int
    frame_lengths: np.ndarray
    target_lengths: np.ndarray
    shape: tuple[int, int, int]
    label_axis: int


def read_ctc(logits, targets, logit_lengths, target_lengths, *, blank) -> CtcProblem:
    """Check the arguments of `ctc_loss`."""
    array = read_real(logits, "logits", (3,))
    # The one wait for a GPU at this door, and only if integers lie there.
    targets, logit_lengths, target_lengths = arrays.to_host(
        targets=targets, logit_lengths=logit_lengths, target_lengths=target_lengths
    )
    B, T, V = array.shape
    blank, owner = read_blank(blank, V), f"logits {array.shape}"
    # Logits have no label axis, so only the array of targets bounds the length of a target.
    positions, _, target_lengths = read_targets(
        targets, target_lengths, blank, None, count=B, size=V, label_axis=math.inf, label_source="", owner=owner
    )
    source = f"axis 1 of logits {array.shape}"
    frame_lengths = read_lengths(logit_lengths, "logit_lengths", B, low=1, high=T, source=source, owner=owner)
    device, rows = device_of(array), array.reshape(-1, V)
    columns = arrays.read(targets, "targets").shape[1]  # U of the results (B, U), padding included
    return CtcProblem(device, rows, positions, blank, frame_lengths, target_lengths, array.shape, columns)
