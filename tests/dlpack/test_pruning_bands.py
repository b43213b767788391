"""The bands of the pruning study are those of the functions for torch in docs/migrating.md."""

import numpy as np
import pytest

import lattice
from studies.pruning import bands
from tests import migrating_blocks

torch = pytest.importorskip("torch")
LENGTHS = np.array([60, 40, 50, 12]), np.array([20, 12, 3, 9])


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_bands_are_those_of_the_page(size):
    names, rng = {}, np.random.default_rng(2)
    exec(migrating_blocks.blocks()["k2 and fast_rnnt", "functions of a pruned recipe"], names)
    am, lm, targets = rng.standard_normal((4, 60, 9)), rng.standard_normal((4, 21, 9)), rng.integers(1, 9, (4, 20))
    loss, *_, posteriors = bands.smoothed_loss(3 * am, 3 * lm, targets, *LENGTHS, blank=0)
    tensors, lengths = (torch.from_numpy(3 * x) for x in (am, lm)), [torch.from_numpy(x) for x in LENGTHS]
    scores = names["smoothed_scores"](*tensors, torch.from_numpy(targets), bands.LM_SCALE, 0.0)
    theirs = lattice.scores_loss_and_grad(*scores, *lengths)
    np.testing.assert_allclose(loss, theirs[0], rtol=1e-12)
    other = names["pruned_bounds"](*(-x for x in theirs[1:]), *lengths, size)
    for ours, tensor in zip(bands.pruned_bounds(posteriors, *LENGTHS, size), other, strict=True):
        np.testing.assert_array_equal(ours, tensor)
