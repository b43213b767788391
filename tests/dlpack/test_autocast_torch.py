"""Training steps under torch's autocast: layers that give bfloat16 beside layers and parameters in float32, no cast."""

import pytest

torch = pytest.importorskip("torch")

import lattice  # noqa: E402
from tests import migrating_blocks  # noqa: E402

FEATURES, WIDTH, VOCABULARY = 6, 16, 11
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
EPS = 2.0**-8
"""What rounding to bfloat16 moves a number by at most, as a share of it."""


class Transducer(torch.nn.Module):
    """What encoder and predictor end in is chosen; both begin with layers that autocast runs in bfloat16."""

    def __init__(self, *, norm, recurrent, output_dtype):
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, WIDTH)
        )
        self.norm = torch.nn.LayerNorm(WIDTH) if norm else None
        self.predictor = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.above = torch.nn.Linear(WIDTH, WIDTH) if recurrent else None
        self.output = torch.nn.Linear(WIDTH, VOCABULARY)
        self.output.weight.data = self.output.weight.data.to(output_dtype)

    def forward(self, features, targets):
        encoder, predictor = self.encoder(features), self.predictor(torch.nn.functional.pad(targets, (1, 0)))
        # On a GPU autocast has a LayerNorm in float32, on the CPU in the dtype that it is given.
        encoder = encoder if self.norm is None else self.norm(encoder.float())
        predictor = predictor if self.above is None else self.above(predictor)
        return encoder, predictor, self.output.weight, self.output.bias


KINDS = {
    "embedding": ({"norm": False, "recurrent": False, "output_dtype": FLOAT32}, (BFLOAT16, FLOAT32, FLOAT32, FLOAT32)),
    "norm": ({"norm": True, "recurrent": True, "output_dtype": FLOAT32}, (FLOAT32, BFLOAT16, FLOAT32, FLOAT32)),
    "both": ({"norm": True, "recurrent": False, "output_dtype": FLOAT32}, (FLOAT32, FLOAT32, FLOAT32, FLOAT32)),
    "half layer": ({"norm": True, "recurrent": True, "output_dtype": BFLOAT16}, (FLOAT32, BFLOAT16, BFLOAT16, FLOAT32)),
}


def step(model, loss_of, *, autocast):
    """A forward and a backward pass: what the loss was given, the loss, and the gradient of every parameter."""
    torch.manual_seed(1)
    features, targets = torch.randn(3, 9, FEATURES), torch.randint(1, VOCABULARY, (3, 4))
    lengths = torch.tensor([9, 7, 5]), torch.tensor([4, 2, 3])
    model.zero_grad()
    with torch.autocast("cpu", BFLOAT16, enabled=autocast):
        given = model(features, targets)
        for x in given:
            x.retain_grad()
        loss = loss_of(*given, targets, *lengths, posterior_floor=0)
    loss.sum().backward()
    return given, loss.detach(), (targets, *lengths), {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture
def loss_of(monkeypatch):
    """The autograd function of example 03."""
    migrating_blocks.copy_example(monkeypatch)
    from joint_loss import joint_transducer_loss

    return joint_transducer_loss


@pytest.mark.parametrize("kind", KINDS)
def test_no_cast_is_needed(loss_of, kind):
    options, dtypes = KINDS[kind]
    torch.manual_seed(0)
    model = Transducer(**options)
    given, loss, integers, gradients = step(model, loss_of, autocast=True)
    assert tuple(x.dtype for x in given) == dtypes
    assert loss.dtype == FLOAT32
    for name, parameter in model.named_parameters():
        assert gradients[name].dtype == parameter.dtype and gradients[name].any(), name
    # The loss is computed in float32: of the same numbers, the gradients are the same but for one rounding of each.
    wide = [x.detach().float() for x in given]
    expected, of_wide = lattice.joint_transducer_loss_and_grad(*wide, *integers, posterior_floor=0)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    for x, other in zip(given, of_wide, strict=True):
        assert x.grad.dtype == x.dtype
        torch.testing.assert_close(x.grad, other.to(x.dtype), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_float32_within_the_rounding_of_bfloat16(loss_of, kind):
    torch.manual_seed(0)
    model = Transducer(**KINDS[kind][0])
    _, loss, _, gradients = step(model, loss_of, autocast=True)
    _, expected, _, of_float32 = step(model.float(), loss_of, autocast=False)
    torch.testing.assert_close(loss, expected, rtol=EPS, atol=0)
    for name, gradient in gradients.items():
        truth = of_float32[name]
        # A gradient has passed some layers, each of which rounds.
        assert torch.linalg.norm(gradient.float() - truth) <= 4 * EPS * torch.linalg.norm(truth), name
