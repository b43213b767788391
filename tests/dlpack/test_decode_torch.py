"""The searches with torch and JAX arrays: the predictor and its state in kind, results in kind, the same numbers."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import lattice
from tests.decode_problems import decode_problem
from tests.dlpack.test_frameworks import DTYPES, LIBRARIES, Jax, Torch, jax, put_all, torch
from tests.problems import TOPOLOGIES

DOORS = {"greedy_decode": {}, "beam_decode": {"beam": 4, "nbest": 3}}


@pytest.fixture(params=LIBRARIES, ids=["torch", "jax"])
def library(request):
    return request.param


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


def in_kind(library, predictor):
    """A host predictor behind arrays of a library."""

    def predict(labels, state):
        assert isinstance(labels, library.kind) and library.fetch(labels).dtype == np.int64
        if state is not None:
            assert isinstance(state, tuple) and all(isinstance(part, library.kind) for part in state)
            state = tuple(library.fetch(part) for part in state)
        vectors, state = predictor(library.fetch(labels), state)
        return library.put(vectors), tuple(map(library.put, state))

    return predict


def on_host(problem, door):
    return getattr(lattice, door)(*problem.args, **problem.options, **DOORS[door])


def call(library, problem, door, predict):
    encoder, lengths, _, weight, bias = problem.args
    options = problem.options
    options["allowed"] = None if problem.allowed is None else library.put(problem.allowed)
    given = put_all(library, [encoder, lengths, predict, weight, bias])
    return getattr(lattice, door)(*given, **options, **DOORS[door])


def assert_equal(library, results, expected):
    assert isinstance(results, lattice.Hypotheses)
    for ours, truth in zip(results, expected, strict=True):
        assert isinstance(ours, library.kind)
        assert library.fetch(ours).dtype == truth.dtype and np.array_equal(library.fetch(ours), truth)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("allowed", [None, "some"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_in_kind(library, door, dtype, allowed, topology):
    """The state's second array has the dtype of the encoder, bfloat16 among them."""
    problem = decode_problem(50, dtype=np.dtype(dtype), allowed=allowed, topology=topology, blank=2)
    expected = on_host(problem, door)
    assert expected[0].shape[-1] > 1
    assert_equal(library, call(library, problem, door, in_kind(library, problem.predictor)), expected)


def test_no_labels(library, door):
    problem = decode_problem(51, blank_lead=60.0)
    labels, lengths, *_ = call(
        library, replace(problem, max_labels_per_frame=0), door, in_kind(library, problem.predictor)
    )
    assert isinstance(labels, library.kind) and labels.shape[-1] == 0 and not library.fetch(lengths).any()


def test_a_torch_network_as_predictor(door):
    """An LSTM cell, under `no_grad`; its hidden and cell state are the state."""
    torch.manual_seed(0)
    problem = decode_problem(52, batch=5, frames=8)
    cell, table = torch.nn.LSTMCell(5, 5), torch.nn.Embedding(7, 5)

    @torch.no_grad()
    def predict(labels, state):
        state = cell(table(labels), state)
        return state[0], state

    def on_numpy(labels, state):
        state = predict(torch.from_numpy(labels), None if state is None else tuple(map(torch.from_numpy, state)))[1]
        return state[0].numpy(), tuple(part.numpy() for part in state)

    expected = on_host(replace(problem, predictor=on_numpy), door)
    assert_equal(Torch, call(Torch, problem, door, predict), expected)


def test_a_jax_network_as_predictor(door):
    """A recurrence in bfloat16, compiled."""
    problem = decode_problem(53, dtype=ml_dtypes.bfloat16)
    table, turn = (jax.random.normal(jax.random.key(i), (7 if i else 5, 5), jax.numpy.bfloat16) for i in (1, 0))

    @jax.jit
    def step(labels, before):
        after = jax.numpy.tanh(table[labels] + before @ turn)
        return after, (after,)

    def predict(labels, state):
        return step(labels, jax.numpy.zeros((len(labels), 5), jax.numpy.bfloat16) if state is None else state[0])

    def on_numpy(labels, state):
        vectors, state = predict(Jax.put(labels), None if state is None else tuple(map(Jax.put, state)))
        return np.asarray(vectors), tuple(map(np.asarray, state))

    expected = on_host(replace(problem, predictor=on_numpy), door)
    assert_equal(Jax, call(Jax, problem, door, predict), expected)


@pytest.mark.parametrize("part", ["predictor", "state"])
def test_what_requires_a_gradient_is_told_to_detach(door, part):
    problem = decode_problem(54)

    def predict(labels, state):
        vectors, state = torch.ones(len(labels), 5), torch.ones(len(labels), 2)
        (vectors if part == "predictor" else state).requires_grad_()
        return vectors, (state,)

    with pytest.raises(ValueError, match=rf"{part}.* that predict returned requires a gradient: .*no_grad"):
        call(Torch, problem, door, predict)
