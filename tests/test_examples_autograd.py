"""The examples for torch, JAX and CuPy run, check themselves, and stay short enough to copy."""

import ast
import importlib.util
import inspect
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lattice
from tests.compare import assert_same
from tests.migrating_blocks import what_is_to_be_copied
from tests.problems import joint_problem

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.slow


def start(path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300
    )


def run(name):
    done = start(EXAMPLES / name)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_example_checks_itself():
    pytest.importorskip("torch")
    lines = run("03_torch_autograd.py").splitlines()
    assert lines[0].startswith("cpu: gradcheck passed, with dropout too;")
    assert lines[1].endswith("nats in 10 steps of SGD with dropout")
    assert len(lines) in (2, 4)


def test_jax_example_checks_itself():
    pytest.importorskip("jax")
    printed = run("04_jax_custom_vjp.py")
    agree = "gradients agree with finite differences, with dropout too"
    for expected in (f"cpu: {agree}", "cpu, eager: loss and gradients", "cpu, jit: loss and gradients"):
        assert expected in printed


def test_jax_example_notices_a_seed_that_is_not_looked_at(tmp_path):
    pytest.importorskip("jax")
    right, wrong = "int(xs[-1])", "7"
    text = (EXAMPLES / "04_jax_custom_vjp.py").read_text()
    assert text.count(right) == 1
    (tmp_path / "04_jax_custom_vjp.py").write_text(text.replace(right, wrong))
    done = start(tmp_path / "04_jax_custom_vjp.py")
    assert done.returncode and "AssertionError" in done.stderr


@pytest.mark.parametrize("bias", [True, False])
def test_jax_function_compiles_once_for_all_seeds(bias):
    """In float32, as jax is by default: integers of 64 bits do not exist."""
    jax = pytest.importorskip("jax")
    loss_of = runpy.run_path(str(EXAMPLES / "04_jax_custom_vjp.py"))["joint_transducer_loss"]
    problem, traces = joint_problem(0, use_bias=bias), []
    given, integers = problem.args[:4], [x.astype(np.int32) for x in problem.args[4:]]
    given = [x if x is None else jax.numpy.asarray(x) for x in given]

    @jax.jit
    def step(seed, *given):
        traces.append(seed.dtype)
        loss, vjp = jax.vjp(lambda *x: loss_of(*x, *integers, dropout=(0.4, seed)), *given)
        return loss, *(x for x in vjp(jax.numpy.ones_like(loss)) if x is not None)

    for dtype in (np.int32, np.uint32):
        for seed in (3, 4, 3, 2**31 - 1 if dtype == np.int32 else 2**32 - 1):
            found = step(dtype(seed), *given)
            options = {"dropout": (0.4, seed), "grad_loss": np.ones(len(integers[1]), np.float32)}
            loss, gradients = lattice.joint_transducer_loss_and_grad(*problem.args[:4], *integers, **options)
            expected = [loss, *(x for x in gradients if x is not None)]
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(np.asarray(ours), theirs)
            # Eager as well, where a number may be above the range of int32.
            np.testing.assert_array_equal(np.asarray(loss_of(*given, *integers, dropout=(0.4, seed))), loss)
    assert traces == [np.int32, np.uint32]


def test_jax_function_refuses_what_is_no_seed():
    jax = pytest.importorskip("jax")
    loss_of = runpy.run_path(str(EXAMPLES / "04_jax_custom_vjp.py"))["joint_transducer_loss"]
    given = [jax.numpy.asarray(x) for x in joint_problem(0).args]
    for seed in (-1, 2**32):
        with pytest.raises(OverflowError):
            loss_of(*given, dropout=(0.4, seed))
    with pytest.raises(ValueError, match="the rate, is"):
        loss_of(*given, dropout=(1.0, 1))


def test_cupy_example_runs_or_says_what_is_missing():
    printed = run("05_cupy.py")
    if importlib.util.find_spec("cupy") is None:
        assert printed == "CuPy is not installed: nothing to show\n"
    else:
        assert printed == "CuPy finds no GPU: nothing to show\n" or "relative to CPU" in printed


def test_torch_ddp_example_checks_itself():
    pytest.importorskip("torch")
    gradients, steps = run("06_torch_ddp.py").splitlines()
    assert ": gradients are those of one process" in gradients
    assert "in 10 steps of SGD" in steps and steps.endswith("the same bits on both")


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("scale=PROCESSES", "scale=1"),
        ("DistributedDataParallel(copy", "(copy"),
    ],
)
def test_torch_ddp_example_notices_a_mistake(tmp_path, right, wrong):
    pytest.importorskip("torch")
    text = (EXAMPLES / "06_torch_ddp.py").read_text()
    assert text.count(right) == 1
    (tmp_path / "06_torch_ddp.py").write_text(text.replace(right, wrong))
    (tmp_path / "03_torch_autograd.py").write_text((EXAMPLES / "03_torch_autograd.py").read_text())
    done = start(tmp_path / "06_torch_ddp.py")
    assert done.returncode and "AssertionError: gradients " in done.stderr


def test_torch_ddp_example_has_a_seed_for_each_step_of_each_process():
    torch = pytest.importorskip("torch")
    names, seeds = runpy.run_path(str(EXAMPLES / "06_torch_ddp.py")), {}
    count = names["PROCESSES"]
    weight = torch.nn.Parameter(torch.ones(1))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = weight

        def forward(self, rank, seed):
            seeds.setdefault(rank, []).append(seed)
            return self.weight

    for ranks in (range(count), *([rank] for rank in range(count))):
        names["train"](Model(), {rank: [rank] for rank in ranks}, scale=1)
    own = [given[:10] for given in seeds.values()]
    assert len(own) == count and all(seeds[rank] == own[rank] * 2 for rank in range(count))
    assert len({seed for given in own for seed in given}) == 10 * count


def test_tdt_example_learns_to_read():
    """Label error rates of an untrained network are above 1: it emits labels wherever it is."""
    pytest.importorskip("torch")
    before, after = run("11_tdt_torch.py").splitlines()
    told = [re.fullmatch(r".*: label error rate (\d+\.\d)%", line) for line in (before, after)]
    untrained, trained = (float(found.group(1)) for found in told)
    assert before.startswith("before") and after.startswith("after 300 steps")
    assert untrained > 80 and trained < 20


def test_torch_function_keeps_the_names_of_torchaudio():
    torch = pytest.importorskip("torch")
    loss_of = runpy.run_path(str(EXAMPLES / "03_torch_autograd.py"))["joint_transducer_loss"]
    assert list(inspect.signature(loss_of).parameters)[4:9] == [
        "targets",
        "logit_lengths",
        "target_lengths",
        "blank",
        "reduction",
    ]
    inputs = [torch.randn(shape) for shape in ((2, 5, 4), (2, 3, 4), (6, 4))]
    named = {
        "targets": torch.ones(2, 2, dtype=torch.int32),
        "logit_lengths": torch.tensor([5, 4]),
        "target_lengths": torch.tensor([2, 1]),
        "blank": -1,
    }
    loss, mean, total = (loss_of(*inputs, None, **named, reduction=kind) for kind in ("none", "mean", "sum"))
    assert loss.shape == (2,) and mean == loss.mean() and total == loss.sum()
    assert (loss != loss_of(*inputs, None, **named | {"blank": 0})).all()


def test_torch_function_refuses_what_it_cannot_do():
    torch = pytest.importorskip("torch")
    loss_of = runpy.run_path(str(EXAMPLES / "03_torch_autograd.py"))["joint_transducer_loss"]
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((2, 5, 4), (2, 4, 4), (6, 4))]
    encoder, lengths = inputs[0], [torch.tensor(x) for x in ([[1, 2, 2], [5, 3, 0]], [5, 3], [3, 2])]
    with pytest.raises(ValueError, match="overwrite=True would write over tensors"):
        loss_of(torch.tanh(encoder), *inputs[1:], None, *lengths, overwrite=True)
    with pytest.raises(ValueError, match="reduction is 'avg', expected"):
        loss_of(*inputs, None, *lengths, reduction="avg")
    loss = loss_of(*inputs, None, *lengths)
    (grad,) = torch.autograd.grad(loss.square().sum(), encoder, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    shifted = encoder + 1
    loss = loss_of(shifted, *inputs[1:], None, *lengths)
    shifted += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()


@pytest.mark.parametrize(
    "name", ["03_torch_autograd.py", "04_jax_custom_vjp.py", "05_cupy.py", "06_torch_ddp.py", "11_tdt_torch.py"]
)
def test_examples_say_how_they_are_run(name):
    says = ast.get_docstring(ast.parse((EXAMPLES / name).read_text()))
    assert f"Run: python examples/{name}" in says and 3 <= len(says.splitlines()) <= 7


@pytest.mark.parametrize("name", ["03_torch_autograd.py", "04_jax_custom_vjp.py"])
def test_what_is_to_be_copied_is_under_50_lines_and_stands_alone(name):
    copied = what_is_to_be_copied(name)
    assert sum(bool(line) for line in copied.splitlines()) < 50
    pytest.importorskip("torch" if "torch" in name else "jax")
    names = {}
    exec(copied, names)
    problem = joint_problem(0)
    convert = names["torch"].from_numpy if "torch" in name else names["jnp"].asarray
    loss = names["joint_transducer_loss"](*(convert(array) for array in problem.args))
    assert_same(np.asarray(loss), lattice.joint_transducer_loss(*problem.args), k=64)
