"""Matrix products of a GPU in every layout and corner shape, against float64.

A product that cuBLAS refuses is told and made in another way.
"""

import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest

from lattice.device.memory import Cuda
from tests.cudasim import fake_cublas

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SIZES = (1, 2, 7)
SHAPES = list(itertools.product(SIZES, SIZES, SIZES))


def operand(device, rng, rows, columns, turned, dtype=BFLOAT16):
    """(matrix on the device, the same in float64)"""
    values = rng.standard_normal((columns, rows) if turned else (rows, columns)).astype(dtype)
    placed, wide = device.asarray(values), values.astype(np.float64)
    return (placed.T, wide.T) if turned else (placed, wide)


def product(device, shape, a_turned, b_turned):
    """The product as it came out, and in float64."""
    M, N, K = shape
    rng = np.random.default_rng(M + 10 * N + 100 * K)
    (a, wide_a), (b, wide_b) = operand(device, rng, M, K, a_turned), operand(device, rng, K, N, b_turned)
    out = device.empty((M, N), np.float32)
    Cuda(0).matmul(a, b, out)
    return device.asnumpy(out), wide_a @ wide_b


@pytest.mark.parametrize("b_turned", [False, True])
@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bfloat16_in_every_shape_and_layout(device, shape, a_turned, b_turned):
    with warnings.catch_warnings(action="error"):
        ours, truth = product(device, shape, a_turned, b_turned)
    np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("a_turned, b_turned", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (7, 1, 5), (7, 5, 1), (3, 4, 5)], ids=str)
def test_what_cublas_refuses_is_told_and_made_in_float32(device, monkeypatch, shape, a_turned, b_turned):
    M, N, K = shape
    monkeypatch.setattr(fake_cublas, "refused", {(N, M, K)})
    refused = rf"refuses the bfloat16 product \({M}, {K}\) by \({K}, {N}\): CUBLAS_STATUS_NOT_SUPPORTED"
    taken = rf"{refused}.* {4 * K * (M + N)} bytes"
    with pytest.warns(RuntimeWarning, match=taken):
        ours, truth = product(device, shape, a_turned, b_turned)
    np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2, 0)], ids=str)
def test_a_product_of_nothing_is_zero(device, shape):
    ours, truth = product(device, shape, False, False)
    assert ours.shape == truth.shape and not ours.any()


@pytest.mark.parametrize("position", [0, 1])
def test_an_operand_with_gaps_is_refused(device, position):
    """A transposed slice of columns: its columns do not follow one another, and cuBLAS would read past them."""
    operands = [device.asarray(np.zeros((4, 4), BFLOAT16)) for _ in range(2)]
    operands[position] = device.asarray(np.zeros((4, 8), BFLOAT16))[:, :4].T
    with pytest.raises(ValueError, match=r"a matrix of strides \(2, 16\) and shape \(4, 4\) is no operand"):
        Cuda(0).matmul(*operands, device.empty((4, 4), np.float32))


RIGHT = {
    "handle": 0,
    "transa": 0,
    "transb": 0,
    "m": 3,
    "n": 4,
    "k": 5,
    "alpha": 64,
    "A": 64,
    "Atype": 14,
    "lda": 3,
    "B": 64,
    "Btype": 14,
    "ldb": 5,
    "beta": 64,
    "C": 64,
    "Ctype": 0,
    "ldc": 3,
    "computeType": 68,
    "algo": 99,
}
WRONG = {
    "lda": ({"lda": 2}, fake_cublas.INVALID_VALUE),
    "ldb": ({"ldb": 4}, fake_cublas.INVALID_VALUE),
    "ldc": ({"ldc": 2}, fake_cublas.INVALID_VALUE),
    "no rows and no leading dimension": ({"m": 0, "lda": 0}, fake_cublas.INVALID_VALUE),
    "size": ({"k": -1}, fake_cublas.INVALID_VALUE),
    "transpose": ({"transa": 3}, fake_cublas.INVALID_VALUE),
    "no memory": ({"B": 0}, fake_cublas.INVALID_VALUE),
    "algorithm": ({"algo": 50}, fake_cublas.INVALID_VALUE),
    "half an element": ({"A": 65}, fake_cublas.INVALID_VALUE),
    "types": ({"Btype": 0}, fake_cublas.NOT_SUPPORTED),
    "output": ({"Ctype": 2}, fake_cublas.NOT_SUPPORTED),
    "computing": ({"computeType": 64}, fake_cublas.NOT_SUPPORTED),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_stand_in_checks_as_cublas_does(name):
    changed, status = WRONG[name]
    with pytest.raises(fake_cublas.CUBLASError) as caught:
        fake_cublas.gemmEx(**RIGHT | changed)
    assert caught.value.status == status
