"""Peak memory of a training step."""

import tracemalloc
from collections.abc import Callable, Iterable

from .batches import Batch


def peak_bytes(step: Callable[[], object]) -> int:
    """The most memory that arrays of a step take at a time, its parameters and data aside."""
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def largest(data: Iterable[Batch]) -> Batch:
    """The batch with most padded cells of the lattice."""
    return max(data, key=lambda one: len(one.frames) * one.frames.shape[1] * (one.targets.shape[1] + 1))
