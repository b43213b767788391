"""What leaves the cells of given logits: the walk of `reach` where each of them has its scores."""

import math

import numpy as np

from . import layout
from .kernels.activations import ACTIVATIONS
from .kernels.dropout import NO_DROPOUT
from .kernels.factors import TAIL
from .kernels.frontier import ROWS, Ways
from .kernels.reach import Rules, reach
from .kernels.upper_bounds import rounding_of, slacks_of


def exit_posterior(device, targets, held, state) -> np.ndarray:
    """At most this share of the probability of all alignments leaves the cells of a batch: (B,) float64 on the host.

    No other cell is looked at. All alignments are those of the lattices without `bounds`. It is 0 where there is none,
    and NaN where one meets a NaN. On a GPU this waits for the device, once.

    Parameters
    ----------
    device : Host or Cuda
    targets : Targets
    held : layout.Frames
        The cells, where the kernels want them.
    state : CellState
        Of these cells, all of them computed.
    """
    count, dtype, topology = len(targets.frame_lengths), state.rest.dtype, targets.topology
    lattice = layout.frames_of(
        np.arange(count), targets.frame_lengths, targets.target_lengths, targets.moves, bounds=None
    )
    width, none = lattice.widest + 1, np.zeros(0, np.int32)
    # No cell is looked at, so whatever leaves is let go where it leaves.
    limits = np.full(count, -math.inf), np.full(count, math.inf), np.zeros(count, np.int64)  # base, nats, most
    # A NaN that leaves is followed and stays NaN, whatever the scores outside are: here those of a joint of zeros.
    rows = np.zeros((1, 1), dtype), np.zeros((1, 1), dtype), np.zeros((0, 1 + TAIL), dtype)
    places = NO_DROPOUT, np.zeros(len(lattice.example), np.int64), np.zeros(width, np.int64)
    labels = np.zeros(count + 1, np.int64), np.zeros((count, width), np.int32)
    layer = np.zeros((1, 1), dtype), np.zeros(1, dtype), np.zeros(1, dtype), np.zeros(3, dtype)
    lattice, placed = lattice.on(device, None, *rows, *places, *labels, *layer, *limits, none)
    inputs, labels, layer, limits, none = placed[:6], placed[6:8], placed[8:12], placed[12:15], placed[15]
    few, spare = slacks_of(1, dtype)
    rules = Rules(0, *layer, dtype.type(rounding_of(1, dtype, device.on_gpu)), few, spare)
    moves = targets.moves
    ways = Ways(moves.monotonic, moves.paired, topology.hat, False, float(topology.delay_penalty), -math.inf)
    scratch = device.empty((count, ROWS, width + 1), np.float64)
    weighed, looked = device.empty((count, 2), np.float64), device.empty(count, np.int64)
    walked = lattice, held, *labels, rules, ways, state
    reach(ACTIVATIONS["identity"], inputs, *walked, *limits, scratch, (none, none), weighed, looked)
    inside, outside = device.fetch(weighed).T
    with np.errstate(invalid="ignore"):  # of a NaN
        whole = np.logaddexp(inside, outside)
    return np.exp(outside - np.where(np.isneginf(whole), 0.0, whole))
