"""The searches on a device and on the host, from one problem: for the simulated device and for a real one."""

import numpy as np

import lattice
from tests import compare
from tests.problems import BFLOAT16

DOORS = {"greedy_decode": {}, "beam_decode": {"beam": 3, "nbest": 2}}


class Predictor:
    """A host predictor behind arrays of a device; `fetch` makes NumPy arrays of them."""

    def __init__(self, predictor, module, fetch):
        self.predictor, self.module, self.fetch = predictor, module, fetch

    def __call__(self, labels, state):
        assert isinstance(labels, self.module.ndarray) and labels.dtype == np.int64
        if state is not None:
            assert isinstance(state, tuple) and all(isinstance(part, self.module.ndarray) for part in state)
            state = tuple(map(self.fetch, state))
        vectors, state = self.predictor(self.fetch(labels), state)
        return self.module.asarray(vectors), tuple(map(self.module.asarray, state))


def there(door, problem, module, fetch, *, integers=True):
    """The door's results, with everything on the device, ids and lengths if `integers`; `module` is CuPy."""

    def put(x, wanted=True):
        return module.asarray(x) if x is not None and wanted else x

    encoder, lengths, predictor, weight, bias = problem.args
    options = problem.options | {"allowed": put(problem.allowed, integers)} | DOORS[door]
    predictor = Predictor(predictor, module, fetch)
    found = getattr(lattice, door)(put(encoder), put(lengths, integers), predictor, put(weight), put(bias), **options)
    assert isinstance(found, lattice.Hypotheses) and all(isinstance(array, module.ndarray) for array in found)
    return found


def both(door, problem, module, fetch, **options):
    """Compare the two; what the host gave."""
    host = getattr(lattice, door)(*problem.args, **problem.options, **DOORS[door])
    found = lattice.Hypotheses(*map(fetch, there(door, problem, module, fetch, **options)))
    for name in ("labels", "lengths", "frames"):
        np.testing.assert_array_equal(getattr(found, name), getattr(host, name))
    # A device multiplies bfloat16 with its operands rounded, but for the output layers that are gathered.
    rounded = problem.weight.dtype == BFLOAT16 and problem.allowed is None
    slack = 2.0**-7 * np.abs(host.score[np.isfinite(host.score)]).max(initial=1) if rounded else 0.0
    for name in ("score", "label_scores"):
        compare.assert_same(getattr(found, name), getattr(host, name), k=64, slack=slack)
    return host
