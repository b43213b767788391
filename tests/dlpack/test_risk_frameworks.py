"""Minimum Bayes risk against torch's autograd, and tensors of torch and JAX in kind."""

import numpy as np
import pytest

import lattice
from tests.dlpack import test_frameworks
from tests.problems import DTYPES, name_of
from tests.test_risk import lists

torch, library = test_frameworks.torch, test_frameworks.library


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_risk_and_gradient_are_torchs(scale):
    scores, risks, lengths = lists(20, batch=8, size=12, offset=-200)
    real = np.arange(12) < lengths[:, None]
    padded = torch.tensor(np.where(real, scores, -np.inf), requires_grad=True)
    expected = (torch.softmax(scale * padded, dim=1) * torch.tensor(np.nan_to_num(risks))).sum(dim=1)
    expected.sum().backward()
    risk, grad = lattice.minimum_bayes_risk(scores, risks, lengths, scale=scale)
    np.testing.assert_allclose(risk, expected.detach(), rtol=1e-12)
    np.testing.assert_allclose(grad, padded.grad, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_arrays_in_kind(library, dtype):
    scores, risks, lengths = lists(21, dtype=dtype)
    expected = lattice.minimum_bayes_risk(scores, risks, lengths)
    for given in (risks, library.put(risks), library.put(np.nan_to_num(risks).astype(np.int32))):
        results = lattice.minimum_bayes_risk(library.put(scores), given, library.put(lengths))
        for ours, other in zip(results, expected, strict=True):
            assert isinstance(ours, library.kind)
            assert library.fetch(ours).dtype == (np.float64 if dtype == np.float64 else np.float32)
            np.testing.assert_array_equal(library.fetch(ours), other)


def test_tensors_that_require_a_gradient_get_advice():
    given = dict(zip(("scores", "risks", "lengths"), map(torch.from_numpy, lists(22))))
    for name in ("scores", "risks"):
        with pytest.raises(ValueError, match=rf"{name} requires a gradient: pass {name}.detach\(\)"):
            lattice.minimum_bayes_risk(**given | {name: given[name].clone().requires_grad_()})
