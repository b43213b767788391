"""torch and JAX arrays on the GPU, the caller's streams, and the examples that use them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lattice
from lattice.device import arrays
from tests import compare
from tests.problems import BFLOAT16, joint_problem, logits_problem

ROOT = Path(__file__).resolve().parents[2]


def torch_on_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return torch


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_torch_in_kind_without_copies(cupy, dtype):
    torch = torch_on_gpu()
    problem = logits_problem(0, dtype=np.dtype(BFLOAT16 if dtype == "bfloat16" else dtype))
    host = lattice.transducer_loss_and_grad(*problem.args)
    logits = torch.tensor(problem.logits.astype(np.float64), dtype=getattr(torch, dtype), device="cuda")
    rest = [torch.tensor(x, device="cuda") for x in problem.args[1:]]
    assert arrays.address(arrays.read(logits, "logits")) == logits.data_ptr()
    loss, grad = lattice.transducer_loss_and_grad(logits, *rest)
    assert loss.is_cuda and grad.is_cuda and grad.dtype == logits.dtype
    compare.assert_same(loss.cpu().numpy(), host[0], k=64)
    ours = grad.cpu().double().numpy()
    assert np.allclose(ours, host[1].astype(np.float64), atol=2.0**-8 if dtype == "bfloat16" else 1e-3)
    assert lattice.transducer_loss_and_grad(logits, *rest, out=logits)[1] is logits
    with pytest.raises(ValueError, match=r"logits requires a gradient: pass logits.detach\(\)"):
        lattice.transducer_loss(logits.requires_grad_(), *rest)


def test_torch_on_its_own_stream(cupy):
    torch = torch_on_gpu()
    problem = joint_problem(1)
    host = lattice.joint_transducer_loss_and_grad(*problem.args)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        given = [torch.tensor(x).cuda(non_blocking=True) for x in problem.args]
        loss, gradients = lattice.joint_transducer_loss_and_grad(*given)
        total = sum(gradient.double().nan_to_num().sum() for gradient in gradients)
    stream.synchronize()
    compare.assert_same(loss.cpu().numpy(), host[0], k=64)
    assert np.isclose(float(total), sum(float(x.astype(np.float64).sum()) for x in host[1]), atol=1e-3)


def test_jax_in_kind(cupy):
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX finds no GPU")
    problem = joint_problem(2, integer=np.int32)
    host = lattice.joint_transducer_loss_and_grad(*problem.args)
    loss, gradients = lattice.joint_transducer_loss_and_grad(*map(jax.numpy.asarray, problem.args))
    assert isinstance(loss, jax.Array) and loss.device.platform == "gpu"
    compare.assert_same(np.asarray(loss), host[0], k=64)
    for ours, truth in zip(gradients, host[1], strict=True):
        compare.assert_same(np.asarray(ours), truth, k=64)
    with pytest.raises(ValueError, match="encoder is read-only"):
        lattice.joint_transducer_loss_and_grad(*map(jax.numpy.asarray, problem.args), overwrite=True)


@pytest.mark.parametrize("name", ["03_torch_autograd.py", "04_jax_custom_vjp.py", "05_cupy.py"])
def test_examples_check_themselves(name):
    pytest.importorskip({"03": "torch", "04": "jax", "05": "cupy"}[name[:2]])
    example = str(ROOT / "examples" / name)
    # As a program: an example proves nothing where it is imported.
    script = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path({example!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
