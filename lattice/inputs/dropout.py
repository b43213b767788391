"""`dropout` of the doors of the fused joint: a rate and a seed."""

from typing import NamedTuple

from ..kernels.dropout import LEVELS
from .checks import MOST_SEED, read_natural, read_share


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
    rate = read_share(dropout[0], "dropout[0], the rate,", bound="at least 0 and below 1")
    seed = read_natural(dropout[1], "dropout[1], the seed,", MOST_SEED)
    # A rate just below 1 keeps an entry in 65536.
    threshold = min(round(rate * LEVELS), LEVELS - 1)
    return Dropout(threshold, seed) if threshold else None
