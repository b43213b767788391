"""Every kernel as compiled for sm_90, instruction by instruction, against the CPU target."""

import numpy as np
import pytest

from tests import kernel_cases, kernel_compare
from tests.ptxrun import driver, machine

LOG_ROOM = 4_000_000
"""Accesses of one launch; the largest one of the cases has fewer."""


def in_one_dtype(cases):
    """Without the other dtypes of kernels that share their bodies; `tests/ptx` compiles and the simulator runs all.

    An activation has a value for each dtype, which is part of no other kernel's body.
    """
    return [case for case in cases if not case.shares_its_body or case.of_narrow or case.dtype == np.float32]


@pytest.mark.parametrize(
    "case", [case for case in kernel_cases.every_case() if not case.shares_its_body], ids=lambda case: case.id
)
def test_kernel(case, device):
    kernel_compare.check(case, device.asarray, device.asnumpy)


@pytest.mark.parametrize(
    "case", in_one_dtype([*kernel_cases.every_case(), *kernel_cases.wide_cases()]), ids=lambda case: case.id
)
def test_kernel_in_production_blocks_fused_and_without_races(case, monkeypatch):
    monkeypatch.setattr(machine, "settings", machine.Settings(order="random:0", fuse=True, log_room=LOG_ROOM))
    monkeypatch.setattr(machine, "totals", machine.Totals())
    with driver.device() as cupy:
        kernel_compare.check(case, cupy.asarray, cupy.asnumpy)
    assert not machine.totals.races
    assert machine.totals.accesses and not machine.totals.unlogged
