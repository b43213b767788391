"""What an example may be restricted to: some ids of the vocabulary, some cells of each frame."""

import numpy as np

from .checks import index, read_integers, read_lengths, refuse


def read_vocabulary(vocabulary, lengths, count: int, size: int, owner: str, name="vocabulary") -> list[np.ndarray] | None:
    """The ids of every example's vocabulary, without their ending; `name` is the argument's."""
    if vocabulary is None:
        if lengths is not None:
            raise ValueError("vocabulary_lengths is given without vocabulary")
        return None
    ids = read_integers(vocabulary, name, (count, None), f"(B, S) for {owner}")
    S = ids.shape[1]
    if lengths is None:
        ended = np.pad(ids == -1, ((0, 0), (0, 1)), constant_values=True)
        lengths = ended.argmax(axis=1)
        refuse(lengths < 1, lambda at: f"{name}{index(at)} is empty, expected at least the blank")
    else:
        lengths = read_lengths(lengths, "vocabulary_lengths", count, 1, S, f"the size of vocabulary {ids.shape}", owner)
    real = np.arange(S) < lengths[:, None]
    refuse(real & ((ids < 0) | (ids >= size)),
           lambda at: f"{name}{index(at)} is {ids[at]}, expected 0 to {size - 1}, the rows of weight")  # fmt: skip
    rows = [np.array(ids[n, : lengths[n]], np.int64) for n in range(count)]
    for n, row in enumerate(rows):
        sorted_row = np.sort(row)
        twice = sorted_row[1:][sorted_row[1:] == sorted_row[:-1]]
        if len(twice):
            raise ValueError(f"{name}[{n}] holds id {twice[0]} more than once")
    return rows


def read_bounds(bounds, count: int, T: int, owner: str):
    """The pair of (B, T) arrays, at least as long as the longest example, as int32: what lies beyond any lattice is cut off."""
    if bounds is None:
        return None
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError(f"bounds is {type(bounds).__name__}, expected a pair (first, last)")
    first, last = (read_integers(x, f"bounds[{i}]", (count, None), f"(B, T) for {owner}") for i, x in enumerate(bounds))
    for i, array in enumerate((first, last)):
        if array.shape[1] < T:
            raise ValueError(f"bounds[{i}] has shape {array.shape}, expected at least {T} frames, the longest example")
    most = np.iinfo(np.int32).max
    return np.clip(first, -1, most).astype(np.int32), np.clip(last, -1, most).astype(np.int32)
