"""What the door of a loss over arc scores is given -> a frozen Problem that its stage can trust."""

from dataclasses import dataclass

import numpy as np

from ..device import arrays
from ..device.memory import Cuda, Host, device_of
from ..topology import Topology, read_topology
from .checks import one_device, read_lengths, read_real
from .restrictions import read_bounds


@dataclass(frozen=True)
class ScoresProblem:
    """A loss over scores of arcs.

    Attributes
    ----------
    device : Host or Cuda
        Where the scores lie. All integers are on the host.
    blank_scores, label_scores : (B, T, U+1)
        In nats. Half precision on the host is widened to float32.
    dtype : np.dtype
        In which the scores were given.
    frame_lengths, target_lengths : (B,) int64
    topology : Topology
    bounds : pair of (B, T) int32 arrays, or None
    """

    device: Host | Cuda
    blank_scores: np.ndarray
    label_scores: np.ndarray
    dtype: np.dtype
    frame_lengths: np.ndarray
    target_lengths: np.ndarray
    topology: Topology
    bounds: tuple[np.ndarray, np.ndarray] | None


def read_scores(blank_scores, label_scores, frame_lengths, target_lengths, *, topology, bounds) -> ScoresProblem:
    """Check the arguments of `scores_loss_and_grad`."""
    given = read_real(blank_scores, "blank_scores", (3,)), read_real(label_scores, "label_scores", (3,))
    blank_scores, label_scores = given
    device, dtype, shape = device_of(blank_scores), blank_scores.dtype, blank_scores.shape
    one_device(device, label_scores=label_scores)
    if label_scores.dtype != dtype:
        raise TypeError(f"label_scores is {label_scores.dtype} and blank_scores is {dtype}, expected one dtype")
    if label_scores.shape != shape:
        raise ValueError(f"label_scores has shape {label_scores.shape}, expected {shape} as blank_scores")
    if shape[2] < 1:
        raise ValueError(f"blank_scores has shape {shape}, expected (B, T, U+1) with U+1 at least 1")
    # The one wait for a GPU at this door, and only if integers lie there.
    frame_lengths, target_lengths, bounds = arrays.to_host(
        frame_lengths=frame_lengths, target_lengths=target_lengths, bounds=bounds
    )
    topology = read_topology(topology)
    if topology.hat:
        raise ValueError("topology.hat is True, expected False: it is a way to make scores, and here they are given")
    owner = f"blank_scores {shape}"
    T = read_lengths(
        frame_lengths, "frame_lengths", shape[0], low=1, high=shape[1], source=f"axis 1 of {owner}", owner=owner
    )  # (B,)
    source = f"axis 2 of {owner} less one"
    U = read_lengths(target_lengths, "target_lengths", shape[0], low=0, high=shape[2] - 1, source=source, owner=owner)
    bounds = read_bounds(bounds, shape[0], int(T.max(initial=0)), owner)
    if not device.on_gpu:
        # A GPU's kernel reads half precision by itself.
        blank_scores, label_scores = (x.astype(arrays.computing_dtype(dtype), copy=False) for x in given)
    return ScoresProblem(device, blank_scores, label_scores, dtype, T, U, topology, bounds)
