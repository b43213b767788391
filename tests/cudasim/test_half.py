"""bfloat16 in every place where a door converts, copies or fetches it.

The stand-in for CuPy refuses to compile for bfloat16.
"""

import numpy as np
import pytest

import lattice
import samplers
from lattice.device import arrays
from tests import compare, decode_on_device
from tests.ctc_problems import ctc_problem
from tests.cudasim.test_walk import SMALL, assert_alike
from tests.decode_problems import decode_problem
from tests.on_device import OnDevice
from tests.path_problems import path_problem
from tests.problems import BFLOAT16, joint_problem, logits_problem

HALF = [np.dtype(np.float16), BFLOAT16]


@pytest.fixture
def there(device):
    return OnDevice(device.asarray, device.asnumpy, integers=True).module()


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("computed", [np.float32, np.float64])
def test_upstream_gradients(there, dtype, computed):
    upstream = np.array([0.5, -2.0, 1.5], dtype)
    problems = {
        "transducer_loss_and_grad": logits_problem(0, dtype=computed, **SMALL),
        "ctc_loss_and_grad": ctc_problem(0, batch=3, frames=4, labels=2, dtype=computed),
        "joint_transducer_loss_and_grad": joint_problem(0, dtype=computed, **SMALL),
        "joint_path_loss_and_grad": path_problem(0, dtype=computed, **SMALL),
    }
    for name, problem in problems.items():
        loss, grad = getattr(there, name)(*problem.args, **problem.options, grad_loss=upstream)
        truth = getattr(lattice, name)(*problem.args, **problem.options, grad_loss=upstream.astype(computed))
        parts = [(given if isinstance(given, tuple) else (given,)) for given in (grad, truth[1])]
        assert_alike((loss, *parts[0]), (truth[0], *parts[1]), np.dtype(computed))


def test_layouts_that_are_copied(device):
    """Columns first, every second column, and padded: each is made contiguous on the device."""
    problem = joint_problem(1, dtype=BFLOAT16, **SMALL)
    expected = lattice.joint_transducer_loss(*problem.args, **problem.options)
    encoder, predictor, weight, bias, *rest = problem.args
    wide = np.zeros((len(bias), 2), BFLOAT16)
    wide[:, 0] = bias
    padded = np.zeros((*predictor.shape[:2], predictor.shape[2] + 3), BFLOAT16)
    padded[..., :-3] = predictor
    loss = lattice.joint_transducer_loss(
        device.asarray(np.asfortranarray(encoder)),
        device.asarray(padded)[..., :-3],
        device.asarray(weight.T.copy()).T,
        device.asarray(wide)[:, 0],
        *rest,
        **problem.options,
    )
    compare.assert_same(device.asnumpy(loss), expected, k=64, slack=2.0**-7 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_what_a_predictor_returns(device, dtype):
    """Vectors that are widened, and a state whose layout is copied."""
    problem = decode_problem(
        2, batch=2, frames=3, vocab=6, most=2, dtype=dtype, weight_dtype=np.float32, blank_lead=-2.0
    )
    host = lattice.greedy_decode(*problem.args, **problem.options)
    seen = []

    def predict(labels, state):
        vectors, state = problem.predictor(
            labels._array, None if state is None else tuple(part._array for part in state)
        )
        seen.append(len(labels))
        return device.asarray(np.asfortranarray(vectors)), tuple(
            device.asarray(np.asfortranarray(part)) for part in state
        )

    encoder, lengths, _, weight, bias = problem.args
    placed = (device.asarray(encoder), lengths, predict, device.asarray(weight), device.asarray(bias))
    ours = lattice.greedy_decode(*placed, **problem.options)
    assert seen and all((one._array == other).all() for one, other in zip(ours[:2], host[:2]))
    decode_on_device.both("beam_decode", problem, device, lambda array: array._array)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_mixtures_counts_and_lists(device, dtype):
    p = np.random.default_rng(3).dirichlet(np.ones(8), 3).astype(dtype)
    for other in (np.float32, np.float64):
        flat = samplers.uniform(8).astype(other)
        mixed = samplers.mixture([device.asarray(np.asfortranarray(p)), flat], [0.75, 0.25])
        compare.assert_same(device.asnumpy(mixed), samplers.mixture([p, flat], [0.75, 0.25]), k=8)
    counts = np.arange(1, 9).astype(dtype)
    unigram = samplers.unigram(device.asarray(np.stack([counts, counts], axis=1))[:, 0])
    np.testing.assert_array_equal(device.asnumpy(unigram), samplers.unigram(counts))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_strided_memory_reaches_the_host(device, dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    for given in (device.asarray(values)[:, ::2], device.asarray(values.T.copy()).T[:, ::2]):
        device.syncs = 0
        (fetched,) = arrays.to_host(given=given)
        assert fetched.dtype == dtype and device.syncs == 1
        np.testing.assert_array_equal(fetched, values[:, ::2])
