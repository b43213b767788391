"""The caller's predictor: what it is called with, what it may return, and its results for live hypotheses."""

from typing import NamedTuple

import numpy as np

from ..device import arrays
from ..device.arrays import computing_dtype
from ..inputs.checks import one_device, read_real
from ..inputs.decode import DecodeProblem
from ..inputs.joint import check_dtypes
from ..kernels.rows import gather


class Predictions(NamedTuple):
    """What `predict` gave for n hypotheses.

    Attributes
    ----------
    rows : tuple of arrays (n, ...)
        The predictor (n, H) in the dtype that is computed in, then the arrays of the state, as NumPy or CuPy sees them.
    kinds : tuple of arrays
        The caller's own arrays, which tell the kind in which each is handed back.
    """

    rows: tuple
    kinds: tuple


class Predictor:
    """Calls `predict`, checks what it returns, and picks rows of it."""

    def __init__(self, problem: DecodeProblem):
        self.problem, self.device = problem, problem.device
        self.dtype = computing_dtype(problem.weight.dtype)
        # Of the state in the first call, once it has been made: (dtype, shape of a row) of each array, or None.
        self.forms = []

    def start(self) -> Predictions:
        """Predictions of the empty label sequence, for every example."""
        return self._call(np.full(len(self.problem.lengths), self.problem.blank_ids[0], np.int64), None)

    def extend(self, before: Predictions, picked, labels) -> Predictions:
        """Predictions of the hypotheses in rows `picked` (n,), each with one more label (n,)."""
        state = None
        if self.forms[0] is not None:
            pairs = zip(before.rows[1:], before.kinds[1:])
            # Always fresh memory, since the caller may write to what `predict` is given.
            state = tuple(arrays.give_back(self._join([(rows, picked)], kind), kind) for rows, kind in pairs)
        return self._call(np.asarray(labels, np.int64), state)

    def join(self, parts: list[tuple[Predictions, np.ndarray]]) -> Predictions:
        """Picked rows (n,) of each of several predictions, one part behind the other."""
        (first, picked), *others = parts
        if not others and np.array_equal(picked, np.arange(len(first.rows[0]))):
            return first
        joined = (
            self._join([(part.rows[i], picked) for part, picked in parts], kind) for i, kind in enumerate(first.kinds)
        )
        return Predictions(tuple(joined), first.kinds)

    def _join(self, parts, kind):
        """Picked rows of each (source, picked), one part behind the other, in fresh memory of the device."""
        like, begin = parts[0][0], 0
        target = self.device.empty((sum(len(picked) for _, picked in parts), *like.shape[1:]), like.dtype)
        for source, picked in parts:
            if len(picked):
                gather(_bits(source), *self.device.upload(None, picked), _bits(target[begin : begin + len(picked)]))
            begin += len(picked)
        # A GPU may still read what `predict` returned.
        self.device.hold_until_read(kind, *(source for source, _ in parts))
        return target

    def _call(self, labels, state) -> Predictions:
        """Call `predict` with labels (n,) int64, and check what it returns."""
        (given,) = self.device.upload(None, labels)
        returned = self.problem.predict(arrays.give_back(given, self.problem.like), state)
        if not isinstance(returned, tuple) or len(returned) != 2:
            what = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
            raise TypeError(f"predict returned {what}, expected a pair (predictor, state)")
        predictor, state = returned
        # Read in place, and again when rows are picked, so `predict` must not write to what it has returned.
        vectors, parts = self._read_predictor(predictor, len(labels)), self._read_state(state, len(labels))
        widened = self.device.convert(vectors, self.dtype)
        self.device.hold_until_read(predictor, vectors)
        return Predictions((widened, *parts), (predictor, *(state or ())))

    def _read_predictor(self, predictor, count: int):
        """The predictor vectors (count, H), in the caller's dtype."""
        name, encoder, weight = "predictor that predict returned", self.problem.encoder, self.problem.weight
        _refuse_gradients(predictor, name)
        vectors = read_real(predictor, name, (2,))
        if vectors.shape != (count, weight.shape[1]):
            expected = f"{(count, weight.shape[1])}: one row for each label, and H of weight {weight.shape}"
            raise ValueError(f"{name} has shape {vectors.shape}, expected {expected}")
        check_dtypes(encoder=encoder, **{name: vectors})
        one_device(self.device, **{name: vectors})
        return vectors

    def _read_state(self, state, count: int) -> tuple:
        """The arrays of the state, (count, ...) each; the state of every call has the form of the first one."""
        if state is not None and not isinstance(state, tuple):
            raise TypeError(
                f"state that predict returned is {type(state).__name__}, expected a tuple of arrays, or None"
            )
        parts = tuple(
            self._read_part(part, f"state[{i}] that predict returned", count) for i, part in enumerate(state or ())
        )
        form = None if state is None else [(part.dtype.name, *part.shape[1:]) for part in parts]
        self.forms = self.forms or [form]
        if form != self.forms[0]:
            expected = f"{self.forms[0]} as in its first call: dtype and shape of a row of each array"
            raise ValueError(f"state that predict returned is {form}, expected {expected}")
        return parts

    def _read_part(self, part, name: str, count: int):
        """One array of the state, as NumPy or CuPy sees it."""
        _refuse_gradients(part, name)
        array = arrays.for_kernels(arrays.read(part, name))
        size = array.dtype.itemsize
        # What `_bits` can see as integers of up to 8 bytes. Memory of Python objects is not to be copied bit by bit.
        if array.dtype.hasobject or size not in (1, 2, 4, 8, 16, 32):
            raise TypeError(
                f"{name} has dtype {array.dtype}, expected elements of 1, 2, 4, 8, 16 or 32 bytes and no objects"
            )
        if array.ndim < 1 or len(array) != count:
            raise ValueError(f"{name} has shape {array.shape}, expected a first axis of {count}, one for each label")
        one_device(self.device, **{name: array})
        return array


def _refuse_gradients(x, name: str) -> None:
    """Refuse a tensor that requires a gradient.

    Other doors ask for `.detach()`, which callers should not have to add to each of many calls.
    """
    if getattr(x, "requires_grad", False):
        raise ValueError(f"{name} requires a gradient: let predict compute without, under torch.no_grad() for one")


def _bits(array):
    """(n, ...) of any dtype as (n, width) unsigned integers, so that `gather` moves rows of all dtypes as they are."""
    return array.reshape(len(array), -1).view(np.dtype(f"u{min(8, array.dtype.itemsize)}"))
