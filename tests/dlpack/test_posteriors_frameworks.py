"""Posteriors and given scores of arcs with tensors of torch and JAX, in kind; gradients against torch's autograd."""

import numpy as np
import pytest

import lattice
from tests.dlpack import test_frameworks
from tests.dlpack.test_frameworks import put_all
from tests.problems import DTYPES, joint_problem, logits_problem, name_of
from tests.test_scores import scores_problem

torch, library = test_frameworks.torch, test_frameworks.library


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_arrays_in_kind(library, dtype):
    logits, joint, scores = (
        logits_problem(0, dtype=dtype),
        joint_problem(1, dtype=dtype),
        scores_problem(2, dtype=dtype),
    )
    for door, given in (
        (lattice.transducer_posteriors, logits.args),
        (lattice.joint_transducer_posteriors, joint.args),
        (lattice.scores_loss_and_grad, scores),
    ):
        expected, results = door(*given), door(*put_all(library, given))
        assert type(results) is type(expected)
        for ours, other in zip(results, expected, strict=True):
            assert isinstance(ours, library.kind) and library.fetch(ours).dtype == other.dtype
            np.testing.assert_array_equal(library.fetch(ours), other)


def test_gradients_are_those_of_torchs_recursion():
    """Sums over alignments, cell by cell, through autograd."""
    given = scores_problem(3, dtype=np.float64, lengths=([5], [3]), mean=2.0)
    blank, label = (torch.tensor(np.nan_to_num(x[0]), requires_grad=True) for x in given[:2])
    alpha = {(0, 0): torch.zeros((), dtype=torch.float64)}
    for t in range(6):
        for u in range(4):
            arrive = [alpha[t - 1, u] + blank[t - 1, u]] if t else []
            arrive += [alpha[t, u - 1] + label[t, u - 1]] if u and t < 5 else []
            if arrive:
                alpha[t, u] = torch.logsumexp(torch.stack(arrive), dim=0)
    (-alpha[5, 3]).backward()
    loss, *gradients = lattice.scores_loss_and_grad(*given)
    np.testing.assert_allclose(loss[0], -alpha[5, 3].detach(), rtol=1e-12)
    for gradient, tensor in zip(gradients, (blank, label), strict=True):
        np.testing.assert_allclose(gradient[0], tensor.grad, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_a_share_in_kind(library, dtype):
    problem = logits_problem(0, dtype=dtype, bounded=True)
    given = problem.band(problem.logits), *problem.args[1:]
    expected = lattice.transducer_exit_posterior(*given, bounds=problem.bounds, banded=True)
    bounds = tuple(put_all(library, problem.bounds))
    ours = lattice.transducer_exit_posterior(*put_all(library, given), bounds=bounds, banded=True)
    assert isinstance(ours, library.kind) and library.fetch(ours).dtype == np.float64
    np.testing.assert_array_equal(library.fetch(ours), expected)
