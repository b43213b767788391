"""Arrays in and out: DLPack producers, memory that overlaps, read-only memory, the workspace."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lattice
from lattice.device import workspace

ROOT = Path(__file__).resolve().parent.parent


def logits_problem():
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((2, 6, 4, 5)).astype(np.float32),
        np.array([[1, 2, 3], [4, 1, 2]]),
        np.array([6, 4]),
        np.array([3, 1]),
    )


def joint_problem():
    rng = np.random.default_rng(0)
    arrays_of = [rng.standard_normal(shape).astype(np.float32) for shape in ((2, 6, 8), (2, 4, 8), (5, 8), (5,))]
    return *arrays_of, *logits_problem()[1:]


class OnAnotherDevice:
    def __init__(self, kind):
        self.kind = kind

    def __dlpack__(self, **options):
        raise AssertionError("not to be asked for")

    def __dlpack_device__(self):
        return (self.kind, 0)


def test_another_device_is_named():
    rest = logits_problem()[1:]
    with pytest.raises(ValueError, match=r"logits is on device type 8, expected host memory \(1\) or CUDA \(2\)"):
        lattice.transducer_loss(OnAnotherDevice(8), *rest)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_without_cupy_an_array_on_a_gpu_is_told_what_is_missing():
    rest = logits_problem()[1:]
    with pytest.raises(
        ValueError, match=r"logits is on CUDA device 0, which cannot be used: CuPy cannot be imported.*pip"
    ):
        lattice.transducer_loss(OnAnotherDevice(2), *rest)
    with pytest.raises(ValueError, match=r"targets is on CUDA device 0, which cannot be used"):
        lattice.transducer_loss(logits_problem()[0], OnAnotherDevice(2), *rest[1:])


def test_a_broken_cuda_target_does_not_matter_on_the_cpu():
    script = """
import importlib.abc, sys
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "numba.cuda":
            raise AttributeError("no NPDatetime")
sys.meta_path.insert(0, Broken())
import numpy as np, lattice
one = np.ones(1, int)
print(lattice.transducer_loss(np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 1), int), one, one))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.startswith("[1.38"), done.stderr


class Pinned:
    """Host memory that a GPU can read, as torch's `pin_memory` makes it."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return (3, 0)


def test_pinned_host_memory_is_host_memory():
    logits, *rest = logits_problem()
    expected = lattice.transducer_loss(logits, *rest)
    assert np.array_equal(lattice.transducer_loss(logits, *map(Pinned, rest)), expected)
    assert np.array_equal(lattice.transducer_loss(Pinned(logits), *rest), expected)


def test_out_may_be_the_logits_or_apart_from_them():
    logits, *rest = logits_problem()
    memory = np.empty(logits.size + 5, np.float32)
    memory[: logits.size] = logits.ravel()
    first, shifted = memory[: logits.size].reshape(logits.shape), memory[5:].reshape(logits.shape)
    with pytest.raises(ValueError, match=r"out overlaps logits"):
        lattice.transducer_loss_and_grad(first, *rest, out=shifted)


def test_overwriting_needs_two_arrays():
    encoder, _, *rest = joint_problem()
    with pytest.raises(ValueError, match=r"encoder and predictor share memory"):
        lattice.joint_transducer_loss_and_grad(encoder, encoder, *rest, overwrite=True)


@pytest.mark.parametrize("order", ["read-only", "strided", "unaligned", "reversed"])
def test_any_layout_is_read_and_never_written(order):
    logits, *rest = logits_problem()
    expected = lattice.transducer_loss_and_grad(logits, *rest)
    if order == "read-only":
        given = logits.copy()
        given.flags.writeable = False
    elif order == "strided":
        given = np.repeat(logits, 2, axis=-1)[..., ::2]
    elif order == "unaligned":
        given = np.frombuffer(b"x" + logits.tobytes(), np.float32, offset=1).reshape(logits.shape)
    else:
        given = logits[..., ::-1].copy()[..., ::-1]
    before = given.copy()
    loss, grad = lattice.transducer_loss_and_grad(given, *rest)
    assert np.array_equal(loss, expected[0]) and np.array_equal(grad, expected[1]) and np.array_equal(given, before)
    assert grad.flags.c_contiguous and grad.flags.writeable and grad.ctypes.data % 64 == 0


def test_empty_axes_are_refused_by_name():
    encoder, predictor, weight, bias, *rest = joint_problem()
    with pytest.raises(ValueError, match=r"weight.*\(5, 0\)"):
        lattice.joint_transducer_loss(encoder[..., :0], predictor[..., :0], weight[:, :0], bias, *rest)
    with pytest.raises(ValueError, match=r"vocabulary is empty"):
        lattice.transducer_loss(np.zeros((2, 6, 4, 0), np.float32), *rest)


def test_the_workspace_is_aligned_bounded_and_stacked():
    space = workspace.Workspace(1000)
    first = space.take((3, 5), np.float32)
    with space.borrowed():
        second = space.take(7, np.int64)
        assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0 and not np.shares_memory(first, second)
    assert np.shares_memory(space.take(7, np.int64), second)
    with pytest.raises(RuntimeError, match=r"workspace of 1024 bytes is \d+ bytes short: a bug"), space.borrowed():
        space.take(1000, np.uint8)
    assert len(space.take(1024 - 2 * 64, np.uint8)) == 1024 - 2 * 64


def test_warm_up_takes_every_dtype_and_refuses_others():
    lattice.warm_up(np.float32, "float64", np.float16)
    with pytest.raises(TypeError, match=r"dtypes\[0\] is int32"):
        lattice.warm_up(np.int32)
