"""Numbering of cells, and the plan under a byte limit."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice import layout
from lattice.kernels.locate import locate
from lattice.kernels.rows import NO_IDS
from tests import oracle
from tests.kernel_compare import MOVES, RNNT
from tests.problems import TOPOLOGIES


def cells_one_by_one(T, U, topology, bounds):
    """(example, t, u) of every cell, in the order in which they are numbered."""
    for n in range(len(T)):
        on_some = {(t, u) for arcs in oracle.alignments(T[n], U[n], topology) for t, u, _ in arcs}
        for t, u in itertools.product(range(T[n]), range(U[n] + 1)):
            if (t, u) in on_some and (bounds is None or bounds[0][n, t] <= u <= bounds[1][n, t]):
                yield n, t, u


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("bounded", [False, True])
def test_frames_number_every_cell_once(topology, bounded):
    rng, moves = np.random.default_rng(0), MOVES[topology]
    T, U = np.array([5, 1, 3, 2]), np.array([3, 0, 4, 1])
    bounds = None
    if bounded:
        first = rng.integers(-1, 3, (4, 6)).astype(np.int32)
        bounds = first, first + rng.integers(-1, 4, (4, 6)).astype(np.int32)
    order = np.array([2, 0, 3, 1])
    frames = layout.frames_of(order, T, U, moves, bounds)
    in_order = None if bounds is None else tuple(bound[order] for bound in bounds)
    expected = list(cells_one_by_one(T[order], U[order], topology, in_order))
    assert frames.cells == len(expected) == layout.count_cells(order, T, U, moves, bounds).sum()

    row, slot = np.empty(len(expected), np.int64), np.empty(len(expected), np.int64)
    label, owner = np.empty(len(expected), np.int32), np.empty(len(expected), np.int32)
    targets = rng.integers(1, 9, (4, 4)).astype(np.int32)
    t = np.arange(len(frames.example)) - frames.starts[frames.example]
    assert np.array_equal(frames.t, t)
    locate(0, NO_IDS, frames, targets, t, np.zeros(4, np.int64), row, slot, label, owner)
    assert list(zip(owner, row, slot)) == expected
    assert [(targets[n, u] if u < frames.labels[n] else -1) for n, _, u in expected] == label.tolist()

    some = np.flatnonzero(rng.random(len(expected)) < 0.4)
    parts = [array[: len(some)] for array in (row, slot, label, owner)]
    locate(0, some, frames, targets, t, np.zeros(4, np.int64), *parts)
    assert list(zip(parts[3], parts[0], parts[1])) == [expected[i] for i in some]


def test_offsets_pass_2_to_the_31():
    frames = layout.frames_of(np.arange(1), np.array([70_000]), np.array([40_000]), RNNT, None)
    assert frames.cells == 70_000 * 40_001 > 2**31


sizes = st.integers(1, 50)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=20),
    sizes,
    sizes,
    sizes,
    st.integers(0, 500),
    st.integers(0, 10**6),
)
def test_a_plan_fits_its_limit_or_says_what_would(cells, state, tile_bytes, block_bytes, block_rows, limit):
    cells = np.array(cells)
    arguments = {
        "tile_cell_bytes": tile_bytes,
        "block_row_bytes": block_bytes,
        "block_rows": block_rows,
        "fixed_bytes": 100,
        "min_block": 16,
        "tile_bytes": 24 << 20,
        "reserve": 8 << 20,
    }
    try:
        plan = layout.plan(cells, cells * state, cells, limit=limit, **arguments)
    except ValueError as error:
        limit = int(str(error).split("at least ")[1].split(":")[0])
        with pytest.raises(ValueError, match="memory_limit"):
            layout.plan(cells, cells * state, cells, limit=limit - 1, **arguments)
        plan = layout.plan(cells, cells * state, cells, limit=limit, **arguments)
    assert plan.space <= plan.size <= limit
    assert [begin for begin, _ in plan.groups] == [0, *(end for _, end in plan.groups[:-1])] and plan.groups[-1][
        1
    ] == len(cells)
    assert plan.tile >= 1 or not cells.any()
    assert plan.block >= 1 or not block_rows


def test_a_frame_without_cells_begins_at_0():
    """Sweeps keep a row of U + 1 numbers, in which they take places from `first` on."""
    bounds = np.array([[0, 2**31 - 1, 2, 5]]), np.array([[1, 3, -1, 4]])
    frames = layout.frames_of(np.array([0]), np.array([4]), np.array([3]), RNNT, bounds)
    assert frames.first.tolist() == [0, 0, 0, 0] and frames.offset.tolist() == [0, 2, 2, 2, 2]
