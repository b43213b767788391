"""docs/migrating.md: the blocks of "tdt" and "multiblank", against the oracle, for NeMo is not at hand."""

import io
import random
import tarfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests import joint_oracle, steps_oracle  # noqa: E402
from tests.compare import assert_close  # noqa: E402
from tests.migrating_blocks import TDT, batch, blocks, leaves, results  # noqa: E402
from tests.oracle import truth_and_naive  # noqa: E402
from tests.steps_problems import NEMO, STEPS  # noqa: E402

RELU = {"blank": -1, "activation": "relu"}


@pytest.fixture
def names(monkeypatch):
    found = batch(monkeypatch)
    exec(blocks()[TDT, "a layer with durations"], found)
    return found


def compare(names, block, door, *, rows=None, targets=None, mean=True, **options):
    """A block against the oracle of its joint; `rows` of the output layer are in it."""
    loss, gradients = results(blocks()[TDT, block], names)
    arrays = [leaf.detach().numpy() for leaf in leaves(names)]
    arrays[2:] = [array[:rows] for array in arrays[2:]]
    integers = [names[name].numpy() for name in ("targets", "logit_lengths", "target_lengths")]
    integers[0] = integers[0] if targets is None else targets
    share = 1 / integers[2].sum() if mean else 1.0
    given = *arrays, *integers
    truth, naive = truth_and_naive(door, np.float32, *given, grad_loss=np.full(len(arrays[0]), share), **options)
    ours, theirs = ((share * found[0]).sum(keepdims=True) if mean else found[0] for found in (truth, naive))
    assert_close(loss, ours, theirs, what="loss")
    for name, own, true, other in zip(("encoder", "predictor", "weight", "bias"), gradients, truth[1], naive[1]):
        assert not own[len(true) :].any(), "rows that are not in the loss"
        assert_close(own[: len(true)], true, other, what=name)


def test_after(names):
    compare(names, "after", steps_oracle.joint_loss_and_grad, topology=NEMO, fastemit_lambda=1e-3, **RELU)


@pytest.mark.parametrize("thrown", [0.05, 0.5])
def test_the_coin_of_omega(names, thrown, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: thrown)
    plain = {"rows": names["V"], "topology": "rnnt"}, joint_oracle.joint_loss_and_grad
    options, door = plain if thrown < 0.1 else ({"topology": NEMO}, steps_oracle.joint_loss_and_grad)
    compare(names, "after, with omega", door, fastemit_lambda=1e-3, **options, **RELU)


def test_multi_blank(names):
    targets = np.minimum(names["targets"].numpy(), names["V"] - 3)
    options = {"targets": targets, "mean": False, "topology": STEPS[3], "blank": -1}
    compare(names, "after, multi-blank", steps_oracle.joint_loss_and_grad, **options)
    assert len(names["output"].bias) == names["V"] + 1


@pytest.mark.parametrize("prefix", ["", "./"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_checkpoint_is_read_without_nemo(tmp_path, prefix, mode):
    shapes = {"enc": (8, 16), "pred": (8, 4), "joint_net.2": (17, 8)}
    state = {f"joint.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    state |= {f"joint.{name}.bias": torch.randn(shape[:1]) for name, shape in shapes.items()}
    saved = io.BytesIO()
    torch.save(state, saved)
    files = {"model_config.yaml": b"joint:\n  num_extra_outputs: 5\n", "model_weights.ckpt": saved.getvalue()}
    with tarfile.open(tmp_path / "model.nemo", mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    names = {"path": tmp_path / "model.nemo"}
    exec(blocks()[TDT, "a checkpoint"], names)
    assert "num_extra_outputs: 5" in names["config"]
    assert names["weight"].shape == (17, 8) and names["enc"]["weight"].shape == (8, 16)
    assert torch.equal(names["bias"], state["joint.joint_net.2.bias"])
    assert torch.equal(names["pred"]["bias"], state["joint.pred.bias"])
