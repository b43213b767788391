"""What the lists of docs/migrating.md say of other losses, and of this library in the same place, is what they do."""

import numpy as np
import pytest

import lattice
from tests import migrating_blocks
from tests.problems import logits_problem

torch = pytest.importorskip("torch")

LENGTHS = ([9, 8, 1, 7], [5, 3, 4, 1])
V = 11


@pytest.fixture
def given():
    """Logits with finite padding, blank 0, and the int32 integers that every one of them takes."""
    problem = logits_problem(3, vocab=V, lengths=LENGTHS, slack=(0, 0))
    numbers = [torch.from_numpy(np.array(x)).int() for x in problem.args[1:]]
    numbers[0] = torch.where(torch.arange(numbers[0].shape[1]) < numbers[2][:, None], numbers[0], 1)
    return torch.from_numpy(np.nan_to_num(problem.logits)), *numbers


def torchaudio_loss(*arguments, blank=0, reduction="none", **options):
    functional = pytest.importorskip("torchaudio").functional
    return functional.rnnt_loss(*arguments, blank=blank, reduction=reduction, **options)


def numba_loss(*arguments, reduction="none", **options):
    pytest.importorskip("warprnnt_numba")
    from warprnnt_numba.rnnt_loss.rnnt_pytorch import rnnt_loss

    return rnnt_loss(*arguments, reduction=reduction, **options)


def k2_loss(logits, targets, frames, labels, *, reduction="none", blank=0, **options):
    zero = torch.zeros_like(frames)
    boundary = torch.stack([zero, zero, labels, frames], 1).long()
    return pytest.importorskip("fast_rnnt").rnnt_loss(
        logits, targets.long(), blank, boundary=boundary, reduction=reduction, **options
    )


def ours(*arguments, **options):
    return lattice.transducer_loss(*arguments, **options)


def gradient(loss, logits, *arguments, reduce=torch.sum, **options):
    leaf = logits.clone().requires_grad_()
    reduce(loss(leaf, *arguments, **options)).backward()
    return leaf.grad


def near(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def with_nan_padding(logits, frames):
    logits = logits.clone()
    for b, T in enumerate(frames.tolist()):
        logits[b, T:] = torch.nan
    assert logits.isnan().any()
    return logits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes(given, dtype):
    logits, *integers = given
    logits = logits.to(dtype)
    assert ours(logits, *integers).dtype == (dtype if dtype == torch.float64 else torch.float32)
    if dtype == torch.float16:
        assert torchaudio_loss(logits, *integers).dtype == dtype
    else:
        with pytest.raises(RuntimeError, match="logits must be float32 or float16"):
            torchaudio_loss(logits, *integers)
    if dtype == torch.float64:
        assert k2_loss(logits, *integers[:2], integers[2].clamp(1)).dtype == dtype
    else:
        with pytest.raises(NotImplementedError):
            k2_loss(logits, *integers)


@pytest.mark.parametrize("which", range(3))
def test_int64(given, which):
    logits, *integers = given
    loss = ours(logits, *integers)
    integers[which] = integers[which].long()
    near(ours(logits, *integers), loss)
    with pytest.raises(RuntimeError, match="must be int32"):
        torchaudio_loss(logits, *integers)
    with pytest.raises(TypeError, match=r"must be torch\.int32"):
        numba_loss(logits, *integers)


def test_layout_and_width(given):
    logits, targets, frames, labels = given
    loss = ours(*given)
    strided = logits.transpose(1, 2).contiguous().transpose(1, 2)
    near(ours(strided, targets, frames, labels), loss)
    with pytest.raises(RuntimeError, match="contiguous"):
        torchaudio_loss(strided, targets, frames, labels)
    wide = torch.cat([logits, logits], 1)
    near(ours(wide, targets, frames, labels), loss)
    with pytest.raises(RuntimeError, match="input length mismatch"):
        torchaudio_loss(wide, targets, frames, labels)
    with pytest.raises(ValueError, match="Input length mismatch"):
        numba_loss(wide, targets, frames, labels)
    long = torch.cat([targets, targets], 1)
    near(ours(logits, long, frames, labels), loss)
    with pytest.raises(RuntimeError, match="target length mismatch"):
        torchaudio_loss(logits, long, frames, labels)
    taken = numba_loss(logits, long, frames, labels)
    near(taken[0], loss[0])
    assert (taken[1:] - loss[1:]).abs().max() > 0.1


def test_ids_and_lengths_out_of_range(given):
    logits, targets, frames, labels = given
    for loss, wrong in (
        (torchaudio_loss, [targets, frames * torch.tensor([1, 1, 0, 1]), labels]),
        (torchaudio_loss, [torch.zeros_like(targets), frames, labels]),
        (torchaudio_loss, [torch.full_like(targets, V), frames, labels]),
    ):
        wrong = [x.int() for x in wrong]
        assert loss(logits, *wrong).shape == (4,)
        with pytest.raises(ValueError, match=r"\[\d"):
            ours(logits, *wrong)
    empty = labels * torch.tensor([1, 0, 1, 1], dtype=torch.int32)
    near(torchaudio_loss(logits, targets, frames, empty), ours(logits, targets, frames, empty))
    with pytest.raises(AssertionError):
        k2_loss(logits, targets, frames, empty)
    with pytest.raises(RuntimeError, match="index -1 is out of bounds"):
        k2_loss(logits, targets.masked_fill(torch.arange(5) >= labels[:, None], -1), frames, labels)
    last = ours(logits, targets - 1, frames, labels, blank=-1)
    assert (numba_loss(logits, targets - 1, frames, labels, blank=-1) - last).abs().max() > 0.1
    near(torchaudio_loss(logits, targets - 1, frames, labels, blank=-1), last)


def test_no_path(given):
    logits, *integers = given
    logits = torch.full_like(logits, -torch.inf)
    assert ours(logits, *integers).isinf().all()
    assert torchaudio_loss(logits, *integers).isnan().all()
    assert ours(*given, topology="monotonic")[2].isinf()  # one frame, four labels
    with pytest.raises(AssertionError, match="Modified transducer requires"):
        k2_loss(*given, rnnt_type="modified")


def test_padding_of_nan(given):
    logits, targets, frames, labels = given
    padded = with_nan_padding(logits, frames)
    own = lattice.transducer_loss_and_grad(padded, targets, frames, labels)[1]
    assert own.isfinite().all()
    near(gradient(torchaudio_loss, padded, targets, frames, labels), own)
    for loss in (numba_loss, k2_loss):
        assert gradient(loss, padded, targets, frames, labels).isnan().any()


def test_clamp(given):
    own = lattice.transducer_loss_and_grad(*given)[1]
    assert (own.abs() > 0.2).any()
    near(gradient(torchaudio_loss, *given, reduction="mean", clamp=0.05), own.clamp(-0.05, 0.05) / 4)
    near(gradient(torchaudio_loss, *given, clamp=0), own)
    near(gradient(numba_loss, *given, reduction="mean", clamp=0.05), (own / 4).clamp(-0.05, 0.05))
    near(gradient(numba_loss, *given, reduction="mean", clamp=0.05), own.clamp(-0.2, 0.2) / 4)


def test_reductions(given):
    loss = ours(*given)
    for theirs in (torchaudio_loss, numba_loss, k2_loss):
        for reduction, value in (("mean", loss.mean()), ("sum", loss.sum()), ("none", loss)):
            reduced = theirs(*given, reduction=reduction)
            near(reduced.reshape(value.shape), value)
            assert reduced.shape == value.shape or theirs is numba_loss


def test_log_probabilities(given):
    logits, *integers = given
    own = lattice.transducer_loss_and_grad(*given)
    scores = logits.log_softmax(-1)
    near(torchaudio_loss(scores, *integers, fused_log_softmax=False), own[0])

    def behind(x, *integers):
        return torchaudio_loss(x.log_softmax(-1), *integers, fused_log_softmax=False)

    near(gradient(behind, *given), own[1])
    theirs = gradient(torchaudio_loss, scores, *integers, fused_log_softmax=False)
    assert (theirs - lattice.transducer_loss_and_grad(scores, *integers)[1]).abs().max() > 0.1


def test_the_joiner_of_torchaudio(given):
    pytest.importorskip("torchaudio")
    from torchaudio.models.rnnt import _Joiner

    _, targets, frames, labels = given
    torch.manual_seed(0)
    encoder, predictor, joiner = torch.randn(4, 9, 6), torch.randn(4, 6, 6), _Joiner(6, V)
    logits, *_ = joiner(encoder, frames, predictor, labels)
    parts = [x.detach() for x in (joiner.linear.weight, joiner.linear.bias)]
    fused = lattice.joint_transducer_loss(encoder, predictor, *parts, targets, frames, labels, activation="relu")
    near(fused, torchaudio_loss(logits, targets, frames, labels).detach())


def test_losses_of_k2_with_a_joint_that_adds(given):
    fast_rnnt = pytest.importorskip("fast_rnnt")
    _, targets, frames, labels = given
    torch.manual_seed(0)
    am, lm = torch.randn(4, 9, V), torch.randn(4, 6, V)
    zero = torch.zeros_like(frames)
    options = {"boundary": torch.stack([zero, zero, labels, frames], 1).long(), "reduction": "none"}
    simple = fast_rnnt.rnnt_loss_simple(lm, am, targets.long(), 0, **options)
    smoothed = fast_rnnt.rnnt_loss_smoothed(lm, am, targets.long(), 0, lm_only_scale=0.0, am_only_scale=0.0, **options)
    near(
        lattice.joint_transducer_loss(am, lm, torch.eye(V), None, targets, frames, labels, activation="identity"),
        simple,
    )
    near(smoothed, simple)


@pytest.mark.parametrize("rows", [2, 3, 5])
@pytest.mark.parametrize("topology", ["rnnt", "monotonic"])
def test_the_band_is_the_ranges_of_k2(topology, rows, monkeypatch):
    """Numbers of no lattice, whose largest sums fall and leap from frame to frame."""
    fast_rnnt = pytest.importorskip("fast_rnnt")
    pruned_bounds = migrating_blocks.batch(monkeypatch)["pruned_bounds"]
    torch.manual_seed(1)
    frames, labels = torch.tensor([9, 8, 5, 7]), torch.tensor([6, 3, 4, 1])
    boundary = torch.stack([0 * labels, 0 * labels, labels, frames], 1)
    by_label, by_blank = torch.rand(4, 6, 10 if topology == "rnnt" else 9), torch.rand(4, 7, 9)
    by_blank[0, 4:] += 5  # here the band would begin above position 0
    ranges = fast_rnnt.get_rnnt_prune_ranges(by_label, by_blank, boundary, rows)
    label = torch.nn.functional.pad(by_label[..., :9], (0, 0, 0, 1)).transpose(1, 2)
    first, last = pruned_bounds(by_blank.transpose(1, 2), label, frames, labels, rows, topology)
    assert torch.equal(first, ranges[..., 0]) and torch.equal(last, ranges[..., -1])
    assert len(first.unique()) > 2 or rows == 5


def test_one_symbol_a_frame_of_optimized_transducer_ends_on_a_blank(given):
    peer = pytest.importorskip("optimized_transducer")
    logits, targets, frames, labels = given
    labels = labels.minimum(frames - 1)
    packed = torch.cat([logits[b, :T, : U + 1].flatten(0, 1) for b, (T, U) in enumerate(zip(frames, labels))])
    theirs = peer.transducer_loss(
        packed, targets, frames, labels, blank=0, from_log_softmax=False, one_sym_per_frame=True, reduction="sum"
    )
    first, last = torch.zeros(4, 9, dtype=torch.int32), torch.full((4, 9), 5, dtype=torch.int32)
    first[torch.arange(4), frames.long() - 1] = labels
    options = {"topology": "monotonic"}
    near(ours(logits, targets, frames, labels, bounds=(first, last), **options).sum(), theirs)
    assert (ours(logits, targets, frames, labels, **options).sum() - theirs).abs() > 0.1
