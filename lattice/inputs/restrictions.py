"""What an example may be restricted to: some ids of the vocabulary, some cells of each frame."""

import numpy as np

from .checks import index, read_integers, read_lengths, refuse


def read_vocabulary(
    vocabulary, lengths, *, count: int, size: int, owner: str, name: str = "vocabulary", tail: int = 0
) -> list[np.ndarray] | None:
    """The ids of every example's vocabulary, without their ending.

    Parameters
    ----------
    vocabulary : (count, S) int32 or int64, or None
        Ids in any order. Without `lengths`, -1 ends a row.
    lengths : (count,) int32 or int64, or None
    count, size : int
        Examples, and ids of the whole vocabulary.
    owner, name : str
        Where `count` comes from, and what the argument is called.
    tail : int
        How many rows of the weight behind the ids are durations, for the error texts.

    Returns
    -------
    vocabulary : list of `count` int64 arrays, or None
        At least one id each, in the order given, no id twice.
    """
    if vocabulary is None:
        if lengths is not None:
            raise ValueError("vocabulary_lengths is given without vocabulary")
        return None
    ids = read_integers(vocabulary, name, (count, None), f"(B, S) for {owner}")
    S = ids.shape[1]
    if lengths is None:
        # (count, S + 1): one more end behind each row, for rows without -1.
        ended = np.pad(ids == -1, ((0, 0), (0, 1)), constant_values=True)
        lengths = ended.argmax(axis=1)  # (count,) place of the first end
        refuse(lengths < 1, lambda at: f"{name}{index(at)} is empty, expected at least the blank")
    else:
        source = f"the size of vocabulary {ids.shape}"
        lengths = read_lengths(lengths, "vocabulary_lengths", count, low=1, high=S, source=source, owner=owner)
    real = np.arange(S) < lengths[:, None]  # (count, S)
    unknown = real & ((ids < 0) | (ids >= size))
    what = f"the ids of the vocabulary; the {tail} rows behind are durations" if tail else "the rows of weight"
    refuse(unknown, lambda at: f"{name}{index(at)} is {ids[at]}, expected 0 to {size - 1}, {what}")
    rows = [np.array(ids[n, : lengths[n]], np.int64) for n in range(count)]
    for n, row in enumerate(rows):
        sorted_row = np.sort(row)
        # An id that stood twice would count twice in the softmax.
        twice = sorted_row[1:][sorted_row[1:] == sorted_row[:-1]]
        if len(twice):
            raise ValueError(f"{name}[{n}] holds id {twice[0]} more than once")
    return rows


def read_bounds(bounds, count: int, T: int, owner: str):
    """First and last label position of each frame, a pair of (count, T or more) int32 arrays, or None.

    T is the longest example's length. What lies beyond any lattice is cut off; where last < first a frame has no cell.
    """
    return None if bounds is None else _cut_off(*_read_pair(bounds, count, T, owner))


def read_band(bounds, frame_lengths: np.ndarray, rows: int, owner: str):
    """The bounds of banded logits.

    Parameters
    ----------
    bounds : pair of (count, T or more) int32 or int64 arrays
    frame_lengths : (count,) int64
    rows : int
        R, the rows of logits that a frame has. A frame of an example may have that many label positions.
    owner : str
        Where `count` comes from.

    Returns
    -------
    bounds : pair of (count, T) int32 arrays
        As from `read_bounds`, T being the longest example's length.
    origin : (count, T) int64
        The label position of row 0 of each frame: the first bound as it was given.
    """
    count, T = len(frame_lengths), int(frame_lengths.max(initial=0))
    first, last = (x[:, :T].astype(np.int64) for x in _read_pair(bounds, count, T, owner))
    real = np.arange(T) < frame_lengths[:, None]  # (count, T)
    # A difference of two int64 may pass 2**63, but not 2**64.
    more = last.view(np.uint64) - first.view(np.uint64)
    refuse(
        real & (last >= first) & (more >= rows),
        lambda at: (
            f"bounds[1]{index(at)} is {last[at]}, expected at most {int(first[at]) + rows - 1}: a frame of banded "
            f"logits has {rows} rows, here from label position {first[at]} on"
        ),
    )
    return _cut_off(first, last), first


def _read_pair(bounds, count: int, T: int, owner: str) -> tuple[np.ndarray, np.ndarray]:
    """First and last label position of each frame as they were given."""
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError(f"bounds is {type(bounds).__name__}, expected a pair (first, last)")
    first, last = (read_integers(x, f"bounds[{i}]", (count, None), f"(B, T) for {owner}") for i, x in enumerate(bounds))
    for i, array in enumerate((first, last)):
        if array.shape[1] < T:
            raise ValueError(f"bounds[{i}] has shape {array.shape}, expected at least {T} frames, the longest example")
    return first, last


def _cut_off(first, last):
    """Label positions as int32, without what lies beyond any lattice."""
    # int64 values may lie near 2**63. To label positions 0 to U, -1 and the largest int32 compare as those did.
    most = np.iinfo(np.int32).max
    return np.clip(first, -1, most).astype(np.int32), np.clip(last, -1, most).astype(np.int32)


def read_near(near, frame_lengths: np.ndarray, target_lengths: np.ndarray, owner: str) -> np.ndarray | None:
    """(N, U) int64: the frame of each label by which a band is looked for first, -1 where it has none.

    U is at least the longest target. The frames decide nothing that is exact, so they may be in any order.
    """
    if near is None:
        return None
    near = read_integers(near, "near", (len(target_lengths), None), f"(N, U) for {owner}").astype(np.int64)
    longest = int(target_lengths.max(initial=0))
    if near.shape[1] < longest:
        raise ValueError(f"near has shape {near.shape}, expected at least {longest} labels, the longest target")
    real = np.arange(near.shape[1]) < target_lengths[:, None]  # (N, U)
    expected = "expected -1, or 0 to {}, encoder_lengths[{}] less one"
    refuse(
        real & ((near < -1) | (near >= frame_lengths[:, None])),
        lambda at: f"near{index(at)} is {near[at]}, {expected.format(frame_lengths[at[0]] - 1, at[0])}",
    )
    return np.where(real, near, -1)
