"""1,500 calls of `python -m benchmarks stress fuzz`, in this process: no call breaks the contract or says a word."""

import collections
import resource

import pytest

import lattice
import samplers
from benchmarks.stress import fuzz
from benchmarks.stress.fuzz_cases import MAKERS

BATCHES, CALLS = 10, 150
RESULTS = {"Hypotheses", "JointGradients", "LatticeReport", "Posteriors", "SampledVocabulary", "Topology"}


def test_every_door_is_called():
    assert set(MAKERS) == (set(lattice.__all__) | set(samplers.__all__)) - RESULTS


@pytest.fixture
def little_memory():
    """What asks for tens of GB is refused, and does not take the machine with it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (fuzz.ADDRESS_SPACE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("seed", range(100, 100 + BATCHES))
def test_hostile_arguments(seed, capfd, little_memory):
    outcomes = collections.Counter()
    for number in range(CALLS):
        door, changes, outcome, wrong = fuzz.call(seed, number)
        assert not wrong, f"{door} {changes}: {wrong} (python -m benchmarks stress fuzz --seed {seed} --only {number})"
        outcomes[outcome] += 1
    assert min(outcomes["result"], outcomes["ValueError"], outcomes["TypeError"]) > CALLS // 20, outcomes
    assert capfd.readouterr() == ("", "")
