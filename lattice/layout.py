"""Cells of the lattice and their numbering; groups of examples and tiles of cells under a byte limit. Integers only."""

from typing import NamedTuple

import numpy as np


class Frames(NamedTuple):
    """The frames of a run of examples; cells are numbered frame by frame, example by example.

    Cell c of frame f is at label position u = first[f] + c - offset[f].

    Attributes
    ----------
    starts : (examples + 1,) int64
        First frame of each example.
    labels : (examples,) int32
        U of each example.
    example : (frames,) int32
    first : (frames,) int32
        First label position u that exists at the frame, 0 where none does: sweeps take places in rows of U + 1 from it.
    offset : (frames + 1,) int64
        First cell of each frame.
    widest : int
        Largest U.
    """

    starts: np.ndarray
    labels: np.ndarray
    example: np.ndarray
    first: np.ndarray
    offset: np.ndarray
    widest: int

    @property
    def cells(self) -> int:
        return int(self.offset[-1])

    @property
    def arcs(self) -> np.ndarray:
        """(examples,) T + U, more arcs than which no alignment has."""
        return np.diff(self.starts) + self.labels

    @property
    def t(self) -> np.ndarray:
        """(frames,) int64, the frame's number within its example."""
        return np.arange(len(self.example)) - self.starts[self.example]

    def on(self, device, space, *others):
        """The same frames where a device's kernels want them, and a list of other arrays, all in one upload."""
        own = self[:-1]  # all but `widest`, which stays a number of the host
        placed = device.upload(space, *own, *others)
        return Frames(*placed[: len(own)], self.widest), placed[len(own) :]

    def cells_of(self, begin: int, end: int) -> tuple[int, int]:
        """The range of cells of examples `begin` to `end`."""
        return int(self.offset[self.starts[begin]]), int(self.offset[self.starts[end]])


FRAME_BYTES = 112
"""What a frame or label position costs in index arrays, with the arrays that exist only while `frames_of` runs."""


def existing_cells(example, t, T, U, moves, bounds):
    """First and last label position of frames that an alignment can visit, both inclusive.

    Parameters
    ----------
    example, t : (n,) int64
        Rows of `bounds`, and frames.
    T, U : (n,) int64
        Lengths of the frames' examples.
    moves : Moves
        Where every arc consumes a frame, a cell with u > t, or with more labels left than frames, is on no alignment.
        Where label arcs are paired, the cell with u = t + 1 is, by the blank behind a label.
    bounds : pair of (B, T) integer arrays, or None
        The first and last label position that are allowed. What reaches beyond the lattice is cut off.

    Returns
    -------
    first, last : (n,) int64
        last < first where no cell exists.
    """
    first = np.maximum(0, U - (T - t)) if moves.monotonic else np.zeros_like(t)
    # With more labels than frames there is no alignment, and so no pair.
    last = np.minimum(U, t + (moves.paired & (U <= T))) if moves.monotonic else U
    if bounds is not None:
        first = np.maximum(first, bounds[0][example, t])
        last = np.minimum(last, bounds[1][example, t])
    return first, last


def frames_of(examples, frame_lengths, target_lengths, moves, bounds) -> Frames:
    """Number the cells of a run of examples.

    Parameters
    ----------
    examples : (n,) int64
        Rows of the batch, in the order of the run.
    frame_lengths, target_lengths : (N,) int64
        T_b and U_b of the whole batch.
    moves, bounds
        As in `existing_cells`.
    """
    T, U = frame_lengths[examples], target_lengths[examples]
    starts = np.zeros(len(examples) + 1, np.int64)
    np.cumsum(T, out=starts[1:])
    # (frames,) each from here on. `example` is a place in the run, `examples[example]` a place in the batch.
    example = np.repeat(np.arange(len(examples), dtype=np.int32), T)
    t = np.arange(starts[-1]) - starts[example]
    first, last = existing_cells(examples[example], t, T[example], U[example], moves, bounds)
    offset = np.zeros(len(t) + 1, np.int64)
    # A frame without cells has last < first, by any amount.
    counts = np.maximum(0, last - first + 1)
    np.cumsum(counts, out=offset[1:])
    first = np.where(counts, first, 0)
    return Frames(starts, U.astype(np.int32), example, first.astype(np.int32), offset, int(U.max(initial=0)))


def count_cells(examples, frame_lengths, target_lengths, moves, bounds) -> np.ndarray:
    """(n,) int64: cells of each example of a run."""
    if bounds is None:
        T, U = frame_lengths[examples], target_lengths[examples]
        if not moves.monotonic:
            return (U + 1) * T
        # u and t - u run over U + 1 and T - U + 1 values, but (T, U) is the end and no cell. Pairs add (t, t + 1) for
        # each t < U.
        return np.where(U <= T, (U + 1) * (T - U + 1) - 1 + moves.paired * U, 0)
    # One after the other, so that index arrays exist for one example at a time.
    one_by_one = (examples[n : n + 1] for n in range(len(examples)))
    return np.array([frames_of(n, frame_lengths, target_lengths, moves, bounds).cells for n in one_by_one], np.int64)


class Plan(NamedTuple):
    """How a batch is worked off in a limited workspace.

    Attributes
    ----------
    groups : list of (begin, end)
        Runs of examples whose lattices are held at once.
    tile : int
        Cells worked on at once.
    block : int
        Rows of the weight gradient worked on at once.
    size : int
        Bytes of the workspace.
    space : int
        Bytes of the workspace that are handed out as one block.
    least : int
        Bytes of the smallest workspace that would do.
    """

    groups: list[tuple[int, int]]
    tile: int
    block: int
    size: int
    space: int
    least: int


MIN_TILE = 16


class WorkspaceTooSmall(ValueError):
    """A limit in which no plan fits; the text names the bytes that the smallest workspace needs."""


def plan(
    cells, state_bytes, outside_bytes, *, tile_cell_bytes, block_row_bytes, block_rows, min_block, fixed_bytes,
    tile_bytes, reserve, limit, alone=False,
) -> Plan:  # fmt: skip
    """Share out the workspace between lattices of examples, a tile, and a block of the weight gradient.

    Parameters
    ----------
    cells, state_bytes, outside_bytes : (n,) int64
        Cells of each example, the bytes that its lattice takes, and how many of these bytes are allocated by
        themselves.
    tile_cell_bytes, block_row_bytes : int
        Bytes of a cell of a tile, and of a row of a block of the weight gradient.
    block_rows, min_block : int
        Rows of the weight gradient, 0 without gradients, and the fewest that are worked on at once.
    fixed_bytes : int
        What is held throughout.
    tile_bytes, reserve : int
        What a tile fills where there is room, and what is left unused where there is room.
    limit : int
        Bytes in all.
    alone : bool
        Every example is a group of its own.

    Raises
    ------
    WorkspaceTooSmall
        Naming the bytes that the smallest workspace needs.
    """
    most_cells, largest = int(cells.max(initial=0)), int(state_bytes.max(initial=0))
    # The smallest workspace: one example, a short tile, a small block. What is left is shared out from there.
    tile, block = min(MIN_TILE, max(1, most_cells)), min(min_block, block_rows)
    needed = fixed_bytes + largest + tile * tile_cell_bytes + block * block_row_bytes
    spare = limit - needed
    if spare < 0:
        raise WorkspaceTooSmall(
            f"memory_limit is {limit} bytes, expected at least {needed}: {largest} for the lattice of the largest "
            f"example, the rest for a tile of {tile} cells and the output layer"
        )
    spare -= min(spare, reserve, limit // 8)
    # At most a quarter of the rest goes to the block, then three quarters to the tile, and what remains to lattices.
    more = min(block_rows - block, spare // 4 // max(1, block_row_bytes))
    block, spare = block + more, spare - more * block_row_bytes
    wanted = min(int(cells.sum()), max(1024, tile_bytes // tile_cell_bytes))
    more = max(0, min(wanted - tile, spare * 3 // 4 // tile_cell_bytes))
    tile, spare = tile + more, spare - more * tile_cell_bytes
    capacity = largest + spare
    groups, size, space, begin = [], 0, 0, 0
    while begin < len(cells):
        costs = np.cumsum(state_bytes[begin:])
        # As many examples as fit; the largest one always does.
        count = 1 if alone else max(1, int(np.searchsorted(costs, capacity, side="right")))
        groups.append((begin, begin + count))
        # Groups use the same workspace one after the other.
        size = max(size, int(costs[count - 1]))
        space = max(space, int(costs[count - 1]) - int(outside_bytes[begin : begin + count].sum()))
        begin += count
    throughout = fixed_bytes + tile * tile_cell_bytes + block * block_row_bytes
    return Plan(groups, tile, block, size + throughout, space + throughout, needed)
