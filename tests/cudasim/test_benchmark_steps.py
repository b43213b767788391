"""What `python -m benchmarks gpu` and `benchmarks.gpu.contact` call takes arrays of a device, at tiny sizes."""

import functools

import numpy as np
import pytest

from benchmarks.gpu import checks, losses, probes, problems, sections, stages, three_stage, timing
from benchmarks.gpu import device as ceilings
from benchmarks.three_stage import step_calls

SHAPE = problems.Shape(np.array([9, 7]), np.array([3, 2]), 11, 6)


def test_every_step_runs_on_the_device(device):
    problem = three_stage.on_device(problems.host_joint(SHAPE, "trained-like"))
    assert isinstance(problem.encoder, device.ndarray) and isinstance(problem.targets, np.ndarray)
    calls = step_calls(problem, 3)
    assert len(calls) == 16
    for call in calls.values():
        parts = call()
        while isinstance(parts, tuple):
            parts = parts[0]
        assert isinstance(parts, device.ndarray)


def test_the_first_kernel_tells_its_parts_and_whether_it_is_right(device):
    told = probes.one_kernel(ceilings.uniform, 6, 2)
    assert told["launched"] and "error" not in told and told["off"] < 1e-12
    assert {"launch", "wait", "again"} <= told.keys()


@pytest.mark.parametrize("dtype", checks.PRODUCT_BOUNDS)
def test_products_are_those_of_float64(device, dtype):
    found = checks.products_case(dtype)
    assert "error" not in found and 0 <= found["worst"] <= found["bound"]


def test_a_wrong_product_is_told_by_name(device, monkeypatch):
    matmul = checks.problems.device().matmul

    class Broken:
        upload, empty = problems.device().upload, problems.device().empty

        @staticmethod
        def matmul(a, b, out):
            matmul(a, b, out)
            if a.shape[0] == 1:
                out[0, 0] = np.nan

    monkeypatch.setattr(problems, "device", Broken)
    assert "ones @ dlogits of 17 cells, H=33, V=1: nan" in checks.products_case("float32")["error"]


def test_a_mask_is_that_of_the_host(device):
    found = checks.dropout_case(problems.full(1, 3, 1, 5, 40), problems.full(1, 1, 1, 3, 4))
    assert "error" not in found and found["joint"] <= found["bound"] and found["ratio"] > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_conversions_are_those_of_the_host(device, dtype):
    assert checks.convert_case(dtype) == {"same": True}


@pytest.mark.parametrize(("dtype", "bound"), [("float32", checks.FLOAT32_BOUND), ("bfloat16", checks.BFLOAT16_BOUND)])
def test_gradients_are_those_of_the_oracle(device, dtype, bound):
    assert "error" not in checks.oracle_case(dtype, bound)


def test_the_kernels_are_warmed_up(device):
    assert checks.warm_up_case("float32") == {}


def test_a_step_of_the_recursion_is_measured(device):
    found = ceilings.recursion(5, 2, (1, 2))
    assert "error" not in found and found["rows"]["B=2"]["step"] == pytest.approx(found["rows"]["B=2"]["seconds"] / 7)


def test_totals_that_are_not_right_are_an_error(device, monkeypatch):
    monkeypatch.setattr(ceilings, "sums", lambda *arguments: arguments[-2].fill(1.0))
    assert "alignments" in ceilings.recursion(5, 2, (1,))["error"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_headline_at_a_tiny_size(device, dtype):
    row = sections.headline_case(dtype, 1 << 20, 4, 6, 2, 9, 8)
    assert "error" not in row and row["memory_limit"] == 1 << 20 and row["inputs"] < row["peak"] <= row["pool_limit"]
    assert device.get_default_memory_pool().get_limit() == sections.HEADLINE_POOL


def test_losses_against_their_floors(device, monkeypatch):
    monkeypatch.setattr(timing, "measure", functools.partial(timing.measure, rounds=1))
    monkeypatch.setattr(losses, "LIMITS", {"1 GiB": 1 << 30})
    logits = losses.logits_case(SHAPE, "float32", False)
    assert set(logits["rows"]) == {"copy", "out=logits", "loss only"} and "ratio" in logits["rows"]["out=logits"]
    joint = losses.joint_case(SHAPE, "bfloat16", False)
    assert not any("error" in row for row in joint["rows"].values()) and "untrained, torchaudio" not in joint["rows"]
    assert joint["rows"]["trained-like, 1 GiB"]["scratch"] > 0 and 0 < joint["trained-like, occupied"] <= 1


def test_stages_are_those_of_the_call(device, monkeypatch):
    monkeypatch.setitem(problems.JOINT, "default", SHAPE)
    rows = stages.stages_case("joint", "default", "untrained", "bfloat16")["rows"]
    assert {
        "emit_cuda",
        "gradient_cuda",
        "hidden_tanh_cuda",
        "hidden @ weight.T",
        "dlogits.T @ hidden",
        "between",
    } <= rows.keys()
    assert rows["all, watched"]["share"] == 1
