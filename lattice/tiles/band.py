"""The band of a group's lattices that alignments reach, and what leaves the cells that were computed.

The proof, and why a band is looked for before anything is computed, are in docs/certified.md.
"""

import math

import numpy as np

from ..aligned_frames import around
from ..kernels.delay import cost_of
from ..kernels.frontier import ROWS, Ways
from ..kernels.layer import measure
from ..kernels.reach import Rules, reach
from ..kernels.rows import gather
from ..kernels.state import CellState
from ..kernels.upper_bounds import rounding_of, slacks_of
from ..layout import WorkspaceTooSmall, frames_of
from .certificate import TOLERANCE, cells_of
from .groups import Group
from .tiler import Tiler

FOUND_DENSE = 0.25
"""Share of an example's cells beyond which a band is not looked for: bounds on all cells leave out more."""
MARGIN = 5.0
"""Nats below the tolerance at which a band ends, and room for what is let go at each frame."""
DELAYED = 3.0
"""Nats more with a delay penalty, which is smaller beside the alignments that count."""
LOOKS = 32
"""Cells for each frame and label position that are looked at outside of a band, at most."""
FARTHER = 16
"""So many times more where there is no room for all cells, so that bounds on all are no way out."""
SAMPLED = 16
"""Of so many frames, one is computed before it is decided how far a band reaches."""
HOPELESS = 0.6
"""Where alignments beside a band win back more than this share of what they lose, bounds on all cells are needed."""
BESIDE, BEHIND, AHEAD = 2, 2, 4
"""The band beside an alignment that the caller named: frames by which its labels may be early or late, and how many
labels more an alignment may be behind and ahead. A label that comes early has paid once, however early it comes."""
TRIES = 2
"""How often a band is made wider, before all cells of an example are bounded."""
NARROW = 0.1
"""Below this share a band is wide enough as it is."""
FAR = np.int32(2**30)
"""Behind every label position."""


def refuse_too_large(tiler: Tiler, group: Group) -> None:
    """Raise `WorkspaceTooSmall` where the workspace has no room for the cells of a group."""
    room, cells = tiler.work.room, group.frames.cells
    # Such a workspace has groups of one example.
    if room is not None and cells > room[group.begin]:
        n = int(group.examples[0])
        raise WorkspaceTooSmall(
            f"{tiler.work.refusal}. So many are always enough. A band was tried first, as a trained model needs no "
            f"more: there is room for {room[group.begin]} of its cells, and the band of example {n} grew to {cells}"
        )


def usual_reach(tiler: Tiler, group: Group, tolerance: float) -> np.ndarray:
    """(examples,) nats below the best cell of a frame at which a band ends, where exact scores are like the bounds."""
    return MARGIN + DELAYED * bool(tiler.topology.delay_penalty) + np.log(group.frames.arcs / tolerance)


def find_band(tiler: Tiler, group: Group, nats: np.ndarray) -> Group | None:
    """A group whose frames have only cells that alignments reach by upper bounds on their scores.

    On a GPU this waits for the device, once.

    Parameters
    ----------
    tiler : Tiler
    group : Group
        All cells of the lattices.
    nats : (examples,) float64
        How far below the best cell of a frame the band ends; inf for all cells.

    Returns
    -------
    band : Group or None
        Where the band of an example would be too large, it has all cells. None where all are.
    """
    frames, device, space = group.frames, tiler.device, tiler.space
    count, width = len(frames.labels), len(frames.example)
    most = np.where(np.isfinite(nats), FOUND_DENSE * cells_of(group), -1).astype(np.int64)
    with space.borrowed():
        first, last = np.full(width, FAR, np.int32), np.full(width, -1, np.int32)  # (frames,)
        # A band without cells, for no cell has a state yet.
        nothing = np.zeros(width, np.int32), np.zeros(width + 1, np.int64)
        base = np.full(count, -np.inf)
        first, last, *held, base, nats, most = device.upload(space, first, last, *nothing, base, nats, most)
        none = space.take(0, tiler.work.dtype)  # (0,)
        held = group.device_frames._replace(first=held[0], offset=held[1])
        limits = base, nats, most
        _, looked = walk(
            tiler, group, held, CellState(none, none, none, none), ways_of(tiler, -math.inf), limits, (first, last)
        )
        first, last, looked = (device.fetch(array) for array in (first, last, looked))
    if (looked < 0).all():
        return None
    whole = (looked < 0)[frames.example]  # (frames,)
    high = frames.first + np.diff(frames.offset) - 1  # (frames,)
    if tiler.problem.targets.moves.paired:
        # A pair ends with the blank of the next cell, to which no alignment need come by another way.
        last = np.where(last < 0, last, np.minimum(high, last + 1))
    return narrowed(tiler, group, np.where(whole, frames.first, first), np.where(whole, high, last))


def near_band(tiler: Tiler, group: Group) -> Group:
    """A group whose frames have only cells beside those of the alignments that the caller named."""
    frames, near = group.frames, tiler.problem.near[group.examples]  # (examples, U)
    real = np.arange(near.shape[1]) < frames.labels[:, None]
    # In order, and a label that has no frame goes with the one before it.
    near = np.where(real, np.maximum(0, np.maximum.accumulate(near, axis=1)), -1)
    ranges = around(near, np.diff(frames.starts), BESIDE, BESIDE, tiler.problem.targets.moves)  # (examples, T) each
    first, last = (positions[frames.example, frames.t] for positions in ranges)  # (frames,) each
    high = frames.first + np.diff(frames.offset) - 1
    return narrowed(tiler, group, np.maximum(frames.first, first - BEHIND), np.minimum(high, last + AHEAD))


def narrowed(tiler: Tiler, group: Group, first: np.ndarray, last: np.ndarray) -> Group:
    """A group with the label positions from `first` to `last` (frames,) of each frame, none where last < first."""
    count = np.maximum(0, last.astype(np.int64) - first + 1)  # (frames,)
    first = np.where(count, first, 0).astype(np.int32)
    frames = group.frames._replace(first=first, offset=np.append(0, np.cumsum(count)))
    return group._replace(frames=frames, device_frames=frames.on(tiler.device, tiler.space)[0])


class Search:
    """The bands of a group that are tried, one after the other, until one is enough or all cells are in it.

    Parameters
    ----------
    tiler : Tiler
    group : Group
        All cells of the lattices.
    tolerance : float
        About what share alignments beside a band may weigh.

    Attributes
    ----------
    band : Group or None
        The one to be tried. None where all cells are to be bounded.
    nats : (examples,) float64
        How far below the best cell of a frame it ends.
    fresh : bool
        The band was found by `nats`, and is the first. How wide the caller's is says nothing of how far it reaches.
    """

    def __init__(self, tiler: Tiler, group: Group, tolerance: float):
        self._tiler, self._group, self._tries = tiler, group, 0
        self.nats = usual_reach(tiler, group, tolerance)
        self._named = tiler.problem.near is not None
        self.band = near_band(tiler, group) if self._named else find_band(tiler, group, self.nats)

    @property
    def fresh(self) -> bool:
        return self._tries == 0 and not self._named

    @property
    def whole(self) -> np.ndarray:
        """(examples,) bool: all cells are in the band, so nothing leaves it."""
        return np.zeros(0, bool) if self.band is None else cells_of(self.band) == cells_of(self._group)

    def told(self, shares: np.ndarray) -> None:
        """Go on after `win_back` has told that the band is too narrow."""
        # Where all cells have no room, there is nothing else to hope for.
        hopeless = ~(shares < HOPELESS) & (self._tiler.work.room is None)  # NaN, too
        self._next(np.where(hopeless, np.inf, self.nats / (1 - np.minimum(shares, HOPELESS))))

    def failed(self, excess: np.ndarray) -> bool:
        """Whether more leaves a band than may, by `excess` (examples,) nats. If so, the next band is there."""
        bad = ~(excess <= 0) & ~self.whole  # NaN, too
        if bad.any() and self._named:
            # It says nothing about how far a band must reach.
            self._next(self.nats)
        elif bad.any():
            wider = bad & (excess < self.nats) & (self._tries < TRIES)
            self._next(np.where(wider, self.nats + excess + MARGIN, np.where(bad, np.inf, self.nats)))
        return bool(bad.any())

    def _next(self, nats: np.ndarray) -> None:
        self._tries += not self._named
        self._named = False
        # What is all cells once, stays so.
        self.nats = np.where(self.whole, np.inf, nats)
        self.band = find_band(self._tiler, self._group, self.nats)


def win_back(tiler: Tiler, search: Search, state: CellState, cells, first_cell, most: float) -> np.ndarray:
    """Compute listed cells, those of some frames first, and tell if the band can be enough: shares (examples,).

    An alignment that runs beside the band lost `nats` on its way there. Its scores are upper bounds, the others' are
    not, so it wins back what scores lack of the bounds for as long as it stays. If that is more than it has lost, no
    band is wide enough. Where that share is not below `most`, the other cells are left as they are. On a GPU this waits
    for the device, a few times.

    Parameters
    ----------
    tiler : Tiler
    search : Search
    state : CellState
        Of the cells of the search's band.
    cells, first_cell : (n,) int64, (examples + 1,) int64
        As in `Tiler.score_listed`.
    most : float
    """
    band = search.band
    frames, device, space, count = band.frames, tiler.device, tiler.space, int(first_cell[-1])
    length, labels = np.diff(frames.starts), frames.labels.astype(np.int64)  # (examples,)
    listed = device.fetch(cells[:count])  # (n,)
    frame = np.searchsorted(frames.offset, listed, side="right") - 1  # (n,)
    owner = frames.example[frame]
    taken = frames.t[frame] % SAMPLED == np.minimum(SAMPLED, length)[owner] // 2  # (n,)
    with space.borrowed():
        blank, label = _score_some(tiler, band, state, listed[taken])
        frame, owner = frame[taken], owner[taken]
        # The delay penalty is taken off bounds, too.
        label = label + cost_of(frame, frames.starts[owner], frames.starts[owner + 1], tiler.topology.delay_penalty)
        lack = -np.logaddexp(blank, label)  # (sampled,)
        number = np.bincount(owner, minlength=len(length))
        lack = np.bincount(owner, lack, minlength=len(length)) / np.maximum(1, number)  # (examples,) nats an arc
        arcs = length + labels * (not tiler.problem.targets.moves.monotonic)
        width = np.diff(frames.offset[frames.starts]) / length
        # Where all cells are in the band, nothing is beside it.
        share = np.where(search.whole, 0.0, lack * arcs / np.maximum(1, labels) * width / search.nats)
        if not (share < most).all():
            return share
        _score_some(tiler, band, state, listed[~taken])
    return share


def _score_some(tiler: Tiler, band: Group, state: CellState, cells: np.ndarray):
    """Compute cells (n,) of a band, and give their scores (n,) each. Both are on the host."""
    frames, device, space = band.frames, tiler.device, tiler.space
    first_cell = np.searchsorted(cells, frames.offset[frames.starts])  # (examples + 1,)
    (listed,) = device.upload(space, cells)
    tiler.score_listed(band, state, listed, first_cell)
    found = []
    for scores in state.scores:
        picked = space.take(len(cells), scores.dtype)
        gather(scores.reshape(-1, 1), listed, picked.reshape(-1, 1))
        found.append(device.fetch(picked))
    return found


def leaving(
    tiler: Tiler, group: Group, band: Group, state: CellState, base, share: float, *, largest: bool = False
) -> np.ndarray:
    """What leaves the computed cells of a band, over what does not, at most: (examples,) nats.

    It is inf where there is an alignment outside alone, and -inf where none leaves. On a GPU this waits for the
    device, once.

    Parameters
    ----------
    tiler : Tiler
    group : Group
        All cells of the lattices.
    band : Group
        The cells that have a state.
    state : CellState
    base : (examples,) float64
        What alignments weigh that do not leave, in nats.
    share : float
        What is less than exp(share) of that, in all, is not followed.
    largest : bool
        The best alignment stands for all.
    """
    frames, device, space = group.frames, tiler.device, tiler.space
    looks = LOOKS if tiler.work.room is None else FARTHER * LOOKS
    most = np.minimum(cells_of(group), looks * frames.arcs)  # (examples,)
    with space.borrowed():
        nats, most = device.upload(space, np.full(len(most), np.inf), most)
        none = space.take(0, np.int32)  # (0,)
        ways, limits = ways_of(tiler, share, largest=largest), (base, nats, most)
        weighed, _ = walk(tiler, group, band.device_frames, state, ways, limits, (none, none))
        inside, outside = device.fetch(weighed).T
    # Where there is none outside, nothing leaves, be anything inside or not. But the largest passes a NaN by. With none
    # on either side, all may have met one.
    nothing = np.isneginf(outside) & ~(largest & np.isneginf(inside))
    return np.where(nothing, outside, outside - inside)


def exit_posterior(tiler: Tiler, group: Group, band: Group, state: CellState, log_z) -> np.ndarray:
    """At most this share of the probability of all alignments is of those that leave the computed cells: (examples,).

    All alignments are those of the lattices without `bounds`. The other parameters are as in `leaving`.
    """
    targets = tiler.problem.targets
    with tiler.space.borrowed():
        frames = frames_of(group.examples, targets.frame_lengths, targets.target_lengths, targets.moves, None)
        device_frames = frames.on(tiler.device, tiler.space)[0]
        every = group._replace(frames=frames, device_frames=device_frames)
        left = np.exp(leaving(tiler, every, band, state, log_z, share_of(TOLERANCE[tiler.work.dtype])))
    # Infinite where nothing is inside, and NaN where a score outside is.
    return np.where(np.isfinite(left), left / (1.0 + left), 1.0)


def share_of(tolerance: float) -> float:
    """A share of a tolerance that may be lost, in nats."""
    return math.log(tolerance) - MARGIN


def ways_of(tiler: Tiler, share: float, *, largest: bool = False) -> Ways:
    """How walks go through the lattices of a problem."""
    topology, moves = tiler.topology, tiler.problem.targets.moves
    return Ways(moves.monotonic, moves.paired, topology.hat, largest, float(topology.delay_penalty), share)


def walk(tiler: Tiler, group: Group, held, state: CellState, ways: Ways, limits, band):
    """`reach` with the rows of a group, and the whole output layer: (weighed, looked), where the kernels are.

    `limits` are base, nats and most. Positions in vocabularies are turned into ids, so that examples with several
    layers are walked through at once.
    """
    space, problem, dtype, device = tiler.space, tiler.problem, tiler.work.dtype, tiler.device
    V, H = tiler.weight.shape
    count = len(group.frames.labels)
    weighed, looked = space.take((count, 2), np.float64), space.take(count, np.int64)
    with space.borrowed():
        norm, ceiling = space.take(V, dtype), space.take(3, dtype)
        measure(tiler.weight, tiler.bias, norm, ceiling)
        few, spare = slacks_of(V, dtype)
        rounding = dtype.type(rounding_of(H, dtype, device.on_gpu))
        label_row, blank_id = group.positions, int(problem.targets.blank_id[group.examples[0]])
        if problem.vocabulary is not None:
            blank_id = int(problem.vocabulary[group.examples[0]][blank_id])
            rows = problem.targets.positions[group.examples]  # (examples, U)
            for n, U in enumerate(group.frames.labels):
                rows[n, :U] = problem.vocabulary[group.examples[n]][rows[n, :U]]
            (label_row,) = device.upload(space, rows)
        rules = Rules(blank_id, tiler.weight, tiler.bias, norm, ceiling, rounding, few, spare)
        scratch = space.take((count, ROWS, group.frames.widest + 2), np.float64)
        inputs = problem.activation, group.inputs, group.device_frames, held, group.label_base, label_row
        reach(*inputs, rules, ways, state, *limits, scratch, band, weighed, looked)
    return weighed, looked
