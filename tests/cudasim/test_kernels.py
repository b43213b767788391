"""Every kernel in the simulator, thread by thread, against the CPU target."""

import pytest

from tests import kernel_cases, kernel_compare
from tests.cudasim import scheduler

CASES = [case for case in kernel_cases.every_case() if not case.unrolled]


def shares_its_body(case):
    """Is the case of a kernel of HAT? The kernels without are tried in every order of threads."""
    return "-hat-" in case.name


@pytest.mark.parametrize("case", [case for case in CASES if not shares_its_body(case)], ids=lambda case: case.id)
def test_kernel(case, device, order):
    kernel_compare.check(case, device.asarray, device.asnumpy)


@pytest.mark.parametrize("case", list(filter(shares_its_body, CASES)), ids=lambda case: case.id)
def test_kernel_that_shares_its_body(case, device, monkeypatch):
    monkeypatch.setattr(scheduler, "ORDER", "reverse")
    kernel_compare.check(case, device.asarray, device.asnumpy)
