"""The tutorial for torch runs as it stands, with example 03 copied beside it as it asks for."""

import pytest

torch = pytest.importorskip("torch")

from tests import migrating_blocks  # noqa: E402
from tests.test_tutorials import run  # noqa: E402


def test_from_torch(monkeypatch):
    migrating_blocks.copy_example(monkeypatch)
    names = run("torch.md")
    assert names["losses"][-1] < 0.2 * names["losses"][0]
    loss_with = names["loss_with"]
    assert torch.equal(loss_with((0.2, 1)), loss_with((0.2, 1)))
    assert all((loss_with((0.2, 1)) != loss_with(other)).all() for other in ((0.2, 2), None))
    layer = names["layer"]
    for parameter in (*layer, *names["norm"].parameters(), *names["model"].predictor.parameters()):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all() and parameter.grad.any()
