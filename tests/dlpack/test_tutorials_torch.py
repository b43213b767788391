"""The tutorial for torch runs as it stands, with example 03 copied beside it as it asks for."""

import pytest

torch = pytest.importorskip("torch")

from tests import migrating_blocks  # noqa: E402
from tests.test_tutorials import run  # noqa: E402


def test_from_torch(monkeypatch):
    migrating_blocks.copy_example(monkeypatch)
    names = run("torch.md")
    assert names["losses"][-1] < 0.2 * names["losses"][0]
    encoder, layer = names["encoder"], names["layer"]
    assert encoder.grad.isfinite().all() and encoder.grad.any()
    assert [x.dtype for x in layer] == [torch.float32] * 2 and layer[0].grad.any()
