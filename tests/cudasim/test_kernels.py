"""Every kernel in the simulator, thread by thread, against the CPU target."""

import pytest

from tests import kernel_cases, kernel_compare
from tests.cudasim import scheduler

CASES = [case for case in kernel_cases.every_case() if not case.unrolled]
FIRST = {case.name: case.id for case in reversed(CASES) if not case.shares_its_body}
"""The first one of the cases that differ in dtype alone, by their name."""


@pytest.mark.parametrize("case", [case for case in CASES if FIRST.get(case.name) == case.id], ids=lambda case: case.id)
def test_kernel(case, device, order):
    kernel_compare.check(case, device.asarray, device.asnumpy)


@pytest.mark.parametrize("case", [case for case in CASES if FIRST.get(case.name) != case.id], ids=lambda case: case.id)
def test_kernel_whose_body_was_tried(case, device, monkeypatch):
    """In one order of threads: another dtype, or a variant with the body of a kernel that has cases of its own.

    The barriers are those of a case that is tried in every order. `tests/ptxrun` searches for races in every dtype.
    """
    monkeypatch.setattr(scheduler, "ORDER", "reverse")
    kernel_compare.check(case, device.asarray, device.asnumpy)
