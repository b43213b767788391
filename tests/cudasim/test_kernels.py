"""Every kernel in the simulator, thread by thread, against the CPU target."""

import pytest

from tests import kernel_cases, kernel_compare
from tests.cudasim import scheduler

CASES = [case for case in kernel_cases.every_case() if not case.unrolled]


@pytest.mark.parametrize("case", [case for case in CASES if not case.shares_its_body], ids=lambda case: case.id)
def test_kernel(case, device, order):
    kernel_compare.check(case, device.asarray, device.asnumpy)


@pytest.mark.parametrize("case", [case for case in CASES if case.shares_its_body], ids=lambda case: case.id)
def test_kernel_that_shares_its_body(case, device, monkeypatch):
    """One order of threads is tried, for the bodies are tried in all."""
    monkeypatch.setattr(scheduler, "ORDER", "reverse")
    kernel_compare.check(case, device.asarray, device.asnumpy)
