"""Races that are found in a log are those of its definition, pair by pair."""

import itertools

import numpy as np
import pytest

from tests.ptxrun import races

TEXTS = [f"instruction {number}" for number in range(6)]


def pairwise(log):
    found = set()
    for one, other in itertools.permutations(log.tolist(), 2):
        (wrote, shared), (also, in_shared) = (
            (row[races.META] >> 40 & 1, row[races.META] >> 41 & 1) for row in (one, other)
        )
        block, home = (row[races.WHO] >> 16 for row in (one, other))
        ordered = block == home and one[races.BLOCK_EPOCH] != other[races.BLOCK_EPOCH]
        if one[races.WHO] >> 5 == other[races.WHO] >> 5:
            ordered |= one[races.WARP_EPOCH] != other[races.WARP_EPOCH]
        same = one[races.ADDRESS] == other[races.ADDRESS] and shared == in_shared and (not shared or block == home)
        if same and wrote and one[races.WHO] != other[races.WHO] and not ordered:
            value = "same value" if also and one[races.VALUE] == other[races.VALUE] else "differing values"
            places = sorted(TEXTS[row[races.META] & 0xFFFFFFFF] for row in (one, other))
            found.add(("shared" if shared else "global", *places, value))
    return sorted(found)


@pytest.mark.parametrize("threads", [2, 40, 100])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("written", [0.1, 0.6])
def test_races_are_those_of_the_definition(threads, blocks, written):
    rng, some = np.random.default_rng(threads + blocks), 0
    for _ in range(40):
        count = rng.integers(0, 30)
        log = np.zeros((count, 6), np.int64)
        log[:, races.ADDRESS], log[:, races.VALUE] = 4 * rng.integers(0, 4, count), rng.integers(0, 2, count)
        wrote, shared = rng.random(count) < written, rng.integers(0, 2, count)
        log[:, races.META] = rng.integers(0, len(TEXTS), count) | 4 << 32 | wrote.astype(np.int64) << 40 | shared << 41
        log[:, races.WHO] = rng.integers(0, blocks, count) << 16 | rng.integers(0, threads, count)
        log[:, races.BLOCK_EPOCH] = np.sort(rng.integers(0, 6, count))
        log[:, races.WARP_EPOCH] = rng.integers(0, 2, count)
        found = races.find(log, TEXTS)
        assert found == pairwise(log)
        some += bool(found)
    assert some
