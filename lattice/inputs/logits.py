"""What the doors of a loss from given logits are given -> a frozen Problem that the stages can trust."""

import math
from dataclasses import dataclass

import numpy as np

from ..device import arrays
from ..device.memory import Cuda, Host, device_of
from ..topology import TIMED, TWO_ARCS, count_tokens, read_big_blanks, read_topology
from .checks import one_device, read_blank, read_flag, read_lengths, read_real, read_writable
from .restrictions import read_band, read_bounds
from .targets import Targets, read_targets


@dataclass(frozen=True)
class LogitsProblem:
    """A loss from given logits. Cell (t, u) of example b lies in row `base[b] + t * step[b] + u - origin[b, t]`.

    Attributes
    ----------
    device : Host or Cuda
        Where the logits lie. All integers are on the host.
    logits : (rows, V)
        The argument seen as rows, in its own dtype.
    base, step : (B,) int64
        First row of each example, and rows from a frame to the next.
    origin : (B, T) int64, or None
        The label position that the first row of each frame is for. None stands for 0.
    targets : Targets
    shape : tuple of int
        The shape in which the logits were given: padded, packed or banded.
    """

    device: Host | Cuda
    logits: np.ndarray
    base: np.ndarray
    step: np.ndarray
    origin: np.ndarray | None
    targets: Targets
    shape: tuple[int, ...]

    def frame_rows(self, example, t) -> np.ndarray:
        """(frames,) int64: the row of the cell (t, 0), or with `origin` the row that it would have."""
        rows = self.base[example] + t * self.step[example]
        return rows if self.origin is None else rows - self.origin[example, t]

    @property
    def lattice_shape(self) -> tuple[int, int, int]:
        """(B, T, U+1) of results that have an entry a cell: the axes of padded logits, or the least that holds all."""
        padded, positions = len(self.shape) == 4, self.targets.label_axis + 1
        if padded and self.origin is None:
            return self.shape[:3]
        return len(self.base), self.shape[1] if padded else int(self.targets.frame_lengths.max(initial=0)), positions


def read_logits(
    logits, targets, logit_lengths, target_lengths, *, blank, topology, bounds, banded, names=TWO_ARCS + TIMED
) -> LogitsProblem:  # fmt: skip
    """Check the arguments of `transducer_loss`; `names` are those of the topologies that the door takes."""
    array = read_real(logits, "logits", (2, 4))
    if read_flag(banded, "banded"):
        if bounds is None:
            raise ValueError("banded is True without bounds, expected (first, last): they say which cell a row is for")
        if array.ndim != 4:
            raise ValueError(f"banded is True with packed logits {array.shape}, expected logits of shape (B, T, R, V)")
    # The one wait for a GPU at this door, and only if integers lie there.
    targets, logit_lengths, target_lengths, bounds = arrays.to_host(
        targets=targets, logit_lengths=logit_lengths, target_lengths=target_lengths, bounds=bounds
    )
    topology = read_topology(topology, names)
    V = count_tokens(topology, array.shape[-1], f"logits has shape {array.shape}")
    blank = read_blank(blank, V)
    packed = array.ndim == 2
    # Packed rows tell neither B nor T nor U. B is what the lengths say, and no axis can be longer than all rows.
    count = arrays.read(logit_lengths, "logit_lengths").size if packed else array.shape[0]
    owner = "logit_lengths" if packed else f"logits {array.shape}"
    # Banded rows are as many as a band is wide, and a band may pass over any number of labels.
    label_axis = math.inf if banded else array.shape[0] if packed else array.shape[2] - 1
    source = f"axis 2 of logits {array.shape} less one"
    positions, blanks, U = read_targets(
        targets,
        target_lengths,
        blank,
        None,
        count=count,
        size=V,
        label_axis=label_axis,
        label_source=source,
        owner=owner,
        tail=topology.tail,
        big_blanks=read_big_blanks(topology, blank),
    )  # (B, longest U_b), (B, 1 + K), (B,)
    T_max, source = (
        (array.shape[0], "the rows of logits") if packed else (array.shape[1], f"axis 1 of logits {array.shape}")
    )
    T = read_lengths(logit_lengths, "logit_lengths", count, low=1, high=T_max, source=source, owner=owner)
    if packed:
        # A frame has a row for each of its own U_b + 1 label positions, and examples follow one another.
        step = U + 1
        base = np.append(0, np.cumsum(T * step))  # (B + 1,)
        if base[-1] != array.shape[0]:
            raise ValueError(
                f"logits has {array.shape[0]} rows, but logit_lengths and target_lengths make {base[-1]} cells"
            )
        base = base[:-1]
    else:
        step = np.full(count, array.shape[2], np.int64)
        base = np.arange(count) * (array.shape[1] * array.shape[2])
    if banded:
        bounds, origin = read_band(bounds, T, array.shape[2], owner)
    else:
        bounds, origin = read_bounds(bounds, count, int(T.max(initial=0)), owner), None
    columns = arrays.read(targets, "targets").shape[1]  # U of the results (B, U), padding included
    read = Targets(positions, blanks, T, U, topology, bounds, columns)
    return LogitsProblem(device_of(array), array.reshape(-1, array.shape[-1]), base, step, origin, read, array.shape)


def read_out(out, problem):
    """Check `out` against the logits of a problem; the array it is, as (rows, V)."""
    array = read_writable(out, "out")
    if array.shape != problem.shape or array.dtype != problem.logits.dtype:
        raise ValueError(f"out is {array.dtype}{array.shape}, expected {problem.logits.dtype}{problem.shape} as logits")
    one_device(problem.device, out=array)
    # A row of the gradient may replace the logits it is made of, but not a row that is still to be read.
    if arrays.address(array) != arrays.address(problem.logits) and arrays.overlap(array, problem.logits):
        raise ValueError("out overlaps logits in part, expected the logits themselves or memory apart from them")
    return array.reshape(problem.logits.shape)
