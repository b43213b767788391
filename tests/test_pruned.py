"""The pruned loss of k2 (`fast_rnnt`) is the loss of the same banded logits here, loss and gradient."""

import inspect

import numpy as np
import pytest

import lattice
from benchmarks import pruned, record
from tests.compare import assert_close

ROUNDING = 64.0
"""Their alpha is float32, so they may be this many units of rounding off."""

RNNT_TYPES = {"regular": "rnnt", "modified": "monotonic", "constrained": "constrained"}
SCORES = {
    "plain": {},
    "delayed": {"delay_penalty": 0.05},
    "hat": {"hat": True},
    "hat, delayed": {"hat": True, "delay_penalty": 0.05},
}
"""What a `Topology` adds to a name of `RNNT_TYPES`."""

LENGTHS = ([9, 8, 4, 7], [5, 3, 4, 1])
V, ROWS = 11, 3


@pytest.fixture(params=pruned.MODULES)
def peer(request):
    pytest.importorskip("torch")
    return pytest.importorskip(request.param)


def hat_scores(logits):
    """Log-probabilities whose softmax is themselves: what k2's `use_hat_loss` forms of logits, blank 0."""
    import torch

    blank, rest = logits[..., :1], logits[..., 1:]
    scores = torch.nn.functional.logsigmoid
    return torch.cat([scores(blank), scores(-blank) + rest.log_softmax(-1)], -1)


def ranges_of(peer, rnnt_type):
    """Targets, lengths, the boundary that says both, and the ranges that the peer finds for them."""
    import torch

    generator = torch.Generator().manual_seed(5)
    frames, labels = (torch.tensor(x) for x in LENGTHS)
    targets = torch.randint(1, V, (4, 5), generator=generator)
    am, lm = (torch.randn(4, n, V, generator=generator) for n in (9, 6))
    boundary = torch.stack([0 * labels, 0 * labels, labels, frames], 1)
    options = {"boundary": boundary, "rnnt_type": rnnt_type, "return_grad": True}
    _, posteriors = peer.rnnt_loss_smoothed(lm, am, targets, 0, **options)
    ranges = peer.get_rnnt_prune_ranges(*posteriors, boundary, ROWS)
    kept, near = peer.do_rnnt_pruning(am, lm, ranges)
    return (targets, frames, labels), boundary, ranges, 2 * torch.tanh(kept + near)


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("rnnt_type", RNNT_TYPES)
def test_k2_computes_the_same(peer, rnnt_type, scores):
    import torch

    more = SCORES[scores]
    integers, boundary, ranges, logits = ranges_of(peer, rnnt_type)
    assert ranges.shape[2] == ROWS and (ranges[..., -1] > integers[2][:, None]).any()
    topology = lattice.Topology(RNNT_TYPES[rnnt_type], **more)
    options = {"topology": topology, "bounds": (ranges[..., 0], ranges[..., -1]), "banded": True}
    own = lattice.transducer_loss_and_grad(logits, *integers, **options)
    truth = lattice.transducer_loss_and_grad(logits.double(), *integers, **options)
    leaf, theirs = logits.clone().requires_grad_(), {"delay_penalty": more.get("delay_penalty", 0.0)}
    given = leaf
    if topology.hat and "use_hat_loss" in inspect.signature(peer.rnnt_loss_pruned).parameters:
        theirs["use_hat_loss"] = True
    elif topology.hat:
        given = hat_scores(leaf)
    loss = peer.rnnt_loss_pruned(
        given, integers[0], ranges, 0, boundary=boundary, rnnt_type=rnnt_type, reduction="none", **theirs
    )
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    for what, other, true, ours in zip(("loss", "gradient"), (loss.detach(), gradient), truth, own, strict=True):
        assert other.abs().max() > 0.1
        assert_close(*(x.numpy() for x in (other, true, ours)), k=ROUNDING, what=what)


def test_what_is_timed_is_one_loss(peer):
    problem = pruned.banded(*pruned.SHAPES["smoke"])
    run = pruned.theirs(peer.__name__, problem)
    truth = pruned.ours(problem._replace(logits=problem.logits.astype(np.float64)))
    untouched = problem.logits.copy()
    for _ in range(2):  # a timed call is repeated, so it must not use its inputs up
        for what, other, true, own in zip(("loss", "gradient"), run(), truth, pruned.ours(problem), strict=True):
            assert_close(other, true, own, k=ROUNDING, what=what)
    assert np.array_equal(problem.logits, untouched)


def test_the_benchmark_without_peers(tmp_path):
    assert pruned.check() < 1e-6
    table = pruned.measure("smoke", 1, [])
    assert all(row["ratio"] > 0 for row in table.values()) and pruned.OURS in table
    record.write(str(tmp_path / "record.json"), {"rows": table})
