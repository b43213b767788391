"""The integer tools on alignments with torch tensors and JAX arrays: read without a copy, given back in kind."""

import numpy as np
import pytest

import lattice
from tests.dlpack.test_frameworks import library, put_all  # noqa: F401
from tests.test_alignments_inputs import GIVEN


@pytest.mark.parametrize("integer", [np.int32, np.int64])
@pytest.mark.parametrize("name", GIVEN)
def test_arrays_in_kind(library, name, integer):  # noqa: F811
    given = {key: x.astype(integer) if isinstance(x, np.ndarray) else x for key, x in GIVEN[name].items()}
    expected = getattr(lattice, name)(**given)
    results = getattr(lattice, name)(**dict(zip(given, put_all(library, given.values()), strict=True)))
    pairs = zip(results, expected, strict=True) if isinstance(results, tuple) else [(results, expected)]
    for ours, truth in pairs:
        assert isinstance(ours, library.kind)
        np.testing.assert_array_equal(library.fetch(ours), truth)
        assert library.fetch(ours).dtype == np.int32
