"""Every kernel on the device against the CPU target, more than once for the same bits."""

import numpy as np
import pytest

from tests import kernel_cases, kernel_compare


@pytest.mark.parametrize("case", kernel_cases.every_case(), ids=lambda case: case.id)
def test_kernel(case, cupy):
    kernel_compare.check(case, cupy.asarray, cupy.asnumpy)


@pytest.mark.parametrize("threads", [32, 256])
def test_lattices_wider_than_a_block(cupy, threads, monkeypatch):
    from lattice.kernels import launch

    monkeypatch.setattr(launch, "LATTICE_THREADS", threads)
    frames = kernel_cases.frames_for(kernel_compare.RNNT, False, (np.array([300, 40]), np.array([700, 3])))
    rng = np.random.default_rng(0)
    blank, label = (np.log(rng.dirichlet(np.ones(3), frames.cells)[:, k]).astype(np.float32) for k in (0, 1))
    sums = np.zeros(frames.cells), np.zeros(2), np.zeros(frames.cells)
    case = kernel_compare.Case(
        "wide", np.dtype(np.float32), kernel_cases.both_sweeps, (frames, kernel_compare.RNNT, blank, label, *sums), {}
    )
    kernel_compare.check(case, cupy.asarray, cupy.asnumpy)
