"""Flat cells -> where their inputs lie. The only kernel that knows how cells are numbered.

Cells are numbered frame by frame, frames example by example; frame `f` holds the labels `first[f] ... first[f] + width - 1`
with `width = offset[f + 1] - offset[f]`. Every other kernel is handed one row index, slot and label for each cell.
"""

from numba.extending import register_jitable

from .launch import by_thread, cpu_sweep, cuda, cuda_kernel, on_host, sweep


@register_jitable
def frame_of(cell, offset):
    """The frame that holds a cell: the last one whose offset is not past it."""
    low, high = 0, offset.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if offset[middle] <= cell:
            low = middle
        else:
            high = middle
    return low


@register_jitable
def locate_cell(i, f, cell, labels, example, first, offset, targets, frame_base, label_base, row, slot, label, owner):
    """Fill in the inputs of one cell of frame `f`."""
    n = example[f]
    u = first[f] + cell - offset[f]
    row[i] = frame_base[f]
    slot[i] = label_base[n] + u
    label[i] = targets[n, u] if u < labels[n] else -1
    owner[i] = n


@cpu_sweep
def locate_cpu(begin, end, start, cells, frames, targets, frame_base, label_base, row, slot, label, owner):
    offset = frames.offset
    f = frame_of(cells[begin] if cells.shape[0] else start + begin, offset)
    for i in range(begin, end):
        cell = cells[i] if cells.shape[0] else start + i
        while offset[f + 1] <= cell:
            f += 1
        locate_cell(i, f, cell, frames.labels, frames.example, frames.first, offset, targets, frame_base, label_base, row, slot,
                    label, owner)  # fmt: skip


@cuda_kernel
def locate_cuda(
    start, cells, labels, example, first, offset, targets, frame_base, label_base, row, slot, label, owner
):  # fmt: skip
    i = cuda.grid(1)
    if i < row.shape[0]:
        cell = cells[i] if cells.shape[0] else start + i
        f = frame_of(cell, offset)
        locate_cell(i, f, cell, labels, example, first, offset, targets, frame_base, label_base, row, slot, label, owner)


def locate(start, cells, frames, targets, frame_base, label_base, row, slot, label, owner):
    """Look up the inputs of a run of cells.

    Parameters
    ----------
    start : int
        First cell of the run; used when `cells` is empty, that is for a run without holes.
    cells : (n,) or (0,) int64
        Ascending cells, or none.
    frames : lattice.layout.Frames
    targets : (examples, U) int32
        Positions of the labels in the vocabulary in use.
    frame_base, label_base : (frames,) int64, (examples,) int64
        What is added up by the caller: `row = frame_base[f]`, `slot = label_base[example] + u`.
    row, slot, label, owner : (n,) int64, int64, int32, int32
        Filled here; `label` is -1 where no label is left, `owner` is the example.
    """
    places = (targets, frame_base, label_base, row, slot, label, owner)
    if on_host(row):
        sweep(locate_cpu, len(row), start, cells, frames, *places, work=8 * len(row))
    else:
        by_thread(locate_cuda, len(row), start, cells, frames.labels, frames.example, frames.first, frames.offset, *places)
