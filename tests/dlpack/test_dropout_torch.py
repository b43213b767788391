"""Dropout of the fused joint through the autograd function of example 03, beside `torch.nn.functional.dropout`."""

import runpy

import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import dropout, gelu, leaky_relu, silu  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import lattice  # noqa: E402
from tests.migrating_blocks import ROOT  # noqa: E402

ACTIVATIONS = {"sigmoid": torch.sigmoid, "leaky_relu": leaky_relu, "gelu": gelu, "silu": silu, "tanh": torch.tanh}
RATE, DRAWS = 0.3, 400
TDT = lattice.Topology("tdt", durations=(0, 1, 2))
INTEGERS = [torch.tensor(x) for x in ([[1, 2, 2], [4, 3, 0]], [5, 3], [3, 2])]


@pytest.fixture(scope="module")
def names():
    return runpy.run_path(str(ROOT / "examples" / "03_torch_autograd.py"))


def inputs(rows=6):
    torch.manual_seed(3)
    shapes = (2, 5, 4), (2, 4, 4), (rows, 4), (rows,)  # B=2, T=5, U=3, H=4
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("topology", ["rnnt", "monotonic", TDT], ids=["rnnt", "monotonic", "tdt"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck(names, activation, topology):
    options = {"activation": activation, "topology": topology, "posterior_floor": 0, "dropout": (RATE, 2**40 + 1)}
    given, loss = inputs(6 + len(getattr(topology, "durations", ()))), names["joint_transducer_loss"]
    assert torch.autograd.gradcheck(lambda *x: loss(*x, *INTEGERS, **options), given)
    plain = loss(*given, *INTEGERS, **options | {"dropout": None})
    assert (plain != loss(*given, *INTEGERS, **options)).all()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_loss_that_is_computed_again_has_the_same_mask(names, fixed, reentrant):
    """A seed from torch's generator is drawn again as it was, because a checkpoint restores the generator."""
    found = []

    def loss_of(encoder, *others):
        seed = 5 if fixed else int(torch.randint(2**31, ()))
        loss = names["joint_transducer_loss"](torch.tanh(encoder), *others, *INTEGERS, dropout=(RATE, seed))
        found.append((seed, loss.detach()))
        return loss

    gradients = []
    for again in (False, True):
        given = inputs()
        torch.manual_seed(7)
        loss = checkpoint(loss_of, *given, use_reentrant=reentrant) if again else loss_of(*given)
        torch.manual_seed(8)
        loss.sum().backward()
        gradients.append([x.grad for x in given])
    # Without `reentrant` a call stops in the middle, as soon as all saved tensors are there.
    assert len(found) == 2 + reentrant
    assert all(seed == found[0][0] and torch.equal(loss, found[0][1]) for seed, loss in found)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def draws_of(loss_of, given):
    """(draws, numbers): losses and every entry of the gradients of their sum."""
    drawn = []
    for seed in range(DRAWS):
        loss = loss_of(seed)
        gradients = torch.autograd.grad(loss.sum(), given)
        drawn.append(torch.cat([x.detach().flatten() for x in (loss, *gradients)]))
    return torch.stack(drawn)


@pytest.mark.parametrize("activation", ["gelu", "leaky_relu"])
def test_the_law_is_that_of_torch(names, activation):
    """Means and variances over seeds, within five standard errors of each."""
    given, plain = inputs(), names["plain_loss"]
    ours = draws_of(
        lambda seed: names["joint_transducer_loss"](*given, *INTEGERS, activation=activation, dropout=(RATE, seed)),
        given,
    )

    def theirs_of(_):
        # `tanh` of the dense loss in the example stands for activation and dropout.
        return plain(*given, *INTEGERS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "tanh", lambda x: dropout(ACTIVATIONS[activation](x), RATE))
        theirs = draws_of(theirs_of, given)
    error = (ours.var(0) / DRAWS + theirs.var(0) / DRAWS).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error).all()
    # The variance of a variance, by fourth moments.
    spread = [((x - x.mean(0)) ** 2).var(0) / DRAWS for x in (ours, theirs)]
    assert ((ours.var(0) - theirs.var(0)).abs() <= 5 * sum(spread).sqrt() + 1e-12).all()
    assert (ours.var(0)[:2] > 0).all()
