"""A call on a GPU that is not there: what it would launch, multiply and wait for, in order.

The call runs as it is, over the stand-in for CuPy. Kernels, matrix products and CuPy's own arithmetic are noted and
left out, and memory is never touched, so that a batch of gigabytes takes none. Where the host reads what a kernel has
found, the number of cells that are listed, it reads what `Kind` says.
"""

import contextlib
import ctypes
import functools
from typing import NamedTuple
from unittest import mock

import numpy as np

import lattice
from lattice import layout
from lattice.device import arrays
from lattice.device.memory import Cuda
from lattice.kernels import ptx
from lattice.kernels.ptx_types import flattened
from lattice.tiles.tiler import Tiler

from .. import topologies
from . import problems
from .stages import product_of
from .work import Step, step_of


class Kind(NamedTuple):
    """What a call finds.

    Attributes
    ----------
    rounds : tuple of float
        The shares of an example's cells that each round of the certificate lists.
    occupied : float
        The share of them that is occupied.
    far : bool
        Whether most cells have entries that are beyond the reach of factors.
    """

    rounds: tuple[float, ...]
    occupied: float
    far: bool = False

    @property
    def certified(self) -> float:
        return sum(self.rounds)


KINDS = {"untrained": Kind((0.29, 0.71), 0.25), "trained-like": Kind((0.033, 0.014), 0.04, far=True)}
"""How the rounds divide the certified cells was read off `benchmarks.shapes` at T=400, U=80. The trained-like problem
there counts labels in its first entry. "tdt" is given the same, so that a call differs by its kernels alone. In
`benchmarks.topologies` it has rounds of 0.36 and 0.64 untrained, of 0.033 and 0.019 trained-like, with 0.22 and 0.044
of the cells occupied."""


class Block(NamedTuple):
    """Steps that follow one another, `repeat` times: those of a tile, or what a group does between tiles."""

    tile: bool
    steps: tuple[Step, ...]
    repeat: int = 1


class Recorder:
    """Notes the steps of a call.

    Attributes
    ----------
    kind : Kind
    blocks : list of Block
        In order, as they came; `compressed` joins those that are alike.
    """

    def __init__(self, kind: Kind):
        self.kind, self.blocks, self.steps, self.tile = kind, [], [], False
        self.round, self.longest, self.widest, self.listing, self.known = 0, 0, 0, None, set()

    def note(self, step: Step) -> None:
        self.steps.append(step)

    def cut(self, tile: bool) -> None:
        """Begin a block."""
        if self.steps:
            self.blocks.append(Block(self.tile, tuple(self.steps)))
        self.steps, self.tile = [], tile

    def launch(self, kernel, blocks, threads, arguments) -> None:
        name = getattr(kernel, "py_func", kernel).__name__
        known = {"longest": self.longest, "widest": self.widest, "far": self.kind.far}
        self.note(step_of(kernel, arguments, blocks=blocks, threads=threads, **known))
        if name == "count_cuda":
            self.listing = arguments
        elif name == "add_up_cuda":
            self.answer(*arguments)

    def answer(self, counts, starts, first_cell) -> None:
        """Fill in the places in the list of each example's first cell, which the host will read."""
        _, offset, _, wanted, _ = self.listing
        cells = np.diff(memory_of(offset)[memory_of(starts)])  # (examples,)
        share = self.kind.occupied
        if wanted:
            share = self.kind.rounds[self.round] if self.round < len(self.kind.rounds) else 0.0
            self.round += 1
        memory_of(first_cell)[:] = np.append(0, np.cumsum(np.rint(cells * share)))
        self.known.add(arrays.address(first_cell))

    def product(self, a, b, *others, **options) -> None:
        out = next(x for x in (*others, *options.values()) if getattr(x, "ndim", 0))
        (M, K), N = a.shape, b.shape[1]
        moved = a.nbytes + b.nbytes + out.nbytes
        self.note(Step("product", product_of(a, b), rows=M, elements=M * N * K, bytes=moved, shape=(M, K, N)))

    def arithmetic(self, function, *operands, out=None):
        from tests.cudasim import fake_cupy_array as fake

        given = [x for x in (*operands, out) if isinstance(x, fake.ndarray)]
        self.note(Step("CuPy", "CuPy", elements=given[0].size, bytes=sum(x.nbytes for x in given)))
        if out is None:
            return fake.ndarray(np.broadcast_shapes(*(x.shape for x in given)), given[0].dtype)
        return out

    def assigned(self, target, key, value) -> None:
        part = target[key]
        # What `x[key] += y` assigns is where it is to go, and CuPy sees that.
        if getattr(value, "ndim", 0) and arrays.address(value) == arrays.address(part):
            return
        self.note(Step("CuPy", "CuPy", elements=part.size, bytes=part.nbytes * (1 + bool(getattr(value, "ndim", 0)))))

    def fetched(self, array, get, *arguments, **options):
        if arrays.address(array) not in self.known:
            raise RuntimeError(f"the host reads an array {array.shape} of {array.dtype} that no kernel has filled in")
        self.note(Step("wait", "wait"))
        return get(array, *arguments, **options)

    def frames(self, found) -> None:
        self.round = 0
        # No frame stands behind the steps that a sweep takes.
        self.longest = int((np.diff(found.starts) + found.labels).max(initial=0))
        self.widest = found.widest + 1
        self.note(Step("frames", "frames", rows=len(found.example)))


def memory_of(array) -> np.ndarray:
    """A one-dimensional array of the stand-in as NumPy sees it, by the address that a kernel would be given."""
    address = flattened((array,))[4]
    size = array.shape[0] * array.dtype.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), array.dtype)


@contextlib.contextmanager
def recorded(kind: Kind):
    """The stand-in for CuPy, on which nothing is done; a Recorder of what would be."""
    from tests.cudasim import fake_cupy
    from tests.cudasim import fake_cupy_array as fake

    recorder, tiles, frames_of, get = Recorder(kind), Tiler.tiles, layout.frames_of, fake.ndarray.get

    def cut(tiler, first, last):
        for part in tiles(tiler, first, last):
            recorder.cut(True)
            yield part
            recorder.cut(False)

    def numbered(*arguments):
        found = frames_of(*arguments)
        recorder.frames(found)
        return found

    replaced = (
        (arrays, "cupy", lambda: fake_cupy.cupy),
        # Not filled in, so that the system gives no memory for it.
        (fake, "apart", lambda size: np.empty(size, np.uint8)),
        (fake, "elementwise", recorder.arithmetic),
        (fake.ndarray, "__setitem__", recorder.assigned),
        (fake.ndarray, "get", lambda array, *rest, **options: recorder.fetched(array, get, *rest, **options)),
        (ptx, "run", recorder.launch),
        (Cuda, "matmul", lambda place, *matrices, **options: recorder.product(*matrices, **options)),
        (Tiler, "tiles", cut),
        (layout, "frames_of", numbered),
    )
    with contextlib.ExitStack() as stack:
        stack.callback(fake_cupy.uninstall)
        fake_cupy.install()
        for place, name, function in replaced:
            # A method of the recorder is no method of the class that it stands in for.
            if place is fake.ndarray and name == "__setitem__":
                function = functools.partialmethod(_assigned, recorder)
            stack.enter_context(mock.patch.object(place, name, function))
        yield recorder
    recorder.cut(False)


def _assigned(target, recorder, key, value):
    recorder.assigned(target, key, value)


def compressed(blocks) -> list[Block]:
    """Blocks of which no two neighbours are alike."""
    joined: list[Block] = []
    for block in blocks:
        if joined and joined[-1][:2] == block[:2]:
            joined[-1] = joined[-1]._replace(repeat=joined[-1].repeat + block.repeat)
        else:
            joined.append(block)
    return joined


def joint(
    shape: problems.Shape, kind: Kind, dtype: str, memory_limit: int, *, gradients: bool = True,
    topology: lattice.Topology = topologies.VARIANTS["rnnt"], **options,
) -> list[Block]:  # fmt: skip
    """The fused joint, with its gradients or without. Durations come on top of the shape's vocabulary."""
    door = lattice.joint_transducer_loss_and_grad if gradients else lattice.joint_transducer_loss
    B, T, U, real = len(shape.T), int(shape.T.max()), int(shape.U.max()), problems.real_dtype(dtype)
    # No label is a blank.
    blank, S = topologies.blank_of(topology), shape.V + topology.tail
    integers = np.full((B, U), blank + 1, np.int32), shape.T.astype(np.int32), shape.U.astype(np.int32)
    with recorded(kind) as recorder:
        empty = arrays.cupy().empty
        sizes = (B, T, shape.H), (B, U + 1, shape.H), (S, shape.H), (S,)
        real_arrays = [empty(size, real) for size in sizes]
        door(*real_arrays, *integers, memory_limit=memory_limit, **topologies.asked(topology), **options)
    return compressed(recorder.blocks)


def logits(shape: problems.Shape, dtype: str) -> list[Block]:
    """Loss and gradient of given logits, in place."""
    B, T, U, real = len(shape.T), int(shape.T.max()), int(shape.U.max()), problems.real_dtype(dtype)
    integers = np.ones((B, U), np.int32), shape.T.astype(np.int32), shape.U.astype(np.int32)
    with recorded(Kind((), 1.0)) as recorder:
        values = arrays.cupy().empty((shape.cells, shape.V) if shape.packed else (B, T, U + 1, shape.V), real)
        lattice.transducer_loss_and_grad(values, *integers, out=values)
    return compressed(recorder.blocks)
