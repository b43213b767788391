"""docs/migrating.md: joints of NeMo, SpeechBrain and ESPnet, written anew in torch, against the blocks of the page.

Logits of a joint go through `rnnt_loss` of the page, in float64, so that the comparison is of formulas alone. What is
dropped by a mask is compared in law: means over draws, within four standard errors.
"""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tests.migrating_blocks import JOINTS, OPTIONS, PAGE, batch, blocks  # noqa: E402

INTEGERS = "targets", "logit_lengths", "target_lengths"
DRAWS = 300


@pytest.fixture
def names(monkeypatch):
    return batch(monkeypatch, wide=True)


def run(names, section, *titles, **replaced):
    """The blocks of these titles, one after the other; a part of their text may be replaced by another."""
    for title in titles:
        code = blocks()[section, title]
        for old, new in replaced.items():
            assert old in code
            code = code.replace(old, new)
        exec(code, names)
    return names["loss"]


def dense(names, logits, **options):
    return names["rnnt_loss"](logits, *(names[name] for name in INTEGERS), blank=options.pop("blank", 0), **options)


def outputs(names):
    return names["encoder"].detach(), names["predictor"].detach()


def agree(ours, theirs, parameters):
    """Loss and gradients; cells that no alignment visits may be skipped."""
    near = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(ours, theirs, **near)
    mine, true = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (ours, theirs))
    for gradient, other in zip(mine, true, strict=True):
        torch.testing.assert_close(gradient, other, **near)
        assert gradient is None or gradient.any()


class NemoJoint(nn.Module):
    """enc and pred on their own, joint_net on each cell; loss by sub-batches of the longest lengths in them."""

    def __init__(self, activation, dropout=0.0, hidden=6, vocabulary=12):
        super().__init__()
        kinds = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
        layers = [kinds[activation](), nn.Dropout(dropout), nn.Linear(hidden, vocabulary)]
        self.activation, self.enc, self.pred = activation, nn.Linear(8, hidden), nn.Linear(8, hidden)
        self.joint_net = nn.Sequential(*(layer for layer in layers if dropout or not isinstance(layer, nn.Dropout)))
        self.double()

    def logits(self, encoder_outputs, decoder_outputs):
        f, g = self.enc(encoder_outputs.transpose(1, 2)), self.pred(decoder_outputs.transpose(1, 2))
        return self.joint_net(f[:, :, None] + g[:, None])

    def loss(self, names, fused_batch_size):
        losses, (targets, frames, labels) = [], (names[name] for name in INTEGERS)
        for begin in range(0, len(targets), fused_batch_size):
            part = slice(begin, begin + fused_batch_size)
            T, U = int(frames[part].max()), int(labels[part].max())
            logits = self.logits(names["encoder_outputs"][part, :, :T], names["decoder_outputs"][part, :, : U + 1])
            given = logits, targets[part, :U], frames[part], labels[part]
            losses.append(names["rnnt_loss"](*given, blank=-1, reduction="none"))
        return torch.cat(losses).mean()


NEMO = "after, with NeMo's RNNTJoint"


def with_nemo(names, activation, dropout=0.0):
    torch.manual_seed(1)
    encoder, predictor = outputs(names)
    names.update(joint=NemoJoint(activation, dropout), transcripts=names["targets"])
    names.update(encoder_outputs=encoder.transpose(1, 2), decoder_outputs=predictor.transpose(1, 2))
    names.update(encoder_lengths=names["logit_lengths"], transcript_lengths=names["target_lengths"])
    return names["joint"]


@pytest.mark.parametrize("fused_batch_size", [1, 2])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_the_joint_of_nemo(names, activation, fused_batch_size):
    """One call gives what their sub-batches add up to."""
    joint = with_nemo(names, activation)
    agree(run(names, JOINTS, NEMO), joint.loss(names, fused_batch_size), [*joint.parameters()])


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_of_training(names, training):
    joint = with_nemo(names, "relu", 0.2).train(training)
    losses = [run(names, JOINTS, NEMO) for _ in range(2)]
    assert (losses[0] != losses[1]) == training
    with torch.no_grad():
        assert (joint.loss(names, 2) != joint.loss(names, 2)) == training
    if not training:
        agree(losses[0], joint.loss(names, 1), [*joint.parameters()])


def test_one_seed_has_one_mask(names):
    joint, found = with_nemo(names, "relu", 0.2), []
    for _ in range(2):
        torch.manual_seed(5)
        loss = run(names, JOINTS, NEMO)
        found.append([loss, *torch.autograd.grad(loss, [*joint.parameters()])])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def draws_of(loss, parameters):
    """(draws, numbers): the loss, and each gradient along a direction of its own."""
    torch.manual_seed(2)
    directions, found = [torch.randn_like(parameter) for parameter in parameters], []
    for _ in range(DRAWS):
        drawn = loss()
        gradients = torch.autograd.grad(drawn, parameters)
        along = [(gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True)]
        found.append(torch.stack([drawn.detach(), *along]))
    return torch.stack(found)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_dropout_has_the_law_of_nemo(names, activation):
    """Masks are other draws than torch's, and the sub-batches have masks of their own."""
    joint = with_nemo(names, activation, 0.2)
    parameters = [*joint.parameters()]
    ours = draws_of(lambda: run(names, JOINTS, NEMO), parameters)
    theirs = draws_of(lambda: joint.loss(names, 1), parameters)
    errors = (ours.var(0) / DRAWS + theirs.var(0) / DRAWS).sqrt()
    assert (errors > 0).all()
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 4 * errors).all()
    # Spreads are alike as well: no entry is dropped too rarely, nor all of a cell at once.
    assert ((ours.std(0) / theirs.std(0)).log().abs() < 0.35).all()


@pytest.mark.parametrize("masking", [0.3, 0.6])
def test_masked_rows_of_the_predictor(names, masking):
    """`masking_prob`: a row of `pred` is 0, the others are as they were."""
    row = "g * (torch.rand(B, U + 1, 1) > p)"
    assert f"`{row}`" in PAGE.read_text()
    joint, names["p"] = with_nemo(names, "relu"), masking
    torch.manual_seed(3)
    ours = run(names, JOINTS, NEMO, **{"(f, g, ": f"(f, {row}, "})
    torch.manual_seed(3)
    kept = torch.rand(2, 6, 1) > masking
    encoder, predictor = outputs(names)
    logits = joint.joint_net(joint.enc(encoder)[:, :, None] + (joint.pred(predictor) * kept)[:, None])
    agree(ours, dense(names, logits, blank=-1), [*joint.parameters()])


class LinearOfSpeechBrain(nn.Module):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__()
        self.w = nn.Linear(inputs, outputs, bias=bias).double()

    def forward(self, x):
        return self.w(x)


class JointOfSpeechBrain(nn.Module):
    def __init__(self, joint_network=None, joint="sum", nonlinearity=nn.LeakyReLU):
        super().__init__()
        self.joint_network, self.joint, self.nonlinearity = joint_network, joint, nonlinearity()

    def forward(self, x, h):
        if self.joint == "sum":
            return self.nonlinearity(x + h)
        cells = torch.broadcast_shapes(x.shape[:3], h.shape[:3])
        both = torch.cat([x.expand(*cells, -1), h.expand(*cells, -1)], 3)
        return self.nonlinearity(both if self.joint_network is None else self.joint_network(both))


SPEECHBRAIN = "after, with SpeechBrain's Transducer_joint"


def with_speechbrain(names, Tjoint, *, widths=(6, 6), hidden=6, bias=False):
    """Their layers, and the dense losses behind them."""
    torch.manual_seed(1)
    encoder, predictor = outputs(names)
    layers = [LinearOfSpeechBrain(8, width, bias=False) for width in widths]
    names.update(zip(("proj_enc", "proj_dec"), layers), Tjoint=Tjoint, encoder_out=encoder, decoder_out=predictor)
    names.update(transducer_lin=LinearOfSpeechBrain(hidden, 12, bias=bias), tokens=names["targets"].long())
    names.update(wav_lens=names["logit_lengths"] / 20, token_lens=names["target_lengths"] / 5, blank_index=0)
    joined = Tjoint(layers[0](encoder)[:, :, None], layers[1](predictor)[:, None])
    modules = *layers, names["transducer_lin"], Tjoint
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return dense(names, names["transducer_lin"](joined), reduction="none"), parameters


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["LeakyReLU", "GELU", "Tanh", "ReLU", "Sigmoid", "SiLU"])
def test_the_joint_of_speechbrain(names, kind, bias):
    theirs, parameters = with_speechbrain(names, JointOfSpeechBrain(nonlinearity=getattr(nn, kind)), bias=bias)
    more = {} if kind != "SiLU" else {'"Sigmoid": "sigmoid"': '"SiLU": "silu"'}
    ours = run(names, JOINTS, SPEECHBRAIN, **more)
    torch.testing.assert_close(names["shown"], (theirs / names["logit_lengths"]).mean(), rtol=1e-6, atol=0)
    assert names["frames"].tolist() == [20, 16] and names["labels"].tolist() == [5, 3]
    agree(ours, theirs.sum(), parameters)


@pytest.mark.parametrize("kind", ["Tanh", "ReLU", "LeakyReLU", "GELU"])
def test_concat_of_speechbrain(names, kind):
    Tjoint = JointOfSpeechBrain(None, "concat", getattr(nn, kind))
    theirs, parameters = with_speechbrain(names, Tjoint, widths=(6, 4), hidden=10)
    prepare(names)
    agree(run(names, JOINTS, "after, with SpeechBrain's concat"), theirs.sum(), parameters)


@pytest.mark.parametrize("kind", ["Tanh", "ReLU", "LeakyReLU", "GELU"])
def test_concat_of_speechbrain_with_a_linear_layer(names, kind):
    torch.manual_seed(4)
    Tjoint = JointOfSpeechBrain(LinearOfSpeechBrain(10, 7), "concat", getattr(nn, kind))
    theirs, parameters = with_speechbrain(names, Tjoint, widths=(6, 4), hidden=7)
    prepare(names)
    title = "after, with SpeechBrain's concat and a linear joint_network"
    agree(run(names, JOINTS, title), theirs.sum(), parameters)


def prepare(names):
    """What the block of "sum" calls before its loss; "concat" goes on from there."""
    code, call, _ = blocks()[JOINTS, SPEECHBRAIN].partition("losses = ")
    assert call
    exec(code, names)


class JointOfEspnet(nn.Module):
    def __init__(self, activation, lin_dec_bias=True):
        super().__init__()
        self.lin_enc, self.lin_dec = nn.Linear(8, 6), nn.Linear(8, 6, bias=lin_dec_bias)
        self.lin_out, self.joint_activation = nn.Linear(6, 12), activation
        self.double()

    def forward(self, enc_out, dec_out):
        return self.lin_out(self.joint_activation(self.lin_enc(enc_out) + self.lin_dec(dec_out)))


ESPNET = "after, with ESPnet's JointNetwork"


def with_espnet(names, activation, **options):
    torch.manual_seed(1)
    encoder, predictor = outputs(names)
    joint = names["joint_network"] = JointOfEspnet(activation, **options)
    names.update(encoder_out=encoder, decoder_out=predictor, fastemit_lambda=0.01)
    names.update(zip(("target", "t_len", "u_len"), (names[name] for name in INTEGERS)))
    logits = joint(encoder[:, :, None], predictor[:, None])
    return dense(names, logits, reduction="mean", fastemit_lambda=0.01), [*joint.parameters()]


@pytest.mark.parametrize(
    "name, activation",
    [
        ("tanh", nn.Tanh()),
        ("relu", nn.ReLU()),
        ("leaky_relu", nn.LeakyReLU(0.01)),
        ("identity", nn.Identity()),
        ("silu", lambda x: x * x.sigmoid()),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
@pytest.mark.parametrize("lin_dec_bias", [True, False])
def test_the_joint_of_espnet(names, name, activation, lin_dec_bias):
    theirs, parameters = with_espnet(names, activation, lin_dec_bias=lin_dec_bias)
    agree(run(names, JOINTS, ESPNET, **{'"tanh"': f'"{name}"'}), theirs, parameters)


def test_swish_of_espnet_with_a_factor(names):
    theirs, parameters = with_espnet(names, lambda x: 1.5 * x * x.sigmoid())
    assert '"silu" and `weight * b`' in PAGE.read_text()
    ours = run(names, JOINTS, ESPNET, **{'"tanh"': '"silu"', "last.weight": "last.weight * 1.5"})
    agree(ours, theirs, parameters)


def parameters_of(names):
    return [names["encoder"], names["predictor"], names["output"].weight, names["output"].bias]


def logits_of(names, activation=torch.tanh, context=None):
    context = 0 if context is None else context[:, None, None]
    return names["output"](activation(names["encoder"][:, :, None] + names["predictor"][:, None] + context))


def test_scaled_inputs(names):
    for title, logits in (
        ("a temperature", lambda: logits_of(names) / 1.5),
        ("a penalty of the blank", lambda: logits_of(names) - 2 * nn.functional.one_hot(torch.tensor(0), 12)),
        ("a context vector", lambda: logits_of(names, context=names["context"])),
    ):
        torch.manual_seed(6)
        ours = run(names, OPTIONS, title)
        agree(ours.sum(), dense(names, logits(), reduction="sum"), parameters_of(names))


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity", "leaky_relu", "gelu", "silu", "sigmoid"])
def test_a_logit_bias_for_each_example(names, activation):
    theirs = getattr(torch, activation, None) or getattr(nn.functional, activation, None) or nn.Identity()
    replaced = {"target_lengths)": f'target_lengths, activation="{activation}")'}
    if activation == "sigmoid":
        replaced |= {"torch.eye(B)": "(2000 * torch.eye(B) - 1000)", " / torch.tanh(torch.tensor(1.0))": ""}
    elif activation != "tanh":
        replaced["torch.tanh(torch.tensor(1.0))"] = str(float(theirs(torch.ones((), dtype=torch.float64))))
    ours = run(names, OPTIONS, "a logit bias for each example", **replaced)
    logits = logits_of(names, theirs) + names["logit_bias"][:, None, None]
    agree(ours.sum(), dense(names, logits, reduction="sum"), [*parameters_of(names), names["logit_bias"]])


def test_every_block_of_the_joints_is_run():
    titles = NEMO, SPEECHBRAIN, ESPNET, "after, with SpeechBrain's concat"
    titles += ("after, with SpeechBrain's concat and a linear joint_network",)
    options = "a temperature", "a penalty of the blank", "a context vector", "a logit bias for each example"
    found = {(section, name) for section, name in blocks() if section in (JOINTS, OPTIONS)}
    assert found == {(JOINTS, title) for title in titles} | {(OPTIONS, title) for title in options}
