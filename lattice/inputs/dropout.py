"""`dropout` of the doors of the fused joint: a rate and a seed."""

from typing import NamedTuple

from ..kernels.dropout import LEVELS
from .checks import read_integer, read_number

MOST_SEED = 2**64 - 1


class Dropout(NamedTuple):
    """Which entries of hidden vectors are dropped.

    Attributes
    ----------
    threshold : int
        1 to `LEVELS` - 1: how many of `LEVELS` draws drop an entry.
    seed : int
        0 to `MOST_SEED`.
    """

    threshold: int
    seed: int


def read_dropout(dropout) -> Dropout | None:
    """(rate, seed) -> what entries are dropped; None where none are."""
    if dropout is None:
        return None
    if not isinstance(dropout, (tuple, list)) or len(dropout) != 2:
        raise TypeError(f"dropout is {dropout!r}, expected None or a pair (rate, seed)")
    rate = read_number(dropout[0], "dropout[0], the rate,", 0.0, bound="at least 0 and below 1")
    if rate >= 1.0:
        raise ValueError(f"dropout[0], the rate, is {rate}, expected at least 0 and below 1")
    seed = read_integer(dropout[1], "dropout[1], the seed,")
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"dropout[1], the seed, is {seed}, expected 0 to {MOST_SEED}")
    # A rate just below 1 keeps an entry in 65536.
    threshold = min(round(rate * LEVELS), LEVELS - 1)
    return Dropout(threshold, seed) if threshold else None
