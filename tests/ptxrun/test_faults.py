"""Faults put into the compiled kernels are told by the cases, or change nothing: a part of what `faults.py` makes.

All barriers, votes, shared arrays and shared parameters of a specialisation of each kernel, and some faults of the other kinds.
"""

import re
from collections import Counter

import pytest

from tests.ptxrun import faults, seeds
from tests.ptxrun.equivalent import EQUIVALENT
from tests.ptxrun.tellers import TELLERS

STEPS = {"shuffle": 5, "parameter": 4, "argument": 4, "scale": 9, "loop": 3, "conversion": 5}
"""Of these kinds every so manieth fault is made; of the others, each."""


@pytest.fixture(scope="module")
def every_run():
    return faults.every_run()


def compiled(found, kernel, runs):
    """The specialisation of a kernel that its tellers launch."""
    assert not found.told(*runs[TELLERS[kernel][0]], log=False)
    (one,) = (one for one in faults.compiled(found.launched) if one.kernel == kernel)
    return one


@pytest.mark.parametrize("kernel", sorted(TELLERS))
def test_a_fault_is_told_or_changes_nothing(kernel, every_run):
    silent, seen = [], Counter()
    with faults.bench() as found:
        one, kills = compiled(found, kernel, every_run), Counter()
        for number, fault in enumerate(one.faults, 1):
            seen[fault.kind] += 1
            if seen[fault.kind] % STEPS.get(fault.kind, 1) or one.reason(fault) is not None:
                continue
            by, _, _ = faults.try_fault(found, one, number, TELLERS[kernel], every_run, kills)
            if not by:
                silent.append(f"{fault.kind}: {fault.what} at {one.source(fault)!r}")
    assert not silent
    assert seen
