"""The thread pool: every range is worked once, from several threads at a time, and in a child made by fork."""

import multiprocessing
import threading

import numba
import numpy as np
import pytest

import lattice
from lattice.kernels import launch


@launch.cpu_sweep
def count_up(begin, end, array):
    for i in range(begin, end):
        array[i] += 1


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("work", [0, 1 << 20])
def test_every_index_once(count, pieces, work):
    array = np.zeros(count)
    launch.sweep(count_up, count, array, work=work, pieces=pieces)
    assert (array == 1).all()


def test_an_error_in_a_range_reaches_the_caller():
    def fails(begin, end):
        if end == 10:
            raise ArithmeticError("told")

    with pytest.raises(ArithmeticError, match="told"):
        launch.sweep(fails, 10, work=1 << 20)


def problem():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 50, 11, 40)).astype(np.float32)
    return logits, rng.integers(1, 40, (4, 10)), np.full(4, 50), np.array([10, 3, 0, 7])


def test_calls_from_several_threads_at_once():
    arguments = problem()
    expected = lattice.transducer_loss_and_grad(*arguments)
    results = [None] * 8

    def call(i):
        for _ in range(5):
            results[i] = lattice.transducer_loss_and_grad(*arguments)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for loss, grad in results:
        assert np.array_equal(loss, expected[0]) and np.array_equal(grad, expected[1])


def call_in_child(queue):
    queue.put(lattice.transducer_loss(*problem()))


def test_a_forked_child_computes_too():
    expected = lattice.transducer_loss(*problem())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=call_in_child, args=(queue,), daemon=True)
    child.start()
    assert np.array_equal(queue.get(timeout=60), expected)
    child.join()
    assert child.exitcode == 0


def test_the_result_does_not_depend_on_the_threads(monkeypatch):
    arguments = problem()
    expected = lattice.transducer_loss_and_grad(*arguments)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1)
    loss, grad = lattice.transducer_loss_and_grad(*arguments)
    assert np.array_equal(loss, expected[0]) and np.array_equal(grad, expected[1])
