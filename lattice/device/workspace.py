"""Scratch memory of a limited size: one block, borrowed piece by piece."""

import numpy as np

from .arrays import aligned
from .memory import HOST, count


class Workspace:
    """One block of scratch memory.

    Parameters
    ----------
    size : int
        Bytes; nothing beyond them is allocated.
    device : Host or Cuda
    least : int
        Bytes of the smallest workspace that would do, for the error text of a device without room.
    """

    def __init__(self, size: int, device=HOST, least: int = 0):
        self.memory = device.scratch(size, least)  # (size,) bytes
        self._size, self._piece, self._used = len(self.memory), device.pieces(self.memory), 0

    def take(self, shape, dtype):
        """An uninitialised array out of the block, on a GPU a `DeviceView`.

        Raises
        ------
        RuntimeError
            The block is used up. A plan takes care that it never is, so this is a bug of the plan.
        """
        dtype = np.dtype(dtype)
        size = count(shape) * dtype.itemsize
        begin = self._used
        # Every piece starts on a multiple of the alignment.
        self._used += aligned(size)
        if self._used > self._size:
            raise RuntimeError(
                f"the workspace of {self._size} bytes is {self._used - self._size} bytes short: "
                "a bug in how lattice plans its memory, please report it with the arguments' shapes"
            )
        return self._piece(begin, shape, dtype)

    @property
    def left(self) -> int:
        """Bytes that can still be taken."""
        return self._size - self._used

    @property
    def used(self) -> int:
        """A mark for `rewind`."""
        return self._used

    def rewind(self, used: int) -> None:
        """Free what was taken since the mark."""
        self._used = used

    def borrowed(self) -> "Borrowed":
        """Context after which everything that was taken inside is free again: its arrays may be written over."""
        return Borrowed(self)


class Borrowed:
    """What `Workspace.borrowed` gives. A class, because each tile enters one, and a generator takes thrice as long."""

    def __init__(self, space: Workspace):
        self._space = space

    def __enter__(self) -> None:
        self._mark = self._space._used

    def __exit__(self, *error) -> None:
        self._space._used = self._mark
