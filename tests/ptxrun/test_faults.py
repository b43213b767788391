"""Faults put into the compiled kernels are told by the cases, or change nothing: a part of what `faults.py` makes.

All barriers, votes and shared arrays of a specialisation of each kernel, and some faults of the other kinds.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.ptxrun import faults
from tests.ptxrun.equivalent import EQUIVALENT
from tests.ptxrun.tellers import TELLERS

OPEN = {tuple(entry) for entry in json.loads(Path(__file__).with_name("open_faults.json").read_text())}
"""Faults that no case tells and nobody has gone through: kernel, kind, what, line of the source. `faults.py --open`
writes them."""
STEPS = {
    "barrier": 1,
    "warp barrier": 1,
    "shared array": 1,
    "vote": 2,
    "shuffle": 15,
    "parameter": 8,
    "argument": 8,
    "loop": 8,
    "conversion": 9,
}
"""Of these kinds every so manieth fault is made."""
SLOW = {"choose_cuda": {"barrier": 4}}
"""A case of `choose` takes seconds: 63 rounds of a search, with two barriers and ten shuffles each."""


@pytest.fixture(scope="module")
def runs():
    return faults.every_run()


@pytest.fixture(scope="module")
def bench():
    with faults.bench() as found:
        yield found


def specialisation(bench, kernel, runs):
    """The specialisation of a kernel that its tellers launch."""
    bench.launched = set()
    assert not bench.told(*runs[TELLERS[kernel][0]], log=False)
    (one,) = (one for one in faults.compiled(bench.launched) if one.kernel == kernel)
    return one


@pytest.mark.parametrize("kernel", sorted(TELLERS))
def test_a_fault_is_told_or_changes_nothing(kernel, bench, runs):
    silent, seen, kills = [], Counter(), Counter()
    one = specialisation(bench, kernel, runs)
    for number, fault in enumerate(one.faults, 1):
        entry = kernel, fault.kind, fault.what, one.source(fault)
        seen[fault.kind] += 1
        step = SLOW.get(kernel, STEPS).get(fault.kind)
        if not step or seen[fault.kind] % step or one.reason(fault) is not None or entry in OPEN:
            continue
        by, _, _ = faults.try_fault(bench, one, number, TELLERS[kernel], runs, kills)
        if not by:
            silent.append(entry)
    assert not silent and seen


def test_every_entry_of_the_tables_stands_for_a_fault(bench, runs):
    kernels = [specialisation(bench, kernel, runs) for kernel in sorted(TELLERS)]
    lines = {(one.kernel, one.source(fault)) for one in kernels for fault in one.faults}
    assert {one.reason(fault) for one in kernels for fault in one.faults} >= set(range(len(EQUIVALENT)))
    assert not [entry for entry in OPEN if entry[0] not in TELLERS]
    assert {(kernel, line) for kernel, kind, _, line in OPEN if kind != "conversion"} <= lines


def test_every_kernel_of_the_library_has_tellers():
    assert sorted(TELLERS) == faults.library()


def test_a_kernel_that_there_is_none_of_is_refused(capsys):
    with pytest.raises(SystemExit):
        faults.main(["--kernel", "pool"])
    assert "invalid choice: 'pool'" in capsys.readouterr().err
