"""What random lattices have found in the search along bands."""

import numpy as np
import pytest

import lattice
from tests.test_certified import from_logits


@pytest.mark.parametrize("topology", ["monotonic", "constrained"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_best_alignment_passes_no_nan_by_where_a_band_ends_too_early(bad, topology):
    """Bounds say that labels wait, until too few frames are left for them: no alignment runs inside of the band."""
    T, U = 200, 60
    encoder, predictor = np.zeros((T, 3)), np.zeros((U + 1, 3))
    encoder[:, 0] = 30.0
    encoder[0] = bad
    problem = from_logits((encoder, predictor), [1, 2] * (U // 2), topology=topology)
    assert np.isnan(lattice.joint_transducer_loss(*problem.args, **problem.options)[0])
    frames, score = lattice.joint_transducer_alignment(*problem.args, **problem.options)
    assert np.isnan(score[0]) and (frames == -1).all()
