"""What docs/migrating.md tells the reader to copy computes what the oracle does; no peer is needed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lattice  # noqa: E402
from tests import migrating_blocks, oracle  # noqa: E402
from tests.compare import assert_close  # noqa: E402

NAMES = ("encoder", "predictor", "weight", "bias")


@pytest.fixture
def names(monkeypatch):
    return migrating_blocks.batch(monkeypatch)


@pytest.fixture
def wide(monkeypatch):
    return migrating_blocks.batch(monkeypatch, wide=True)


def given(names, dtype=None):
    """Logits of the page's batch, a leaf; and the arguments behind them."""
    hidden = torch.tanh(names["encoder"][:, :, None] + names["predictor"][:, None])
    logits = names["output"](hidden).detach().to(dtype).requires_grad_()
    return logits, [names[name] for name in ("targets", "logit_lengths", "target_lengths")]


def gradient_of(loss, logits):
    return torch.autograd.grad(loss.sum(), logits)[0]


@pytest.mark.parametrize("block", migrating_blocks.AFTER, ids="; ".join)
def test_a_block_computes_what_it_says(block, names):
    options = dict(migrating_blocks.AFTER[block])
    if "pruned" in block[1]:
        first = torch.tensor([0, 1, 2])[torch.arange(20) * 3 // 20].expand(2, 20)
        names["ranges"] = first[..., None] + torch.arange(4)
        options["bounds"] = names["ranges"][..., 0].numpy(), names["ranges"][..., -1].numpy()
    (true_loss, true_gradients), (naive_loss, naive_gradients) = migrating_blocks.truth(names, **options)
    loss, gradients = migrating_blocks.results(migrating_blocks.blocks()[block], names)
    assert_close(loss, true_loss, naive_loss, what="loss")
    for what, *three in zip(NAMES, gradients, true_gradients, naive_gradients, strict=True):
        assert_close(*three, slack=2.0**-24 * true_loss.size, what=what)


def recipe_by_the_oracle(names, ranges, am_scale):
    """Loss of the page's pruned recipe over dense arrays in float64, and the gradients of its leaves."""
    am, lm = names["simple_am"](names["encoder"]), names["simple_lm"](names["predictor"])
    unigram = lm.softmax(-1).mean((0, 1)).log()
    parts = [am[:, :, None] + lm[:, None], lm[:, None], am[:, :, None] + unigram]
    scales = 1 - 0.25 - am_scale, 0.25, am_scale
    mixed = sum(scale * part.log_softmax(-1) for scale, part in zip(scales, parts, strict=True))
    logits = names["output"](torch.tanh(names["encoder"][:, :, None] + names["predictor"][:, None]))
    integers = [names[name].numpy() for name in ("targets", "logit_lengths", "target_lengths")]
    total, seeds = 0.0, [torch.zeros_like(mixed), torch.zeros_like(logits)]
    bounds = [ranges[..., i].numpy() for i in (0, -1)]
    loss, grad = oracle.batch_loss_and_grad(logits.detach().numpy(), *integers, bounds=bounds)
    total, seeds[1] = total + loss.sum(), torch.from_numpy(grad)
    for b, (targets, T, U) in enumerate(zip(*integers, strict=True)):
        scores = mixed[b, :T, : U + 1].detach().numpy()
        labels = np.full((T, U + 1), -np.inf)
        labels[:, :U] = scores[:, np.arange(U), targets[:U]]
        loss, by_blank, by_label = oracle.arc_posteriors(scores[..., 0], labels, "rnnt")
        total += 0.5 * loss
        seeds[0][b, :T, : U + 1, 0] -= 0.5 * torch.from_numpy(by_blank)
        for u in range(U):
            seeds[0][b, :T, u, int(targets[u])] -= 0.5 * torch.from_numpy(by_label[:, u])
    return total, torch.autograd.grad([mixed, logits], migrating_blocks.leaves(names), seeds)


@pytest.mark.parametrize("am_scale", [0.0, 0.1])
def test_a_pruned_recipe(wide, am_scale):
    """In float64, so that the comparison is of formulas alone."""
    code = migrating_blocks.blocks()[migrating_blocks.RECIPE]
    wide["targets"] = torch.where(torch.arange(5) < wide["target_lengths"][:, None], wide["targets"], -1)
    loss, gradients = migrating_blocks.results(code.replace("am_scale=0.0", f"am_scale={am_scale}"), wide)
    ranges = wide["positions"]
    assert ranges.shape == (2, 20, 3) and (ranges[:, 0, 0] == 0).all()
    climbs = ranges[:, 1:, 0] - ranges[:, :-1, 0]
    assert (climbs >= 0).all() and (climbs <= 2).all()
    assert ranges[[0, 1], [19, 15], 2].tolist() == wide["target_lengths"].tolist()
    wide["targets"] = wide["targets"].clamp(min=1)
    true_loss, true_gradients = recipe_by_the_oracle(wide, ranges, am_scale)
    np.testing.assert_allclose(loss.sum(), true_loss, rtol=1e-12)
    for what, ours, true in zip(NAMES, gradients, true_gradients, strict=True):
        np.testing.assert_allclose(ours, true.numpy(), rtol=1e-9, atol=1e-11, err_msg=what)


def test_gradcheck(wide):
    logits, integers = given(wide, torch.float64)
    for options in ({}, {"reduction": "none"}, {"reduction": "sum", "blank": 0, "topology": "monotonic"}):
        assert torch.autograd.gradcheck(lambda x: wide["rnnt_loss"](x, *integers, **options), logits)  # noqa: B023


def test_clamp_comes_before_the_upstream_gradient(names):
    logits, integers = given(names)
    plain = gradient_of(names["rnnt_loss"](logits, *integers, reduction="sum"), logits)
    clamped = gradient_of(names["rnnt_loss"](logits, *integers, clamp=0.05), logits)
    assert (plain.abs() > 0.05).any()
    torch.testing.assert_close(clamped, plain.clamp(-0.05, 0.05) / 2, rtol=0, atol=0)
    with pytest.raises(ValueError, match="log-probabilities"):
        names["rnnt_loss"](logits, *integers, clamp=0.05, fused_log_softmax=False)


def test_a_second_backward_and_a_negative_upstream_gradient(names):
    logits, integers = given(names)
    loss = names["rnnt_loss"](logits, *integers, reduction="none")
    (plain,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    (turned,) = torch.autograd.grad(loss, logits, torch.tensor([-2.0, 0.0]))
    torch.testing.assert_close(turned, plain * torch.tensor([-2.0, 0.0])[:, None, None, None], rtol=0, atol=0)


def test_log_probabilities_are_logits(wide):
    logits, integers = given(wide, torch.float64)
    through = wide["rnnt_loss"](logits.log_softmax(-1), *integers, fused_log_softmax=False)
    plain = wide["rnnt_loss"](logits, *integers)
    torch.testing.assert_close(through, plain)
    torch.testing.assert_close(gradient_of(through, logits), gradient_of(plain, logits))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(names, dtype):
    logits, integers = given(names, dtype)
    loss = names["rnnt_loss"](logits, *integers, reduction="none")
    assert loss.dtype == torch.float32 and gradient_of(loss, logits).dtype == dtype


def test_without_a_gradient_none_is_computed(names, monkeypatch):
    logits, integers = given(names)
    loss = names["rnnt_loss"](logits, *integers)
    monkeypatch.setattr(lattice, "transducer_loss_and_grad", None)
    torch.testing.assert_close(names["rnnt_loss"](logits.detach(), *integers), loss.detach(), rtol=0, atol=0)


def test_the_simple_loss(wide):
    """`rnnt_loss_simple`: sums of encoder and predictor are the logits."""
    am, lm = torch.randn(2, 20, 12, dtype=torch.float64), torch.randn(2, 6, 12, dtype=torch.float64)
    _, integers = given(wide)
    eye = torch.eye(12, dtype=torch.float64)
    ours = lattice.joint_transducer_loss(am, lm, eye, None, *integers, activation="identity", posterior_floor=0)
    dense = lattice.transducer_loss(am[:, :, None] + lm[:, None], *integers)
    torch.testing.assert_close(ours, dense)


def test_what_is_refused(names):
    logits, (targets, lengths, target_lengths) = given(names)
    for wrong in (
        [targets, lengths * torch.tensor([1, 0]), target_lengths],
        [targets + 12, lengths, target_lengths],
        [targets * 0 + 11, lengths, target_lengths],
    ):
        with pytest.raises(ValueError, match=r"\[\d"):
            names["rnnt_loss"](logits, *wrong)
