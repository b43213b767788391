"""What the doors of the fused joint are given -> a frozen Problem that the stages can trust."""

from dataclasses import dataclass

import numpy as np

from ..device import arrays
from ..device.memory import Cuda, Host, device_of
from ..kernels.activations import ACTIVATIONS, Activation
from ..topology import TIMED, TWO_ARCS, count_tokens, read_big_blanks, read_topology
from .checks import (
    index,
    one_device,
    read_blank,
    read_choice,
    read_integer,
    read_integers,
    read_lengths,
    read_real,
    read_share,
    refuse,
)
from .dropout import Dropout, read_dropout
from .restrictions import read_bounds, read_near, read_vocabulary
from .targets import Targets, read_targets

DEFAULT_POSTERIOR_FLOOR = 2.0**-24
"""Below it a cell adds less to a float32 gradient than its rounding does."""
PRECISIONS = ("default", "tf32x3")


@dataclass(frozen=True)
class JointProblem:
    """A loss from encoder, predictor and output layer.

    Attributes
    ----------
    device : Host or Cuda
        Where encoder, predictor, weight and bias lie. All integers are on the host.
    encoder, predictor : (B, T, H), (N, U+1, H)
        As they were given, and C-contiguous. N is B without `encoder_index`.
    weight, bias : (V, H), (V,) or None
    targets : Targets
        Of N lattices.
    activation : Activation
    vocabulary : list of N int64 arrays, or None
        The ids of each softmax.
    encoder_index : (N,) int64, or None
        The encoder row of each target.
    memory_limit : int
        Bytes.
    posterior_floor : float
        0 to below 1.
    precision : {"default", "tf32x3"}
    near : (N, U) int64, or None
        The frames by which a band is looked for first, -1 where a label has none.
    dropout : Dropout, or None
    """

    device: Host | Cuda
    encoder: np.ndarray
    predictor: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    targets: Targets
    activation: Activation
    vocabulary: list[np.ndarray] | None
    encoder_index: np.ndarray | None
    memory_limit: int
    posterior_floor: float
    precision: str = "default"
    near: np.ndarray | None = None
    dropout: Dropout | None = None

    @property
    def blank_rows(self) -> np.ndarray:
        """(1,) int64, the blank's row of the weight; (0,) without targets."""
        blanks = self.targets.blank_id[:1]
        return (
            blanks if self.vocabulary is None else np.array([ids[blanks[0]] for ids in self.vocabulary[:1]], np.int64)
        )


def read_joint(
    encoder, predictor, weight, bias, targets, encoder_lengths, target_lengths, *, blank, activation, topology,
    vocabulary=None, vocabulary_lengths=None, bounds=None, encoder_index=None, memory_limit=None, posterior_floor=0.0,
    precision="default", near=None, dropout=None, names=TWO_ARCS + TIMED,
) -> JointProblem:  # fmt: skip
    """Check the arguments of `joint_transducer_loss`; `names` are those of the topologies that the door takes."""
    encoder, predictor = read_real(encoder, "encoder", (3,)), read_real(predictor, "predictor", (3,))
    weight = read_real(weight, "weight", (2,))
    bias = None if bias is None else read_real(bias, "bias", (1,))
    device = device_of(encoder)
    one_device(device, predictor=predictor, weight=weight, bias=bias)
    # The one wait for a GPU at this door, and only if integers lie there.
    targets, encoder_lengths, target_lengths, vocabulary, vocabulary_lengths, bounds, encoder_index, near = (
        arrays.to_host(
            targets=targets,
            encoder_lengths=encoder_lengths,
            target_lengths=target_lengths,
            vocabulary=vocabulary,
            vocabulary_lengths=vocabulary_lengths,
            bounds=bounds,
            encoder_index=encoder_index,
            near=near,
        )
    )
    topology = read_topology(topology, names)
    activation = ACTIVATIONS[read_choice(activation, "activation", tuple(ACTIVATIONS))]
    check_dtypes(encoder=encoder, predictor=predictor, weight=weight, bias=bias)
    (B, T_max, H), (N, U1, _), rows = encoder.shape, predictor.shape, weight.shape[0]  # U1 is U + 1
    for name, array in (("predictor", predictor), ("weight", weight)):
        if array.shape[-1] != H:
            raise ValueError(f"{name} {array.shape} and encoder {encoder.shape} disagree about H, their last axis")
    if bias is not None and bias.shape != (rows,):
        raise ValueError(f"bias has shape {bias.shape}, expected ({rows},) as the rows of weight {weight.shape}")
    if encoder_index is not None:
        of_each = "one for each row of predictor"
        encoder_index = read_integers(encoder_index, "encoder_index", (N,), of_each).astype(np.int64)
        outside = (encoder_index < 0) | (encoder_index >= B)
        expected = f"expected 0 to {B - 1}, rows of encoder"
        refuse(outside, lambda at: f"encoder_index{index(at)} is {encoder_index[at]}, {expected}")
    elif N != B:
        raise ValueError(f"predictor {predictor.shape} and encoder {encoder.shape} disagree about B, their first axis")
    # A batch may be empty, a row may not, since products and normalisers take one number at least.
    if H < 1 or rows < 1:
        raise ValueError(f"weight has shape {weight.shape}, expected (V, H) with both at least 1")
    if U1 < 1:
        raise ValueError(f"predictor has shape {predictor.shape}, expected (B, U+1, H) with U+1 at least 1")
    # Integers belong to targets, so the predictor's first axis is what counts them, not the encoder's.
    V = count_tokens(topology, rows, f"weight has shape {weight.shape}")
    blank, owner = read_blank(blank, V), f"predictor {predictor.shape}"
    vocabulary = read_vocabulary(vocabulary, vocabulary_lengths, count=N, size=V, owner=owner, tail=topology.tail)
    source = f"axis 1 of predictor {predictor.shape} less one"
    positions, blanks, U = read_targets(
        targets,
        target_lengths,
        blank,
        vocabulary,
        count=N,
        size=V,
        label_axis=U1 - 1,
        label_source=source,
        owner=owner,
        tail=topology.tail,
        big_blanks=read_big_blanks(topology, blank),
    )  # (N, longest U_b), (N, 1 + K), (N,)
    source = f"axis 1 of encoder {encoder.shape}"
    T = read_lengths(encoder_lengths, "encoder_lengths", N, low=1, high=T_max, source=source, owner=owner)  # (N,)
    bounds = read_bounds(bounds, N, int(T.max(initial=0)), owner)
    near = read_near(near, T, U, owner)
    limit = device.memory_limit if memory_limit is None else read_integer(memory_limit, "memory_limit")
    if limit < 1:
        raise ValueError(f"memory_limit is {limit}, expected at least 1 byte")
    # A floor of 1 would leave out cells that every alignment visits.
    floor = read_share(posterior_floor, "posterior_floor", bound="a number from 0 up to 1")
    precision, dropout = read_choice(precision, "precision", PRECISIONS), read_dropout(dropout)
    columns = arrays.read(targets, "targets").shape[1]  # U of the results (N, U), padding included
    if vocabulary is not None and topology.tail:
        # The rows of durations belong to every example.
        vocabulary = [np.append(ids, np.arange(V, rows)) for ids in vocabulary]
    read = Targets(positions, blanks, T, U, topology, bounds, columns)
    given = encoder, predictor, weight, bias, read, activation, vocabulary, encoder_index, limit, floor, precision
    return JointProblem(device, *given, near, dropout)


def check_dtypes(**arguments) -> None:
    """float64 goes with float64 alone. Whatever is computed in float32 may be mixed. None is an argument not given."""
    first, *others = ((name, array.dtype) for name, array in arguments.items() if array is not None)
    for name, dtype in others:
        if (dtype == np.float64) != (first[1] == np.float64):
            expected = "float32, float16 or bfloat16" if dtype == np.float64 else "float64"
            what = f"{name} is {dtype} and {first[0]} is {first[1]}"
            raise TypeError(f"{what}, expected {expected}: float64 goes with float64 alone")
