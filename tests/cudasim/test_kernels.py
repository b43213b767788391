"""Every kernel in the simulator, thread by thread, against the CPU target."""

import pytest

from tests import kernel_cases, kernel_compare


@pytest.mark.parametrize(
    "case", [case for case in kernel_cases.every_case() if not case.unrolled], ids=lambda case: case.id
)
def test_kernel(case, device, order):
    kernel_compare.check(case, device.asarray, device.asnumpy)
