"""Every exact peer computes what this library computes: no benchmark compares two different things."""

import subprocess
import sys

import numpy as np
import pytest

import lattice
from benchmarks import peers
from tests.compare import assert_close
from tests.problems import joint_problem, logits_problem

EXACT = [name for name, (_, exact, _) in peers.PEERS.items() if exact]
PRUNED = [name for name in peers.PEERS if name not in EXACT]
RAGGED = ([9, 8, 1, 7], [5, 3, 4, 1])
FULL = ([9, 9, 9, 9], [5, 5, 5, 5])
ROUNDING = 64.0
"""Peers keep alpha in float32, so they may be this many units of rounding off."""


def peer_named(name):
    """An importable peer; anything else skips the test."""
    pytest.importorskip("torch")
    if name in peers.missing():
        pytest.skip(peers.missing()[name])
    return next(peer for peer in peers.available() if peer.name == name)


def joint_arguments(lengths, dtype):
    """Finite padding, the same numbers in either dtype."""
    problem = joint_problem(5, vocab=11, width=6, lengths=lengths, slack=(0, 0))
    return [np.nan_to_num(array).astype(dtype) for array in problem.args[:4]], problem.args[4:]


@pytest.mark.parametrize("lengths", [RAGGED, FULL], ids=["ragged", "full"])
@pytest.mark.parametrize("name", EXACT)
def test_from_logits(name, lengths):
    problem = logits_problem(3, vocab=11, lengths=lengths, slack=(0, 0))
    logits, integers = np.nan_to_num(problem.logits), problem.args[1:]
    untouched = logits.copy()
    run = peer_named(name).from_logits(logits, *integers)
    ours = lattice.transducer_loss_and_grad(logits, *integers)
    truth = lattice.transducer_loss_and_grad(logits.astype(np.float64), *integers)
    for _ in range(2):  # a timed call is repeated, so it must not use its inputs up
        for what, other, true, own in zip(("loss", "gradient"), run(), truth, ours, strict=True):
            assert_close(other, true, own, k=ROUNDING, what=what)
    assert np.array_equal(logits, untouched)


@pytest.mark.parametrize("lengths", [RAGGED, FULL], ids=["ragged", "full"])
@pytest.mark.parametrize("name", EXACT)
def test_joint(name, lengths):
    arrays, integers = joint_arguments(lengths, np.float32)
    run = peer_named(name).joint(*arrays, *integers)
    ours = lattice.joint_transducer_loss_and_grad(*arrays, *integers, posterior_floor=0)
    wide, _ = joint_arguments(lengths, np.float64)
    truth = lattice.joint_transducer_loss_and_grad(*wide, *integers, posterior_floor=0)
    for _ in range(2):
        loss, gradients = run()
        assert_close(loss, truth[0].sum(), ours[0].sum(), k=ROUNDING, what="loss")
        for what, other, true, own in zip(truth[1]._fields, gradients, truth[1], ours[1], strict=True):
            assert_close(other, true, own, k=ROUNDING, what=what)


@pytest.mark.parametrize("name", PRUNED)
def test_a_pruned_loss_is_an_upper_bound(name):
    """Fewer alignments, so a larger loss; near enough to ours that both are of one problem."""
    arrays, integers = joint_arguments(RAGGED, np.float32)
    peer = peer_named(name)
    assert peer.from_logits is None
    loss, gradients = peer.joint(*arrays, *integers)()
    ours = lattice.joint_transducer_loss(*arrays, *integers).sum()
    assert ours - 1e-3 < loss < 1.1 * ours
    assert [gradient.shape for gradient in gradients] == [array.shape for array in arrays]


def test_every_peer_is_available_or_missing():
    names = [peer.name for peer in peers.available()] + list(peers.missing())
    assert sorted(names) == sorted(peers.PEERS)
    assert all(peer.version for peer in peers.available())


def test_reasons_are_one_line_without_folders(monkeypatch):
    def make():
        raise OSError("Could not load this library: /some/folder/lib/_peer.so\nand more")

    monkeypatch.setattr(peers, "PEERS", {"broken": ("numpy", True, make)})
    peers._load.cache_clear()
    try:
        assert peers.available() == []
        assert peers.missing() == {"broken": "OSError: Could not load this library: _peer.so"}
    finally:
        peers._load.cache_clear()


def test_importing_the_module_imports_no_peer():
    modules = {"torch", "torchaudio", "optimized_transducer", "fast_rnnt", "k2", "warprnnt_numba"}
    code = f"import sys; import benchmarks.peers; assert not {modules!r} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
