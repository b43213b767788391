"""Flat cells -> where their inputs lie. The only kernel that knows how cells are numbered.

Cells are numbered frame by frame, and frames example by example. Frame `f` holds the label positions `first[f]` to
`first[f] + width - 1` with `width = offset[f + 1] - offset[f]`. Every other kernel is handed one row index, slot and
label for each cell.
"""

from numba.extending import register_jitable

from .launch import by_thread, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@register_jitable
def frame_of(cell, offset):
    """The frame that holds a cell: the last one whose offset is not past it."""
    # A frame without cells has the offset of the next one, so the last of equal offsets is the frame that has the cell.
    low, high = 0, offset.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if offset[middle] <= cell:
            low = middle
        else:
            high = middle
    return low


@register_jitable
def locate_cell(
    i, f, cell, labels, example, first, offset, targets, frame_base, label_base, row, slot, label_id, owner
):
    """Fill in the inputs of one cell of frame `f`, at place i."""
    n = example[f]
    u = first[f] + cell - offset[f]  # label position, 0 to U
    row[i] = frame_base[f]
    slot[i] = label_base[n] + u
    label_id[i] = targets[n, u] if u < labels[n] else -1
    owner[i] = n


@cpu_sweep
def locate_cpu(begin, end, start, cells, frames, targets, frame_base, label_base, row, slot, label_id, owner):
    labels, example, first, offset = frames.labels, frames.example, frames.first, frames.offset
    # One search for the range. Cells ascend, so from there on the frame does, too.
    f = frame_of(cells[begin] if cells.shape[0] else start + begin, offset)
    for i in range(begin, end):
        cell = cells[i] if cells.shape[0] else start + i
        while offset[f + 1] <= cell:
            f += 1
        locate_cell(
            i, f, cell, labels, example, first, offset, targets, frame_base, label_base, row, slot, label_id, owner
        )


@cuda_kernel
def locate_cuda(
    start, cells, labels, example, first, offset, targets, frame_base, label_base, row, slot, label_id, owner
):
    i = cuda.grid(1)
    if i < row.shape[0]:
        cell = cells[i] if cells.shape[0] else start + i
        f = frame_of(cell, offset)
        locate_cell(
            i, f, cell, labels, example, first, offset, targets, frame_base, label_base, row, slot, label_id, owner
        )


def locate(start, cells, frames, targets, frame_base, label_base, row, slot, label_id, owner):
    """Look up the inputs of a run of cells.

    Parameters
    ----------
    start : int
        First cell of the run. It is used when `cells` is empty, for a run without holes.
    cells : (n,) or (0,) int64
        Ascending cells, or none.
    frames : lattice.layout.Frames
    targets : (examples, U) int32
        Positions of the labels in the vocabulary in use.
    frame_base, label_base : (frames,) int64, (examples,) int64
        Chosen by the caller: `row = frame_base[f]`, `slot = label_base[example] + u`. In the joint they number the
        frames and the label positions of a group. From given logits, `frame_base` is the row of position 0 of a frame
        and `label_base` is 0, so that `row + slot` is the row of the cell.
    row, slot, label_id, owner : (n,) int64, int64, int32, int32
        Filled here. `label_id` is -1 where no label is left, and `owner` is the example.
    """
    places = (targets, frame_base, label_base, row, slot, label_id, owner)
    if on_host(row):
        sweep(locate_cpu, len(row), start, cells, frames, *places, work=8 * len(row))
    else:
        by_thread(
            locate_cuda, len(row), start, cells, frames.labels, frames.example, frames.first, frames.offset, *places
        )


@register_jitable
def renumbered(f, cell, first, offset, to_first, to_offset):
    """The number that a cell of frame f has where frames have the cells of `to_first` and `to_offset`."""
    return to_offset[f] + (first[f] - to_first[f]) + (cell - offset[f])


@cpu_sweep
def renumber_cpu(begin, end, cells, first, offset, to_first, to_offset):
    f = frame_of(cells[begin], offset)
    for i in range(begin, end):
        while offset[f + 1] <= cells[i]:
            f += 1
        cells[i] = renumbered(f, cells[i], first, offset, to_first, to_offset)


@cuda_kernel
def renumber_cuda(cells, first, offset, to_first, to_offset):
    i = cuda.grid(1)
    if i < cells.shape[0]:
        cells[i] = renumbered(frame_of(cells[i], offset), cells[i], first, offset, to_first, to_offset)


def renumber(cells, frames, lattice):
    """Number cells of a band as they are numbered in the whole lattice.

    Parameters
    ----------
    cells : (n,) int64
        Ascending numbers by `frames`; by `lattice` behind the call.
    frames, lattice : lattice.layout.Frames
        Of the same examples. Each cell of the first exists in the other.
    """
    arguments = cells, frames.first, frames.offset, lattice.first, lattice.offset
    if on_host(cells):
        sweep(renumber_cpu, len(cells), *arguments, work=8 * len(cells))
    else:
        by_thread(renumber_cuda, len(cells), *arguments)
