"""What the doors of the search are given -> a frozen Problem that its stages can trust."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..device import arrays
from ..device.memory import Cuda, Host, device_of
from ..kernels.activations import ACTIVATIONS, Activation
from ..topology import TIMED, TWO_ARCS, Topology, count_tokens, read_big_blanks, read_topology
from .checks import one_device, read_blank, read_choice, read_integer, read_lengths, read_real
from .joint import check_dtypes
from .restrictions import read_vocabulary


@dataclass(frozen=True)
class DecodeProblem:
    """A search.

    Attributes
    ----------
    device : Host or Cuda
        Where encoder, weight and bias lie. All integers are on the host.
    like : array
        The encoder as it was given. Results and the labels for `predict` are of its kind.
    encoder, weight, bias : (B, T, H), (V + tail, H), (V + tail,) or None
    lengths : (B,) int64
        Frames of each example.
    predict : callable
    blank_ids : (K,) int64
        The blank, and with "multiblank" behind it the big blanks, in the order of their durations.
    activation : Activation
    topology : Topology
    allowed : list of B int64 arrays, or None
        The ids in use of each example, all blanks among them, ascending.
    most_labels : int
        Labels in one frame, at most.
    """

    device: Host | Cuda
    like: object
    encoder: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    lengths: np.ndarray
    predict: Callable
    blank_ids: np.ndarray
    activation: Activation
    topology: Topology
    allowed: list[np.ndarray] | None
    most_labels: int


def read_decode(
    encoder, encoder_lengths, predict, weight, bias, *, blank, activation, topology, allowed, max_labels_per_frame
) -> DecodeProblem:  # fmt: skip
    """Check the arguments that both doors of the search have."""
    # `like` is the argument itself, `encoder` what NumPy or CuPy sees of it.
    like, encoder, weight = encoder, read_real(encoder, "encoder", (3,)), read_real(weight, "weight", (2,))
    bias = None if bias is None else read_real(bias, "bias", (1,))
    device = device_of(encoder)
    one_device(device, weight=weight, bias=bias)
    # The one wait for a GPU at this door, and only if integers lie there; the search has waits of its own.
    encoder_lengths, allowed = arrays.to_host(encoder_lengths=encoder_lengths, allowed=allowed)
    topology = read_topology(topology, TWO_ARCS + TIMED)
    activation = ACTIVATIONS[read_choice(activation, "activation", tuple(ACTIVATIONS))]
    check_dtypes(encoder=encoder, weight=weight, bias=bias)
    (B, T, H), V = encoder.shape, count_tokens(topology, len(weight), f"weight has shape {weight.shape}")
    if weight.shape[1] != H:
        raise ValueError(f"weight {weight.shape} and encoder {encoder.shape} disagree about H, their last axis")
    if B < 1 or H < 1 or V < 1:
        raise ValueError(f"encoder has shape {encoder.shape} and weight {weight.shape}, expected B, H and V at least 1")
    if bias is not None and bias.shape != (len(weight),):
        raise ValueError(f"bias has shape {bias.shape}, expected ({len(weight)},) as the rows of weight {weight.shape}")
    if not callable(predict):
        raise TypeError(f"predict is {type(predict).__name__}, expected a function of labels and a state")
    blank, owner = read_blank(blank, V), f"encoder {encoder.shape}"
    blank_ids = np.append(blank, read_big_blanks(topology, blank))  # (K,)
    source = f"axis 1 of encoder {encoder.shape}"
    lengths = read_lengths(encoder_lengths, "encoder_lengths", B, low=1, high=T, source=source, owner=owner)
    ids = read_vocabulary(allowed, None, count=B, size=V, owner=owner, name="allowed", tail=topology.tail)
    # The blanks always may be taken. In ascending rows the lower position is the lower id, which settles ties.
    ids = None if ids is None else [np.union1d(row, blank_ids) for row in ids]
    most = read_integer(max_labels_per_frame, "max_labels_per_frame")
    if most < 0:
        raise ValueError(f"max_labels_per_frame is {most}, expected at least 0")
    return DecodeProblem(
        device, like, encoder, weight, bias, lengths, predict, blank_ids, activation, topology, ids, most
    )


def read_beam(beam, nbest) -> tuple[int, int]:
    """Sizes of the beam and of the n-best list, 1 <= nbest <= beam."""
    beam, nbest = read_integer(beam, "beam"), read_integer(nbest, "nbest")
    if beam < 1:
        raise ValueError(f"beam is {beam}, expected at least 1")
    if not 1 <= nbest <= beam:
        raise ValueError(f"nbest is {nbest}, expected 1 to {beam}, the size of the beam")
    return beam, nbest
